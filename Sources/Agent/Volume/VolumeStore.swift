// Volume: folders of a host that outlive containers.
//
// On disk, below the agent's `volumes` directory: NAME/_data (the content) and NAME/volume.json (labels, an anonymous one's task), as Docker
// has them.
// Invariants: a volume is whole or not there (made under a name that no volume can have, then renamed); a name is one path component.
// It refuses to know containers and images: users are told to it by `inUse`, an image's content by its folder.

import CLinux
import Glibc
import LinuxSystem
import Model
import Synchronization

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Operation, object, cause, and what the user can do.
public struct VolumeError: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Kind: Hashable, Sendable { case invalid, notFound, inUse, system }
  public var kind: Kind
  public var message: String
  public init(_ kind: Kind, _ message: String) {
    self.kind = kind
    self.message = message
  }
  public var description: String { message }
}

public struct VolumeRecord: Hashable, Sendable {
  public var name: String
  /// The folder with the content.
  public var path: String
  public var labels: [String: String]
  public var createdAt: Timestamp
  /// Whose anonymous volume it is: it goes with that task. nil: one with a name of its own, which stays.
  public var task: String? = nil
}

/// What the runtime is to mount for one `Mount` of a service's spec.
public enum ResolvedMount: Hashable, Sendable {
  /// What lies at `subpath` in the source, to be found there when it is mounted; "": the source itself.
  case bind(source: String, subpath: String = "", target: String, readOnly: Bool, recursive: Bool)
  case tmpfs(target: String, size: Int64?, mode: UInt32?, isExecutable: Bool = false, readOnly: Bool)
}

/// The named volumes of one host. Its methods block no thread of the cooperative pool.
public final class VolumeStore: Sendable {
  public let directory: String
  /// Making, filling and removing are done one at a time; always on a thread of our own.
  private let writer = Mutex(())

  /// Blocking, once at start.
  public init(directory: String) throws {
    self.directory = directory
    try Files.makeDirectories(directory, mode: 0o711)
    for name in try Files.list(directory) where name.hasPrefix(Self.temporaryPrefix) { try Files.removeTree("\(directory)/\(name)") }
  }

  private static let temporaryPrefix = ".making-"
  private struct Document: Codable {
    var labels: [String: String]
    var createdAt: Timestamp
    var task: String? = nil
  }

  // MARK: - Mounts

  /// Makes what a mount needs and says what to mount. Blocks only a thread of its own.
  /// - Parameters:
  ///   - task: names an anonymous volume (a mount without source), which is that task's: `TASK` and the target's digest of characters.
  ///   - imageContent: the image's content at a path in the container, for a volume that is empty ("copy-up");
  ///     nil when the image has nothing there. Called with the target; its folder may be an overlay view or a layer's.
  public func resolve(
    _ mount: Mount, task: String, now: Timestamp, imageContent: @escaping @Sendable (_ target: String) throws -> String? = { _ in nil }
  ) async throws -> ResolvedMount {
    guard mount.target.hasPrefix("/"), !mount.target.split(separator: "/").contains("..") else {
      throw VolumeError(.invalid, "mount '\(mount.target)': a target is an absolute path without '..'")
    }
    let readOnly = mount.readOnly ?? false
    switch mount.type ?? .volume {
    case .tmpfs:
      let options = mount.tmpfsOptions
      return .tmpfs(
        target: mount.target, size: options?.sizeBytes, mode: options?.mode, isExecutable: options?.isExecutable ?? false, readOnly: readOnly)
    case .bind:
      let source = try await onOwnThread("orch-volume") { try Self.checkBind(mount) }
      return .bind(source: source, target: mount.target, readOnly: readOnly, recursive: mount.bindOptions?.nonRecursive != true)
    case .volume:
      let given = mount.source.flatMap { $0.isEmpty ? nil : $0 }
      let name = given ?? Self.anonymousName(task, mount.target)
      let copies = mount.volumeOptions?.noCopy != true
      let subpath = mount.volumeOptions?.subpath ?? ""
      let path = try await onOwnThread("orch-volume") { [self] in
        try writer.withLock { _ in
          let fill = { (folder: String) throws in
            if copies, try Files.list(folder).isEmpty, let content = try imageContent(mount.target) {
              try TreeCopy.contents(of: content, into: folder)
            }
          }
          let isNew = !Files.exists(dataPath(name))
          // Before it is seen: a crash in between would leave a part of the content for good.
          let volume = try make(
            name, labels: mount.volumeOptions?.labels ?? [:], task: given == nil ? task : nil, now: now, fill: fill)
          if !isNew { try fill(volume.path) }
          try Self.checkSubpath(subpath, in: volume)
          return volume.path
        }
      }
      return .bind(source: path, subpath: subpath, target: mount.target, readOnly: readOnly, recursive: true)
    }
  }

  /// The volume that a mount without a source gets; the same for the same task and target, so that a restarted agent finds it.
  public static func anonymousName(_ task: String, _ target: String) -> String {
    // Names only have to differ within one task.
    "\(task)-\(String(FNV1a.hash(target.utf8), radix: 16))"
  }

  private static func checkBind(_ mount: Mount) throws -> String {
    guard let source = mount.source, source.hasPrefix("/") else {
      throw VolumeError(.invalid, "mount '\(mount.target)': the source '\(mount.source ?? "")' is not an absolute path of the host")
    }
    if Files.exists(source) { return source }
    guard mount.bindOptions?.createMountpoint == true else {
      throw VolumeError(
        .notFound,
        "mount '\(mount.target)': the source '\(source)' does not exist on this host; make it on every host that may run the task, or use a volume")
    }
    try Files.makeDirectories(source, mode: 0o755)
    return source
  }

