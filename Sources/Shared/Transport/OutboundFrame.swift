import FoundationEssentials
import SwiftProtobuf
import Wire

/// A frame on its way out, serialised by the task that sends it, so that the event loop only copies.
struct OutboundFrame: Sendable {
  let bytes: [UInt8]

  private init(_ frame: WireFrame) {
    // Only missing required fields (proto2) could fail.
    bytes = (try? frame.serializedBytes()) ?? []
  }

  private init(_ kind: WireFrame.Kind, _ stream: UInt32, _ fill: (inout WireFrame) -> Void = { _ in }) {
    var frame = WireFrame()
    frame.kind = kind
    frame.stream = stream
    fill(&frame)
    self.init(frame)
  }

  static func hello(version: UInt32) -> Self { Self(.hello, 0) { $0.version = version } }
  static func open(_ stream: UInt32, _ method: Method, payload: [UInt8]?, end: Bool) -> Self {
    Self(.open, stream) {
      $0.method = method.rawValue
      $0.end = end
      if let payload {
        $0.withPayload = true
        $0.payload = Data(payload)
      }
    }
  }
  static func data(_ stream: UInt32, _ bytes: [UInt8], end: Bool) -> Self {
    Self(.data, stream) {
      $0.payload = Data(bytes)
      $0.end = end
    }
  }
  static func end(_ stream: UInt32) -> Self { Self(.end, stream) }
  static func failure(_ stream: UInt32, _ error: StreamError) -> Self { Self(.error, stream) { $0.failure = error.wire } }
  static func credit(_ stream: UInt32, _ credit: UInt32) -> Self { Self(.credit, stream) { $0.credit = credit } }
  static let ping = Self(.ping, 0)
}
