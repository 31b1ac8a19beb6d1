import Foundation

/// The cgroups of a local cluster, in every hierarchy that this machine has.
enum Cgroup {
  /// Mount points of v2 and of each v1 hierarchy that can hold our processes.
  static func mounts() -> [String] {
    guard let text = try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8) else { return [] }
    var seen = Set<String>()
    return text.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ")
      guard fields.count > 3, fields[2] == "cgroup2" || fields[2] == "cgroup", !fields[3].contains("name=systemd") else { return nil }
      // A new cpuset has no cpus, so nothing can enter it; the runtime sets its own up.
      guard !fields[3].split(separator: ",").contains("cpuset") else { return nil }
      return seen.insert(String(fields[1])).inserted ? String(fields[1]) : nil
    }
  }

  /// Every hierarchy, also those we put no process in: the runtime may have made cgroups there.
  private static func allMounts() -> [String] {
    guard let text = try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8) else { return [] }
    return text.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ")
      return fields.count > 3 && fields[2].hasPrefix("cgroup") ? String(fields[1]) : nil
    }
  }

  /// kill -9 of everything below `path`, and waits until nothing is left.
  static func killAll(_ path: String) async throws {
    for round in 0..<200 {
      let pids = processes(path)
      if pids.isEmpty { return }
      for pid in pids { kill(pid, SIGKILL) }
      try await Task.sleep(for: .milliseconds(round < 20 ? 5 : 50))
    }
    throw DevError("processes \(processes(path).sorted()) do not die")
  }

  static func processes(_ path: String) -> Set<pid_t> {
    var pids = Set<pid_t>()
    for mount in allMounts() {
      for folder in tree("\(mount)/\(path)") {
        guard let text = try? String(contentsOfFile: "\(folder)/cgroup.procs", encoding: .utf8) else { continue }
        // 0: a process of another pid namespace.
        pids.formUnion(text.split(separator: "\n").compactMap { pid_t($0) }.filter { $0 > 0 && state($0).map { $0 != "Z" } == true })
      }
    }
    return pids
  }

  /// Of a process, as proc_pid_stat(5) has it: T is stopped, Z a zombie; nil: there is none.
  static func state(_ pid: pid_t) -> Character? {
    guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8), let end = text.lastIndex(of: ")") else { return nil }
    return text[end...].dropFirst(2).first
  }

  /// Removes the cgroups below `path`, deepest first. A zombie that its parent has not reaped yet holds its cgroup a little longer.
  static func remove(_ path: String) async {
    for mount in allMounts() {
      for folder in tree("\(mount)/\(path)").reversed() {
        for _ in 0..<100 where rmdir(folder) != 0 && errno == EBUSY { try? await Task.sleep(for: .milliseconds(10)) }
      }
    }
  }

  /// `folder` and all below, parents before children.
  private static func tree(_ folder: String) -> [String] {
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: folder, isDirectory: &isFolder), isFolder.boolValue else { return [] }
    let children = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).map { "\(folder)/\($0)" }
    return [folder] + children.flatMap { tree($0) }
  }
}
