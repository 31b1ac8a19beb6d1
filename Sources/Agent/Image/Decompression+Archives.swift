import CBzip2
import CLzma

/// One stream's decompressor: bytes in, bytes out.
protocol Decompressor: AnyObject {
  /// - Parameter isLast: no input follows `input`.
  func step(_ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer, isLast: Bool) throws -> DecompressionStep
}

struct DecompressionStep {
  var consumed: Int
  var produced: Int
  /// Nothing more comes of it; what is left of the input is none of its.
  var ended = false
}

/// xz (tukaani.org/xz/xz-file-format.txt), several streams in a row included.
final class XZDecompressor: Decompressor {
  /// Bytes: `xz -9` needs 65 MiB. Whoever packed with more says how much memory the reader takes.
  static let memoryMax: UInt64 = 256 << 20
  private var stream = lzma_stream()

  init() throws {
    guard lzma_stream_decoder(&stream, Self.memoryMax, UInt32(CLZMA_CONCATENATED)) == LZMA_OK else {
      throw ImageError(.system, "unpack", "an archive", "liblzma cannot start")
    }
  }
  deinit { lzma_end(&stream) }

  func step(_ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer, isLast: Bool) throws -> DecompressionStep {
    stream.next_in = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
    stream.avail_in = input.count
    stream.next_out = output.baseAddress!.assumingMemoryBound(to: UInt8.self)
    stream.avail_out = output.count
    let code = lzma_code(&stream, isLast ? LZMA_FINISH : LZMA_RUN)
    let step = DecompressionStep(consumed: input.count - stream.avail_in, produced: output.count - stream.avail_out, ended: code == LZMA_STREAM_END)
    switch code {
    case LZMA_OK, LZMA_STREAM_END, LZMA_BUF_ERROR: return step
    case LZMA_MEMLIMIT_ERROR:
      throw ImageError(
        .hostile, "unpack", "an archive", "its xz stream needs more than \(Self.memoryMax >> 20) MiB of memory: pack it with xz -9 or less")
    default: throw ImageError(.corrupt, "unpack", "an archive", "its xz stream is damaged (liblzma \(code.rawValue))")
    }
  }
}

/// bzip2, several streams in a row included, as parallel compressors write.
final class BZip2Decompressor: Decompressor {
  private var stream = bz_stream()
  private var isOpen = false

  init() throws { try open() }
  deinit { if isOpen { BZ2_bzDecompressEnd(&stream) } }

  private func open() throws {
    guard BZ2_bzDecompressInit(&stream, 0, 0) == BZ_OK else { throw ImageError(.system, "unpack", "an archive", "libbz2 cannot start") }
    isOpen = true
  }

  func step(_ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer, isLast: Bool) throws -> DecompressionStep {
    if !isOpen {
      if input.isEmpty { return DecompressionStep(consumed: 0, produced: 0, ended: isLast) }
      // bzip2's own command passes over what is behind the last stream, too.
      guard input[0] == UInt8(ascii: "B") else { return DecompressionStep(consumed: 0, produced: 0, ended: true) }
      try open()
    }
    let (given, room) = (UInt32(min(input.count, Int(Int32.max))), UInt32(min(output.count, Int(Int32.max))))
    stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress?.assumingMemoryBound(to: CChar.self))
    stream.avail_in = given
    stream.next_out = output.baseAddress!.assumingMemoryBound(to: CChar.self)
    stream.avail_out = room
    let code = BZ2_bzDecompress(&stream)
    let step = DecompressionStep(consumed: Int(given - stream.avail_in), produced: Int(room - stream.avail_out))
    switch code {
    case BZ_OK: return step
    case BZ_STREAM_END:
      BZ2_bzDecompressEnd(&stream)
      isOpen = false
      return step
    default: throw ImageError(.corrupt, "unpack", "an archive", "its bzip2 stream is damaged (libbz2 \(code))")
    }
  }
}
