import Wire

/// A frame that has arrived. Read by hand: the generated reader goes through Foundation's Data and took a sixth of a busy manager's time
/// (docs/benchmarks.md). The format is `frame.proto` all the same; unknown fields are skipped (protobuf's encoding guide).
struct InboundFrame {
  private(set) var kind = WireFrame.Kind.hello
  private(set) var stream: UInt32 = 0
  private(set) var method = ""
  private(set) var payload: [UInt8] = []
  private(set) var withPayload = false
  private(set) var end = false
  private(set) var credit: UInt32 = 0
  private(set) var failure = WireStreamFailure()
  private(set) var version: UInt32 = 0

  struct Malformed: Error, CustomStringConvertible {
    let description: String
  }

  init(_ bytes: UnsafeRawBufferPointer) throws {
    var reader = Reader(bytes: bytes)
    while !reader.isAtEnd {
      let tag = try reader.varint()
      switch tag {
      case 1 << 3: kind = WireFrame.Kind(rawValue: Int(Int32(truncatingIfNeeded: try reader.varint()))) ?? .hello
      case 2 << 3: stream = UInt32(truncatingIfNeeded: try reader.varint())
      case 3 << 3 | 2:
        guard let text = String(validating: try reader.field(), as: UTF8.self) else { throw Malformed(description: "its method is not UTF-8") }
        method = text
      case 4 << 3 | 2: payload = Array(try reader.field())
      case 5 << 3: withPayload = try reader.varint() != 0
      case 6 << 3: end = try reader.varint() != 0
      case 7 << 3: credit = UInt32(truncatingIfNeeded: try reader.varint())
      case 8 << 3 | 2: failure = try WireStreamFailure(serializedBytes: Array(try reader.field()))
      case 9 << 3: version = UInt32(truncatingIfNeeded: try reader.varint())
      default: try reader.skip(tag)
      }
    }
  }

  private struct Reader {
    let bytes: UnsafeRawBufferPointer
    var position = 0
    var isAtEnd: Bool { position == bytes.count }

    init(bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    mutating func varint() throws -> UInt64 {
      var value: UInt64 = 0
      for shift in stride(from: UInt64(0), to: 70, by: 7) {
        guard position < bytes.count else { throw Malformed(description: "it ends within a number") }
        let byte = bytes[position]
        position += 1
        value |= UInt64(byte & 127) << shift
        if byte < 128 { return value }
      }
      throw Malformed(description: "a number of more than ten bytes")
    }

    mutating func field() throws -> Slice<UnsafeRawBufferPointer> {
      let count = try varint()
      guard count <= UInt64(bytes.count - position) else { throw Malformed(description: "a field of \(count) bytes, beyond its end") }
      defer { position += Int(count) }
      return bytes[position..<position + Int(count)]
    }

    mutating func skip(_ tag: UInt64) throws {
      guard tag >> 3 > 0 else { throw Malformed(description: "a field without number") }
      switch tag & 7 {
      case 0: _ = try varint()
      case 1: try skip(bytes: 8)
      case 2: _ = try field()
      case 5: try skip(bytes: 4)
      default: throw Malformed(description: "a field of kind \(tag & 7)")
      }
    }

    private mutating func skip(bytes count: Int) throws {
      guard bytes.count - position >= count else { throw Malformed(description: "it ends within a field") }
      position += count
    }
  }
}
