import Foundation
import LinuxSystem

/// One request of the public API over its unix socket, on the calling thread, that tells apart what a history has to: never sent, sent
/// without a whole answer, answered.
enum UnixHTTP {
  enum Reply {
    /// Nothing was sent: nobody can have acted on it.
    case refused(String)
    /// It may have been acted on, now or later.
    case lost(String)
    case answer(status: Int, body: Data)
  }

  static func call(_ socket: String, _ method: String, _ target: String, _ body: Data = Data(), seconds: Double) -> Reply {
    let deadline = ContinuousClock.now + .seconds(seconds)
    let descriptor = Foundation.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | O_NONBLOCK | O_CLOEXEC, 0)
    guard descriptor >= 0 else { return .refused("socket: \(String(cString: strerror(errno)))") }
    defer { close(descriptor) }
    // At once or not at all: EAGAIN says that the backlog is full.
    guard connect(descriptor, to: socket) else { return .refused("connect: \(String(cString: strerror(errno)))") }
    var head = "\(method) \(target) HTTP/1.1\r\nHost: orch\r\nConnection: close\r\n"
    head += "Content-Type: application/json\r\nContent-Length: \(body.count)\r\n\r\n"
    var rest = Array(head.utf8) + Array(body)
    while !rest.isEmpty {
      let count = send(descriptor, rest, rest.count, Int32(MSG_NOSIGNAL))
      if count > 0 { rest.removeFirst(count) } else if !wait(descriptor, POLLOUT, deadline) { return .lost("not all of it was sent") }
    }
    var received: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      let count = recv(descriptor, &buffer, buffer.count, 0)
      if count > 0 {
        received += buffer[..<count]
        if let reply = parse(received) { return reply }
      } else if count == 0 {
        return .lost("the connection ended within the answer")
      } else if errno != EAGAIN && errno != EINTR {
        return .lost(String(cString: strerror(errno)))
      } else if !wait(descriptor, POLLIN, deadline) {
        return .lost("no whole answer within \(seconds) s")
      }
    }
  }

  private static func connect(_ descriptor: Int32, to path: String) -> Bool {
    (try? withUnixAddress(path) { Foundation.connect(descriptor, $0, $1) }) == 0
  }

  private static func wait(_ descriptor: Int32, _ events: Int32, _ deadline: ContinuousClock.Instant) -> Bool {
    let left = (deadline - .now) / .milliseconds(1)
    guard left > 0 else { return false }
    var poll = pollfd(fd: descriptor, events: Int16(events), revents: 0)
    return Foundation.poll(&poll, 1, Int32(left.rounded(.up))) > 0
  }

  /// Nil: not whole yet.
  static func parse(_ bytes: [UInt8]) -> Reply? {
    guard let end = range(of: "\r\n\r\n", in: bytes, from: 0) else { return nil }
    let lines = String(decoding: bytes[..<end], as: UTF8.self).components(separatedBy: "\r\n")
    guard let status = lines[0].split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else { return .lost("no HTTP: \(lines[0])") }
    let headers = Dictionary(
      lines.dropFirst().compactMap { line in
        line.firstIndex(of: ":").map { (line[..<$0].lowercased(), line[line.index(after: $0)...].trimmingCharacters(in: .whitespaces)) }
      }, uniquingKeysWith: { first, _ in first })
    let body = end + 4
    if headers["transfer-encoding"]?.lowercased() == "chunked" { return chunks(bytes, from: body).map { .answer(status: status, body: $0) } }
    let length = headers["content-length"].flatMap { Int($0) } ?? 0
    return bytes.count >= body + length ? .answer(status: status, body: Data(bytes[body..<(body + length)])) : nil
  }

  /// RFC 9112 7.1. Nil: not whole yet.
  private static func chunks(_ bytes: [UInt8], from start: Int) -> Data? {
    var (position, body) = (start, Data())
    while let end = range(of: "\r\n", in: bytes, from: position) {
      guard let size = Int(String(decoding: bytes[position..<end], as: UTF8.self), radix: 16) else { return nil }
      if size == 0 { return bytes.count >= end + 4 ? body : nil }
      guard bytes.count >= end + 2 + size + 2 else { return nil }
      body += bytes[(end + 2)..<(end + 2 + size)]
      position = end + 2 + size + 2
    }
    return nil
  }

  private static func range(of text: String, in bytes: [UInt8], from start: Int) -> Int? {
    let wanted = Array(text.utf8)
    guard bytes.count >= start + wanted.count else { return nil }
    return (start...(bytes.count - wanted.count)).first { bytes[$0] == wanted[0] && bytes[$0..<($0 + wanted.count)].elementsEqual(wanted) }
  }
}
