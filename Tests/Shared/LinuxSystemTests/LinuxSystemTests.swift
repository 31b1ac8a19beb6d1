import CLinux
import Glibc
@testable import LinuxSystem
import Testing

@Suite final class LinuxSystemTests {
  let folder: String
  init() throws {
    folder = "/tmp/orch-linux-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    try Files.makeDirectories(folder)
  }
  deinit {
    try? Files.removeTree(folder)
  }

  @Test("an error says its operation, object and cause")
  func errors() {
    #expect("\(SystemError("open", "/x", .noEntry))" == "open /x: ENOENT (No such file or directory)")
    #expect(throws: SystemError("open", "/no/such", .noEntry)) { _ = try Files.read("/no/such") }
  }

  @Test("a file is written whole, and a tree with links is removed without following them")
  func files() throws {
    try Files.writeAtomically(folder + "/a", "one")
    try Files.writeAtomically(folder + "/a", "two")
    #expect(try Files.text(folder + "/a") == "two")
    #expect(try Files.list(folder) == ["a"])
    try Files.makeDirectories(folder + "/tree/b/c")
    symlink(folder + "/a", folder + "/tree/b/link")
    try Files.removeTree(folder + "/tree")
    try Files.removeTree(folder + "/tree")
    #expect(try Files.list(folder) == ["a"])
    #expect(throws: SystemError("read", folder + "/a", Errno(EFBIG))) { _ = try Files.read(folder + "/a", limit: 2) }
  }

  @Test("a link does not lead out of a root")
  func inRoot() throws {
    try Files.writeAtomically(folder + "/passwd", "inside")
    symlink("/passwd", folder + "/link")
    symlink("../../../../etc/passwd", folder + "/up")
    let root = try OwnedDescriptor.open(folder, O_RDONLY | O_DIRECTORY)
    let file = try OwnedDescriptor.open(inRoot: root.rawValue, "link", O_RDONLY)
    #expect(try Files.read(descriptor: file.rawValue, name: "link") == Array("inside".utf8))
    #expect(throws: SystemError.self) { _ = try OwnedDescriptor.open(inRoot: root.rawValue, "up", O_RDONLY) }
  }

  @Test("a process is itself only with its start time")
  func identity() throws {
    let me = try #require(ProcessIdentity.of(getpid()))
    #expect(me.open() != nil)
    #expect(ProcessIdentity(pid: me.pid, startTime: me.startTime + 1).open() == nil)
  }

  @Test("capability names")
  func capabilities() {
    #expect(CapabilitySet(name: "net_admin")?.rawValue == 1 << 12)
    #expect(CapabilitySet(name: "CAP_NET_ADMIN")?.names == ["CAP_NET_ADMIN"])
    #expect(CapabilitySet(name: "CAP_FLY") == nil)
  }

  @Test(
    "users resolve by the files of the root, and numbers are never names",
    arguments: [
      ("", 0, 0, [0], "/root"), ("app", 1000, 1001, [2000, 1001], "/home/app"), ("1000", 1000, 1001, [2000, 1001], "/home/app"),
      ("app:logs", 1000, 3000, [3000], "/home/app"), ("77:88", 77, 88, [88], "/"), ("55", 55, 0, [0], "/"),
    ] as [(String, UInt32, UInt32, [UInt32], String)])
  func users(_ text: String, _ uid: UInt32, _ gid: UInt32, _ groups: [UInt32], _ home: String) throws {
    let (result, user, found, _) = try resolve(text)
    #expect(result == 0)
    #expect(user.uid == uid && user.gid == gid)
    #expect(found == groups)
    #expect(withUnsafeBytes(of: user.home) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) } == home)
  }

  @Test(
    "users that are refused",
    arguments: [("nobody", ENOENT), ("4294967296", ERANGE), ("2147483648", ERANGE), ("-1", ENOENT), ("app:none", ESRCH), ("big", ERANGE)])
  func refusedUsers(_ text: String, _ error: Int32) throws {
    let (result, _, _, what) = try resolve(text)
    #expect(Errno(-result) == Errno(error))
    #expect(text.contains(what))
  }

