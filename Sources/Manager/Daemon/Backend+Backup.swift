import API
import Consensus
import ControlAPI
import Dispatch
import Glibc
import Model
import NIOCore
import Store
import Surroundings

/// Files on their way out and in. They lie beside the database while they are used, and are the manager's alone (0600).
extension Backend {
  static let temporaryPrefix = "backup-"

  func backup(stale: Bool) async throws -> (BackupSummary, APIBody) {
    let path = temporaryFile()
    let room = room
    let made = try await translated {
      do { return try await consensus.backup(to: path, stale: stale, takenAt: .now, bytesMax: room) } catch StoreError.diskFull {
        throw noRoom("the backup was not made")
      } catch let error as StoreError {
        throw APIError(500, "the backup was not made: \(error)")
      }
    }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    let cause = String(cString: strerror(errno))
    // Gone by itself when the last one has it no longer open.
    StateBackup.remove(path)
    guard descriptor >= 0 else { throw APIError(500, "open \(path): \(cause)") }
    let file = BackupFile(descriptor)
    let (bytes, checksum) = try await file.measure()
    return (BackupSummary(made, bytes: bytes, checksum: checksum), APIBody(stream: file))
  }

  func readBackup(_ body: APIBody) async throws -> (BackupSummary, ClusterState) {
    let path = temporaryFile()
    defer { StateBackup.remove(path) }
    let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw APIError(500, "create \(path): \(String(cString: strerror(errno)))") }
    let file = BackupFile(descriptor)
    for try await part in body {
      guard room > part.readableBytes else { throw noRoom("nothing was restored") }
      try await file.append(part)
    }
    let (bytes, checksum) = try await file.measure()
    do {
      let content = try await Consensus.readBackup(path)
      return (BackupSummary(content.summary, bytes: bytes, checksum: checksum), content.state)
    } catch let error as StoreError {
      throw APIError(400, "the file cannot be restored: \(error.ofFile(path))")
    }
  }

  private var folder: String {
    consensus.configuration.path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
  }
  private func temporaryFile() -> String { "\(folder)/\(Self.temporaryPrefix)\(TaskID.random()).db" }

  /// Bytes that such a file may take: the manager's own log must go on beside it.
  private var room: Int64 { FileSystem.room(at: folder).map { $0 - Int64(consensus.configuration.roomBytes) } ?? .max }

  private func noRoom(_ what: String) -> APIError {
    let free = (FileSystem.room(at: folder) ?? 0) >> 20
    return APIError(
      507,
      "\(what): it needs more room beside this manager's database than there is: \(free) MiB are free in \(folder), of which "
        + "\(consensus.configuration.roomBytes >> 20) MiB stay free for the manager's own log; make room there, or ask another manager")
  }
}

extension StoreError {
  /// The user knows the file by another name, and need not remove this manager.
  func ofFile(_ path: String) -> String {
    switch self {
    case .foreign: "it is not a backup of orch"
    case .tooNew(_, let found, let supported): "its format \(found) is newer than this orch-manager's (\(supported)): run the newer version"
    case .damaged(_, let table, let row, let reason): "it is damaged: table \(table), row \(row == path ? "-" : row): \(reason)"
    default: description.split(separator: path, omittingEmptySubsequences: false).joined(separator: "the file")
    }
  }
}

extension BackupSummary {
  fileprivate init(_ summary: StateBackup.Summary, bytes: Int64, checksum: UInt32) {
    self.init(
      cluster: summary.cluster.description, index: summary.index, takenAt: summary.takenAt, bytes: bytes, checksum: checksum, nodes: summary.nodes,
      stacks: summary.stacks, services: summary.services, tasks: summary.tasks, networks: summary.networks, volumes: summary.volumes)
  }
}

/// A file that is read and written in chunks, off the cooperative pool; closed with its last user.
private final class BackupFile: AsyncSequence, Sendable {
  typealias Element = ByteBuffer
  private let descriptor: Int32
  private static let queue = DispatchQueue(label: "backup")
  private static let chunkBytes = 256 << 10

  init(_ descriptor: Int32) { self.descriptor = descriptor }
  deinit { close(descriptor) }

  private func blocking<Value: Sendable>(_ body: @escaping @Sendable (Int32) throws -> Value) async throws -> Value {
    let descriptor = descriptor
    return try await withCheckedThrowingContinuation { continuation in
      Self.queue.async { continuation.resume(with: Result { try body(descriptor) }) }
    }
  }

  func append(_ part: ByteBuffer) async throws {
    try await blocking { descriptor in
      var rest = part.readableBytesView
      while !rest.isEmpty {
        let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { throw APIError(500, "the file cannot be kept on this manager's disk: \(String(cString: strerror(errno)))") }
        rest = rest.dropFirst(count)
      }
    }
  }

  /// Size and CRC-32C.
  func measure() async throws -> (Int64, UInt32) {
    try await blocking { descriptor in
      var crc = CRC32C()
      var offset: Int64 = 0
      while let chunk = try Self.chunk(descriptor, at: offset) {
        crc.add(chunk)
        offset += Int64(chunk.count)
      }
      return (offset, crc.value)
    }
  }

  /// nil at the end.
  private static func chunk(_ descriptor: Int32, at offset: Int64) throws -> [UInt8]? {
    var failure: Int32 = 0
    let chunk = [UInt8](unsafeUninitializedCapacity: chunkBytes) { buffer, filled in
      var count = pread(descriptor, buffer.baseAddress!, buffer.count, Int(offset))
      while count < 0 && errno == EINTR { count = pread(descriptor, buffer.baseAddress!, buffer.count, Int(offset)) }
      if count < 0 { failure = errno }
      filled = Swift.max(0, count)
    }
    if failure != 0 { throw APIError(500, "read the backup: \(String(cString: strerror(failure)))") }
    return chunk.isEmpty ? nil : chunk
  }

  struct AsyncIterator: AsyncIteratorProtocol {
    let file: BackupFile
    var offset: Int64 = 0
    mutating func next() async throws -> ByteBuffer? {
      let start = offset
      guard let chunk = try await file.blocking({ try BackupFile.chunk($0, at: start) }) else { return nil }
      offset += Int64(chunk.count)
      return ByteBuffer(bytes: chunk)
    }
  }
  func makeAsyncIterator() -> AsyncIterator { AsyncIterator(file: self) }
}
