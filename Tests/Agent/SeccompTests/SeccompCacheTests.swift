import Glibc
import LinuxSystem
import Testing

@testable import Seccomp

/// A runtime's root with a cache, and a program in it that nobody compiled: whoever returns that has believed the file.
private final class CacheWorld {
  let root: String
  let cache: SeccompCache
  static let filter = SeccompFilter(
    defaultAction: 0x7fff_0000, architectures: [],
    rules: [SeccompFilter.Rule(names: ["mkdir", "mkdirat"], action: 0x0005_0001, conditions: [])])
  /// Allows everything.
  static let forged = SeccompProgram(bytes: [6, 0, 0, 0, 0, 0, 0xff, 0x7f])
  var filter: SeccompFilter { Self.filter }
  var forged: SeccompProgram { Self.forged }
  let key: [UInt8]
  var folder: String { root + "/" + SeccompCache.name }
  var file: String { folder + "/" + SeccompCache.name(of: key) }

  init() throws {
    root = "/tmp/orch-seccomp-test-\(getpid())-\(UInt64.random(in: 0 ... .max))"
    try Files.makeDirectories(root, mode: 0o700)
    cache = SeccompCache(below: root)
    key = try #require(SeccompCache.key(Self.filter))
  }
  deinit { try? Files.removeTree(root) }

  func plant() throws {
    try Files.makeDirectories(folder, mode: 0o700)
    try Files.writeAtomically(file, SeccompCache.content(key, forged), durable: false)
  }
}

@Suite struct SeccompCacheTests {
  @Test("what is kept is what was compiled, byte for byte, for this user alone")
  func kept() throws {
    let world = try CacheWorld()
    let compiled = try Seccomp.compile(world.filter)
    #expect(try world.cache.program(world.filter) == compiled)
    #expect(try Files.list(world.folder) == [SeccompCache.name(of: world.key)])
    #expect(SeccompCache.program(in: try Files.read(world.file), world.key) == compiled)
    #expect(try world.cache.program(world.filter) == compiled)
    var status = stat()
    #expect(stat(world.file, &status) == 0 && status.st_mode & 0o7777 == 0o600 && status.st_nlink == 1)
    #expect(stat(world.folder, &status) == 0 && status.st_mode & 0o7777 == 0o700)
  }

  @Test("a program that is kept is used, and for its own list alone")
  func used() throws {
    let world = try CacheWorld()
    try world.plant()
    #expect(try world.cache.program(world.filter) == world.forged)
    var others = [SeccompFilter](repeating: world.filter, count: 4)
    others[0].defaultAction = 0x0005_0001
    others[1].architectures = [0x4000_0003]
    others[2].rules[0].action = 0x0005_0002
    others[3].rules[0].conditions = [SeccompFilter.Condition(argument: 0, comparison: 4, a: 1, b: 0)]
    for other in others {
      #expect(SeccompCache.key(other) != world.key)
      #expect(try world.cache.program(other) == Seccomp.compile(other))
    }
  }

