import Foundation

/// Small disks, so that one can be full without the machine's being so.
extension DevCluster {
  /// One tmpfs a manager, in a mount namespace of its own that a process holds: hosts begin as copies of it, and the disks outlive
  /// their power loss. They end with that process, and nothing is mounted where the machine sees it.
  func mountDisks(size: String, _ hosts: [DevHost]) async throws {
    let mounts = hosts.map {
      "mkdir -p '\(layout.managerData($0))' && mount -t tmpfs -o mode=700,size=\(size) orch-dev-disk '\(layout.managerData($0))' || exit 1\n"
    }
    try FileManager.default.createDirectory(atPath: layout.runFolder, withIntermediateDirectories: true)
    let script = mounts.joined() + "echo $$ > '\(layout.disksFile).new' && mv '\(layout.disksFile).new' '\(layout.disksFile)'\nexec sleep infinity"
    try await daemon(["unshare", "--mount", "--", "sh", "-c", script], cgroup: layout.disksCgroup, log: "\(layout.folder)/disks.log")
    do { try await until("the managers' disks are mounted", seconds: 5) { disksHolder != nil } } catch {
      let log = (try? String(contentsOfFile: "\(layout.folder)/disks.log", encoding: .utf8)) ?? ""
      throw DevError("\(error): \(log.trimmingCharacters(in: .whitespacesAndNewlines))")
    }
  }

  var disksHolder: Int32? { holder(layout.disksFile, cgroup: layout.disksCgroup) }

  /// Writes to the manager's disk until there is no room. What it has in its files already it may still overwrite.
  public func fill(_ host: DevHost) throws {
    let path = try fillFile(host)
    let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw DevError("create \(path): \(String(cString: strerror(errno)))") }
    defer { close(descriptor) }
    var size = 1 << 20
    let zeros = [UInt8](repeating: 0, count: size)
    while size >= 512 {
      let count = write(descriptor, zeros, size)
      if count < 0 && errno == EINTR { continue }
      guard count < size else { continue }
      if count < 0 && errno != ENOSPC { throw DevError("write \(path): \(String(cString: strerror(errno)))") }
      size /= 2
    }
  }

  /// Gives the room back.
  public func free(_ host: DevHost) throws {
    let path = try fillFile(host)
    if unlink(path) != 0 && errno != ENOENT { throw DevError("remove \(path): \(String(cString: strerror(errno)))") }
  }

  private func fillFile(_ host: DevHost) throws -> String {
    guard host.isManager, try record().managerDisk != nil else {
      throw DevError("no manager on \(host.name) has a disk of its own: `orch dev up --manager-disk 64M` gives one to each")
    }
    guard let holder = disksHolder else { throw DevError("the managers' disks are gone: `orch dev down`, then up again") }
    return "/proc/\(holder)/root\(layout.managerData(host))/orch-dev-fill"
  }
}
