import API
import Dispatch
import NIOCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The process's surroundings: output, size, environment, files, keys.
enum Terminal {
  static func print(_ text: String) { write(1, Array((text + "\n").utf8)) }
  static func warn(_ text: String) { write(2, Array((text + "\n").utf8)) }
  static func fail(_ text: String, code: Int32 = 1) -> Never {
    warn("orch: " + text)
    exit(code)
  }
  static func exit(_ code: Int32) -> Never { _exit(code) }

  /// All of it; a reader that left ends the process quietly, as head(1) expects.
  static func write(_ descriptor: Int32, _ bytes: [UInt8]) {
    var offset = 0
    while offset < bytes.count {
      let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + offset, bytes.count - offset) }
      if count > 0 {
        offset += count
      } else if errno == EAGAIN {
        var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        poll(&wait, 1, -1)
      } else if errno != EINTR {
        // A reader that has left is told nothing, as by any filter (128 + SIGPIPE).
        if descriptor == 1, errno != EPIPE {
          let reason = "orch: write the output: \(String(cString: strerror(errno)))\n"
          _ = Glibc.write(2, reason, reason.utf8.count)
          _exit(1)
        }
        _exit(descriptor == 1 ? 141 : 1)
      }
    }
  }

  static func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 } }

  static var allEnvironment: [String: String] {
    var result: [String: String] = [:]
    var entry = environ
    while let text = entry.pointee {
      let pair = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if pair.count == 2 { result[String(pair[0])] = String(pair[1]) }
      entry += 1
    }
    return result
  }

  static var isInteractive: Bool { isatty(1) == 1 && environment("TERM") != "dumb" }

  static func size(of descriptor: Int32 = 1) -> (rows: UInt16, columns: UInt16)? {
    var size = winsize()
    guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
    return (size.ws_row, size.ws_col)
  }

  /// Columns to fit tables in: the terminal's, or COLUMNS; nil for a file or pipe.
  static var width: Int? {
    if isatty(1) == 1, let size = size() { return Int(size.columns) }
    return environment("COLUMNS").flatMap { Int($0) }
  }

  /// From now on Ctrl-C ends the process with this line and 130; nothing in the cluster is undone.
  static func explainInterrupt(_ text: String) {
    interruptText = Array(("\n" + text + "\n").utf8)
    signal(SIGINT) { _ in
      // Only what is safe in a signal handler: write and _exit.
      Terminal.interruptText.withUnsafeBytes { _ = Glibc.write(2, $0.baseAddress!, $0.count) }
      _exit(130)
    }
  }
  nonisolated(unsafe) private static var interruptText: [UInt8] = []

  static var workingDirectory: String? {
    guard let path = getcwd(nil, 0) else { return nil }
    defer { free(path) }
    return String(cString: path)
  }

  static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  static func readFile(_ path: String) throws -> String { String(decoding: try readBytes(path), as: UTF8.self) }

  /// - reads stdin.
  static func readBytes(_ path: String) throws -> [UInt8] {
    let descriptor = path == "-" ? 0 : open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileProblem(path: path, cause: String(cString: strerror(errno))) }
    defer { if descriptor > 0 { close(descriptor) } }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      if count < 0 { throw FileProblem(path: path, cause: String(cString: strerror(errno))) }
      if count == 0 { break }
      bytes += chunk[..<count]
      guard bytes.count <= 64 << 20 else { throw FileProblem(path: path, cause: "it is over 64 MiB") }
    }
    return bytes
  }

  struct FileProblem: Error, CustomStringConvertible {
    var path: String
    var cause: String
    var description: String { "cannot read \(path): \(cause)" }
  }
}

/// A file's bytes as they are asked for; read on a thread that may block.
struct FileChunks: AsyncSequence, Sendable {
  typealias Element = ByteBuffer
  let descriptor: Int32
  /// Bytes in all; nil for a pipe.
  let length: Int64?

  init(descriptor: Int32, length: Int64?) { (self.descriptor, self.length) = (descriptor, length) }

  init(_ path: String) throws {
    if path == "-" {
      descriptor = 0
      length = nil
      return
    }
    descriptor = open(path, O_RDONLY | O_CLOEXEC)
    var status = stat()
    guard descriptor >= 0, fstat(descriptor, &status) == 0 else { throw Terminal.FileProblem(path: path, cause: String(cString: strerror(errno))) }
    if status.st_mode & S_IFMT == S_IFDIR { throw Terminal.FileProblem(path: path, cause: "it is a folder; give a tar file") }
    length = status.st_mode & S_IFMT == S_IFREG ? Int64(status.st_size) : nil
  }

  struct Iterator: AsyncIteratorProtocol {
    let descriptor: Int32
    func next() async throws -> ByteBuffer? { try await readChunk(descriptor, upTo: 256 << 10).map { ByteBuffer(bytes: $0) } }
  }
  func makeAsyncIterator() -> Iterator { Iterator(descriptor: descriptor) }
}

/// nil at the end of the file.
func readChunk(_ descriptor: Int32, upTo count: Int) async throws -> [UInt8]? {
  try await withCheckedThrowingContinuation { continuation in
    DispatchQueue.global().async {
      let chunk = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
        var got = read(descriptor, buffer.baseAddress!, count)
        while got < 0 && errno == EINTR { got = read(descriptor, buffer.baseAddress!, count) }
        filled = Swift.max(0, got)
      }
      continuation.resume(returning: chunk.isEmpty ? nil : chunk)
    }
  }
}

/// The terminal without line editing and echo, for `exec -t`; `restore` puts it back.
struct RawTerminal: @unchecked Sendable {
  private var saved = termios()
  init?() {
    guard isatty(0) == 1, tcgetattr(0, &saved) == 0 else { return nil }
    var raw = saved
    cfmakeraw(&raw)
    guard tcsetattr(0, TCSANOW, &raw) == 0 else { return nil }
  }
  func restore() { Self.restore(saved) }

  /// How the terminal is set; nil: there is none.
  static var current: termios? {
    var settings = termios()
    return isatty(0) == 1 && tcgetattr(0, &settings) == 0 ? settings : nil
  }
  static func restore(_ settings: termios) {
    var settings = settings
    tcsetattr(0, TCSANOW, &settings)
  }
}
