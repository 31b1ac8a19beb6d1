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
    do throws(SystemError) {
      let input = try input(state)
      let pid = try spawn(hook, input.rawValue, what)
      let process = try PidDescriptor(pid: pid)
      var entry = pollfd(fd: process.rawValue, events: Int16(POLLIN), revents: 0)
      var timedOut = false
      let milliseconds = hook.timeout.map { Int32(clamping: $0 * 1000) } ?? -1
      while true {
        let count = poll(&entry, 1, milliseconds)
        if count < 0, Errno.current == .interrupted { continue }
        timedOut = count == 0
        break
      }
      if timedOut { try? process.send(SIGKILL) }
      var status: Int32 = 0
      while waitpid(pid, &status, 0) < 0, Errno.current == .interrupted {}
      if timedOut { throw SystemError("run \(what), killed at its timeout", "", Errno(ETIMEDOUT)) }
      if status != 0 {
        throw SystemError(
          "run \(what)", status & 0x7f == 0 ? "(exit status \(status >> 8 & 0xff))" : "(signal \(status & 0x7f))", Errno(ECANCELED))
      }
    } catch { throw BundleError("\(error.operation)\(error.object.isEmpty ? "" : " " + error.object): \(error.errno.message.lowercased())") }
  }

  private static func spawn(_ hook: Config.Hook, _ input: Int32, _ what: String) throws(SystemError) -> Int32 {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, input, 0)
    _ = clinux_spawn_closefrom(&actions, 3)
    var arguments = (hook.args ?? [hook.path]).map { strdup($0) } + [nil]
    var environment = (hook.env ?? []).map { strdup($0) } + [nil]
    defer { for text in arguments + environment { free(text) } }
    var pid: pid_t = 0
    let result = posix_spawn(&pid, hook.path, &actions, nil, &arguments, &environment)
    if result != 0 { throw SystemError("run", what, Errno(result)) }
    return pid
  }
}
