// Volume: named folders of a host that outlive containers.
//
// On disk, below the agent's `volumes` directory: NAME/_data (as Docker has it). A new volume is filled aside and renamed, so a
// crash leaves a whole one or none. Refuses to know tasks: users are names that it counts.
import Glibc
import LinuxSystem
import Synchronization

public struct VolumeError: Error, Hashable, Sendable, CustomStringConvertible {
  public var operation: String
  public var object: String
  public var cause: String
  public init(_ operation: String, _ object: String, _ cause: String) {
    self.operation = operation
    self.object = object
    self.cause = cause
  }
  public var description: String { "\(operation) \(object): \(cause)" }
}

/// The volumes of one host. Its methods block no thread of the cooperative pool.
public final class VolumeStore: Sendable {
  public let directory: String
  /// Users by volume; of this process's life, since containers are prepared again or recovered after a restart.
  private let users = Mutex<[String: Set<String>]>([:])
  private let making = Mutex<Void>(())

  /// Opens or makes the directory (0700) and removes what a crash left half made. Blocking, once at start.
  public init(directory: String) throws {
    self.directory = directory
    try Files.makeDirectories(directory, mode: 0o700)
    for name in try Files.list(directory) where name.hasPrefix(".new-") { try Files.removeTree("\(directory)/\(name)") }
  }

  /// The volume's folder; made when it is not there. A new volume begins with what the image has at `target` (Docker's copy-up),
  /// from `layers`, base first; none: empty.
  public func prepare(_ name: String, user: String, copyFrom layers: [String], target: String) async throws -> String {
    try Self.check(name)
    return try await onOwnThread("orch-volume") { [self] in
      let folder = "\(directory)/\(name)"
      try making.withLock { _ in
        guard !Files.exists(folder) else { return }
        let aside = "\(directory)/.new-\(name)"
        try Files.removeTree(aside)
        try Files.makeDirectories("\(aside)/_data", mode: 0o755)
        for layer in layers { try CopyUp.copy(target, of: layer, to: "\(aside)/_data") }
        guard rename(aside, folder) == 0 else { throw SystemError("rename to", folder, .current) }
      }
      _ = users.withLock { $0[name, default: []].insert(user) }
      return "\(folder)/_data"
    }
  }

  /// A recovered container uses it still.
  public func use(_ name: String, user: String) { _ = users.withLock { $0[name, default: []].insert(user) } }

  public func release(user: String) {
    users.withLock { users in
      for name in users.keys { users[name]?.remove(user) }
      users = users.filter { !$0.value.isEmpty }
    }
  }

  public func list() throws -> [String] { try Files.list(directory).filter { !$0.hasPrefix(".") }.sorted() }

  /// Deletes the volume and its data. Not an error when there is none; refused while a container uses it.
  public func remove(_ name: String) async throws {
    try Self.check(name)
    if let user = users.withLock({ $0[name]?.first }) { throw VolumeError("remove volume", name, "container \(user) uses it: stop it first") }
    try await onOwnThread("orch-volume") { [self] in
      let folder = "\(directory)/\(name)"
      guard Files.exists(folder) else { return }
      // Gone at once for everybody, deleted afterwards; the next start finishes what a crash interrupts.
      let aside = "\(directory)/.new-removed-\(name)"
      try Files.removeTree(aside)
      guard rename(folder, aside) == 0 else { throw SystemError("rename to", aside, .current) }
      try Files.removeTree(aside)
    }
  }

  /// The source of a bind mount must be there, as with Docker's services, unless it is to be made.
  public func checkBind(_ path: String, create: Bool) async throws {
    guard path.hasPrefix("/") else { throw VolumeError("bind mount", path, "the source must be an absolute path") }
    try await onOwnThread("orch-volume") {
      if Files.exists(path) { return }
      guard create else {
        throw VolumeError("bind mount", path, "there is no such file or folder on this host: make it, or use a named volume")
      }
      try Files.makeDirectories(path, mode: 0o755)
    }
  }

  /// Docker's rule: [a-zA-Z0-9][a-zA-Z0-9_.-]*, here at most 200 long.
  static func check(_ name: String) throws(VolumeError) {
    func letter(_ byte: UInt8) -> Bool { (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) }
    let bytes = Array(name.utf8)
    guard (1...200).contains(bytes.count), letter(bytes[0]), bytes.allSatisfy({ letter($0) || [45, 46, 95].contains($0) }) else {
      throw VolumeError("volume", name, "a name has letters, digits, '_', '.' and '-', and begins with a letter or digit")
    }
  }
}
