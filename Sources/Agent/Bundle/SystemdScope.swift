import CLinux
import Cgroups
import Glibc
import LinuxSystem
import OCI

/// The unit of systemd's in which a container lives, when `--systemd-cgroup` is given: a transient scope whose cgroup is delegated
/// (systemd.scope(5), Delegate= in systemd.resource-control(5), systemd.io/CGROUP_DELEGATION). The container's cgroup is `container` below it, so
/// that its limits are ours: systemd writes those of the scope anew at each daemon-reload. Cgroup v2 only.
///
/// Asked for by systemd-run(1), which becomes the program it is given when the scope is there: cat(1), which keeps the scope from being empty, says
/// by an echo that it runs, and ends with our end of its pipe. (libsystemd cannot be loaded into a static program.)
public struct SystemdScope: Hashable, Sendable {
  let unit: String
  let slice: String
  /// NAME=VALUE, as in a unit's file.
  let properties: [String]

  private static let program = "/usr/bin/systemd-run"
  private static let annotation = "org.systemd.property."

  /// Whether systemd runs here, with cgroup v2, and can be asked.
  public static var isSupported: Bool {
    guard case .v2? = try? CgroupHost.detect().version else { return false }
    return Files.exists("/run/systemd/system") && Files.exists(program)
  }

  /// `linux.cgroupsPath` is SLICE:PREFIX:NAME as runc has it, the unit PREFIX-NAME.scope; without it a scope in system.slice with the container's
  /// id. Annotations `org.systemd.property.NAME` are properties of the unit, their values as crun and runc read them.
  init(_ config: Config, _ id: String) throws(BundleError) {
    let path = config.linux?.cgroupsPath ?? ""
    let parts = path.isEmpty ? ["", "orch-runtime", id] : path.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 3, !parts[2].isEmpty, !path.contains("/") else {
      throw BundleError("linux.cgroupsPath: with systemd it is SLICE:PREFIX:NAME, as in system.slice:orch:\(id), not \"\(path)\"")
    }
    guard !parts[2].hasSuffix(".slice") else { throw BundleError("linux.cgroupsPath: \"\(path)\" names a slice: a container has a scope") }
    slice = parts[0].isEmpty ? "system.slice" : parts[0]
    unit = (parts[1].isEmpty ? "" : parts[1] + "-") + parts[2] + ".scope"
    var properties = ["Description=container \(id) of orch-runtime", "Delegate=yes", "DefaultDependencies=no"]
    for (key, text) in (config.annotations ?? [:]).sorted(by: { $0.key < $1.key }) where key.hasPrefix(Self.annotation) {
      guard let property = Self.property(String(key.dropFirst(Self.annotation.count)), text) else {
        throw BundleError("annotations: \(key): \"\(text)\" is none of true, false, 'text', 12, uint64 12 and ['one', 'two']")
      }
      properties.append(property)
    }
    self.properties = properties
  }

  /// A scope that stays as long as something is in it.
  struct Held {
    /// Where the container's cgroup is to be made, from the root of the hierarchy.
    let cgroup: String
    /// What the holder is in: in the scope itself there may be no process once its controllers are handed down (cgroups(7)).
    private let folder: String
    private let holder: Holder

    fileprivate init(_ unit: String, _ holder: Holder, root: String) throws(BundleError) {
      // Where slices are is systemd's affair ("a-b.slice" is below "a.slice"): the kernel knows.
      let line = ((try? Files.text("/proc/\(holder.pid)/cgroup")) ?? "").split(separator: "\n").first { $0.hasPrefix("0::/") }
      let scope = line.map { String($0.dropFirst(3)) } ?? ""
      (self.holder, cgroup, folder) = (holder, scope + "/container", root + scope + "/holder")
      guard scope.hasSuffix("/" + unit) else { throw BundleError("start systemd scope \(unit): its process is not in it") }
      do throws(SystemError) {
        try Files.makeDirectories(folder, mode: 0o755)
        try Files.writeExisting(folder + "/cgroup.procs", "\(holder.pid)")
      } catch {
        throw BundleError("enter systemd's scope", error)
      }
    }

    /// Once, when the container is in.
    func release() {
      holder.end()
      rmdir(folder)
    }
  }

  func start() throws(BundleError) -> Held {
    guard let host = try? CgroupHost.detect(), case .v2(let root) = host.version else {
      throw BundleError("--systemd-cgroup needs cgroup v2, which this host has not: use --cgroup-manager cgroupfs")
    }
    var attempts = 0
    while true {
      do throws(BundleError) { return try hold(ask(), root) } catch {
        // The last container of this name has ended, and systemd has not collected its scope yet.
        guard error.description.contains("already"), attempts < 100 else { throw error }
        attempts += 1
        usleep(20_000)
      }
    }
  }

