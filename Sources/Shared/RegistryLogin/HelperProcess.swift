import Glibc
import LinuxSystem

/// A short program found in PATH, with bytes in and bytes out. Blocking.
enum HelperProcess {
  /// - Returns: its exit code (128 + signal when a signal ended it) and stdout, at most 1 MiB. Its stderr is ours.
  static func run(_ arguments: [String], input: [UInt8]) throws(LoginError) -> (code: Int32, output: [UInt8]) {
    func fail(_ error: Errno) -> LoginError {
      LoginError(
        "run \(arguments[0]): \(error == .noEntry ? "it is not in PATH: install it, or take it out of the file of credentials" : "\(error)")")
    }
    // The input is small: a file in memory needs no second thread, as a pipe that is full would.
    let file: SharedDescriptor
    let pipe: (read: Int32, write: Int32)
    do throws(SystemError) {
      file = SharedDescriptor(try .memoryFile("credentials"))
      try Files.writeAll(file.rawValue, input, name: "credentials")
      pipe = try OwnedDescriptor.pipe()
    } catch { throw fail(error.errno) }
    lseek(file.rawValue, 0, SEEK_SET)
    let reader = SharedDescriptor(owning: pipe.read)
    let process: pid_t
    do throws(SystemError) {
      let writer = OwnedDescriptor(owning: pipe.write)
      process = try ChildProcess.start(arguments[0], arguments, inPath: true) { actions in
        posix_spawn_file_actions_adddup2(&actions, file.rawValue, 0)
        posix_spawn_file_actions_adddup2(&actions, writer.rawValue, 1)
      }
    } catch { throw fail(error.errno) }
    var output: [UInt8] = []
    do { output = try Files.read(descriptor: reader.rawValue, name: arguments[0], limit: 1 << 20) } catch { kill(process, SIGKILL) }
    return (ChildProcess.exitCode(ChildProcess.reap(process)), output)
  }
}
