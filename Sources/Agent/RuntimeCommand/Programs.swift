import Bundle
import CLinux
import Glibc
import LinuxSystem

enum Programs {
  /// Runs a program of the host to its end and returns what it wrote to stdout.
  static func output(_ program: String, _ arguments: [String]) throws(BundleError) -> String {
    do throws(SystemError) {
      let ends = try OwnedDescriptor.pipe()
      let reader = OwnedDescriptor(owning: ends.read)
      var actions = posix_spawn_file_actions_t()
      posix_spawn_file_actions_init(&actions)
      defer { posix_spawn_file_actions_destroy(&actions) }
      posix_spawn_file_actions_adddup2(&actions, ends.write, 1)
      var list = ([program] + arguments).map { strdup($0) } + [nil]
      defer { for text in list { free(text) } }
      var pid: pid_t = 0
      let result = posix_spawnp(&pid, program, &actions, nil, &list, environ)
      close(ends.write)
      if result != 0 { throw SystemError("run", program, Errno(result)) }
      let bytes = try Files.read(descriptor: reader.rawValue, name: program)
      var status: Int32 = 0
      while waitpid(pid, &status, 0) < 0, Errno.current == .interrupted {}
      return String(decoding: bytes, as: UTF8.self)
    } catch { throw BundleError("\(error.operation) \(error.object): \(error.errno.message.lowercased())") }
  }
}
