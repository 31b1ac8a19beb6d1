import CLinux
import Glibc
import LinuxSystem

/// Compiled filters in a folder below a runtime's root, for programs that live too short to keep them in memory: reading one takes 0.1 ms,
/// compiling docker's list about 10.
///
/// What is read becomes a container's confinement, so a file counts only where nobody but this user can have written it: the root, the folder and
/// the file are this user's, no other may write to them (of the folder and the file: read, neither), the file is a plain one with one name. And only
/// for what it says it is: it holds all that its program was made from (builds, kernel, list), which is compared byte for byte, and a checksum
/// against damage; the hash in its name only finds it. Whatever else is there is compiled anew, and replaced. A file appears whole (O_TMPFILE, linkat).
public struct SeccompCache: Hashable, Sendable {
  /// No container's id: those have no `@`.
  public static let name = "@seccomp"
  /// Programs that are kept; one more removes the one that was not used for longest.
  public static let limit = 32
  static let maximalKey = 256 << 10
  /// BPF_MAXINSNS (linux/bpf_common.h), 8 bytes each.
  static let maximalProgram = 4096 * 8

  private let root: String

  /// `root`: where the folder is made, mode 0700, if that is this user's and nobody else may write to it.
  public init(below root: String) { self.root = root }

  /// The same bytes as `Seccomp.compile`. Where nothing can be kept, for whatever reason, it is compiled and that is all.
  public func program(_ filter: SeccompFilter) throws(SystemError) -> SeccompProgram {
    guard let key = Self.key(filter), let folder = folder() else { return try Seccomp.compile(filter) }
    let name = Self.name(of: key)
    if let program = Self.read(name, key, in: folder.rawValue) { return program }
    let program = try Seccomp.compile(filter)
    if program.bytes.count <= Self.maximalProgram {
      Self.makeRoom(in: folder.rawValue)
      Self.write(Self.content(key, program), name, in: folder.rawValue)
    }
    return program
  }

  // MARK: what a file says

  /// Everything that a program depends on. nil: not to be known, or too long.
  static func key(_ filter: SeccompFilter) -> [UInt8]? {
    var builds = [UInt8](repeating: 0, count: 4096)
    let count = clinux_build_ids(&builds, builds.count)
    var kernel = utsname()
    guard count > 0, uname(&kernel) == 0 else { return nil }
    var key: [UInt8] = []
    key.reserveCapacity(16384)
    func append<I: FixedWidthInteger>(_ number: I) { withUnsafeBytes(of: number.littleEndian) { key.append(contentsOf: $0) } }
    func append(_ bytes: some Collection<UInt8>) {
      append(UInt32(bytes.count))
      key.append(contentsOf: bytes)
    }
    append(builds[..<count])
    // libseccomp asks the kernel which actions it knows.
    withUnsafeBytes(of: &kernel.release) { append($0.prefix { $0 != 0 }) }
    withUnsafeBytes(of: &kernel.machine) { append($0.prefix { $0 != 0 }) }
    append(filter.defaultAction)
    append(UInt32(filter.architectures.count))
    for architecture in filter.architectures { append(architecture) }
    append(UInt32(filter.rules.count))
    for rule in filter.rules {
      append(rule.action)
      append(UInt32(rule.names.count))
      for name in rule.names { append(name.utf8) }
      append(UInt32(rule.conditions.count))
      for condition in rule.conditions {
        append(condition.argument)
        append(condition.comparison)
        append(condition.a)
        append(condition.b)
      }
    }
    return key.count <= Self.maximalKey ? key : nil
  }

  private static let mark = Array("orch seccomp 1\n\0".utf8)

  /// The mark, the key's length and itself, the program, a checksum of all that.
  static func content(_ key: [UInt8], _ program: SeccompProgram) -> [UInt8] {
    var bytes = mark
    withUnsafeBytes(of: UInt32(key.count).littleEndian) { bytes.append(contentsOf: $0) }
    bytes += key
    bytes += program.bytes
    withUnsafeBytes(of: checksum(bytes[...]).littleEndian) { bytes.append(contentsOf: $0) }
    return bytes
  }
  /// nil: damaged, or made from something else.
  static func program(in content: [UInt8], _ key: [UInt8]) -> SeccompProgram? {
    let begin = mark.count + 4 + key.count
    guard content.count >= begin + 8 + 8, (content.count - begin) % 8 == 0, content.count - begin - 8 <= maximalProgram else { return nil }
    var expected = mark
    withUnsafeBytes(of: UInt32(key.count).littleEndian) { expected.append(contentsOf: $0) }
    guard content.starts(with: expected), content[expected.count..<begin] == key[...] else { return nil }
    let end = content.count - 8
    let sum = content[end...].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return sum == checksum(content[..<end]) ? SeccompProgram(bytes: Array(content[begin..<end])) : nil
  }

