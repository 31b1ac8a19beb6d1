import CLinux
import Glibc

/// Programs that this process starts, and their ends.
public enum ChildProcess {
  /// posix_spawn(3). The child has this process's descriptors that are not closed on exec, and signals as a shell's child has them: none blocked or
  /// ignored, whatever this thread blocks.
  /// - Parameters:
  ///   - program: a path; with `inPath` a name that is looked for in PATH.
  ///   - arguments: the first is the program's own name.
  ///   - environment: NAME=VALUE; nil: this process's.
  ///   - object: what the error names; nil: the program.
  ///   - prepare: what becomes of descriptors in the child.
  public static func start(
    _ program: String, _ arguments: [String], inPath: Bool = false, environment: [String]? = nil, object: String? = nil,
    _ prepare: (inout posix_spawn_file_actions_t) -> Void
  ) throws(SystemError) -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    prepare(&actions)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var (none, all) = (sigset_t(), sigset_t())
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    var words = arguments.map { strdup($0) } + [nil]
    var variables = (environment ?? []).map { strdup($0) } + [nil]
    defer { for text in words + variables { free(text) } }
    var pid: pid_t = 0
    let result = variables.withUnsafeMutableBufferPointer { own in
      let given = environment == nil ? environ : own.baseAddress!
      return inPath
        ? posix_spawnp(&pid, program, &actions, &attributes, &words, given) : posix_spawn(&pid, program, &actions, &attributes, &words, given)
    }
    if result != 0 { throw SystemError("run", object ?? program, Errno(result)) }
    return pid
  }

  /// waitpid(2)'s status of a child, once it has ended.
  @discardableResult
  public static func reap(_ pid: pid_t) -> Int32 {
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0, Errno.current == .interrupted {}
    return status
  }

  /// Of such a status, as a shell has it: 128 and the number of the signal that ended it.
  public static func exitCode(_ status: Int32) -> Int32 { status & 0x7f == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f) }
}