  private func resolve(_ text: String) throws -> (Int32, clinux_user, [UInt32], String) {
    try Files.makeDirectories(folder + "/etc")
    try Files.writeAtomically(
      folder + "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n55:x:0:0::/:\napp:x:1000:1001::/home/app:/bin/sh\nbig:x:4294967296:0::/:\n")
    try Files.writeAtomically(folder + "/etc/group", "root:x:0:\nextra:x:2000:web,app\nlogs:x:3000:\n")
    let root = try OwnedDescriptor.open(folder, O_RDONLY | O_DIRECTORY)
    var user = clinux_user()
    var what = [CChar](repeating: 0, count: 64)
    var room = [UInt32](repeating: 0, count: Int(CLINUX_GROUPS))
    let result = room.withUnsafeMutableBufferPointer {
      user.groups = $0.baseAddress
      return clinux_resolve_user(root.rawValue, text, nil, 0, &user, &what)
    }
    let culprit = String(decoding: what.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return (result, user, Array(room.prefix(Int(user.group_count))), culprit)
  }

  @Test("a thread enters a network namespace and no other does", .enabled(if: geteuid() == 0))
  func networkNamespace() async throws {
    let path = folder + "/netns"
    try Files.writeAtomically(path, "")
    try await onOwnThread { [path] in
      try checkResult(clinux_unshare(Int32(CLINUX_CLONE_NEWNET)), "make a network namespace")
      try check(mount("/proc/thread-self/ns/net", path, nil, UInt(MS_BIND), nil), "bind the namespace on", path)
    }
    defer { umount2(path, Int32(MNT_DETACH)) }
    @Sendable func inode() -> ino_t {
      var status = stat()
      stat("/proc/thread-self/ns/net", &status)
      return status.st_ino
    }
    let here = inode()
    let there = try await withNetworkNamespace(path) { inode() }
    #expect(here != there)
    #expect(inode() == here)
    await #expect(throws: SystemError.self) { try await withNetworkNamespace("/dev/null") {} }
  }

  @Test("interfaces' counters are read; a process in our own network namespace has none of its own")
  func interfaces() throws {
    let text = """
      Inter-|   Receive                                                |  Transmit
       face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
          lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
      eth0.1:1234567890123    2    3    4    0     0          0         0        5       6    7    8    0     0       0          0
      """
    let found = InterfaceCounters.parse(text)
    #expect(found.map(\.name) == ["lo", "eth0.1"])
    #expect(found[1].received == .init(bytes: 1_234_567_890_123, packets: 2, errors: 3, dropped: 4))
    #expect(found[1].sent == .init(bytes: 5, packets: 6, errors: 7, dropped: 8))
    #expect(try InterfaceCounters.of(process: getpid()).contains { $0.name == "lo" })
    #expect(InterfaceCounters.own(of: getpid()).isEmpty && InterfaceCounters.own(of: Int32.max).isEmpty)
  }

  @Test("mounts at and below a path are found by their real names")
  func mounts() throws {
    let text = """
      22 1 8:1 / / rw - ext4 /dev/sda1 rw
      30 22 0:5 / /a\\040b rw,nosuid shared:1 - tmpfs tmpfs rw
      31 30 0:6 / /a\\040b/c rw - tmpfs tmpfs rw
      32 22 0:7 / /a\\040bc rw - tmpfs tmpfs rw
      """
    #expect(MountPoints.parse(text, below: "/a b") == ["/a b", "/a b/c"])
    #expect(try MountPoints.below("/nonexistent") == [])
  }

  @Test("free memory goes back to the kernel, and code that was unmapped runs on")
  func memory() throws {
    func resident() throws -> Int {
      try Int(Files.text("/proc/self/statm").split(separator: " ")[1]).map { $0 * Int(sysconf(Int32(_SC_PAGESIZE))) } ?? 0
    }
    // Below what malloc maps by itself; the last one keeps all below it from going by itself.
    var blocks: [UnsafeMutableRawPointer] = []
    for _ in 0..<4096 {
      let block = malloc(64 << 10)!
      memset(block, 1, 64 << 10)
      blocks.append(block)
    }
    for block in blocks.dropLast() { free(block) }
    let before = try resident()
    ProcessMemory.release()
    // Other tests allocate meanwhile: half of what was freed.
    #expect(try resident() < before - (128 << 20))
    free(blocks.last!)
  }
}
