import Glibc
import Model
import Netlink

// What a host does for networks that have IPv6 beside IPv4.
extension HostNetwork {
  /// Of the calling thread's namespace's kernel.
  static var hasIPv6: Bool { KernelParameter.get("ipv6/conf/all/disable_ipv6") != nil }
  /// RFC 8200 5: the kernel has no IPv6 on a link of less.
  static let smallestMTU = 1280

  /// Networks that cannot have IPv6 here have IPv4 alone, and it is told.
  static func withoutLacking6(_ bare: NetworkWorld) -> (world: NetworkWorld, problems: [NetworkProblem]) {
    var world = bare
    var problems: [NetworkProblem] = []
    let isAble = hasIPv6
    world.hasIPv6 = isAble
    for (index, network) in world.networks.enumerated() where network.subnet6 != nil && (!isAble || network.mtu < smallestMTU) {
      world.networks[index].subnet6 = nil
      var effect = "tasks\(isAble ? "" : " here") have IPv4 alone"
      if network.ingress {
        // Nobody asked for it, but who publishes there alone.
        let ports = addresses6(ofPortsIn: world)
        if ports.isEmpty { continue }
        effect = "nobody answers at \(ports.joined(separator: ", "))"
      }
      problems.append(
        NetworkProblem(
          "IPv6 of network \(network.name)",
          isAble
            ? "its packets hold \(network.mtu) bytes, IPv6 needs \(smallestMTU): \(effect); raise the MTU of the smallest host's link"
            : "this host's kernel has no IPv6: \(effect); boot it without ipv6.disable=1"))
    }
    return (world, problems)
  }

  /// Of ports in ingress mode that answer at addresses of IPv6 and no other.
  private static func addresses6(ofPortsIn world: NetworkWorld) -> [String] {
    let ports = world.services.flatMap(\.ports).filter { ($0.publishMode ?? .ingress) == .ingress && !$0.families.contains(.v4) }
    return Set(ports.compactMap { port in port.hostIP.map { "[\($0)]:\(port.publishedPort ?? 0)" } }).sorted()
  }

  /// Hosts speak no IPv6 on bridges but ingress's, nor on uplinks that lead to tasks without: what a task sends to their link addresses ends there, whatever
  /// the rules say.
  /// - Returns: whether a bridge that is not new had it.
  func quiet6(_ world: NetworkWorld) -> (isChanged: Bool, problems: [NetworkProblem]) {
    let uplinks = world.containers.values.filter { world.uplinks[$0.task] != nil && !world.needsUplink6($0) }
    let bridges = world.networks.map { InterfaceName.bridge($0.vni) }.filter { $0 != world.door6?.bridge }
    var isChanged = false
    var problems: [NetworkProblem] = []
    for name in bridges + uplinks.map({ InterfaceName.uplink($0.task) }) {
      do { isChanged = try Self.switchOff6(name) || isChanged } catch { problems.append(error) }
    }
    return (isChanged, problems)
  }
  /// - Returns: whether it was on. A link that is not there yet has nothing to switch off, nor has a kernel without IPv6.
  @discardableResult
  static func switchOff6(_ link: String) throws(NetworkProblem) -> Bool {
    let parameter = KernelParameter("ipv6/conf/\(link)/disable_ipv6", "1")
    return KernelParameter.get(parameter.path) == nil ? false : try parameter.keep()
  }

  /// Before the addresses: a host may have IPv6 switched off for links that are new.
  func parameters6(_ world: NetworkWorld) -> [KernelParameter] {
    // The tunnel answers solicitations by neighbours, which only a link with IPv6 may have. It has no address.
    let tunnels = world.networks.filter { $0.subnet6 != nil }.flatMap { network in
      [("accept_ra", "0"), ("disable_ipv6", "0")].map { KernelParameter("ipv6/conf/\(InterfaceName.tunnel(network.vni))/\($0)", $1) }
    }
    return tunnels + (world.door6.map { door in Self.ownParameters6(of: door.bridge) } ?? [])
  }

