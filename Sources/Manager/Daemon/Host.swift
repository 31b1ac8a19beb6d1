import Glibc
import Model
import NIOCore
import Telemetry
import Transport

/// What this host says of itself.
enum Host {
  static var hostname: String {
    var buffer = [CChar](repeating: 0, count: 256)
    guard gethostname(&buffer, 255) == 0 else { return "unknown" }
    return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Until an agent says more: without resources nothing is placed on it.
  static func description(hostname: String) -> NodeDescription {
    NodeDescription(
      hostname: String(hostname.prefix(64)), platform: Platform(architecture: nil, os: "linux"), resources: .init(nanoCPUs: 0, memoryBytes: 0),
      engine: .init(engineVersion: Version.text))
  }

  /// The one IPv4 address that other hosts may reach this one at; nil when there is none, or a choice.
  static func onlyAddress() throws -> String? {
    let addresses = Set(
      try System.enumerateDevices().compactMap { device -> String? in
        guard let address = device.address, case .v4 = address, let text = address.ipAddress, !text.hasPrefix("127.") else { return nil }
        return text
      })
    return addresses.count == 1 ? addresses.first : nil
  }
}

/// Readiness for whoever started us: systemd (sd_notify(3)) and a descriptor.
struct Readiness: Sendable {
  var descriptor: Int32?

  func announce() {
    if let descriptor {
      _ = write(descriptor, "READY\n", 6)
      close(descriptor)
    }
    notify("READY=1")
  }

  func stopping() { notify("STOPPING=1") }

  private func notify(_ state: String) {
    guard let variable = getenv("NOTIFY_SOCKET"), let socket = UnixSocket.connect(String(cString: variable), SOCK_DGRAM) else { return }
    let bytes = Array(state.utf8)
    _ = send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    close(socket)
  }
}

/// unix(7), as little as is needed.
enum UnixSocket {
  static func answers(_ path: String) -> Bool {
    guard let socket = connect(path, SOCK_STREAM) else { return false }
    close(socket)
    return true
  }

  /// A connected descriptor, nil when nobody is there. '@' stands for the abstract namespace's zero byte.
  static func connect(_ path: String, _ type: __socket_type) -> Int32? {
    var bytes = Array(path.utf8)
    var address = sockaddr_un()
    guard let first = bytes.first, bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return nil }
    if first == UInt8(ascii: "@") { bytes[0] = 0 }
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let socket = Glibc.socket(AF_UNIX, Int32(type.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { return nil }
    let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(socket, $0, length) }
    }
    if result == 0 { return socket }
    close(socket)
    return nil
  }
}
