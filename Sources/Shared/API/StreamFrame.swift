/// A frame of a multiplexed stream: stream byte, three zero bytes, big-endian length, payload. 0-3 are Docker's
/// (Engine API, "Stream format"); the others are orch's, on `/orch/v1/tasks/{id}/exec` only.
public struct StreamFrame: Hashable, Sendable {
  public enum Kind: UInt8, Sendable {
    case stdin = 0, stdout = 1, stderr = 2
    /// An error of the daemon after the headers were sent: text.
    case systemError = 3
    /// ``ExecStart`` as JSON; the first frame of a request.
    case start = 4
    /// Rows and columns, two big-endian UInt16.
    case resize = 5
    /// No more input; the request stays open until the response ends.
    case endOfInput = 6
    /// ``ExecExit`` as JSON; the last frame of a response.
    case exit = 7
    /// The client leaves and the process goes on: answered by an exit of 0.
    case detach = 8
  }
  public var kind: Kind
  public var payload: [UInt8]
  public init(_ kind: Kind, _ payload: [UInt8] = []) {
    self.kind = kind
    self.payload = payload
  }

  /// Longest payload a reader accepts, in bytes.
  public static let payloadMax = 1 << 20

  public static func header(_ kind: Kind, length: Int) -> [UInt8] {
    [kind.rawValue, 0, 0, 0] + [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: length >> $0) }
  }
  public var bytes: [UInt8] { Self.header(kind, length: payload.count) + payload }

  public enum Fault: Error, Hashable, Sendable, CustomStringConvertible {
    case unknownStream(UInt8)
    case tooLong(Int)
    case truncated
    public var description: String {
      switch self {
      case .unknownStream(let byte): "the stream has a frame of unknown kind \(byte)"
      case .tooLong(let length): "the stream has a frame of \(length) bytes; the limit is \(payloadMax)"
      case .truncated: "the stream ends in the middle of a frame"
      }
    }
  }

  /// Bytes in, whole frames out; keeps what is incomplete.
  public struct Parser: Sendable {
    private var buffer: [UInt8] = []
    private var start = 0
    public init() {}
    public var isEmpty: Bool { start == buffer.count }

    public mutating func append(_ bytes: some Sequence<UInt8>) {
      if start > 0 {
        buffer.removeFirst(start)
        start = 0
      }
      buffer.append(contentsOf: bytes)
    }

    /// The next whole frame, or nil until more bytes come.
    public mutating func next() throws(Fault) -> StreamFrame? {
      guard buffer.count - start >= 8 else { return nil }
      guard let kind = Kind(rawValue: buffer[start]) else { throw .unknownStream(buffer[start]) }
      let length = buffer[(start + 4)..<(start + 8)].reduce(0) { $0 << 8 | Int($1) }
      guard length <= payloadMax else { throw .tooLong(length) }
      guard buffer.count - start >= 8 + length else { return nil }
      let payload = Array(buffer[(start + 8)..<(start + 8 + length)])
      start += 8 + length
      return StreamFrame(kind, payload)
    }
  }
}
