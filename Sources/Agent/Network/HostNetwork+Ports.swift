import Glibc
import Model

// Published ports on this host: held, so that nobody else takes them, and who has those that are taken.
extension HostNetwork {
  /// Holds every port of the list by a bound socket that does not listen, lets go of others; returns those that someone else has.
  func reserve(_ ports: [PublishedPort]) -> [NodeDescription.PortConflict] {
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
      return []
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
      let holders = PortHolder.find(Set(taken.map(\.anywhere)))
      memory.withLock { memory in
        memory.watch = watch
        memory.taken = Dictionary(uniqueKeysWithValues: taken.map { ($0, holders[$0.anywhere]) })
      }
    }
    return conflicts(memory.withLock { $0.taken })
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
    taken.map { NodeDescription.PortConflict(port: $0.key.number, protocol: $0.key.protocol, holder: $0.value) }.sorted()
  }

  /// Which of these ports a process of this host has, tried out; ours count as free.
  func conflicts(on ports: Set<PublishedPort>) -> [NodeDescription.PortConflict] {
    let ours = memory.withLock { Set($0.ports.keys.map(\.anywhere)) }
    let others = PortHolder.taken(of: ports)
    let taken = ports.filter { port in
      if ours.contains(port.anywhere) { return false }
      if port.protocol == .sctp { return others.contains(port.anywhere) }
      guard let descriptor = Self.hold(port) else { return true }
      close(descriptor)
      return false
    }
    let holders = taken.isEmpty ? [:] : PortHolder.find(Set(taken.map(\.anywhere)))
    return conflicts(Dictionary(uniqueKeysWithValues: taken.map { ($0, holders[$0.anywhere]) }))
  }

  static func hold(_ port: PublishedPort) -> Int32? {
    let kind = port.protocol == .udp ? SOCK_DGRAM : SOCK_STREAM
    let descriptor = socket(AF_INET, Int32(kind.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    // While it binds only, so that a connection that lingers from before (TIME_WAIT) is not taken for a process.
    var reuse: Int32 = port.protocol == .udp ? 0 : 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, 4)
    var address = sockaddr_in()
    address.sin_family = UInt16(AF_INET)
    address.sin_port = port.number.bigEndian
    // One that this host does not have cannot be taken on it either.
    address.sin_addr.s_addr = (port.address?.rawValue ?? 0).bigEndian
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
    guard bound == 0 || errno != EADDRINUSE else {
      close(descriptor)
      return nil
    }
    reuse = 0
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, 4)
    return descriptor
  }
}
