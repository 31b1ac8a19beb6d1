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
      let pid: pid_t
      do {
        let writer = OwnedDescriptor(owning: ends.write)
        pid = try ChildProcess.start(program, [program] + arguments, inPath: true) { posix_spawn_file_actions_adddup2(&$0, writer.rawValue, 1) }
      }
      let bytes = try Files.read(descriptor: reader.rawValue, name: program)
      ChildProcess.reap(pid)
      return String(decoding: bytes, as: UTF8.self)
    } catch { throw BundleError("\(error.operation) \(error.object): \(error.errno.message.lowercased())") }
  }
}
