import Cgroups
import Glibc
import LinuxSystem
import OCI

/// What is kept of a container between one command and the next: ROOT/ID/container.json, with config.json beside it.
struct StoredBundle: Codable, Hashable, Sendable {
  var id: String
  var bundle: String
  var rootfs: String
  /// RFC 3339.
  var created: String
  var owner: String
  var pid: Int32 = 0
  /// With `pid` an identity; 0: not made yet.
  var startTime: UInt64 = 0
  var identity: ProcessIdentity { ProcessIdentity(pid: pid, startTime: startTime) }
  /// nil: it has no cgroup of its own.
  var cgroupParent: String?
  var cgroupName: String?
  /// v1: what it is in beside the usual ones.
  var controllers: [String] = []
  /// Of a container in the host's mount namespace: what was mounted on its root before, to tell it from what is ours.
  var rootMount: String?
  var annotations: [String: String]?
  /// Of the configuration, so that `start` and `delete` need not read it.
  var program = ""
  var poststart: [Config.Hook]?
  var poststop: [Config.Hook]?
  /// Its first process is there, but not all hooks of `create` have ended.
  var isBeingMade: Bool?
  /// `start` waits for hooks of the configuration.
  var hasStartHooks: Bool?
}

/// One container's folder, held by an exclusive lock (flock(2)) as long as this value lives.
struct BundleFolder: ~Copyable {
  let path: String
  let lock: OwnedDescriptor

  /// Makes it; it must not exist.
  static func make(root: String, _ id: String) throws(BundleError) -> BundleFolder {
    let path = "\(root)/\(id)"
    do throws(SystemError) {
      try Files.makeDirectories(root, mode: 0o700)
      if mkdir(path, 0o700) < 0 { throw SystemError("make", path, .current) }
      let folder = BundleFolder(path: path, lock: try OwnedDescriptor.open(path, O_RDONLY | O_DIRECTORY))
      try folder.wait()
      return folder
    } catch {
      if error.errno == .exists { throw BundleError("container with given ID already exists: \"\(id)\"") }
      throw BundleError("create container", error)
    }
  }

  /// Waits for whoever holds it; no such container when it was deleted meanwhile. Who only reads does without the lock (its files are replaced
  /// whole), so that a hook may ask for the state of the container that is being made.
  static func open(root: String, _ id: String, locked: Bool = true) throws(BundleError) -> BundleFolder {
    try checkID(id)
    let path = "\(root)/\(id)"
    do throws(SystemError) {
      let folder = BundleFolder(path: path, lock: try OwnedDescriptor.open(path, O_RDONLY | O_DIRECTORY))
      if locked { try folder.wait() }
      guard folder.isThere else { throw SystemError("find", path, .noEntry) }
      return folder
    } catch {
      if error.errno == .noEntry { throw .noSuchContainer(id) }
      throw BundleError("container \(id)", error)
    }
  }

  private func wait() throws(SystemError) {
    while flock(lock.rawValue, LOCK_EX) < 0 { if Errno.current != .interrupted { throw SystemError("lock", path, .current) } }
  }
  /// False when the container was deleted meanwhile, whatever has its name by now.
  var isThere: Bool {
    var (held, named) = (stat(), stat())
    return fstat(lock.rawValue, &held) == 0 && lstat(path, &named) == 0 && held.st_ino == named.st_ino && held.st_dev == named.st_dev
  }
  /// Until `relock` other commands may change the container: hooks call them, and others must not wait for hooks or programs, which may take any time.
  func unlock() { flock(lock.rawValue, LOCK_UN) }
  /// Throws when the container was deleted meanwhile, `what`: as in "its hooks ran".
  func relock(after what: String) throws(BundleError) {
    do throws(SystemError) { try wait() } catch { throw BundleError("lock the container's state", error) }
    if !isThere { throw BundleError("the container was deleted while \(what)") }
  }

  /// In place of the socket while `start` waits: the process that does.
  private var starter: String { path + "/starter" }
  /// False, too, when that process was killed.
  var isBeingStarted: Bool {
    let words = ((try? Files.text(starter)) ?? "").split(separator: " ")
    guard words.count == 2, let pid = Int32(words[0]), let time = UInt64(words[1]) else { return false }
    return ProcessIdentity(pid: pid, startTime: time).open()?.hasEnded == false
  }
  /// From then on no other command starts it.
  func beginStart() throws(SystemError) {
    guard let own = ProcessIdentity.of(getpid()) else { throw SystemError("find", "own process", .noProcess) }
    try Files.writeAtomically(starter, "\(own.pid) \(own.startTime)", durable: false)
    if unlink(path + "/" + StartSocket.name) < 0 { throw SystemError("remove", StartSocket.name, .current) }
  }
  func endStart() { unlink(starter) }

  /// As runc and crun take them: it names a folder and a cgroup.
  static func checkID(_ id: String) throws(BundleError) {
    func isAllowed(_ byte: UInt8) -> Bool {
      switch byte {
      case 48...57, 65...90, 97...122, 43, 45, 46, 95: true
      default: false
      }
    }
    if let other = id.unicodeScalars.first(where: { $0.value > 127 || !isAllowed(UInt8($0.value)) }) {
      throw BundleError("invalid container ID \"\(id)\": invalid character `\(other)` in the ID: it is made of letters, digits and _ + - .")
    }
    guard (1...1024).contains(id.utf8.count), id != ".", id != ".." else {
      throw BundleError("invalid container ID \"\(id)\": it is made of 1 to 1024 letters, digits and _ + - .")
    }
  }

  func stored() throws(BundleError) -> StoredBundle {
    let bytes: [UInt8]
    do throws(SystemError) { bytes = try Files.read(path + "/container.json") } catch {
      throw BundleError("the container's state is incomplete, delete it with --force", error)
    }
    do throws(OCIError) { return try Document.read(StoredBundle.self, bytes) } catch { throw BundleError("\(path)/container.json", error) }
  }
  func config() throws(BundleError) -> Config {
    let file = path + "/config.json"
    return try Self.config(Self.readBytes(file), file)
  }

  static func readBytes(_ path: String) throws(BundleError) -> [UInt8] {
    do throws(SystemError) { return try Files.read(path) } catch { throw BundleError("read the configuration", error) }
  }
  static func config(_ document: [UInt8], _ path: String) throws(BundleError) -> Config {
    do throws(OCIError) {
      let config = try Document.read(Config.self, document)
      try config.check()
      return config
    } catch { throw BundleError(path, error) }
  }

  func save(_ stored: StoredBundle) throws(BundleError) {
    do throws(SystemError) { try Files.writeAtomically(path + "/container.json", Document.write(stored), durable: false) } catch {
      throw BundleError("keep the container's state", error)
    }
  }

  func remove() throws(BundleError) {
    do throws(SystemError) { try Files.removeTree(path) } catch { throw BundleError("remove the container's state", error) }
  }
}
