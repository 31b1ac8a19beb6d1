import CZlib
import CZstd
import Glibc

@testable import AgentImage

/// A writer of tar archives for tests: says whatever it is told, the hostile included.
struct TarWriter {
  var bytes: [UInt8] = []

  mutating func add(
    _ name: String, type: Character = "0", _ content: [UInt8] = [], link: String = "", mode: Int = 0o644, uid: Int = 0, gid: Int = 0,
    mtime: Int = 1000,
    size: Int? = nil
  ) {
    var header = [UInt8](repeating: 0, count: 512)
    func put(_ text: String, _ offset: Int, _ count: Int) {
      for (index, byte) in text.utf8.prefix(count).enumerated() { header[offset + index] = byte }
    }
    func octal(_ value: Int, _ offset: Int, _ count: Int) {
      let digits = String(value, radix: 8)
      put(String(repeating: "0", count: count - 1 - digits.count) + digits, offset, count - 1)
    }
    put(name, 0, 100)
    octal(mode, 100, 8)
    octal(uid, 108, 8)
    octal(gid, 116, 8)
    octal(size ?? content.count, 124, 12)
    octal(mtime, 136, 12)
    header[156] = type.asciiValue!
    put(link, 157, 100)
    put("ustar", 257, 5)
    put("00", 263, 2)
    for index in 148..<156 { header[index] = 32 }
    let sum = header.reduce(0) { $0 + Int($1) }
    octal(sum, 148, 7)
    bytes += header + content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
  }
  mutating func add(_ name: String, _ text: String) { add(name, Array(text.utf8)) }
  mutating func folder(_ name: String, mode: Int = 0o755) { add(name, type: "5", mode: mode) }
  mutating func pax(_ records: [(String, [UInt8])]) {
    var body: [UInt8] = []
    for (key, value) in records {
      let rest = [32] + Array(key.utf8) + [61] + value + [10]
      var length = rest.count + 1
      while String(length).utf8.count + rest.count != length { length = String(length).utf8.count + rest.count }
      body += Array(String(length).utf8) + rest
    }
    add("pax", type: "x", body)
  }
  func finished() -> [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }
}

func gzip(_ bytes: [UInt8]) -> [UInt8] {
  var stream = z_stream()
  deflateInit2_(&stream, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
  defer { deflateEnd(&stream) }
  var input = bytes
  var output = [UInt8](repeating: 0, count: bytes.count + 1024)
  let count = input.withUnsafeMutableBufferPointer { source in
    output.withUnsafeMutableBufferPointer { target in
      stream.next_in = source.baseAddress
      stream.avail_in = UInt32(source.count)
      stream.next_out = target.baseAddress
      stream.avail_out = UInt32(target.count)
      deflate(&stream, Z_FINISH)
      return target.count - Int(stream.avail_out)
    }
  }
  return Array(output[..<count])
}

func zstd(_ bytes: [UInt8]) -> [UInt8] {
  var output = [UInt8](repeating: 0, count: ZSTD_compressBound(bytes.count))
  let count = ZSTD_compress(&output, output.count, bytes, bytes.count, 3)
  return Array(output[..<count])
}

/// Bytes in memory, given out in pieces of a given size.
final class MemorySource: ByteSource {
  private var rest: ArraySlice<UInt8>
  private let piece: Int
  init(_ bytes: [UInt8], piece: Int = .max) { (rest, self.piece) = (bytes[...], piece) }
  func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    let count = min(buffer.count, rest.count, piece)
    for index in 0..<count { buffer[index] = rest[rest.startIndex + index] }
    rest = rest.dropFirst(count)
    return count
  }
}
