import Glibc
import Model

// Published ports on this host: held, so that nobody else takes them, and who has those that are taken.
extension HostNetwork {
  /// Holds every port of the list by a bound socket that does not listen, lets go of others; returns those that someone else has, and as they are
  /// told.
  func reserve(_ ports: [PublishedPort]) -> (taken: Set<PublishedPort>, conflicts: [NodeDescription.PortConflict]) {
    let wanted = Set(ports)
    memory.withLock { memory in
      for (port, descriptor) in memory.ports where !wanted.contains(port) {
        close(descriptor)
        memory.ports[port] = nil
      }
    }
    var taken = hold(wanted)
    if taken.isEmpty {
      memory.withLock { ($0.taken, $0.watch) = ([:], nil) }
      return ([], [])
    }
    if memory.withLock({ $0.watch == nil || Set($0.taken.keys) != taken }) {
      let watch = PortWatch(taken) { [weak self] in
        guard let self else { return }
        // It tells once.
        self.memory.withLock { $0.watch = nil }
        self.portFreed.withLock { $0 }?()
      }
      // What was freed before the watch began.
      taken = hold(wanted)
      let holders = PortHolder.find(taken)
      memory.withLock { memory in
        memory.watch = watch
        memory.taken = Dictionary(uniqueKeysWithValues: taken.map { ($0, holders[$0]) })
      }
    }
    let told = memory.withLock { $0.taken }
    return (Set(told.keys), conflicts(told))
  }

  /// No socket holds SCTP's, which would have the kernel load its module: they are looked up.
  private func hold(_ ports: Set<PublishedPort>) -> Set<PublishedPort> {
    let taken = PortHolder.taken(of: ports)
    return memory.withLock { memory in
      ports.filter { port in
        if port.protocol == .sctp { return taken.contains(port.anywhere) }
        if memory.ports[port] == nil { memory.ports[port] = Self.hold(port) }
        return memory.ports[port] == nil
      }
    }
  }

  private func conflicts(_ taken: [PublishedPort: NodeDescription.Holder?]) -> [NodeDescription.PortConflict] {
    taken.compactMap { port, holder -> NodeDescription.PortConflict? in
      var address = port.address
      var holder = holder
      if address == nil {
        // Of both families once; of one, as all addresses of that one.
        let other = taken[port.inOtherFamily]
        if other != nil, port.family == .v6 { return nil }
        (address, holder) = (other == nil ? .any(port.family) : nil, holder ?? other ?? nil)
      }
      return NodeDescription.PortConflict(port: port.number, protocol: port.protocol, address: address, holder: holder)
    }.sorted()
  }

  /// Which of these ports a process of this host has, tried out; ours count as free.
  func conflicts(on ports: Set<PublishedPort>) -> [NodeDescription.PortConflict] {
    let ours = Dictionary(grouping: memory.withLock { Array($0.ports.keys) }, by: \.inFamily)
    let others = PortHolder.taken(of: ports)
    let taken = ports.filter { port in
      if ours[port.inFamily]?.contains(where: port.overlaps) == true { return false }
      if port.protocol == .sctp { return others.contains(port.anywhere) }
      guard let descriptor = Self.hold(port) else { return true }
      close(descriptor)
      return false
    }
    let holders = taken.isEmpty ? [:] : PortHolder.find(taken)
    return conflicts(Dictionary(uniqueKeysWithValues: taken.map { ($0, holders[$0]) }))
  }

  /// Which task of this host, or whose service, has a port that a task wants in host mode.
  static func owner(of port: PublishedPort, in world: NetworkWorld, besides task: TaskID) -> String {
    func has(_ configs: [PortConfig]) -> Bool { configs.contains { PublishedPort($0, port.family)?.overlaps(port) ?? false } }
    let tasks = world.containers.values.filter { $0.task != task && has($0.hostPorts) }.map(\.task)
    if let other = tasks.min() { return "task \(other)" }
    let services = world.services.filter { has($0.ports.filter { ($0.publishMode ?? .ingress) == .ingress }) }.map(\.name)
    return services.min().map { "service \($0)" } ?? "another task or service"
  }

  static func hold(_ port: PublishedPort) -> Int32? {
    let kind = port.protocol == .udp ? SOCK_DGRAM : SOCK_STREAM
    let isV6 = port.family == .v6
    let descriptor = socket(isV6 ? AF_INET6 : AF_INET, Int32(kind.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    // While it binds only, so that a connection that lingers from before (TIME_WAIT) is not taken for a process.
    var reuse: Int32 = port.protocol == .udp ? 0 : 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, 4)
    func isBound() -> Bool { (isV6 ? bindOnly6(descriptor, port) : bind4(descriptor, port)) == 0 }
    let refusal = isBound() ? nil : errno
    if refusal == EADDRNOTAVAIL {
      // The host may get the address later (ip(7), IP_FREEBIND; IPV6_FREEBIND is 78): the port is held before it does. Who has it on all addresses
      // of a host that lacks this one is in nobody's way.
      var free: Int32 = 1
      setsockopt(descriptor, Int32(isV6 ? IPPROTO_IPV6 : IPPROTO_IP), isV6 ? 78 : 15, &free, 4)
      _ = isBound()
    }
    if refusal == EADDRINUSE {
      close(descriptor)
      return nil
    }
    reuse = 0
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, 4)
    return descriptor
  }

  private static func bind4(_ descriptor: Int32, _ port: PublishedPort) -> Int32 {
    var address = sockaddr_in()
    address.sin_family = UInt16(AF_INET)
    address.sin_port = port.number.bigEndian
    if case .v4(let own) = port.address { address.sin_addr.s_addr = own.rawValue.bigEndian }
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
  }

  /// Beside IPv4's socket of the same port.
  private static func bindOnly6(_ descriptor: Int32, _ port: PublishedPort) -> Int32 {
    var only: Int32 = 1
    setsockopt(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &only, 4)
    var address = sockaddr_in6()
    address.sin6_family = UInt16(AF_INET6)
    address.sin6_port = port.number.bigEndian
    if case .v6(let own) = port.address { withUnsafeMutableBytes(of: &address.sin6_addr) { $0.copyBytes(from: own.octets) } }
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
    }
  }
}
