import Model

/// Which frames between containers go around the bridges of this host, and where to: as it should be, or as it is.
///
/// At a door, a link by which frames come in, a program (BypassProgram) gives a frame whose receiver is known to the container's interface or to the
/// network's tunnel. Neither the bridge nor br_netfilter's hooks see it, and a container's frame does not wait for another turn of the CPU.
struct BypassState: Equatable, Sendable {
  /// A receiver. Its link address is made from its address.
  struct Place: Hashable, Sendable {
    var vni: UInt32
    var address: IPv4Address
  }
  /// A link of this host, by its number: the host's end of a container's interface, or a tunnel.
  enum Target: Hashable, Sendable {
    case container(UInt32)
    case tunnel(UInt32)
  }
  /// VNIs by links' numbers.
  var doors: [UInt32: UInt32] = [:]
  var targets: [Place: Target] = [:]

  /// Entries of the map; who has none gets frames by the bridge.
  static let most = 65_536

  init() {}

  /// - Parameters:
  ///   - state: of the tunnels, which it follows.
  ///   - link: the number of a link by its name; nil: there is none, or it is somebody else's.
  init(_ world: NetworkWorld, _ state: HostState, _ successors: [NetworkAttachment: TaskID], link: (String) -> UInt32?) {
    for container in world.containers.values { add(container, world, successors, link: link) }
    var others: [Place: Target] = [:]
    for network in world.networks {
      guard let tunnel = state.tunnels[network.vni], let index = link(InterfaceName.tunnel(network.vni)) else { continue }
      doors[index] = network.vni
      for entry in tunnel.forwarding {
        guard let address = Self.address(entry.mac) else { continue }
        others[Place(vni: network.vni, address: address)] = .tunnel(index)
      }
    }
    let room = Self.most - targets.count
    // The same ones each time.
    let fitting = others.count <= room ? others.map { $0 } : Array(others.sorted { $0.key < $1.key }.prefix(max(0, room)))
    targets.merge(fitting) { own, _ in own }
  }

  mutating func add(
    _ container: TaskNetwork, _ world: NetworkWorld, _ successors: [NetworkAttachment: TaskID], link: (String) -> UInt32?
  ) {
    for (number, attachment) in container.attachments.enumerated() {
      // Its namespace may outlive its task.
      guard successors[attachment].map({ $0 == container.task }) ?? true, let network = world.network(attachment.network),
        let index = link(InterfaceName.veth(container.task, number))
      else { continue }
      doors[index] = network.vni
      let place = Place(vni: network.vni, address: attachment.address)
      // The kernel refuses what is beyond.
      if targets.count < Self.most || targets[place] != nil { targets[place] = .container(index) }
    }
  }

  mutating func remove(_ links: Set<UInt32>) {
    for link in links { doors[link] = nil }
    targets = targets.filter { place, target in
      if case .container(let link) = target { return !links.contains(link) }
      return true
    }
  }

  private static func address(_ mac: [UInt8]) -> IPv4Address? {
    guard mac.count == 6 else { return nil }
    let address = IPv4Address(octets: Array(mac[2...]))
    return address.mac == mac ? address : nil
  }
}

/// What hangs at links and what the map holds.
struct BypassPresent: Equatable, Sendable {
  struct Program: Equatable, Sendable {
    /// nil: another agent's, or with another map.
    var vni: UInt32?
  }
  /// At our place of a link, by links' numbers.
  var programs: [UInt32: Program] = [:]
  var targets: [BypassState.Place: BypassState.Target] = [:]
}

enum BypassOperation: Equatable, Sendable {
  case remove(BypassState.Place)
  case set(BypassState.Place, BypassState.Target)
  case enter(UInt32, vni: UInt32)
  case leave(UInt32)
}

extension BypassState {
  /// What leads from `present` to this state; empty when they are equal. A program takes the place of the one before between two frames.
  func operations(from present: BypassPresent) -> [BypassOperation] {
    let removed = present.targets.keys.filter { targets[$0] == nil }
    let changed = targets.filter { present.targets[$0.key] != $0.value }
    let entering = doors.filter { present.programs[$0.key]?.vni != $0.value }.sorted { $0.key < $1.key }
    let leaving = present.programs.keys.filter { doors[$0] == nil }.sorted()
    return removed.sorted().map { .remove($0) } + changed.sorted { $0.key < $1.key }.map { .set($0.key, $0.value) }
      + entering.map { .enter($0.key, vni: $0.value) } + leaving.map { .leave($0) }
  }
}

extension BypassState.Place: Comparable {
  static func < (a: Self, b: Self) -> Bool { (a.vni, a.address) < (b.vni, b.address) }
}
