import CLinux
import Glibc
import LinuxSystem
import OCI

/// Hooks that the runtime itself runs: prestart, createRuntime, poststart, poststop (runtime-spec, config.md, "POSIX-platform Hooks").
enum Hooks {
  /// One after another; the first that fails ends it.
  static func run(_ hooks: [Config.Hook]?, _ kind: String, _ state: State) throws(BundleError) {
    for hook in hooks ?? [] { try run(hook, kind, state) }
  }

  /// A file with the state, for the standard input of hooks.
  static func input(_ state: State) throws(SystemError) -> SharedDescriptor {
    let bytes = Document.write(state)
    let file = try OwnedDescriptor.memoryFile("state")
    try Files.writeAll(file.rawValue, bytes, name: "state")
    lseek(file.rawValue, 0, SEEK_SET)
    return SharedDescriptor(file)
  }

  private static func run(_ hook: Config.Hook, _ kind: String, _ state: State) throws(BundleError) {
    let what = "\(kind) hook \(hook.path)"
    do {
      let input = try input(state)
      let pid = try spawn(hook, input.rawValue, what, state.annotations ?? [:])
      let process = try PidDescriptor(pid: pid)
      var entry = pollfd(fd: process.rawValue, events: Int16(POLLIN), revents: 0)
      var timedOut = false
      let milliseconds = hook.timeout.map { Int32(min($0, 2_000_000)) * 1000 } ?? -1
      while true {
        let count = poll(&entry, 1, milliseconds)
        if count < 0, Errno.current == .interrupted { continue }
        timedOut = count == 0
        break
      }
      if timedOut { try? process.send(SIGKILL) }
      let status = ChildProcess.reap(pid)
      let ended =
        timedOut
        ? "was killed at its timeout" : status & 0x7f == 0 ? "failed with exit code \(status >> 8 & 0xff)" : "was ended by signal \(status & 0x7f)"
      if timedOut || status != 0 { throw BundleError("\(kind) hook \(ended): \(hook.path)") }
    } catch let error as BundleError { throw error } catch let error as SystemError { throw BundleError(BundleError.text(error)) } catch {
      throw BundleError("\(what): \(error)")
    }
  }

  /// This process's, NAME=VALUE.
  static func environment() -> [String] {
    var list: [String] = []
    var entry = environ
    while let text = entry.pointee {
      list.append(String(cString: text))
      entry += 1
    }
    return list
  }

  private static func spawn(
    _ hook: Config.Hook, _ input: Int32, _ what: String, _ annotations: [String: String]
  ) throws(SystemError) -> Int32 {
    // No environment of its own: ours, as with runc and crun.
    try ChildProcess.start(hook.path, hook.args ?? [hook.path], environment: hook.env, object: what) { actions in
      posix_spawn_file_actions_adddup2(&actions, input, 0)
      for (key, descriptor) in [(Annotations.hooksOutput, Int32(1)), (Annotations.hooksErrors, 2)] {
        if let path = annotations[key] { posix_spawn_file_actions_addopen(&actions, descriptor, path, O_WRONLY | O_CREAT | O_APPEND, 0o600) }
      }
      _ = clinux_spawn_closefrom(&actions, 3)
    }
  }
}
