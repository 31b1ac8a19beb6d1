import Dispatch
import Glibc
import LinuxSystem

/// Answers `GET /metrics` over plain HTTP, one request at a time, on a thread of its own; whoever takes more than 2 s to send or to read is let go.
/// Nobody has to say who he is: it is to listen where the monitoring network is, and nowhere unless asked for.
public final class MetricsServer: Sendable {
  /// The port that was got, of interest when 0 was asked for.
  public let port: UInt16
  private static let requestMax = 8192

  public struct BadAddress: Error, CustomStringConvertible {
    public let description: String
  }

  /// - Parameter address: IPv4 address and port, `10.0.0.1:9323`. Listens until the process ends.
  public init(_ address: String, collect: @escaping @Sendable () async -> [Metric]) throws {
    let parts = address.split(separator: ":", omittingEmptySubsequences: false)
    var target = sockaddr_in()
    target.sin_family = sa_family_t(AF_INET)
    guard parts.count == 2, let number = UInt16(parts[1]), inet_pton(AF_INET, String(parts[0]), &target.sin_addr) == 1 else {
      throw BadAddress(description: "'\(address)' is no ADDRESS:PORT of this host, such as 10.0.0.1:9323")
    }
    target.sin_port = number.bigEndian
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard listener >= 0 else { throw SystemError("open", "metrics socket", Errno(errno)) }
    var on: Int32 = 1
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, 4)
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let failed = withUnsafeMutablePointer(to: &target) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, size) != 0 || listen(listener, 16) != 0 || getsockname(listener, $0, &size) != 0
      }
    }
    guard !failed else {
      let error = errno
      close(listener)
      throw SystemError("listen", address, Errno(error))
    }
    port = UInt16(bigEndian: target.sin_port)
    startThread("orch-metrics") {
      while true {
        let connection = accept(listener, nil, nil)
        if connection < 0 {
          // Of one who is gone already; without descriptors left it is tried again.
          if errno == EMFILE || errno == ENFILE { sleep(1) }
          continue
        }
        _ = fcntl(connection, F_SETFD, FD_CLOEXEC)
        Self.answer(connection, collect)
        close(connection)
      }
    }
  }

  private static func answer(_ connection: Int32, _ collect: @escaping @Sendable () async -> [Metric]) {
    var limit = timeval(tv_sec: 2, tv_usec: 0)
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] { setsockopt(connection, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size)) }
    var request: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while request.count < requestMax, !String(decoding: request, as: UTF8.self).contains("\r\n\r\n") {
      let count = recv(connection, &buffer, buffer.count, 0)
      guard count > 0 else { return }
      request += buffer[..<count]
    }
    let line = request.prefix { $0 != 13 }.split(separator: 32).map { String(decoding: $0, as: UTF8.self) }
    var (status, body) = ("404 Not Found", "only GET /metrics is here\n")
    if line.first == "GET", line.dropFirst().first?.split(separator: "?").first == "/metrics" {
      let box = Box(), done = DispatchSemaphore(value: 0)
      Task {
        box.text = await collect().map(\.text).joined()
        done.signal()
      }
      done.wait()
      (status, body) = ("200 OK", box.text)
    }
    let head =
      "HTTP/1.1 \(status)\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n"
    let bytes = Array((head + body).utf8)
    var sent = 0
    while sent < bytes.count {
      let count = bytes[sent...].withUnsafeBytes { send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      guard count > 0 else { return }
      sent += count
    }
  }

  /// Written before the semaphore is signalled and read after it.
  private final class Box: @unchecked Sendable { var text = "" }
}