  private func hold(_ holder: Holder, _ root: String) throws(BundleError) -> Held {
    do throws(BundleError) { return try Held(unit, holder, root: root) } catch {
      holder.end()
      throw error
    }
  }

  /// Returns the holder, which is in the scope.
  private func ask() throws(BundleError) -> Holder {
    var refusal = ""
    do throws(SystemError) {
      let messages = try OwnedDescriptor.memoryFile("messages")
      var ends: [Int32] = [-1, -1]
      try check(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends), "make a socket pair")
      let ours = OwnedDescriptor(owning: ends[0])
      let holder: Holder
      do {
        let theirs = OwnedDescriptor(owning: ends[1])
        holder = Holder(pid: try spawn(theirs.rawValue, messages.rawValue), line: ours.take())
      }
      var byte: UInt8 = 0
      _ = send(holder.line, &byte, 1, Int32(MSG_NOSIGNAL))
      var entry = pollfd(fd: holder.line, events: Int16(POLLIN), revents: 0)
      while poll(&entry, 1, 60_000) < 0, Errno.current == .interrupted {}
      if recv(holder.line, &byte, 1, Int32(MSG_DONTWAIT)) == 1 { return holder }
      holder.end()
      var text = [UInt8](repeating: 0, count: 500)
      let count = pread(messages.rawValue, &text, text.count, 0)
      let answer = String(decoding: text.prefix(max(0, count)), as: UTF8.self).split(separator: "\n").first
      refusal = String(answer ?? "no answer after 60 s")
    } catch { throw BundleError("start systemd scope \(unit)", error) }
    throw BundleError("start systemd scope \(unit): \(refusal); without systemd: --cgroup-manager cgroupfs")
  }

  private func spawn(_ stdio: Int32, _ messages: Int32) throws(SystemError) -> pid_t {
    let arguments =
      [Self.program, "--scope", "--quiet", "--collect", "--unit=\(unit)", "--slice=\(slice)"] + properties.map { "--property=\($0)" } + [
        "--", "/bin/cat",
      ]
    return try ChildProcess.start(Self.program, arguments) { actions in
      posix_spawn_file_actions_adddup2(&actions, stdio, 0)
      posix_spawn_file_actions_adddup2(&actions, stdio, 1)
      posix_spawn_file_actions_adddup2(&actions, messages, 2)
      _ = clinux_spawn_closefrom(&actions, 3)
    }
  }
}

/// cat(1) in the scope. It ends with us, whatever becomes of us.
private struct Holder {
  let pid: pid_t
  let line: Int32

  func end() {
    kill(pid, SIGKILL)
    ChildProcess.reap(pid)
    close(line)
  }
}

extension SystemdScope {
  /// Annotations have a property's name on D-Bus and a value in a part of GVariant's text format (true, 12, uint64 12, 'text', ['one', 'two']);
  /// systemd-run takes those of unit files.
  static func property(_ name: String, _ value: String) -> String? {
    guard !name.isEmpty, name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber) }) else { return nil }
    let text = trimmed(value[...])
    if text == "true" || text == "false" { return "\(name)=\(text)" }
    if let quoted = quoted(text) { return "\(name)=\(quoted)" }
    if text.hasPrefix("["), text.hasSuffix("]") {
      let inner = trimmed(text.dropFirst().dropLast())
      let items = inner.isEmpty ? [] : inner.split(separator: ",", omittingEmptySubsequences: false).map { quoted(trimmed($0)) }
      guard items.allSatisfy({ $0?.contains(where: \.isWhitespace) == false }) else { return nil }
      return "\(name)=\(items.compactMap { $0 }.joined(separator: " "))"
    }
    guard let number = number(text) else { return nil }
    guard name.hasSuffix("USec") else { return "\(name)=\(number)" }
    return "\(name.dropLast(4))Sec=\(number == "\(UInt64.max)" ? "infinity" : number + "us")"
  }

  private static func number(_ text: String) -> String? {
    let words = text.split(separator: " ").map(String.init)
    guard let last = words.last, words.count <= 2 else { return nil }
    return switch words.count == 2 ? words[0] : "int32" {
    case "int32": Int32(last).map(String.init)
    case "uint32": UInt32(last).map(String.init)
    case "int64": Int64(last).map(String.init)
    case "uint64": UInt64(last).map(String.init)
    default: nil
    }
  }

  private static func quoted(_ text: String) -> String? {
    guard text.count >= 2, let mark = text.first, mark == "'" || mark == "\"", text.last == mark else { return nil }
    let inner = text.dropFirst().dropLast()
    return inner.contains(mark) || inner.contains("\\") ? nil : String(inner)
  }

  private static func trimmed(_ text: Substring) -> String {
    var text = text
    while text.first?.isWhitespace == true { text.removeFirst() }
    while text.last?.isWhitespace == true { text.removeLast() }
    return String(text)
  }
}
