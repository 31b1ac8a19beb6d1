import CZlib
import CZstd
import LinuxSystem

/// How the bytes of a layer or archive travel; told by how they begin, never by what a manifest says.
enum Compression: Equatable {
  case none, gzip, zstd
  /// Of archives alone: no media type of a layer means them.
  case xz, bzip2

  init(_ start: ArraySlice<UInt8>) {
    if start.starts(with: [0x1f, 0x8b]) {
      self = .gzip
    } else if start.starts(with: [0x28, 0xb5, 0x2f, 0xfd])
      || (start.count >= 4 && start.dropFirst().starts(with: [0x2a, 0x4d, 0x18]) && start.first! & 0xf0 == 0x50)
    {
      // A frame, or a skippable one (RFC 8878 3.1): zstd:chunked layers have those.
      self = .zstd
    } else if start.starts(with: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]) {
      self = .xz
    } else if start.starts(with: Array("BZh".utf8)) {
      self = .bzip2
    } else {
      self = .none
    }
  }

  /// Whether a registry may have it as a layer.
  var isOfLayers: Bool { self != .xz && self != .bzip2 }

  var mediaType: String {
    switch self {
    case .none, .xz, .bzip2: MediaType.ociLayer
    case .gzip: MediaType.ociLayer + "+gzip"
    case .zstd: MediaType.ociLayer + "+zstd"
    }
  }
}

/// Unpacks gzip (RFC 1952) and zstd (RFC 8878), of archives xz and bzip2 as well, several members or frames in a row included; passes anything else on
/// as it is.
final class InflatingSource: ByteSource {
  private let source: any ByteSource
  private var input = [UInt8](repeating: 0, count: 128 << 10)
  private var (start, end) = (0, 0)
  let compression: Compression
  private var stream = z_stream()
  private var zstd: OpaquePointer?
  private var ended = false
  /// xz and bzip2.
  private var archived: (any Decompressor)?
  private var sourceEnded = false
  /// A zstd frame is under way; its output filled the last buffer, so that there may be more without more input.
  private var (inFrame, pending) = (false, false)

  /// - Parameter isLayer: xz and bzip2 are refused by name.
  init(_ source: any ByteSource, isLayer: Bool = true) throws {
    self.source = source
    var (bytes, filled) = (input, 0)
    while filled < 6 {
      let count = try bytes.withUnsafeMutableBytes { try source.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[filled...])) }
      if count == 0 { break }
      filled += count
    }
    compression = Compression(bytes[..<filled])
    (input, end) = (bytes, filled)
    if isLayer, !compression.isOfLayers {
      throw ImageError(.unsupported, "unpack", "a layer", "it is compressed with \(compression); gzip, zstd and plain layers are supported")
    }
    switch compression {
    case .none: break
    case .xz: archived = try XZDecompressor()
    case .bzip2: archived = try BZip2Decompressor()
    case .gzip:
      // 15 bits of window, +16: a gzip header.
      guard inflateInit2_(&stream, 31, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
        throw ImageError(.system, "unpack", "a layer", "zlib cannot start")
      }
    case .zstd:
      guard let context = ZSTD_createDCtx() else { throw ImageError(.system, "unpack", "a layer", "libzstd cannot start") }
      zstd = context
      // 128 MiB: what zstd's own command takes without being told otherwise.
      _ = ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, 27)
    }
  }
  deinit {
    if compression == .gzip { inflateEnd(&stream) }
    ZSTD_freeDCtx(zstd)
  }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    guard !buffer.isEmpty, !ended else { return 0 }
    switch compression {
    case .none:
      if start == end { return try source.read(into: buffer) }
      let count = min(buffer.count, end - start)
      input.withUnsafeBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[start..<start + count])) }
      start += count
      return count
    case .gzip: return try inflate(into: buffer)
    case .zstd: return try decompress(into: buffer)
    case .xz, .bzip2: return try decompress(buffer, archived!)
    }
  }

  private func refill() throws { (start, end) = (0, try input.withUnsafeMutableBytes { try source.read(into: $0) }) }

  // MARK: - gzip

  private func inflate(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    while true {
      if start == end {
        try refill()
        if end == 0 { throw ImageError(.corrupt, "unpack", "a layer", "its gzip stream ends too early") }
      }
      let (produced, consumed, code) = input.withUnsafeMutableBufferPointer { bytes in
        stream.next_in = bytes.baseAddress! + start
        stream.avail_in = UInt32(end - start)
        stream.next_out = buffer.baseAddress!.assumingMemoryBound(to: UInt8.self)
        stream.avail_out = UInt32(min(buffer.count, Int(Int32.max)))
        let room = stream.avail_out
        let code = CZlib.inflate(&stream, Z_NO_FLUSH)
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
    if start == end { try refill() }
    guard end > start, input[start] == 0x1f else { return try drain() }
    inflateReset(&stream)
    return true
  }
  private func drain() throws -> Bool {
    while end > 0 { end = try input.withUnsafeMutableBytes { try source.read(into: $0) } }
    start = 0
    return false
  }

  // MARK: - zstd

  private func decompress(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    while true {
      if start == end, !pending {
        try refill()
        if end == 0 {
          if inFrame { throw ImageError(.corrupt, "unpack", "a layer", "its zstd stream ends too early") }
          ended = true
          return 0
        }
      }
      let (produced, consumed, code) = input.withUnsafeBytes { bytes in
        var out = ZSTD_outBuffer(dst: buffer.baseAddress, size: buffer.count, pos: 0)
        var into = ZSTD_inBuffer(src: bytes.baseAddress! + start, size: end - start, pos: 0)
        let code = ZSTD_decompressStream(zstd, &out, &into)
        return (out.pos, into.pos, code)
      }
      if ZSTD_isError(code) != 0 {
        throw ImageError(.corrupt, "unpack", "a layer", "its zstd stream is damaged (\(String(cString: ZSTD_getErrorName(code))))")
      }
      start += consumed
      pending = produced == buffer.count
      // 0: a frame is complete and flushed.
      if consumed > 0 || produced > 0 { inFrame = code != 0 }
      if produced > 0 { return produced }
    }
  }

  // MARK: - xz and bzip2

  private func decompress(_ buffer: UnsafeMutableRawBufferPointer, _ decompressor: any Decompressor) throws -> Int {
    while true {
      if start == end, !sourceEnded {
        try refill()
        sourceEnded = end == 0
      }
      let step = try input.withUnsafeBytes {
        try decompressor.step(UnsafeRawBufferPointer(rebasing: $0[start..<end]), buffer, isLast: sourceEnded)
      }
      start += step.consumed
      if step.ended {
        ended = true
        _ = try drain()
        return step.produced
      }
      if step.produced > 0 { return step.produced }
      if sourceEnded, step.consumed == 0 { throw ImageError(.corrupt, "unpack", "an archive", "its \(compression) stream ends too early") }
    }
  }
}
