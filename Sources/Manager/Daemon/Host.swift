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
    Supervisor.notify("READY=1")
  }

  func stopping() { Supervisor.notify("STOPPING=1") }
}
