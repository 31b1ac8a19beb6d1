import Glibc
import LinuxSystem
import Model

/// Finds who has a port of this host: proc_net(5) names the socket, /proc/PID/fd (proc(5)) its process. Reads files of the network namespace
/// that the calling thread is in. A socket that is bound and does not listen is not found.
enum PortHolder {
  static func find(_ ports: Set<PublishedPort>) -> [PublishedPort: NodeDescription.Holder] {
    let numbers = Dictionary(grouping: ports, by: \.anywhere)
    var sockets: [UInt64: [PublishedPort]] = [:]
    if ports.contains(where: { $0.protocol == .sctp }) {
      for (port, inode) in endpoints() { if let wanted = numbers[port] { sockets[inode] = wanted } }
    }
    for kind in Set(ports.map(\.protocol)) where kind != .sctp {
      for table in [kind.rawValue, kind.rawValue + "6"] {
        guard let text = try? Files.text("/proc/thread-self/net/\(table)") else { continue }
        for line in text.split(separator: "\n").dropFirst() {
          guard let (port, inode) = entry(line, kind), let wanted = numbers[port.anywhere] else { continue }
          let own = wanted.filter { has($0, port) }
          if !own.isEmpty { sockets[inode] = own }
        }
      }
    }
    var found: [PublishedPort: NodeDescription.Holder] = [:]
    guard !sockets.isEmpty else { return found }
    for name in (try? Files.list("/proc")) ?? [] {
      guard let pid = Int32(name) else { continue }
      for descriptor in (try? Files.list("/proc/\(pid)/fd")) ?? [] {
        guard let inode = socket("/proc/\(pid)/fd/\(descriptor)"), case let own = (sockets[inode] ?? []).filter({ found[$0] == nil }), !own.isEmpty
        else { continue }
        let command = (try? Files.text("/proc/\(pid)/comm"))?.split(separator: "\n").first.map(String.init) ?? "?"
        for port in own { found[port] = NodeDescription.Holder(command: command, pid: pid) }
      }
      if found.count == ports.count { break }
    }
    return found
  }

  /// Whether a socket at `held` is in the way of `port`. One at all addresses of IPv6 may have those of IPv4, too (ipv6(7), IPV6_V6ONLY).
  private static func has(_ port: PublishedPort, _ held: PublishedPort) -> Bool {
    if port.family == held.family { return port.address == nil || held.address == nil || port.address == held.address }
    return held.family == .v6 && held.address == nil
  }

  /// Those of SCTP that a process of this namespace has, whatever address it has them on.
  static func taken(of ports: Set<PublishedPort>) -> Set<PublishedPort> {
    let wanted = Set(ports.lazy.filter { $0.protocol == .sctp }.map(\.anywhere))
    return wanted.isEmpty ? [] : wanted.intersection(endpoints().map(\.0))
  }
  /// Kernels without SCTP, and those that have not loaded it, have no such file.
  private static func endpoints() -> [(PublishedPort, UInt64)] {
    let text = (try? Files.text("/proc/thread-self/net/sctp/eps")) ?? ""
    return text.split(separator: "\n").dropFirst().compactMap(endpoint)
  }
  /// Of a line "ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS" (Linux net/sctp/proc.c, sctp_eps_seq_show).
  static func endpoint(_ line: Substring) -> (PublishedPort, UInt64)? {
    let fields = line.split(separator: " ", omittingEmptySubsequences: true)
    guard fields.count > 7, let number = UInt16(fields[5]), number > 0, let inode = UInt64(fields[7]) else { return nil }
    return (PublishedPort(protocol: .sctp, number: number), inode)
  }

  /// Of a line "sl local_address rem_address st … uid timeout inode": those that listen (0A), or are not connected (UDP's 07). Addresses are words of
  /// 32 bits in the machine's order (Linux net/ipv4/tcp_ipv4.c, get_tcp4_sock; net/ipv6/tcp_ipv6.c).
  static func entry(_ line: Substring, _ kind: PortConfig.PortProtocol) -> (PublishedPort, UInt64)? {
    let fields = line.split(separator: " ", omittingEmptySubsequences: true)
    guard fields.count > 9, fields[3] == (kind == .udp ? "07" : "0A"), let colon = fields[1].lastIndex(of: ":"),
      let number = UInt16(fields[1][fields[1].index(after: colon)...], radix: 16), let inode = UInt64(fields[9])
    else { return nil }
    guard let address = address(fields[1][..<colon]) else { return nil }
    return (PublishedPort(protocol: kind, number: number, family: address.family, address: address.isUnspecified ? nil : address), inode)
  }
  private static func address(_ text: Substring) -> IPAddress? {
    guard text.utf8.count == 8 || text.utf8.count == 32 else { return nil }
    var octets: [UInt8] = []
    var rest = text
    while !rest.isEmpty {
      guard let word = UInt32(rest.prefix(8), radix: 16) else { return nil }
      withUnsafeBytes(of: word) { octets += $0 }
      rest = rest.dropFirst(8)
    }
    // A socket of IPv6 at an address of IPv4 (RFC 4291 2.5.5.2).
    if octets.starts(with: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]) { octets.removeFirst(12) }
    return IPAddress(octets: octets)
  }

  private static func socket(_ path: String) -> UInt64? {
    var buffer = [CChar](repeating: 0, count: 64)
    let count = readlink(path, &buffer, 63)
    guard count > 8 else { return nil }
    let text = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return text.hasPrefix("socket:[") ? UInt64(text.dropFirst(8).dropLast()) : nil
  }
}
