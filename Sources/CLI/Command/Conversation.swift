import API
import APIClient
import Dispatch
import Model
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// This process's stdin, output and terminal, lent to a process in a container.
final class Conversation: Sendable {
  /// The keys to leave were pressed: the process goes on.
  struct Left: Error {}

  private let tty: Bool
  private let forwards: Bool
  private let input = Pipe<StreamFrame>(capacity: 8)
  private struct State {
    var code: Int32 = 0
    var began = false
    var left = false
    var keys: DetachKeys?
  }
  private let state: Mutex<State>

  /// - Parameters:
  ///   - input: whether stdin is passed on.
  ///   - keys: what leaves the process alone when it is typed at a terminal; nil: nothing does.
  init(tty: Bool, input: Bool, keys: DetachKeys? = nil) {
    (self.tty, forwards) = (tty, input)
    state = Mutex(State(keys: keys))
  }

  /// Whether the process's own host has answered: until then nothing of its output is lost.
  var began: Bool { state.withLock { $0.began } }

  /// Until the process ends: its exit code. Throws `Left`.
  func run(_ client: APIClient, _ task: String, _ start: ExecStart) async throws -> Int32 {
    var start = start
    start.size = tty ? Terminal.size(of: 0).map { .init(rows: $0.rows, columns: $0.columns) } : nil
    let raw = tty && forwards ? RawTerminal() : nil
    let winch = tty ? watchSize() : nil
    defer {
      raw?.restore()
      winch?.cancel()
    }
    if forwards {
      forwardInput(isAttach: start.attach ?? false)
    } else {
      await input.send(StreamFrame(.endOfInput))
    }
    do {
      try await client.exec(task, start, input: input) { [self] event in
        state.withLock { $0.began = true }
        switch event {
        case .stdout(let bytes): Terminal.write(1, bytes)
        case .stderr(let bytes): Terminal.write(2, bytes)
        case .exit(let status): state.withLock { $0.code = status }
        }
      }
    } catch {
      // An exec that was left goes on when its host has said so; an attach ends with its request.
      if start.attach ?? false, state.withLock({ $0.left }) { throw Left() }
      throw error
    }
    if state.withLock({ $0.left }) { throw Left() }
    return state.withLock { $0.code }
  }

  /// - Parameter isAttach: to the container's own process, which nobody's leaving ends.
  private func forwardInput(isAttach: Bool) {
    Task { [self] in
      while let chunk = try? await readChunk(0, upTo: 32 << 10) {
        let passed = state.withLock { state in
          guard state.keys != nil else { return chunk }
          let passed = state.keys!.pass(chunk)
          state.left = passed == nil
          return passed ?? []
        }
        // A request that ends before the process is taken for a client that is gone: an exec would end with it.
        if state.withLock({ $0.left }) {
          if isAttach { return input.finish() }
          await input.send(StreamFrame(.detach))
          return
        }
        guard await input.send(StreamFrame(.stdin, passed)) else { return }
      }
      await input.send(StreamFrame(.endOfInput))
    }
  }

  private func watchSize() -> any DispatchSourceSignal {
    signal(SIGWINCH, SIG_IGN)
    let source = DispatchSource.makeSignalSource(signal: SIGWINCH, queue: .global())
    source.setEventHandler { [input] in
      guard let size = Terminal.size(of: 0) else { return }
      let payload = [size.rows, size.columns].flatMap { [UInt8($0 >> 8), UInt8($0 & 255)] }
      Task { await input.send(StreamFrame(.resize, payload)) }
    }
    source.resume()
    return source
  }
}

/// A row of keys that leaves a process alone, as docker's `--detach-keys`: letters and `ctrl-X`, with commas between.
struct DetachKeys: Sendable {
  private let keys: [UInt8]
  private var matched = 0

  /// nil: not such a row. Empty text: no keys leave.
  init?(_ text: String) {
    var keys: [UInt8] = []
    for word in text.split(separator: ",", omittingEmptySubsequences: false) where !text.isEmpty {
      let bytes = Array(word.lowercased().utf8)
      if word.utf8.count == 1, bytes[0] > 32, bytes[0] < 127 {
        keys.append(word.utf8.first!)
      } else if bytes.starts(with: Array("ctrl-".utf8)), bytes.count == 6, (64...127).contains(bytes[5]) {
        keys.append(bytes[5] & 31)
      } else {
        return nil
      }
    }
    self.keys = keys
  }

  /// What goes on to the process; nil: the whole row was typed. A key that may begin the row waits for the next.
  mutating func pass(_ bytes: [UInt8]) -> [UInt8]? {
    guard !keys.isEmpty else { return bytes }
    var passed: [UInt8] = []
    for byte in bytes {
      if byte != keys[matched] {
        passed += keys[..<matched]
        matched = 0
      }
      guard byte == keys[matched] else {
        passed.append(byte)
        continue
      }
      matched += 1
      if matched == keys.count { return nil }
    }
    return passed
  }
}
