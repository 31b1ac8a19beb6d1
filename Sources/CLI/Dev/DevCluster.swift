// DevCluster: a cluster on one machine, for trying and for testing. Each host is a network namespace with its own mount and UTS
// namespace, data folder and cgroup; a bridge in one more namespace joins them. The daemons are the real ones.
//
// Invariants: everything carries the cluster's name, so that `down` finds it without any record, also after a crash; nothing but
// our own namespaces, cgroups and folders is touched; no interface or route of the machine is.
// Refuses to know: what the daemons do.
import Foundation

public struct DevCluster: Sendable {
  public let layout: DevLayout
  public let binaries: DevBinaries

  public init(name: String, binaries: DevBinaries) throws {
    self.layout = try DevLayout(name: name)
    self.binaries = binaries
    Self.inheritNothing()
  }

  /// What the caller of `orch dev` had open would live on in the daemons, and keep the caller waiting for its end.
  private static func inheritNothing() {
    for name in (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? [] {
      guard let descriptor = Int32(name), descriptor > 2 else { continue }
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }
  }

  // MARK: - Questions

  public var exists: Bool { FileManager.default.fileExists(atPath: layout.record) }

  public func record() throws -> DevRecord {
    guard let data = FileManager.default.contents(atPath: layout.record) else {
      throw DevError("no local cluster is up: start one with `orch dev up`")
    }
    return try JSONDecoder().decode(DevRecord.self, from: data)
  }

  public func host(_ name: String) throws -> DevHost {
    let record = try record()
    guard let host = record.hosts.first(where: { $0.name == name }) else {
      throw DevError("there is no host \(name); the hosts are \(record.hosts.map(\.name).joined(separator: ", "))")
    }
    return host
  }

  /// The process that holds a host's namespaces; nil when the host is off.
  public func anchor(_ host: DevHost) -> Int32? { holder(layout.anchorFile(host), cgroup: layout.cgroup(host)) }

  func holder(_ pidFile: String, cgroup: String) -> Int32? {
    guard let text = try? String(contentsOfFile: pidFile, encoding: .utf8), let pid = Int32(text.trimmingCharacters(in: .whitespacesAndNewlines)),
      // Pids are used again: only a process in our own cgroup counts.
      let cgroups = try? String(contentsOfFile: "/proc/\(pid)/cgroup", encoding: .utf8), cgroups.contains(cgroup)
    else { return nil }
    return pid
  }

  // MARK: - Network and hosts

  /// Makes the switch and every host's cable to it; no process yet.
  public func createNetwork(_ record: DevRecord) async throws {
    try FileManager.default.createDirectory(atPath: layout.folder, withIntermediateDirectories: true)
    try JSONEncoder().encode(record).write(to: URL(fileURLWithPath: layout.record), options: .atomic)
    try await command("ip", ["netns", "add", layout.switchNamespace])
    try await batch(["link add br0 type bridge", "link set br0 up"], in: layout.switchNamespace)
    for host in record.hosts { try await plug(host) }
    if let size = record.managerDisk { try await mountDisks(size: size, record.hosts.filter(\.isManager)) }
  }

  private func plug(_ host: DevHost) async throws {
    let namespace = layout.namespace(host)
    // The kernel takes a dead host's links away some time after its namespace: the old cable may still have the port's name.
    _ = try? await command("ip", ["-n", layout.switchNamespace, "link", "del", host.name])
    try await command("ip", ["netns", "add", namespace])
    try await batch(
      ["link add eth0 type veth peer name \(host.name) netns \(layout.switchNamespace)", "addr add \(host.address)/24 dev eth0", "link set lo up"],
      in: namespace)
    try await batch(["link set \(host.name) master br0 up"], in: layout.switchNamespace)
    try await batch(["link set eth0 up"], in: namespace)
  }

  /// Boots a host: namespaces held by an anchor process in the host's cgroup, own /var/lib/orch and /run/orch.
  public func boot(_ host: DevHost) async throws {
    if anchor(host) != nil { return }
    if !FileManager.default.fileExists(atPath: "/run/netns/\(layout.namespace(host))") { try await plug(host) }
    for folder in [layout.data(host), layout.run(host), layout.logs(host)] {
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    }
    for path in Cgroup.mounts() {
      try FileManager.default.createDirectory(atPath: "\(path)/\(layout.cgroup(host))", withIntermediateDirectories: true)
    }
    let ready = layout.anchorFile(host)
    try? FileManager.default.removeItem(atPath: ready)
    // No `ip netns exec`: it mounts a new /sys, without the cgroups.
    let script = """
      mkdir -p /var/lib/orch /run/orch
      mount --rbind '\(layout.data(host))' /var/lib/orch && mount --bind '\(layout.run(host))' /run/orch && hostname '\(host.name)' || exit 1
      echo $$ > /run/orch/anchor.new && mv /run/orch/anchor.new /run/orch/anchor.pid || exit 1
      exec sleep infinity
      """
    // The mount namespace is a copy of the one that holds the managers' disks, if there is one.
    let disks = disksHolder.map { ["--mount=/proc/\($0)/ns/mnt"] } ?? []
    try await daemon(
      ["nsenter", "--net=/run/netns/\(layout.namespace(host))"] + disks + ["--", "unshare", "--mount", "--uts", "--", "sh", "-c", script],
      cgroup: layout.daemonCgroup(host), log: "\(layout.logs(host))/boot.log")
    try await until("\(host.name) boots", seconds: 5) { anchor(host) != nil }
  }

  /// Starts one of the host's daemons and returns at once; `arguments` follow the program's name.
  public func start(_ daemon: DevDaemon, _ arguments: [String], on host: DevHost) async throws {
    guard let anchor = anchor(host) else { throw DevError("host \(host.name) is off: `orch dev start \(host.name)`") }
    let program = daemon == .manager ? binaries.manager : binaries.agent
    try? FileManager.default.removeItem(atPath: layout.pidFile(host, daemon))
    try await self.daemon(
      ["nsenter", "-t", "\(anchor)", "-m", "-u", "-n", "--", program] + arguments, cgroup: layout.daemonCgroup(host),
      log: layout.log(host, daemon), pidFile: layout.pidFile(host, daemon))
    let pidFile = layout.pidFile(host, daemon)
    try await until("\(daemon.program) starts on \(host.name)", seconds: 5) { FileManager.default.fileExists(atPath: pidFile) }
  }

  public func pid(of daemon: DevDaemon, on host: DevHost) -> Int32? {
    holder(layout.pidFile(host, daemon), cgroup: layout.cgroup(host)).flatMap { Cgroup.state($0).map { "ZX".contains($0) } ?? true ? nil : $0 }
  }

  /// Removes every trace, by name and not by record.
  public func down() async throws {
    try await Cgroup.killAll(layout.cgroupRoot)
    let namespaces = (try? FileManager.default.contentsOfDirectory(atPath: "/run/netns")) ?? []
    for namespace in namespaces where namespace.hasPrefix(layout.namespacePrefix) { _ = try? await command("ip", ["netns", "del", namespace]) }
    await Cgroup.remove(layout.cgroupRoot)
    for folder in [layout.folder, layout.runFolder] where FileManager.default.fileExists(atPath: folder) {
      try FileManager.default.removeItem(atPath: folder)
    }
    // The parents were made for the first local cluster; rmdir(2) leaves them when anything else is in them.
    for folder in ["/run/orch/dev", "/run/orch", "/var/lib/orch/dev", "/var/lib/orch"] { rmdir(folder) }
  }

  // MARK: - Processes

  func batch(_ lines: [String], in namespace: String) async throws {
    try await command("ip", ["-n", namespace, "-batch", "-"], input: lines.joined(separator: "\n") + "\n")
  }

  /// A process of its own session in the cgroup; its pid is written before the program begins.
  func daemon(_ arguments: [String], cgroup: String, log: String, pidFile: String? = nil) async throws {
    var script = ""
    for mount in Cgroup.mounts() { script += "echo $$ > '\(mount)/\(cgroup)/cgroup.procs' || exit 1\n" }
    if let pidFile { script += "echo $$ > '\(pidFile).new' && mv '\(pidFile).new' '\(pidFile)'\n" }
    script += "exec \"$@\" </dev/null >>'\(log)' 2>&1"
    for mount in Cgroup.mounts() {
      try FileManager.default.createDirectory(atPath: "\(mount)/\(cgroup)", withIntermediateDirectories: true)
    }
    try await command("setsid", ["-f", "sh", "-c", script, "sh"] + arguments)
  }
}

/// One of the two daemons of a host.
public enum DevDaemon: String, Sendable, CaseIterable {
  case manager, agent
  public var program: String { "orch-\(rawValue)" }
}

public struct DevBinaries: Sendable {
  public var manager: String
  public var agent: String

  /// Beside the running `orch`, as the build and the packages lay them.
  public static func beside(_ executable: String) throws -> DevBinaries {
    let folder = URL(fileURLWithPath: executable).resolvingSymlinksInPath().deletingLastPathComponent().path
    for program in ["orch-manager", "orch-agent", "orch-init"] where !FileManager.default.isExecutableFile(atPath: "\(folder)/\(program)") {
      throw DevError("\(program) is not beside orch in \(folder): build everything (`make build`) or install the packages")
    }
    return DevBinaries(manager: "\(folder)/orch-manager", agent: "\(folder)/orch-agent")
  }
}

public struct DevError: Error, CustomStringConvertible {
  public let description: String
  public init(_ description: String) { self.description = description }
}
