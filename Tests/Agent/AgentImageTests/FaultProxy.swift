import Glibc
import LinuxSystem
import Synchronization

/// A listener on loopback that takes one HTTP/1.1 request a connection, each on a thread of its own.
final class HTTPListener: Sendable {
  struct Request: Sendable {
    var method: String
    var target: String
    var headers: [String]
    /// What came of the body with the head.
    var rest: [UInt8]
    func header(_ name: String) -> String? {
      headers.first { $0.lowercased().hasPrefix(name.lowercased() + ":") }.map { String($0.dropFirst(name.count + 1).drop { $0 == " " }) }
    }
  }
  let port: Int
  private let socket: SharedDescriptor

  /// - Parameter serve: reads and writes the socket as it likes; it is closed afterwards.
  init(_ serve: @escaping @Sendable (Request, Int32) -> Void) throws {
    let descriptor = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    socket = SharedDescriptor(owning: descriptor)
    var address = Self.loopback(0)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let bound = withUnsafePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, length) } }
    try check(bound, "bind", "a test's listener")
    try check(listen(descriptor, 64), "listen on", "a test's listener")
    _ = withUnsafeMutablePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) } }
    port = Int(UInt16(bigEndian: address.sin_port))
    startThread("test-listener") {
      while true {
        let client = accept(descriptor, nil, nil)
        if client < 0 { return }
        startThread("test-connection") {
          if let request = Self.request(client) { serve(request, client) }
          shutdown(client, Int32(SHUT_RDWR))
          close(client)
        }
      }
    }
  }
  deinit { shutdown(socket.rawValue, Int32(SHUT_RDWR)) }

  static func loopback(_ port: Int) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(UInt16(port).bigEndian)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    return address
  }
  static func connect(_ port: Int) throws -> Int32 {
    let descriptor = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = loopback(port)
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
    if result < 0 {
      let error = Errno.current
      close(descriptor)
      throw SystemError("connect to", "127.0.0.1:\(port)", error)
    }
    return descriptor
  }
  private static func request(_ client: Int32) -> Request? {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
      if let end = bytes.firstRange(of: [13, 10, 13, 10]) {
        let lines = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).split(separator: "\r\n").map(String.init)
        let words = lines[0].split(separator: " ").map(String.init)
        guard words.count == 3 else { return nil }
        return Request(method: words[0], target: words[1], headers: Array(lines.dropFirst()), rest: Array(bytes[end.upperBound...]))
      }
      let count = recv(client, &chunk, chunk.count, 0)
      if count <= 0 { return nil }
      bytes += chunk[..<count]
    }
  }
  /// Passes bytes on both ways until one of them is done, and closes the second.
  static func join(_ one: Int32, _ other: Int32) {
    var polled = [pollfd(fd: one, events: Int16(POLLIN), revents: 0), pollfd(fd: other, events: Int16(POLLIN), revents: 0)]
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while poll(&polled, 2, -1) > 0 {
      for (index, target) in [other, one].enumerated() where polled[index].revents != 0 {
        let count = recv(polled[index].fd, &chunk, chunk.count, 0)
        if count <= 0 || !send(target, chunk[..<count]) {
          close(other)
          return
        }
      }
    }
  }
  @discardableResult
  static func send(_ socket: Int32, _ bytes: some Collection<UInt8>) -> Bool {
    var rest = Array(bytes)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      if count <= 0 { return false }
      rest = rest.dropFirst(count)
    }
    return true
  }
  static func send(_ socket: Int32, _ text: String) { send(socket, Array(text.utf8)) }
}

/// Stands between a client and a registry, and breaks what it is told to.
final class FaultProxy: Sendable {
  enum Fault: Sendable {
    /// The answer without asking the registry.
    case status(Int, headers: [String] = [])
    /// Ends the connection after so many bytes of the answer, of the request's body.
    case cut(Int)
    case cutRequest(Int)
    /// Waits after each so many bytes.
    case slow(Int, milliseconds: UInt32)
    /// Turns a bit of that byte of the answer's body.
    case flip(Int)
  }
  let seen = Mutex<[HTTPListener.Request]>([])
  private let rule = Mutex<(@Sendable (HTTPListener.Request, Int) -> Fault?)?>(nil)
  private let listener = Mutex<HTTPListener?>(nil)
  let upstream: Int
  var port: Int { listener.withLock { $0!.port } }
  var host: String { "127.0.0.1:\(port)" }

