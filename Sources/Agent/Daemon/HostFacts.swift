import AgentNetwork
import Foundation
import Model
import Telemetry

/// What this host says of itself.
enum HostFacts {
  static func description() -> NodeDescription {
    var name = utsname()
    uname(&name)
    let architecture = withUnsafeBytes(of: &name.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    var hostname = [CChar](repeating: 0, count: 256)
    gethostname(&hostname, 255)
    let bytes = hostname.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    var description = NodeDescription(
      hostname: String(decoding: bytes, as: UTF8.self), platform: Platform(architecture: architecture, os: "linux"),
      resources: NodeDescription.Resources(
        nanoCPUs: Int64(sysconf(Int32(_SC_NPROCESSORS_ONLN))) * 1_000_000_000,
        memoryBytes: Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(sysconf(Int32(_SC_PAGESIZE)))),
      engine: NodeDescription.Engine(engineVersion: Version.text))
    if !OverlayNetwork.hasIPv6 { description.lacksIPv6 = true }
    return description
  }

  /// The address from which packets to `host` leave: a connected UDP socket tells without sending anything.
  static func address(towards host: String) -> IPv4Address? {
    var hints = addrinfo()
    hints.ai_family = AF_INET
    hints.ai_socktype = Int32(SOCK_DGRAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host, "2377", &hints, &found) == 0, let target = found else { return nil }
    defer { freeaddrinfo(found) }
    let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
    defer { close(descriptor) }
    guard descriptor >= 0, connect(descriptor, target.pointee.ai_addr, target.pointee.ai_addrlen) == 0 else { return nil }
    var own = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let status = withUnsafeMutablePointer(to: &own) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
    }
    return status == 0 ? IPv4Address(UInt32(bigEndian: own.sin_addr.s_addr)) : nil
  }
}