  /// - Parameter neighbours: nil: as they were left.
  func detour6(_ world: NetworkWorld, isNeeded: Bool, _ socket: NetlinkSocket, _ links: [LinkInfo], _ neighbours: [NeighbourInfo]?) throws {
    guard isNeeded else {
      memory.withLock { $0.hasDetour = false }
      return try LoopbackDetour.remove(socket, links)
    }
    // It stays as long as there are such ports.
    if neighbours == nil, memory.withLock({ $0.hasDetour }) { return }
    let isMade = try LoopbackDetour.keep(LoopbackDetour.address(of: world), socket, links, neighbours ?? socket.neighbours())
    // One that was refused until now is nobody's drift.
    if isMade, memory.withLock({ $0.hasDetour }) { count(["link"]) }
    memory.withLock { $0.hasDetour = true }
  }

  var forwarding6: Forwarding6 { Forwarding6(folder: configuration.runDirectory) }

  /// The host forwards IPv6 while a network needs it; never without the rules that say for whom.
  func forward6(
    _ common: CommonRules, _ published: [Ruleset.Published<IPv6Address>], unavailable: Set<PublishedPort>, _ links: [LinkInfo], isTouched: Bool,
    isDrift: Bool
  ) throws -> [NetworkProblem] {
    let world = common.world
    // Every host is on ingress: that alone is no reason.
    let isNeeded =
      !published.isEmpty || world.networks.contains { $0.subnet6 != nil && !$0.internalOnly && !$0.ingress }
      || world.containers.values.contains(where: world.leadsOutside6)
    let problem = isNeeded ? nil : forwarding6.turnOff()
    let isRouter = isNeeded && forwarding6.isOursToTurnOn
    let others = isRouter ? links.filter { $0.kind == "bridge" && !isOurs($0) }.map(\.index) : []
    let rules = Ruleset.host6(
      world, published, ready: common.ready, common.counterpart, unavailable: unavailable, isRouter: isRouter, bridges: others)
    if let problem, rules == nil { return [problem] }
    try loadHostRules6(rules, world.lingering6(on: Set(world.ingress.map { [$0.id] } ?? [])), isTouched: isTouched)
    let wasOff = isRouter && isDrift && forwarding6.isOff
    defer { if wasOff, !forwarding6.isOff { count(["parameter"]) } }
    return [problem, isRouter ? forwarding6.turnOn() : nil].compactMap { $0 }
  }

  private func loadHostRules6(_ rules: RuleTable<IPv6Address>?, _ addresses: Set<IPv6Address>, isTouched: Bool) throws {
    let (loaded, isFirst) = memory.withLock { ($0.host6, $0.isFirst6) }
    if rules == loaded.rules, !isFirst, !isTouched { return }
    if let rules {
      let lingering = Lingering(addresses: addresses, told: loaded.told, time: configuration.lingering)
      let isAnew = try Nftables.load(rules, before: isTouched || isFirst ? nil : loaded.rules, lingering, object: "this host")
      if isAnew { distrustCounter(nil, IPv6Address.family) }
    } else if Self.hasIPv6 {
      try Nftables.run(RuleTable<IPv6Address>.removal, object: "this host")
    }
    memory.withLock { ($0.host6, $0.isFirst6) = (Loaded(rules: rules, told: addresses), false) }
  }

  /// Of a link whose addresses the cluster gives, in this order: nobody else can have them, and no router tells it anything.
  private static func ownParameters6(of link: String) -> [KernelParameter] {
    ["accept_dad", "accept_ra", "router_solicitations", "disable_ipv6"].map { KernelParameter("ipv6/conf/\(link)/\($0)", "0") }
  }
  /// - Returns: whether something was otherwise.
  @discardableResult
  static func setOwnParameters6(_ link: String) throws(NetworkProblem) -> Bool {
    var isChanged = false
    for parameter in ownParameters6(of: link) { isChanged = try parameter.keep() || isChanged }
    return isChanged
  }
}