  /// - Parameter fault: for a request and how many of the same method and path came before.
  init(_ upstream: Int, fault: (@Sendable (HTTPListener.Request, Int) -> Fault?)? = nil) throws {
    self.upstream = upstream
    rule.withLock { $0 = fault }
    let made = try HTTPListener { [weak self] request, client in self?.serve(request, client) }
    listener.withLock { $0 = made }
  }
  func fault(_ fault: (@Sendable (HTTPListener.Request, Int) -> Fault?)?) {
    rule.withLock { $0 = fault }
    seen.withLock { $0 = [] }
  }
  func requests(_ method: String, _ part: String) -> [HTTPListener.Request] {
    seen.withLock { $0.filter { $0.method == method && $0.target.contains(part) } }
  }

  private func serve(_ request: HTTPListener.Request, _ client: Int32) {
    let before = seen.withLock { seen in
      defer { seen.append(request) }
      return seen.filter { $0.method == request.method && $0.target == request.target }.count
    }
    let fault = rule.withLock { $0 }?(request, before)
    if case .status(let code, let headers) = fault {
      return HTTPListener.send(
        client, "HTTP/1.1 \(code) Fault\r\n\(headers.map { $0 + "\r\n" }.joined())Content-Length: 0\r\nConnection: close\r\n\r\n")
    }
    guard let server = try? HTTPListener.connect(upstream) else { return }
    defer { close(server) }
    let headers = request.headers.filter { !$0.lowercased().hasPrefix("connection:") } + ["Connection: close"]
    HTTPListener.send(server, "\(request.method) \(request.target) HTTP/1.1\r\n" + headers.joined(separator: "\r\n") + "\r\n\r\n")
    HTTPListener.send(server, request.rest)
    let uploading = Mutex(false)
    startThread("test-upload") {
      var chunk = [UInt8](repeating: 0, count: 16_384)
      var left = Int.max
      if case .cutRequest(let bytes)? = fault { left = bytes }
      while true {
        let count = recv(client, &chunk, chunk.count, 0)
        if count <= 0 { break }
        left -= count
        if left < 0 {
          shutdown(client, Int32(SHUT_RDWR))
          shutdown(server, Int32(SHUT_RDWR))
          break
        }
        if !HTTPListener.send(server, chunk[..<count]) { break }
      }
      uploading.withLock { $0 = true }
    }
    pump(server, client, fault)
    shutdown(client, Int32(SHUT_RDWR))
    shutdown(server, Int32(SHUT_RDWR))
    // Its descriptors are closed when it is over.
    while !uploading.withLock({ $0 }) { usleep(1000) }
  }

  private func pump(_ server: Int32, _ client: Int32, _ fault: Fault?) {
    var chunk = [UInt8](repeating: 0, count: 16_384)
    var (total, head, inBody) = (0, [UInt8](), false)
    var body = 0
    while true {
      let count = recv(server, &chunk, chunk.count, 0)
      if count <= 0 { return }
      var bytes = Array(chunk[..<count])
      if case .flip(let position)? = fault {
        // Where the body begins is known once the head is whole.
        if !inBody {
          head += bytes
          guard let end = head.firstRange(of: [13, 10, 13, 10]) else { continue }
          inBody = true
          body = -end.upperBound
          bytes = head
        }
        if (0..<bytes.count).contains(position - body) { bytes[position - body] ^= 0x10 }
        body += bytes.count
      }
      if case .cut(let limit)? = fault, total + bytes.count > limit {
        HTTPListener.send(client, bytes[..<max(0, limit - total)])
        return
      }
      total += bytes.count
      if !HTTPListener.send(client, bytes) { return }
      if case .slow(_, let milliseconds)? = fault { usleep(milliseconds * 1000) }
    }
  }
}