  static func name(of key: [UInt8]) -> String {
    let hex = String(checksum(key[...]), radix: 16)
    return String(repeating: "0", count: 16 - hex.count) + hex
  }
  /// Against accidents. It proves nothing against a writer, of whom there is none but this user.
  private static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.withUnsafeBufferPointer { FNV1a.hash($0) } }

  // MARK: the folder

  /// nil: there is none that may be trusted.
  private func folder() -> OwnedDescriptor? {
    guard let above = try? OwnedDescriptor.open(root, O_RDONLY | O_DIRECTORY), Self.isOurs(above.rawValue, S_IFDIR, others: 0o022) != nil else {
      return nil
    }
    if mkdirat(above.rawValue, Self.name, 0o700) < 0, Errno.current != .exists { return nil }
    let descriptor = openat(above.rawValue, Self.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    let folder = OwnedDescriptor(owning: descriptor)
    if Self.isOurs(descriptor, S_IFDIR, others: 0o077) == nil { return nil }
    return folder
  }

  /// This user's, of that type, without any of the bits `others`.
  private static func isOurs(_ descriptor: Int32, _ type: mode_t, others: mode_t) -> stat? {
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == type, status.st_uid == geteuid(), status.st_mode & others == 0 else {
      return nil
    }
    return status
  }

  private static func read(_ name: String, _ key: [UInt8], in folder: Int32) -> SeccompProgram? {
    // Not blocking: a FIFO of that name has no writer.
    let descriptor = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    let file = OwnedDescriptor(owning: descriptor)
    let size = mark.count + 4 + key.count + 8
    guard let status = isOurs(file.rawValue, S_IFREG, others: 0o077), status.st_nlink == 1, status.st_size <= size + maximalProgram,
      let bytes = try? Files.read(descriptor: file.rawValue, name: name, limit: size + maximalProgram), let program = program(in: bytes, key)
    else { return nil }
    // Used: `makeRoom` goes by it. Not at every start, where the root is on a disk.
    if time(nil) - status.st_mtim.tv_sec > 60 { futimens(file.rawValue, nil) }
    return program
  }

  private static func write(_ bytes: [UInt8], _ name: String, in folder: Int32) {
    let descriptor = openat(folder, ".", O_TMPFILE_ | O_WRONLY | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { return }
    let file = OwnedDescriptor(owning: descriptor)
    guard (try? Files.writeAll(descriptor, bytes, name: name)) != nil else { return }
    // What is there already could not be used, or another process was faster with the same.
    for _ in 0..<2 {
      if linkat(AT_FDCWD, "/proc/self/fd/\(file.rawValue)", folder, name, AT_SYMLINK_FOLLOW) == 0 || Errno.current != .exists { return }
      unlinkat(folder, name, 0)
    }
  }
  /// __O_TMPFILE | O_DIRECTORY, a macro that Swift does not see.
  private static let O_TMPFILE_: Int32 = 0o20000000 | O_DIRECTORY

  /// For one more: the oldest go, whatever they are.
  private static func makeRoom(in folder: Int32) {
    guard let names = try? Files.names(in: folder, path: name), names.count >= limit else { return }
    let aged = names.map { name in
      var status = stat()
      fstatat(folder, (name + [0]).map { CChar(bitPattern: $0) }, &status, AT_SYMLINK_NOFOLLOW)
      return (name, (status.st_mtim.tv_sec, status.st_mtim.tv_nsec))
    }
    for (name, _) in aged.sorted(by: { $0.1 < $1.1 }).prefix(names.count - limit + 1) {
      unlinkat(folder, (name + [0]).map { CChar(bitPattern: $0) }, 0)
    }
  }
}
