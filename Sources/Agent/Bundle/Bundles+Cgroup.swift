import Cgroups
import FoundationEssentials
import Glibc
import LinuxSystem
import OCI

extension Bundles {
  /// `linux.cgroupsPath`: absolute below every hierarchy's root, else below ours; without it our own with the container's id. `delegated`: the
  /// one that systemd gave instead.
  func makeCgroup(_ config: Config, _ id: String, _ delegated: String?, _ stored: inout StoredBundle) throws(BundleError) -> Cgroup? {
    let resources = config.linux?.resources ?? Resources.empty
    let path = delegated ?? config.linux?.cgroupsPath ?? ""
    guard cgroupManager != .disabled else {
      let v2 = try ResourceWrites(resources, v2: true)
      if !v2.writes.isEmpty { throw BundleError("linux.resources: cannot be limited with --cgroup-manager disabled") }
      return nil
    }
    if path.contains(":"), delegated == nil {
      throw BundleError("linux.cgroupsPath: \"\(path)\" is a scope of systemd's: give --systemd-cgroup, or a path without colons")
    }
    var names = path.split(separator: "/").map(String.init)
    if !path.hasPrefix("/") { names = [Self.ownParent] + names }
    if path.isEmpty { names.append(id) }
    stored.cgroupName = names.last
    stored.cgroupParent = names.dropLast().joined(separator: "/")
    // v1 has a hierarchy for each, and every one that is joined costs: those alone that are used.
    let sample = try host([]).group(parent: "", name: "")
    stored.controllers = try ResourceWrites(resources, v2: sample.isV2).controllers + sample.controllersOfPureV1
    guard let group = try cgroup(stored) else { return nil }
    // Another root may have the same id: whoever ends one must not end the other.
    guard group.processes().isEmpty else { throw BundleError("container's cgroup /\(names.joined(separator: "/")) is not empty") }
    do throws(BundleError) { try make(group, stored, names) } catch {
      try? Self.remove(group)
      // In a user namespace cgroups are seldom ours; where nothing is limited, nothing is missed.
      guard Self.isInUserNamespace, try ResourceWrites(resources, v2: group.isV2).writes.isEmpty else { throw error }
      (stored.cgroupName, stored.cgroupParent) = (nil, nil)
      return nil
    }
    do throws(BundleError) {
      if let cpu = resources.cpu, let runtime = cpu.realtimeRuntime, runtime > 0, !group.isV2 {
        do throws(SystemError) { try group.makeRealtimeRoom(runtime, period: Int64(clamping: cpu.realtimePeriod ?? 1_000_000)) } catch {
          throw BundleError("linux.resources.cpu.realtimeRuntime", error)
        }
      }
      try ResourceWrites(resources, v2: group.isV2).apply(to: group)
      do throws(SystemError) { try group.restrictDevices(DeviceRules.all(config.linux ?? Linux.empty)) } catch {
        throw BundleError("restrict devices", error)
      }
    } catch {
      try? Self.remove(group)
      throw error
    }
    return group
  }

  /// What is made where nobody says anything else goes again, too: runc and crun have containers without a path below the root, and leave nothing either.
  private static let ownParent = "orch-runtime"
  static func remove(_ group: Cgroup) throws(SystemError) {
    try group.remove()
    group.removeEmptyParents(from: ownParent)
  }

  private func make(_ group: Cgroup, _ stored: StoredBundle, _ names: [String]) throws(BundleError) {
    let more = stored.controllers.filter { !["memory", "cpu", "pids", "io"].contains($0) }
    do throws(SystemError) {
      var attempts = 0
      while true {
        do throws(SystemError) {
          try group.create(CgroupLimits(), more: more)
          break
        } catch {
          // Somebody else's was the last in our own parent, which went with it: what is written to a file of it that was open by then is
          // refused by ENODEV (v2's subtree_control; kernel/cgroup/cgroup.c, cgroup_subtree_control_write).
          attempts += 1
          guard names.first == Self.ownParent, [.noEntry, Errno(ENODEV)].contains(error.errno), attempts < 100 else { throw error }
        }
      }
      if stored.controllers.contains("cpuset") { try group.inheritCpuset() }
    } catch { throw BundleError("make cgroup \(names.joined(separator: "/"))", error) }
  }
  /// Other than the first, which maps every id to itself (user_namespaces(7)).
  static var isInUserNamespace: Bool {
    (try? Files.text("/proc/self/uid_map"))?.split(whereSeparator: \.isWhitespace).map(String.init) != ["0", "0", "4294967295"]
  }

  func cgroup(_ stored: StoredBundle) throws(BundleError) -> Cgroup? {
    guard let name = stored.cgroupName else { return nil }
    return try host(stored.controllers).group(parent: stored.cgroupParent ?? "", name: name)
  }
  private func host(_ controllers: [String]) throws(BundleError) -> CgroupHost {
    do throws(SystemError) { return try CgroupHost.detect(more: controllers) } catch { throw BundleError("find cgroups", error) }
  }

  static func now() -> String { Date.now.ISO8601Format(Date.ISO8601FormatStyle(includingFractionalSeconds: true)) }

  /// conmon and containerd read it when it is there: whole or not at all.
  static func writePid(_ path: String, _ pid: Int32) throws(BundleError) {
    do throws(SystemError) { try Files.writeAtomically(path, "\(pid)", mode: 0o644, durable: false) } catch {
      throw BundleError("write the pid file", error)
    }
  }

  /// For `--pidfd-socket`, with runc's text beside it (libcontainer/init_linux.go, setupPidfd).
  static func sendPidDescriptor(of pid: Int32, to path: String) throws(BundleError) {
    do throws(SystemError) {
      let process = try PidDescriptor(pid: pid)
      try withExtendedLifetime(process) { () throws(SystemError) in try StartSocket.send(process.rawValue, "pidfd-socket", to: path, "pidfd socket") }
    } catch { throw BundleError("--pidfd-socket", error) }
  }

  /// Socket activation: what systemd handed us (sd_listen_fds(3)) belongs to the container.
  static func listenDescriptors(_ config: inout Config) {
    guard let count = getenv("LISTEN_FDS").map({ String(cString: $0) }), Int(count) ?? 0 > 0 else { return }
    config.process?.env?.append(contentsOf: ["LISTEN_FDS=\(count)", "LISTEN_PID=1"])
  }
}