  /// Something inside a volume is there. For the message alone: who writes to the volume may change it before it is mounted, so that the mount
  /// finds it anew.
  private static func checkSubpath(_ subpath: String, in volume: VolumeRecord) throws {
    guard !subpath.isEmpty else { return }
    guard !subpath.hasPrefix("/"), !subpath.split(separator: "/").contains("..") else {
      throw VolumeError(.invalid, "volume '\(volume.name)': the subpath '\(subpath)' leaves it")
    }
    let root = try OwnedDescriptor.open(volume.path, O_RDONLY | O_DIRECTORY)
    do {
      _ = try OwnedDescriptor.open(inRoot: root.rawValue, subpath, Int32(CLINUX_O_PATH))
    } catch {
      throw VolumeError(.notFound, "volume '\(volume.name)': it has no '\(subpath)'; make it first, or mount the whole volume")
    }
  }

  // MARK: - Volumes

  /// Makes a volume, or returns the one of that name as it is.
  public func create(_ name: String, labels: [String: String] = [:], now: Timestamp) async throws -> VolumeRecord {
    try await onOwnThread("orch-volume") { [self] in try writer.withLock { _ in try make(name, labels: labels, now: now) } }
  }

  /// Sorted by name.
  public func list() async throws -> [VolumeRecord] {
    try await onOwnThread("orch-volume") { [self] in try Files.list(directory).compactMap { try? record($0) } }
  }

  public func inspect(_ name: String) async throws -> VolumeRecord? {
    try Self.checkName(name)
    return try await onOwnThread("orch-volume") { [self] in Files.exists(dataPath(name)) ? try record(name) : nil }
  }

  /// Removes a volume with its content.
  /// - Parameters:
  ///   - inUse: names of volumes that containers mount, running or not.
  ///   - tasks: who has such containers: what is their own (`VolumeRecord.task`) is in use as well, whoever asked for it, a service or its image.
  public func remove(_ name: String, inUse: Set<String> = [], by tasks: Set<String> = []) async throws {
    try Self.checkName(name)
    let used = VolumeError(.inUse, "remove volume '\(name)': a container uses it; remove the service first")
    if inUse.contains(name) { throw used }
    try await onOwnThread("orch-volume") { [self] in
      try writer.withLock { _ in
        if !tasks.isEmpty, let owner = try record(name).task, tasks.contains(owner) { throw used }
        guard Files.exists("\(directory)/\(name)") else {
          throw VolumeError(.notFound, "remove volume '\(name)': there is no such volume on this host")
        }
        // Out of sight at once; the rest may take longer or be finished at the next start.
        let trash = temporary()
        try check(rename("\(directory)/\(name)", trash), "move away", name)
        try Files.removeTree(trash)
      }
    }
  }

  /// Removes the anonymous volumes of a task that has no container any more; of one that has none nothing. `inUse`: as for `remove`, another
  /// task may mount one by its name.
  public func removeAnonymous(of task: String, inUse: Set<String> = []) async throws {
    for volume in try await list() where volume.task == task && !inUse.contains(volume.name) {
      do { try await remove(volume.name) } catch let error as VolumeError where error.kind == .notFound {}
    }
  }

  /// Tasks that have anonymous volumes here.
  public func owners() async throws -> Set<String> { Set(try await list().compactMap(\.task)) }

  private func make(
    _ name: String, labels: [String: String], task: String? = nil, now: Timestamp, fill: (_ folder: String) throws -> Void = { _ in }
  ) throws -> VolumeRecord {
    try Self.checkName(name)
    if Files.exists(dataPath(name)) { return try record(name) }
    let folder = temporary()
    do {
      try Files.makeDirectories(folder + "/_data", mode: 0o755)
      try check(chmod(folder + "/_data", 0o755), "set the mode of", folder)
      let encoder = JSONEncoder()
      encoder.outputFormatting = .sortedKeys
      try Files.writeAtomically(folder + "/volume.json", Array(encoder.encode(Document(labels: labels, createdAt: now, task: task))))
      try check(chmod(folder, 0o711), "set the mode of", folder)
      try fill(folder + "/_data")
      try check(rename(folder, "\(directory)/\(name)"), "make volume", name)
    } catch {
      try? Files.removeTree(folder)
      throw error
    }
    return try record(name)
  }

  private func record(_ name: String) throws -> VolumeRecord {
    try Self.checkName(name)
    // A folder without its document was made by hand: it is a volume all the same.
    let bytes = (try? Files.read("\(directory)/\(name)/volume.json")) ?? []
    let document = (try? JSONDecoder().decode(Document.self, from: Data(bytes))) ?? Document(labels: [:], createdAt: .zero)
    return VolumeRecord(name: name, path: dataPath(name), labels: document.labels, createdAt: document.createdAt, task: document.task)
  }

  private func dataPath(_ name: String) -> String { "\(directory)/\(name)/_data" }
  private func temporary() -> String { "\(directory)/\(Self.temporaryPrefix)\(UInt64.random(in: 0...UInt64.max))" }

  /// Docker's rule: [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most 255 bytes; so a name is one component and never hidden.
  private static func checkName(_ name: String) throws {
    let letter = { (byte: UInt8) in (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) }
    guard let first = name.utf8.first, letter(first), name.utf8.count <= 255, name.utf8.allSatisfy({ letter($0) || [45, 46, 95].contains($0) }) else {
      throw VolumeError(.invalid, "'\(name.prefix(80))' cannot be a volume's name; use letters, digits, '_', '.' and '-', a letter or digit first")
    }
  }
}
