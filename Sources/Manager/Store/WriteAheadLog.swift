import Glibc
import Replica

/// Looks through a write-ahead log before SQLite does (sqlite.org/fileformat2.html, 4: "The Write-Ahead Log").
///
/// SQLite takes the log to end at the first frame whose checksum is wrong, and says nothing: after a crash that frame is of a transaction
/// that was being written. But a commit here returns after its fsync, and nothing is written before it has: where a transaction has a
/// successor it was whole on the disk once, and is damaged now. A torn last transaction and a damaged one look the same.
struct WriteAheadLog {
  private static let headerBytes = 32
  private static let frameHeaderBytes = 24

  private let path: String
  private let descriptor: Int32
  private let pageBytes: Int
  /// Of 32-bit numbers in what is summed up.
  private let isBigEndian: Bool
  private let salt: UInt64
  private var frame: [UInt8]

  /// Throws `.damaged` where a whole transaction would be left out, or a header that cannot be read hides them all.
  static func verify(database: String) throws(StoreError) {
    let path = database + "-wal"
    let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
      if errno == ENOENT { return }
      throw .cannotOpen(path: path, cause: String(cString: strerror(errno)))
    }
    defer { close(descriptor) }
    var header = [UInt8](repeating: 0, count: headerBytes)
    // Shorter: no transaction was ever begun in it.
    guard try read(descriptor, &header, at: 0, path) else { return }
    let file = database.split(separator: "/").last.map { "\($0)-wal" } ?? path
    guard var log = WriteAheadLog(path, descriptor, header) else {
      // The header is on the disk before the first frame (sqlite3WalFrames).
      guard try hasFrames(descriptor, path) else { return }
      throw .damaged(file: database, table: file, row: "header", reason: "it cannot be read, and transactions follow")
    }
    if let frame = try log.firstDamaged(header) {
      throw .damaged(file: database, table: file, row: "frame \(frame)", reason: "its checksum is wrong, and a later transaction follows")
    }
  }

  private init?(_ path: String, _ descriptor: Int32, _ header: [UInt8]) {
    let magic = Self.number(header, 0)
    guard magic & ~1 == 0x377f_0682, Self.number(header, 4) == 3_007_000 else { return nil }
    pageBytes = Int(Self.number(header, 8))
    guard (512...65_536).contains(pageBytes), pageBytes & (pageBytes - 1) == 0 else { return nil }
    (self.path, self.descriptor) = (path, descriptor)
    isBigEndian = magic & 1 == 1
    salt = Self.salt(header, 16)
    frame = [UInt8](repeating: 0, count: Self.frameHeaderBytes + pageBytes)
    var sum = Checksum(isBigEndian: isBigEndian)
    sum.add(header, 0..<24)
    guard sum == Checksum(header, 24, isBigEndian) else { return nil }
  }

  /// From 1.
  private mutating func firstDamaged(_ header: [UInt8]) throws(StoreError) -> Int? {
    var number = 1
    var sum = Checksum(header, 24, isBigEndian)
    while try readFrame(number) {
      var here = sum
      add(to: &here)
      let isWhole = here == stored
      if isWhole, Self.salt(frame, 8) == salt, Self.number(frame, 0) > 0 {
        sum = here
        number += 1
        continue
      }
      // The sum goes on from frame to frame and from this log's header, so no frame of an older log fits.
      if isWhole { return number }
      if Self.salt(frame, 8) == salt, try follows(number + 1, here) { return number }
      return try hasLaterTransaction(from: number) ? number : nil
    }
    return nil
  }

  /// Whether a commit, at `first` or after it, has a successor. Frames of a transaction that was cut off by an earlier crash may lie there
  /// still; their sums do not go on from one another.
  private mutating func hasLaterTransaction(from first: Int) throws(StoreError) -> Bool {
    var header = [UInt8](repeating: 0, count: Self.frameHeaderBytes)
    var number = first
    while try Self.read(descriptor, &header, at: offset(number), path) {
      if Self.salt(header, 8) == salt, Self.number(header, 4) > 0, try follows(number + 1, Checksum(header, 16, isBigEndian)) { return true }
      number += 1
    }
    return false
  }

  private mutating func follows(_ number: Int, _ sum: Checksum) throws(StoreError) -> Bool {
    guard try readFrame(number), Self.salt(frame, 8) == salt else { return false }
    var sum = sum
    add(to: &sum)
    return sum == stored
  }

  private func add(to sum: inout Checksum) {
    sum.add(frame, 0..<8)
    sum.add(frame, Self.frameHeaderBytes..<frame.count)
  }

  private var stored: Checksum { Checksum(frame, 16, isBigEndian) }
  private func offset(_ number: Int) -> Int { Self.headerBytes + (number - 1) * (Self.frameHeaderBytes + pageBytes) }
  private mutating func readFrame(_ number: Int) throws(StoreError) -> Bool { try Self.read(descriptor, &frame, at: offset(number), path) }

  /// Of a log whose header says nothing: room that was taken ahead holds zeros.
  private static func hasFrames(_ descriptor: Int32, _ path: String) throws(StoreError) -> Bool {
    var first = [UInt8](repeating: 0, count: frameHeaderBytes)
    guard try read(descriptor, &first, at: headerBytes, path) else { return false }
    return number(first, 0) > 0 && salt(first, 8) != 0
  }

  /// False when the file ends before.
  private static func read(_ descriptor: Int32, _ buffer: inout [UInt8], at offset: Int, _ path: String) throws(StoreError) -> Bool {
    var count = 0
    while count < buffer.count {
      let result = buffer.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress! + count, $0.count - count, off_t(offset + count)) }
      if result < 0, errno == EINTR { continue }
      if result < 0 { throw .io(operation: "read \(path)", cause: "errno \(errno), \(String(cString: strerror(errno)))") }
      if result == 0 { return false }
      count += result
    }
    return true
  }

  private static func number(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
    bytes.withUnsafeBytes { UInt32(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
  }
  private static func salt(_ bytes: [UInt8], _ offset: Int) -> UInt64 {
    bytes.withUnsafeBytes { UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
  }

  /// Section 4.2, "Checksum Algorithm".
  private struct Checksum: Equatable {
    private var first: UInt32 = 0
    private var second: UInt32 = 0
    private let isBigEndian: Bool

    init(isBigEndian: Bool) { self.isBigEndian = isBigEndian }

    /// As it is stored, always big endian.
    init(_ bytes: [UInt8], _ offset: Int, _ isBigEndian: Bool) {
      (first, second) = (number(bytes, offset), number(bytes, offset + 4))
      self.isBigEndian = isBigEndian
    }

    /// A multiple of 8 bytes.
    mutating func add(_ bytes: [UInt8], _ range: Range<Int>) {
      var (a, b) = (first, second)
      let swaps = isBigEndian != (UInt32(bigEndian: 1) == 1)
      bytes.withUnsafeBytes { buffer in
        var offset = range.lowerBound
        while offset < range.upperBound {
          let x = buffer.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
          let y = buffer.loadUnaligned(fromByteOffset: offset &+ 4, as: UInt32.self)
          a = a &+ (swaps ? x.byteSwapped : x) &+ b
          b = b &+ (swaps ? y.byteSwapped : y) &+ a
          offset &+= 8
        }
      }
      (first, second) = (a, b)
    }
  }
}