  /// A whole file of the very list with this program.
  private static func holding(_ program: [UInt8], _ file: String) throws {
    let key = try #require(SeccompCache.key(CacheWorld.filter))
    try Files.writeAtomically(file, SeccompCache.content(key, SeccompProgram(bytes: program)), durable: false)
  }
  typealias Spoil = @Sendable (_ root: String, _ file: String, _ content: [UInt8]) throws -> Void
  /// What somebody may have done; where only root can do it, it is skipped without.
  static let spoils: [(String, Bool, Spoil)] = [
    (
      "a byte of the program is another", false,
      { _, file, content in
        var content = content
        content[content.count - 10] ^= 1
        try Files.writeAtomically(file, content, durable: false)
      }
    ),
    ("it ends early", false, { _, file, content in truncate(file, content.count - 8) }),
    ("it goes on", false, { _, file, content in try Files.writeAtomically(file, content + [UInt8](repeating: 0, count: 40_000), durable: false) }),
    ("it is empty", false, { _, file, _ in truncate(file, 0) }),
    ("it ends within its list", false, { _, file, content in truncate(file, content.count - 32) }),
    (
      "it was made from another list that has the same name and is as long", false,
      { _, file, content in
        var filter = CacheWorld.filter
        filter.rules[0].action += 1
        let key = SeccompCache.key(filter)!
        #expect(key.count == SeccompCache.key(CacheWorld.filter)!.count)
        try Files.writeAtomically(file, SeccompCache.content(key, CacheWorld.forged), durable: false)
      }
    ),
    (
      "it is of another format", false,
      { _, file, content in
        // Whole, with a checksum that holds.
        let body = [content[0] ^ 1] + content[1..<content.count - 8]
        let sum = body.withUnsafeBufferPointer { FNV1a.hash($0) }
        try Files.writeAtomically(file, body + (0..<8).map { UInt8(truncatingIfNeeded: sum >> ($0 * 8)) }, durable: false)
      }
    ),
    ("it holds no instruction", false, { _, file, _ in try holding([], file) }),
    ("it holds a part of an instruction", false, { _, file, _ in try holding(CacheWorld.forged.bytes + [6, 0, 0], file) }),
    (
      "it holds more instructions than the kernel takes", false,
      { _, file, _ in try holding(Array(repeatElement(CacheWorld.forged.bytes, count: 4097).joined()), file) }
    ),
    ("others may read it", false, { _, file, _ in chmod(file, 0o604) }),
    ("its group may write to it", false, { _, file, _ in chmod(file, 0o620) }),
    ("it is another user's", true, { _, file, _ in chown(file, 12345, 0) }),
    (
      "it is a symbolic link", false,
      { root, file, _ in
        rename(file, root + "/elsewhere")
        symlink(root + "/elsewhere", file)
      }
    ),
    ("it has a second name", false, { root, file, _ in link(file, root + "/elsewhere") }),
    (
      "it is a FIFO", false,
      { _, file, _ in
        unlink(file)
        mkfifo(file, 0o600)
      }
    ),
    ("others may look into the folder", false, { root, _, _ in chmod(root + "/" + SeccompCache.name, 0o755) }),
    ("the folder is another user's", true, { root, _, _ in chown(root + "/" + SeccompCache.name, 12345, 0) }),
    (
      "the folder is a symbolic link", false,
      { root, _, _ in
        rename(root + "/" + SeccompCache.name, root + "/elsewhere")
        symlink(root + "/elsewhere", root + "/" + SeccompCache.name)
      }
    ),
    ("others may write to the root", false, { root, _, _ in chmod(root, 0o707) }),
    ("the root's group may write to it", false, { root, _, _ in chmod(root, 0o770) }),
    ("the root is another user's", true, { root, _, _ in chown(root, 12345, 0) }),
  ]

  @Test("what is damaged, foreign or within another's reach is compiled anew", arguments: spoils.map(\.0))
  func spoiled(_ name: String) throws {
    let world = try CacheWorld()
    try world.plant()
    #expect(try world.cache.program(world.filter) == world.forged)
    let (_, needsRoot, spoil) = try #require(Self.spoils.first { $0.0 == name })
    if needsRoot, geteuid() != 0 { return }
    try spoil(world.root, world.file, SeccompCache.content(world.key, world.forged))
    #expect(try world.cache.program(world.filter) == Seccomp.compile(world.filter))
  }

  @Test("a file that cannot be used is replaced by one that can")
  func replaced() throws {
    let world = try CacheWorld()
    try world.plant()
    truncate(world.file, 100)
    _ = try world.cache.program(world.filter)
    #expect(SeccompCache.program(in: try Files.read(world.file), world.key) == (try Seccomp.compile(world.filter)))
  }

  @Test("no more are kept than the limit; the one not used for longest goes first")
  func bounded() throws {
    let world = try CacheWorld()
    _ = try world.cache.program(world.filter)
    for index in 0..<UInt32(SeccompCache.limit + 5) {
      var other = world.filter
      other.rules[0].action = 0x0005_0000 | (index + 2)
      _ = try world.cache.program(other)
      // As old as the first of the others, and used again.
      var times = [timespec(tv_sec: 1000 + Int(index), tv_nsec: 0), timespec(tv_sec: 1000 + Int(index), tv_nsec: 0)]
      utimensat(AT_FDCWD, world.folder + "/" + SeccompCache.name(of: try #require(SeccompCache.key(other))), &times, 0)
      times = [timespec(tv_sec: 10, tv_nsec: 0), timespec(tv_sec: 10, tv_nsec: 0)]
      utimensat(AT_FDCWD, world.file, &times, 0)
      _ = try world.cache.program(world.filter)
    }
    let names = try Files.list(world.folder)
    #expect(names.count == SeccompCache.limit && names.contains(SeccompCache.name(of: world.key)))
  }
}
