import CZlib
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

/// Passes bytes on and keeps their count and SHA-256.
final class HashingSource: ByteSource {
  private let source: any ByteSource
  private var hash = SHA256()
  private(set) var count: Int64 = 0
  init(_ source: any ByteSource) { self.source = source }
  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    let count = try source.read(into: buffer)
    hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    self.count += Int64(count)
    return count
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

/// Unpacks gzip (RFC 1952), several members in a row included; passes anything else on as it is. zstd, xz and bzip2 are refused by name.
final class InflatingSource: ByteSource {
  private let source: any ByteSource
  private var input = [UInt8](repeating: 0, count: 128 << 10)
  private var (start, end) = (0, 0)
  private var stream = z_stream()
  private var inflating = false
  private var ended = false

  init(_ source: any ByteSource) throws {
    self.source = source
    while end < 6 {
      let count = try input.withUnsafeMutableBytes { try source.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[end...])) }
      if count == 0 { break }
      end += count
    }
    let known: [([UInt8], String)] = [([0x28, 0xb5, 0x2f, 0xfd], "zstd"), ([0xfd, 0x37, 0x7a, 0x58], "xz"), ([0x42, 0x5a, 0x68], "bzip2")]
    for (magic, format) in known where input[..<end].starts(with: magic) {
      throw ImageError(.unsupported, "unpack", "a layer", "it is compressed with \(format); gzip and plain layers are supported")
    }
    if input[..<end].starts(with: [0x1f, 0x8b]) {
      // 15 bits of window, +16: a gzip header.
      guard inflateInit2_(&stream, 31, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
        throw ImageError(.system, "unpack", "a layer", "zlib cannot start")
      }
      inflating = true
    }
  }
  deinit { if inflating { inflateEnd(&stream) } }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    guard inflating else {
      if start == end { return try source.read(into: buffer) }
      let count = min(buffer.count, end - start)
      input.withUnsafeBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[start..<start + count])) }
      start += count
      return count
    }
    guard !buffer.isEmpty, !ended else { return 0 }
    while true {
      if start == end {
        (start, end) = (0, try input.withUnsafeMutableBytes { try source.read(into: $0) })
        if end == 0 { throw ImageError(.corrupt, "unpack", "a layer", "its gzip stream ends too early") }
      }
      let (produced, consumed, code) = input.withUnsafeMutableBufferPointer { bytes in
        stream.next_in = bytes.baseAddress! + start
        stream.avail_in = UInt32(end - start)
        stream.next_out = buffer.baseAddress!.assumingMemoryBound(to: UInt8.self)
        stream.avail_out = UInt32(min(buffer.count, Int(Int32.max)))
        let room = stream.avail_out
        let code = inflate(&stream, Z_NO_FLUSH)
        return (Int(room - stream.avail_out), end - start - Int(stream.avail_in), code)
      }
      start += consumed
      switch code {
      case Z_OK, Z_BUF_ERROR: break
      case Z_STREAM_END: ended = try !nextMember()
      default:
        throw ImageError(.corrupt, "unpack", "a layer", "its gzip stream is damaged (\(stream.msg.map { String(cString: $0) } ?? "zlib \(code)"))")
      }
      if produced > 0 || ended { return produced }
    }
  }

  /// Another gzip member follows, or the end; trailing zeros are padding.
  private func nextMember() throws -> Bool {
    if start == end { (start, end) = (0, try input.withUnsafeMutableBytes { try source.read(into: $0) }) }
    guard end > start, input[start] == 0x1f else { return try drain() }
    inflateReset(&stream)
    return true
  }
  private func drain() throws -> Bool {
    while end > 0 { end = try input.withUnsafeMutableBytes { try source.read(into: $0) } }
    start = 0
    return false
  }
}
