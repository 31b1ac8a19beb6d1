import Glibc
import Synchronization

/// A way to a port on loopback whose first connections break after so many bytes towards it.
final class BreakingWire: Sendable {
  private struct State {
    var target: Int?
    var listener: Int32 = -1
    var port = 0
    var rest = 0
    var broken = 0
  }
  private let state = Mutex(State())

  var broken: Int { state.withLock { $0.broken } }
  func port(for port: Int) -> Int { state.withLock { $0.target == port ? $0.port : port } }

  func open(to target: Int, breakingAfter bytes: Int, times: Int) throws {
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = Self.loopback(0)
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        precondition(bind(listener, $0, size) == 0 && listen(listener, 16) == 0 && getsockname(listener, $0, &size) == 0)
      }
    }
    let port = Int(UInt16(bigEndian: address.sin_port))
    state.withLock { ($0.target, $0.listener, $0.port, $0.rest) = (target, listener, port, times) }
    run {
      while true {
        let client = accept(listener, nil, nil)
        guard client >= 0 else { return }
        let server = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = Self.loopback(UInt16(target))
        let connected = withUnsafePointer(to: &address) { pointer in
          pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(server, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        guard connected == 0 else {
          Glibc.close(client)
          continue
        }
        self.run { self.copy(client, server, breakingAfter: bytes) }
        self.run { self.copy(server, client, breakingAfter: nil) }
      }
    }
  }

  func close() { state.withLock { _ = shutdown($0.listener, Int32(SHUT_RDWR)) } }

  private func copy(_ from: Int32, _ to: Int32, breakingAfter bound: Int?) {
    var buffer = [UInt8](repeating: 0, count: 65536)
    var sum = 0
    while true {
      let count = read(from, &buffer, buffer.count)
      guard count > 0 else { break }
      var sent = 0
      while sent < count {
        let written = buffer.withUnsafeBytes { send(to, $0.baseAddress! + sent, count - sent, Int32(MSG_NOSIGNAL)) }
        guard written > 0 else { break }
        sent += written
      }
      guard sent == count else { break }
      sum += count
      guard let bound, sum > bound else { continue }
      let breaks = state.withLock { state in
        guard state.rest > 0 else { return false }
        state.rest -= 1
        state.broken += 1
        return true
      }
      if breaks { break }
    }
    shutdown(from, Int32(SHUT_RDWR))
    shutdown(to, Int32(SHUT_RDWR))
  }

  private static func loopback(_ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    return address
  }

  private func run(_ body: @escaping @Sendable () -> Void) {
    var thread = pthread_t()
    pthread_create(
      &thread, nil,
      { context in
        Unmanaged<Box>.fromOpaque(context!).takeRetainedValue().body()
        return nil
      }, Unmanaged.passRetained(Box(body)).toOpaque())
    pthread_detach(thread)
  }

  private final class Box: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
}
