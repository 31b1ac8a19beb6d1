import CLinux
import Glibc
import LinuxSystem
import Model
import Testing

@testable import AgentVolume

final class Folder: Sendable {
  let path: String
  init() {
    var template = Array("/tmp/orch-volume-XXXXXX".utf8CString)
    path = String(cString: mkdtemp(&template)!)
  }
  deinit { try? Files.removeTree(path) }
}

private func status(_ path: String) -> stat? {
  var status = stat()
  return lstat(path, &status) == 0 ? status : nil
}

@Suite(.enabled(if: geteuid() == 0)) struct Volumes {
  let folder = Folder()
  let now = Timestamp(nanoseconds: 5)
  private func open() throws -> VolumeStore { try VolumeStore(directory: folder.path + "/volumes") }

  @Test("a volume is made on demand, keeps its labels over a restart, and is listed")
  func makes() async throws {
    var mount = Mount(type: .volume, source: "shop_data", target: "/data", readOnly: true)
    mount.volumeOptions = Mount.VolumeOptions()
    mount.volumeOptions?.labels = ["a": "b"]
    let resolved = try await open().resolve(mount, task: "t", now: now)
    #expect(resolved == .bind(source: folder.path + "/volumes/shop_data/_data", target: "/data", readOnly: true, recursive: true))
    let listed = try await open().list()
    #expect(listed == [VolumeRecord(name: "shop_data", path: folder.path + "/volumes/shop_data/_data", labels: ["a": "b"], createdAt: now)])
    #expect(try await open().inspect("other") == nil)
  }

  @Test("a volume of a task's own is in use while that task is, though no service names it (an image's VOLUME)")
  func ownInUse() async throws {
    let store = try open()
    _ = try await store.resolve(Mount(type: .volume, source: nil, target: "/data"), task: "t", now: now)
    let name = VolumeStore.anonymousName("t", "/data")
    let error = await #expect(throws: VolumeError.self) { try await store.remove(name, inUse: [], by: ["s", "t"]) }
    #expect(error?.kind == .inUse)
    #expect(try await store.inspect(name) != nil)
    try await store.remove(name, by: ["s"])
    #expect(try await store.inspect(name) == nil)
  }

  @Test("an empty volume gets the image's content, a filled one and nocopy do not")
  func copies() async throws {
    let image = folder.path + "/image"
    try Files.makeDirectories(image + "/sub")
    chmod(image, 0o1770)
    chown(image, 7, 8)
    try Files.writeAtomically(image + "/sub/file", "hello", durable: false)
    chown(image + "/sub/file", 3, 4)
    chmod(image + "/sub/file", 0o4711)
    symlink("/etc/passwd", image + "/link")
    mknod(image + "/whiteout", S_IFCHR, 0)
    let capability: [UInt8] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    try Files.writeAtomically(image + "/ping", "p", durable: false)
    let ping = try OwnedDescriptor.open(image + "/ping", O_RDONLY)
    #expect(clinux_fsetxattr(ping.rawValue, "security.capability", capability, capability.count) == 0)

    let store = try open()
    let content: @Sendable (String) -> String? = { $0 == "/data" ? image : nil }
    _ = try await store.resolve(Mount(type: .volume, source: "v", target: "/data"), task: "t", now: now, imageContent: content)
    let data = folder.path + "/volumes/v/_data"
    #expect(try Files.list(data) == ["link", "ping", "sub"])
    #expect(try Files.text(data + "/sub/file") == "hello")
    let file = status(data + "/sub/file")!
    #expect((file.st_uid, file.st_gid, file.st_mode & 0o7777) == (3, 4, 0o4711))
    #expect(status(data + "/link")!.st_mode & S_IFMT == S_IFLNK)
    #expect((status(data)!.st_uid, status(data)!.st_gid, status(data)!.st_mode & 0o7777) == (7, 8, 0o1770))
    #expect(clinux_lgetxattr(data + "/ping", "security.capability", nil, 0) == 20)

    try Files.writeAtomically(image + "/later", "x", durable: false)
    _ = try await store.resolve(Mount(type: .volume, source: "v", target: "/data"), task: "t", now: now, imageContent: content)
    #expect(!Files.exists(data + "/later"))
    var mount = Mount(type: .volume, source: "w", target: "/data")
    mount.volumeOptions = Mount.VolumeOptions()
    mount.volumeOptions?.noCopy = true
    _ = try await store.resolve(mount, task: "t", now: now, imageContent: content)
    #expect(try Files.list(folder.path + "/volumes/w/_data").isEmpty)
  }

  @Test("a mount without source gets a volume of its task's own")
  func anonymous() async throws {
    let store = try open()
    let mount = Mount(type: .volume, source: nil, target: "/cache")
    let first = try await store.resolve(mount, task: "task1", now: now)
    #expect(try await store.resolve(mount, task: "task1", now: now) == first)
    #expect(try await store.resolve(mount, task: "task2", now: now) != first)
    #expect(try await store.list().map(\.name).contains(VolumeStore.anonymousName("task1", "/cache")))
  }

  @Test("an anonymous volume goes with its task; what has a name of its own, though it looks like one, and what another task mounts, stays")
  func anonymousGo() async throws {
    let store = try open()
    for task in ["task1", "task2"] {
      for target in ["/a", "/b"] { _ = try await store.resolve(Mount(type: .volume, source: nil, target: target), task: task, now: now) }
    }
    _ = try await store.resolve(Mount(type: .volume, source: "task1-data", target: "/c"), task: "task1", now: now)
    #expect(try await store.owners() == ["task1", "task2"])
    let lent = VolumeStore.anonymousName("task1", "/b")
    // A restarted agent knows them, too.
    try await open().removeAnonymous(of: "task1", inUse: [lent])
    let second = ["/a", "/b"].map { VolumeStore.anonymousName("task2", $0) }
    #expect(try await Set(store.list().map(\.name)) == Set(second + [lent, "task1-data"]))
    for task in ["task1", "task1", "task2"] { try await store.removeAnonymous(of: task) }
    #expect(try await store.list().map(\.name) == ["task1-data"])
    #expect(try await store.owners().isEmpty)
  }

  @Test("a volume whose filling fails is not there, and the next try makes it whole")
  func half() async throws {
    let image = folder.path + "/image"
    try Files.makeDirectories(image)
    try Files.writeAtomically(image + "/file", "x", durable: false)
    let store = try open()
    let mount = Mount(type: .volume, source: "v", target: "/data")
    struct Broken: Error {}
    await #expect(throws: Broken.self) { try await store.resolve(mount, task: "t", now: now) { _ in throw Broken() } }
    #expect(try await store.list().isEmpty)
    _ = try await store.resolve(mount, task: "t", now: now) { _ in image }
    #expect(try Files.list(folder.path + "/volumes/v/_data") == ["file"])
  }

  @Test("a volume in use stays, an unused one goes, an unknown one is told")
  func removes() async throws {
    let store = try open()
    _ = try await store.create("v", now: now)
    await #expect(throws: VolumeError(.inUse, "remove volume 'v': a container uses it; remove the service first")) {
      try await store.remove("v", inUse: ["v"])
    }
    try await store.remove("v")
    #expect(try Files.list(folder.path + "/volumes").isEmpty)
    await #expect(throws: VolumeError(.notFound, "remove volume 'v': there is no such volume on this host")) { try await store.remove("v") }
  }

  @Test("names that are paths are refused", arguments: ["", "..", ".", "a/b", "../x", ".hidden", "a\0b", "-a", String(repeating: "a", count: 256)])
  func names(_ name: String) async throws {
    let store = try open()
    await #expect(throws: VolumeError.self) { try await store.create(name, now: now) }
    await #expect(throws: VolumeError.self) { try await store.remove(name) }
  }

  @Test("a bind needs its source, unless it is to be made; a tmpfs passes through")
  func binds() async throws {
    let store = try open()
    var mount = Mount(type: .bind, source: folder.path + "/no", target: "/x")
    let error = await #expect(throws: VolumeError.self) { try await store.resolve(mount, task: "t", now: now) }
    #expect(
      error?.message
        == "mount '/x': the source '\(folder.path)/no' does not exist on this host; make it on every host that may run the task, or use a volume")
    mount.bindOptions = Mount.BindOptions()
    mount.bindOptions?.createMountpoint = true
    mount.bindOptions?.nonRecursive = true
    #expect(
      try await store.resolve(mount, task: "t", now: now) == .bind(source: folder.path + "/no", target: "/x", readOnly: false, recursive: false))
    await #expect(throws: VolumeError.self) { try await store.resolve(Mount(type: .bind, source: "relative", target: "/x"), task: "t", now: now) }
    await #expect(throws: VolumeError.self) { try await store.resolve(Mount(type: .volume, source: "v", target: "/x/../y"), task: "t", now: now) }
    var tmpfs = Mount(type: .tmpfs, source: nil, target: "/tmp")
    tmpfs.tmpfsOptions = Mount.TmpfsOptions()
    tmpfs.tmpfsOptions?.sizeBytes = 9
    #expect(try await store.resolve(tmpfs, task: "t", now: now) == .tmpfs(target: "/tmp", size: 9, mode: nil, readOnly: false))
  }

  @Test("a subpath is a folder of the volume, and a link in it leads nowhere else")
  func subpaths() async throws {
    let store = try open()
    let volume = try await store.create("v", now: now)
    try Files.makeDirectories(volume.path + "/a/b")
    symlink("/etc", volume.path + "/out")
    var mount = Mount(type: .volume, source: "v", target: "/x")
    mount.volumeOptions = Mount.VolumeOptions()
    mount.volumeOptions?.subpath = "a/b"
    #expect(
      try await store.resolve(mount, task: "t", now: now)
        == .bind(source: volume.path, subpath: "a/b", target: "/x", readOnly: false, recursive: true))
    for bad in ["out", "../v", "/etc", "none"] {
      mount.volumeOptions?.subpath = bad
      await #expect(throws: VolumeError.self) { try await store.resolve(mount, task: "t", now: now) }
    }
  }
}
