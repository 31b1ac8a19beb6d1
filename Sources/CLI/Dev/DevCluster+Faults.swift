import Foundation

/// What goes wrong on real hosts, on purpose.
extension DevCluster {
  // MARK: - Processes

  /// kill -9 of one daemon; its containers go on.
  public func kill(_ daemon: DevDaemon, on host: DevHost) throws {
    guard let pid = pid(of: daemon, on: host) else { throw DevError("\(daemon.program) does not run on \(host.name)") }
    Foundation.kill(pid, SIGKILL)
  }

  /// SIGSTOP of one daemon: it neither works nor dies, as a process does that swaps or a machine that is moved.
  public func pause(_ daemon: DevDaemon, on host: DevHost) throws {
    guard let pid = pid(of: daemon, on: host) else { throw DevError("\(daemon.program) does not run on \(host.name)") }
    Foundation.kill(pid, SIGSTOP)
  }

  /// SIGSTOP of all that is the host's, containers too.
  public func pause(_ host: DevHost) throws {
    guard anchor(host) != nil else { throw DevError("host \(host.name) is off: `orch dev start \(host.name)`") }
    for pid in Cgroup.processes(layout.cgroup(host)) { Foundation.kill(pid, SIGSTOP) }
  }

  /// SIGCONT of all that is the host's.
  public func resume(_ host: DevHost) {
    for pid in Cgroup.processes(layout.cgroup(host)) { Foundation.kill(pid, SIGCONT) }
  }

  public func isPaused(_ host: DevHost) -> Bool {
    DevDaemon.allCases.contains { pid(of: $0, on: host).map { Cgroup.state($0) == "T" } ?? false }
  }

  /// Power loss: the cable first, so that nobody is told; then every process of the host; then what a reboot forgets.
  public func kill(_ host: DevHost) async throws {
    try? await batch(["link set \(host.name) down"], in: layout.switchNamespace)
    try await Cgroup.killAll(layout.cgroup(host))
    _ = try? await command("ip", ["netns", "del", layout.namespace(host)])
    try? FileManager.default.removeItem(atPath: layout.run(host))
    await Cgroup.remove(layout.cgroup(host))
  }

  // MARK: - Network

  /// Drops what arrives from the other host, on both sides (or one), silently as a broken network does.
  public func partition(_ a: DevHost, _ b: DevHost, oneWay: Bool = false) async throws {
    try await drop(from: a, at: b)
    if !oneWay { try await drop(from: b, at: a) }
  }

  private func drop(from source: DevHost, at target: DevHost) async throws {
    let rules = """
      add table ip orch_dev
      add chain ip orch_dev input { type filter hook input priority -300; }
      add rule ip orch_dev input ip saddr \(source.address) drop
      """
    try await command("nsenter", ["--net=/run/netns/\(layout.namespace(target))", "--", "nft", "-f", "-"], input: rules)
  }

  public func heal() async throws {
    for host in try record().hosts where FileManager.default.fileExists(atPath: "/run/netns/\(layout.namespace(host))") {
      _ = try? await command("nsenter", ["--net=/run/netns/\(layout.namespace(host))", "--", "nft", "delete", "table", "ip", "orch_dev"])
    }
  }
}
