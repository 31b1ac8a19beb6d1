import SwiftProtobuf
import Wire

/// A frame on its way out with its length before it, serialised by the task that sends it, so that the event loop only copies. Written by
/// hand for the reason that `InboundFrame` is read by hand.
struct OutboundFrame: Sendable {
  /// The length (four bytes, big endian), then the message.
  let bytes: [UInt8]

  private init(_ kind: WireFrame.Kind, _ stream: UInt32, room: Int = 0, _ fill: (inout Writer) -> Void = { _ in }) {
    var writer = Writer(room: 24 + room)
    if kind.rawValue != 0 { writer.number(1, UInt64(kind.rawValue)) }
    if stream != 0 { writer.number(2, UInt64(stream)) }
    fill(&writer)
    bytes = writer.finish()
  }

  static func hello(version: UInt32) -> Self { Self(.hello, 0) { $0.number(9, UInt64(version)) } }
  static func open(_ stream: UInt32, _ method: Method, payload: [UInt8]?, end: Bool) -> Self {
    Self(.open, stream, room: 80 + (payload?.count ?? 0)) {
      $0.field(3, method.rawValue.utf8)
      if let payload {
        $0.field(4, payload)
        $0.number(5, 1)
      }
      if end { $0.number(6, 1) }
    }
  }
  static func data(_ stream: UInt32, _ bytes: [UInt8], end: Bool) -> Self {
    Self(.data, stream, room: 16 + bytes.count) {
      $0.field(4, bytes)
      if end { $0.number(6, 1) }
    }
  }
  static func end(_ stream: UInt32) -> Self { Self(.end, stream) }
  static func failure(_ stream: UInt32, _ error: StreamError) -> Self {
    // Only missing required fields (proto2) could fail.
    let failure: [UInt8] = (try? error.wire.serializedBytes()) ?? []
    return Self(.error, stream, room: 16 + failure.count) { $0.field(8, failure) }
  }
  static func credit(_ stream: UInt32, _ credit: UInt32) -> Self { Self(.credit, stream) { $0.number(7, UInt64(credit)) } }
  static let ping = Self(.ping, 0)

  private struct Writer {
    private var bytes: [UInt8] = []

    init(room: Int) {
      bytes.reserveCapacity(room)
      bytes += [0, 0, 0, 0]
    }

    private mutating func varint(_ number: UInt64) {
      var rest = number
      while rest > 127 {
        bytes.append(UInt8(truncatingIfNeeded: rest) | 128)
        rest >>= 7
      }
      bytes.append(UInt8(rest))
    }

    mutating func number(_ field: UInt64, _ value: UInt64) {
      varint(field << 3)
      varint(value)
    }

    mutating func field(_ field: UInt64, _ value: some Collection<UInt8>) {
      varint(field << 3 | 2)
      varint(UInt64(value.count))
      bytes += value
    }

    consuming func finish() -> [UInt8] {
      let length = UInt32(bytes.count - 4)
      for place in 0..<4 { bytes[place] = UInt8(truncatingIfNeeded: length >> (24 - 8 * UInt32(place))) }
      return bytes
    }
  }
}
