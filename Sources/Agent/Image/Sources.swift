import struct Crypto.SHA256
import Glibc
import LinuxSystem
import Model

/// A file, or a part of one. pread(2): several sources may share a descriptor.
final class FileSource: ByteSource {
  private let file: SharedDescriptor
  private let name: String
  private var offset: Int64
  private let end: Int64

  init(_ path: String) throws {
    file = SharedDescriptor(try OwnedDescriptor.open(path, O_RDONLY))
    name = path
    var status = stat()
    try check(fstat(file.rawValue, &status), "look at", path)
    if status.st_mode & S_IFMT == S_IFDIR { throw SystemError("read", path, .isDirectory) }
    (offset, end) = (0, Int64(status.st_size))
  }
  private init(_ file: SharedDescriptor, _ name: String, _ offset: Int64, _ end: Int64) {
    (self.file, self.name, self.offset, self.end) = (file, name, offset, end)
  }
  var isEmpty: Bool { offset >= end }
  func part(_ range: Range<Int64>) -> FileSource { FileSource(file, name, range.lowerBound, range.upperBound) }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    let wanted = Int(min(Int64(buffer.count), end - offset))
    guard wanted > 0 else { return 0 }
    let count = try check(pread(file.rawValue, buffer.baseAddress, wanted, off_t(offset)), "read", name)
    offset += Int64(count)
    return count
  }
  /// false when there are not so many bytes left.
  func skip(_ count: Int64) throws -> Bool {
    guard count <= end - offset else { return false }
    offset += count
    return true
  }
}

/// Passes bytes on and keeps their count and SHA-256; refuses to pass on more than `limit`.
final class HashingSource: ByteSource {
  private let source: any ByteSource
  private let limit: Int64
  private let copy: SharedDescriptor?
  private var hash = SHA256()
  private(set) var count: Int64 = 0
  /// - Parameter copy: a file that gets the same bytes.
  init(_ source: any ByteSource, limit: Int64 = .max, copy: SharedDescriptor? = nil) {
    self.source = source
    self.limit = limit
    self.copy = copy
  }
  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    let count = try source.read(into: buffer)
    self.count += Int64(count)
    guard self.count <= limit else { throw ImageError(.hostile, "unpack", "a layer", "it has more than \(limit) bytes") }
    let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
    hash.update(bufferPointer: bytes)
    if let copy { try Files.writeAll(copy.rawValue, bytes, name: "a layer") }
    return count
  }
  /// To the end of the source.
  func drain() throws {
    var chunk = [UInt8](repeating: 0, count: 128 << 10)
    while try chunk.withUnsafeMutableBytes({ try read(into: $0) }) > 0 {}
  }
  var digest: Digest { Digest(hash.finalize()) }
}

extension Digest {
  init(_ digest: SHA256.Digest) {
    let hexDigits = Array("0123456789abcdef".utf8)
    self.init(hex: String(decoding: digest.flatMap { [hexDigits[Int($0 >> 4)], hexDigits[Int($0 & 15)]] }, as: UTF8.self))!
  }
  init(of bytes: [UInt8]) { self.init(SHA256.hash(data: bytes)) }
}
