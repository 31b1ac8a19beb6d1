import API
import Model
import NIOCore

extension APIClient {
  public enum ExecEvent: Hashable, Sendable {
    case stdout([UInt8])
    case stderr([UInt8])
    case exit(Int32)
  }

  /// A process in a task's container. What goes into `input` (stdin, resize, endOfInput, detach frames) is sent while output comes; the
  /// pipe is finished when the process has ended.
  public func exec(
    _ task: String, _ start: ExecStart, input: Pipe<StreamFrame>, onEvent: @Sendable (ExecEvent) async throws -> Void
  ) async throws {
    let frames = FrameBytes(first: StreamFrame(.start, JSONText.encode(start)), input: input)
    defer { input.cancel() }
    let body = try await upload("/orch/v1/tasks/\(percentEncoded(task))/exec", [], frames, type: "application/vnd.orch.exec-stream")
    var parser = StreamFrame.Parser()
    for try await part in body {
      parser.append(part.readableBytesView)
      while let frame = try parser.next() {
        switch frame.kind {
        case .stdout: try await onEvent(.stdout(frame.payload))
        case .stderr: try await onEvent(.stderr(frame.payload))
        case .exit:
          input.finish()
          let exit = try JSONText.decode(ExecExit.self, frame.payload)
          try await onEvent(.exit(exit.exitCode))
          return
        case .systemError: throw ClientError.broken(String(decoding: frame.payload, as: UTF8.self))
        case .stdin, .start, .resize, .endOfInput, .detach: break
        }
      }
    }
    throw ClientError.broken("the connection ended before the process did: its manager or its host went away")
  }
}

/// Frames as body bytes.
struct FrameBytes: AsyncSequence, Sendable {
  typealias Element = ByteBuffer
  let first: StreamFrame
  let input: Pipe<StreamFrame>
  struct Iterator: AsyncIteratorProtocol {
    var first: StreamFrame?
    let input: Pipe<StreamFrame>
    mutating func next() async throws -> ByteBuffer? {
      if let frame = first {
        first = nil
        return ByteBuffer(bytes: frame.bytes)
      }
      return try await input.next().map { ByteBuffer(bytes: $0.bytes) }
    }
  }
  func makeAsyncIterator() -> Iterator { Iterator(first: first, input: input) }
}
