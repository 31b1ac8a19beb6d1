import Model

/// nftables rules for one namespace. Everything in them is made of numbers and addresses, never of a text from outside. Connections that
/// were established keep their translation (conntrack).
enum Ruleset {
  /// In a container: its connections to virtual IPs go to a random ready endpoint, and the endpoint sees the container's own address.
  /// nil without interfaces, where nobody answers names.
  /// - Parameters:
  ///   - balancing: of the container's networks.
  ///   - published: what its service publishes through ingress.
  ///   - arrival: where it is on ingress, and this host is (`entrance`).
  static func container(
    _ network: TaskNetwork, in world: NetworkWorld, _ balancing: Balancing<IPv4Address>, published: [PortConfig], _ arrival: Arrival?
  ) -> RuleTable<IPv4Address>? {
    let guarding = network.attachments.enumerated().filter { $0.element.network == world.ingress?.id }.map {
      Self.unpublished(to: $0.element.address, by: "eth\($0.offset)", published + network.hostPorts)
    }
    if !network.hasInterfaces { return nil }
    guard !balancing.virtual.isEmpty || !guarding.isEmpty else { return RuleTable(chains: [names]) }
    let networks = Set(network.attachments.map(\.network))
    let subnets = subnets4(of: world, on: networks)
    var table = RuleTable(
      chains: balancing.chains + [
        names,
        chain("output", "type nat hook output priority -100; policy accept;", Balancing<IPv4Address>.lookup),
        // One chain: each that hangs on a hook costs every packet.
        chain(
          "depart", "type filter hook output priority 0; policy accept;",
          (arrival == nil ? [] : [answering]) + refusal(IPv4Address.self) + stale(IPv4Address.self, subnets)
            + forgotten(IPv4Address.self, subnets, hosts: arrival?.hosts)),
      ], balancing: balancing)
    if let arrival {
      table.chains.append(arrival.caller)
      table.egress = arrival.egress
    }
    table.chains += arriving(guarding, arrival?.marking)
    return table
  }

  /// All who publish are on ingress together, and hosts are: a task begins no connection there but to its published ports, whatever address of it is
  /// written, as Swarm's rules have it (moby libnetwork/service_linux.go, addRedirectRules; pings pass there too). A stream that conntrack does not
  /// know, from before its rules, goes on: it is invalid, and not new (docs/network.md).
  static func unpublished<Address: OverlayAddress>(to address: Address, by device: String, _ ports: [PortConfig]) -> String {
    let new = "iifname \"\(device)\" ct state new,untracked meta l4proto != \(Address.icmp)"
    let own = ports.filter { $0.families.contains(Address.addresses) }
    let targets = Set(own.map { "\(address) . \(($0.protocol ?? .tcp).rawValue) . \($0.targetPort)" })
    return targets.isEmpty ? "\(new) drop" : "\(new) \(Address.family) daddr . meta l4proto . th dport != \(set(Array(targets))) drop"
  }

  /// What tasks of this host publish through ingress, as all are told: hosts may send them that. Of a task that ended, or whose service is gone, nobody is
  /// told: it is not among these, where one that publishes nothing is.
  static func publishedByTask(_ world: NetworkWorld) -> [TaskID: [PortConfig]] {
    guard let ingress = world.ingress else { return [:] }
    let own = world.endpoints.filter { $0.network == ingress.id && world.containers[$0.task] != nil }
    let wanted = Set(own.map(\.service))
    let services = Dictionary(world.services.lazy.filter { wanted.contains($0.id) }.map { ($0.id, $0) }, uniquingKeysWith: { a, _ in a })
    var ports: [TaskID: [PortConfig]] = [:]
    for endpoint in own {
      ports[endpoint.task] = services[endpoint.service]?.ports.filter { ($0.publishMode ?? .ingress) == .ingress }
    }
    return ports
  }

  /// Questions to 127.0.0.11:53 go where the resolver listens, and its answers come from there. Packet by packet, before conntrack and without it: the
  /// entries of 10,000 questions a second would fill its table, which all containers share (moby translates, libnetwork/resolver_unix.go). What the
  /// kernel says of an unreachable port names the other one, so while no agent runs, datagrams are not refused but wait for the asker's patience.
  private static var names: RuleChain {
    let (address, port) = (EmbeddedDNS.address, EmbeddedDNS.port)
    return chain(
      "names", "type filter hook output priority -300; policy accept;",
      ["udp", "tcp"].flatMap { kind in
        [
          "ip daddr \(address) \(kind) dport 53 \(kind) dport set \(port) notrack",
          "ip saddr \(address) \(kind) sport \(port) \(kind) sport set 53 notrack",
        ]
      })
  }

  /// The same over IPv6. What it answers leaves by the rule for frames of the other table, which looks at marks alone.
  static func container6(
    _ network: TaskNetwork, in world: NetworkWorld, _ balancing: Balancing<IPv6Address>, published: [PortConfig], _ arrival: Arrival?
  ) -> RuleTable<IPv6Address>? {
    let subnets = subnets6(of: world, on: Set(network.attachments.map(\.network)))
    let arrival = world.door6 == nil ? nil : arrival
    let ports = published + network.hostPorts
    let guarding = network.attachments.enumerated().compactMap { number, attachment -> String? in
      guard let ingress = world.ingress, attachment.network == ingress.id else { return nil }
      return ingress.counterpart(of: attachment.address).map { unpublished(to: $0, by: "eth\(number)", ports) }
    }
    guard !subnets.isEmpty, !balancing.virtual.isEmpty || !guarding.isEmpty else { return nil }
    return RuleTable(
      chains: balancing.chains + [
        chain("output", "type nat hook output priority -100; policy accept;", Balancing<IPv6Address>.lookup),
        chain(
          "depart", "type filter hook output priority 0; policy accept;",
          (arrival == nil ? [] : [answering]) + refusal(IPv6Address.self) + stale(IPv6Address.self, subnets)
            + forgotten(IPv6Address.self, subnets, hosts: arrival?.hosts6)),
      ] + (arrival.map { [$0.caller] } ?? []) + arriving(guarding, arrival?.marking), balancing: balancing)
  }
  /// After conntrack has looked.
  private static func arriving(_ guarding: [String], _ marking: String?) -> [RuleChain] {
    guarding.isEmpty ? [] : [chain("arrive", "type filter hook prerouting priority -150; policy accept;", guarding + (marking.map { [$0] } ?? []))]
  }
  private static let answering = "ct direction reply ct mark != 0 meta mark set ct mark"

  static func balancing(in world: NetworkWorld, on networks: Set<NetworkID>, ready: Ready) -> Balancing<IPv4Address> {
    balancing(in: world, on: networks, ready: ready) { $1 }
  }
  static func balancing6(
    in world: NetworkWorld, on networks: Set<NetworkID>, ready: Ready, _ counterpart: Counterpart
  ) -> Balancing<IPv6Address> {
    let dual = Set(world.networks.lazy.filter { $0.subnet6 != nil }.map(\.id))
    return balancing(in: world, on: networks.intersection(dual), ready: ready, counterpart)
  }

  /// Who is called over IPv6 beside an IPv4 address of a network; nil: nobody.
  typealias Counterpart = (NetworkID, IPv4Address) -> IPv6Address?
  static func counterparts(in world: NetworkWorld) -> Counterpart {
    let dual = Dictionary(world.networks.filter { $0.subnet6 != nil }.map { ($0.id, $0) }, uniquingKeysWith: { a, _ in a })
    // Their hosts' kernels have no IPv6: calls would wait for an answer in vain.
    let lacking = Set(world.endpoints.lazy.filter(\.lacksIPv6).map(\.attachment))
    return { network, address in
      if !lacking.isEmpty, lacking.contains(NetworkAttachment(network: network, address: address)) { return nil }
      return dual[network]?.counterpart(of: address)
    }
  }

  private static func balancing<Address: OverlayAddress>(
    in world: NetworkWorld, on networks: Set<NetworkID>, ready: Ready, _ convert: (NetworkID, IPv4Address) -> Address?
  ) -> Balancing<Address> {
    if networks.isEmpty { return Balancing() }
    var backends: [Address: [Address]] = [:]
    var alive: Set<Address> = []
    for service in world.services {
      for virtual in service.virtualIPs where networks.contains(virtual.network) {
        guard let address = convert(virtual.network, virtual.address) else { continue }
        backends[address] = (ready[.init(service.id, virtual.network)] ?? []).compactMap { convert(virtual.network, $0) }
      }
    }
    for endpoint in world.endpoints where !endpoint.lost && networks.contains(endpoint.network) {
      if let address = convert(endpoint.network, endpoint.address) { alive.insert(address) }
    }
    for container in world.containers.values {
      for attachment in container.attachments where networks.contains(attachment.network) {
        if let address = convert(attachment.network, attachment.address) { alive.insert(address) }
      }
    }
    return Balancing(virtual: backends, alive: alive)
  }

  private static func refusal<Address: OverlayAddress>(_: Address.Type) -> [String] {
    let match = "\(Address.family) daddr @refused"
    return [
      "\(Address.family) daddr @alive accept", "\(match) meta l4proto tcp reject with tcp reset", "\(match) reject with \(Address.unreachable)",
    ]
  }

  /// A published port's connection keeps its client's address, so its answer must leave through the host that the client called, which alone
  /// knows what it translated. That host is known by the link address the connection came from: the connection is marked with it, and what
  /// answers goes back to it (docs/network.md).
  ///
  /// One that calls two hosts from one port of its own sends the same addresses and ports twice. They are two connections, since conntrack looks
  /// for what comes in by a host in that host's zone; answers are in no zone, and are told apart by the port of the later client, which the kernel
  /// changes for the task where both would have the same: it does so where a namespace has any chain of type nat, which `output` is (Linux
  /// nf_conntrack_zones.h, NF_CT_ZONE_DIR_ORIG; nf_nat_core.c, nf_nat_alloc_null_binding).
  ///
  /// The text is the same for all containers whose interface on ingress has the same number.
  struct Arrival {
    /// Before conntrack looks (-200).
    var caller: RuleChain
    var marking: String
    var egress: RuleTable<IPv4Address>.Egress
    /// Sets of all hosts' addresses on ingress.
    var hosts: String
    /// nil: they have none.
    var hosts6: String?

    init(by number: Int, _ ingress: NetworkAssignment) {
      let all = (ingress.peers.compactMap(\.address) + [ingress.nodeAddress].compactMap { $0 }).sorted()
      let marks = all.map { "\(mac($0)) : 0x\(hex($0.octets).joined())" }.joined(separator: ", ")
      // 16 bits: hosts of an ingress broader than /16 may share one, and then are not told apart.
      let zones = all.map { "\(mac($0)) : \($0.rawValue & 0xffff)" }.joined(separator: ", ")
      // The first six bytes of a frame: its receiver. As a number, since `ether daddr` would ask for the device it came in by; it came by none.
      let receivers = all.map { "0x\(hex($0.octets).joined()) : 0x\(hex($0.mac).joined())" }.joined(separator: ", ")
      let from = "iifname \"eth\(number)\""
      caller = chain(
        "caller", "type filter hook prerouting priority -300; policy accept;", ["\(from) ct original zone set ether saddr map { \(zones) }"])
      // Not the first packet alone: its host may not have been known yet.
      marking = "\(from) ct direction original ct mark 0 ct mark set ether saddr map { \(marks) }"
      egress = .init(device: "eth\(number)", rule: "@ll,0,48 set meta mark map { \(receivers) }")
      hosts = set(all.map { "\($0)" })
      let all6 = all.compactMap(ingress.counterpart)
      hosts6 = all6.isEmpty ? nil : set(all6.map { "\($0)" })
    }
  }
  /// The number of a container's interface on ingress, where this host has an address there too.
  static func entrance(_ network: TaskNetwork, in world: NetworkWorld) -> (ingress: NetworkAssignment, number: Int)? {
    guard let ingress = world.ingress, ingress.nodeAddress != nil,
      let number = network.attachments.firstIndex(where: { $0.network == ingress.id })
    else { return nil }
    return (ingress, number)
  }

  /// Who is sent to a task which has ended meanwhile is told so, instead of trying for minutes: at once when the connection is not answered yet
  /// (that also ends what conntrack remembers, so that the next one from the same port is sent elsewhere), or else when what the task said
  /// last has had its time to arrive.
  private static func stale<Address: OverlayAddress>(_: Address.Type, _ subnets: [String]) -> [String] {
    guard !subnets.isEmpty else { return [] }
    let family = Address.family
    func dead(_ state: String) -> [String] {
      let match = "ct status dnat \(state) \(family) daddr \(set(subnets)) \(family) daddr != @alive"
      return ["\(match) meta l4proto tcp reject with tcp reset", "\(match) reject with \(Address.unreachable)"]
    }
    return dead("ct state new") + dead("ct direction original \(family) daddr != @lingering")
  }

  /// A stream by virtual IP that conntrack does not remember is not translated (containers take up none in its middle, docs/network.md): to its end,
  /// whoever that was, nothing leads, and nobody has the virtual IP. For what leaves for a network's addresses that are no living task's, after
  /// `refusal`; hosts on ingress, as callers of published ports, are answered whatever conntrack knows.
  private static func forgotten<Address: OverlayAddress>(_: Address.Type, _ subnets: [String], hosts: String?) -> [String] {
    guard !subnets.isEmpty else { return [] }
    let family = Address.family
    let others = hosts.map { " \(family) daddr != \($0)" } ?? ""
    return ["ct state invalid meta l4proto tcp \(family) daddr \(set(subnets))\(others) \(family) daddr != @lingering reject with tcp reset"]
  }
  private static func subnets4(of world: NetworkWorld, on networks: Set<NetworkID>) -> [String] {
    world.networks.filter { networks.contains($0.id) }.map { "\($0.subnet)" }
  }
  static func subnets6(of world: NetworkWorld, on networks: Set<NetworkID>) -> [String] {
    world.networks.filter { networks.contains($0.id) }.compactMap { $0.subnet6.map { "\($0)" } }
  }

  /// What was translated to an uplink that is gone would leave by the host's default route.
  /// - Parameter isOutput: of the host's own packets. Where they leave was decided before they were translated, and the rules of this hook go on to
  ///   be told of that link (nf_hook_state); the route has changed. An uplink has no gateway.
  private static func goneUplinks<Address: OverlayAddress>(_: Address.Type, _ world: NetworkWorld, isOutput: Bool = false) -> [String] {
    guard !world.uplinkSubnets.isEmpty else { return [] }
    let isV4 = Address.family == IPv4Address.family
    let subnets = set(isV4 ? world.uplinkSubnets.map { "\($0)" } : ["\(Uplink.subnet6)"])
    let match = "ct status dnat \(Address.family) daddr \(subnets) " + (isOutput ? "rt nexthop != \(subnets)" : "oifname != \(uplinks)")
    return ["\(match) meta l4proto tcp reject with tcp reset", "\(match) reject with \(Address.unreachable)"]
  }

  typealias Ready = [NetworkWorld.ServiceOnNetwork: [IPv4Address]]

  /// - Parameter published: `publishedPorts`.
  static func host(
    _ world: NetworkWorld, _ published: [Published<IPv4Address>], ready: Ready, unavailable: Set<PublishedPort>
  ) -> RuleTable<IPv4Address> {
    // On others this host has no address: what is on them passes its bridges, and not its rules.
    let ingress = world.ingress.flatMap { $0.nodeAddress == nil ? nil : $0 }
    let own = Set(ingress.map { [$0.id] } ?? [])
    let balancing = balancing(in: world, on: own, ready: ready)
    let ports = published.filter { !unavailable.contains($0.port) }
    let closed = ports.filter { $0.backends.isEmpty }

    var postrouting: [String] = []
    let gone = goneUplinks(IPv4Address.self, world)
    let stale = stale(IPv4Address.self, subnets4(of: world, on: own))
    let smuggled = smuggled(world)
    // What the bridge forwards comes by here too (bridge-nf-call-iptables), after it was translated or untracked. What a task sends to the bridge's
    // own link address is not bridged but routed: that is tracked where the host is on the network, and is nobody's business elsewhere.
    let routed = "iifname \(bridges) ct state untracked drop"
    var forward = (world.networks.isEmpty ? [] : ["\(within(world.networks)) ct state untracked accept", routed]) + smuggled.passing + stale + gone
    if world.isRouting {
      // Callers inside would be answered there directly, past the translation; or have addresses that are known here alone. All others keep theirs.
      for device in [bridges, uplinks] {
        postrouting.append("ct status dnat oifname \(device) ip saddr \(set((ingress.map { ["\($0.subnet)"] } ?? []) + ["127.0.0.0/8"])) masquerade")
        postrouting.append("ct status dnat oifname \(device) iifname \(uplinks) masquerade")
      }
      let outward = "oifname != \(bridges) oifname != \(uplinks)"
      if let ingress { postrouting.append("\(outward) ip saddr \(ingress.subnet) masquerade") }
      postrouting.append("\(outward) iifname \(uplinks) masquerade")

      if !world.networks.isEmpty { forward.append("\(within(world.networks)) accept") }
      forward += insideOnly(world)
      for device in [bridges, uplinks] {
        forward.append("iifname \(device) ct status dnat accept")
        forward.append("oifname \(device) ct status dnat accept")
        forward.append("oifname \(device) ct state established,related accept")
      }
      forward += [bridges, uplinks].map { "oifname \($0) drop" }
    }

    // What is inside is tracked where it is translated; the packets around it need nobody's memory, nor do frames from one container to another,
    // which bridge-nf-call-iptables (on by default) shows to these rules: their receiver is not the bridge.
    let tunnels = Set(world.networks.map { "\($0.dataPathPort)" })
    let untracked = tunnels.isEmpty ? [] : ["udp dport \(set(Array(tunnels))) notrack"]
    // Tasks' own datagrams to such a port are as all others.
    let arriving = untracked.map { "iifname != \(uplinks) \($0)" }
    // Two networks may have the same addresses.
    let bridged = world.networks.isEmpty ? [] : [(ingress?.nodeAddress).map { "ether daddr != \(mac($0)) notrack" } ?? "notrack"]
    // Whoever writes another's address would be taken for its answer (conntrack knows no interface; reverse path is loose here). What other hosts send
    // to tasks has clients' addresses, and is not for this host's own link.
    let forged = ingress.flatMap { ingress in
      ingress.nodeAddress.map { "iifname \"\(bridge(ingress))\" ether daddr \(mac($0)) ip saddr != \(ingress.subnet) goto forged" }
    }
    let members = members(world)
    return RuleTable(
      chains: balancing.chains + members.chains + leading(ports)
        + [
          // VXLAN packets are counted whatever their source.
          chain("forged", "", (tunnels.isEmpty ? [] : ["udp dport \(set(Array(tunnels))) \(dropped)"]) + ["drop"]),
          // route_localnet lets 127.0.0.1 reach published ports; nobody else may use it to reach what listens there.
          chain("inside", "", ["ip daddr 127.0.0.0/8 drop"] + (forged.map { [$0] } ?? []) + bridged),
          chain(
            "guard", "type filter hook prerouting priority -300; policy accept;",
            ["iifname \(bridges) goto inside", "iifname \(uplinks) ip daddr 127.0.0.0/8 drop", "\(forgedByUplink) goto forged"] + arriving),
          chain("untracked", "type filter hook output priority -300; policy accept;", untracked),
          chain("prerouting", "type nat hook prerouting priority -100; policy accept;", ["fib daddr type local jump published"]),
          chain(
            "output", "type nat hook output priority -100; policy accept;", ["fib daddr type local jump published"] + Balancing<IPv4Address>.lookup),
          chain("postrouting", "type nat hook postrouting priority 100; policy accept;", postrouting),
          chain("forward", "type filter hook forward priority 0; policy accept;", forward),
          chain(
            "input", "type filter hook input priority 0; policy accept;",
            (world.networks.isEmpty ? [] : [routed]) + smuggled.arriving + insideOnly(world) + members.guarding + refuse(closed.map(\.port))),
          chain(
            "refuse", "type filter hook output priority 0; policy accept;",
            ["ct state untracked accept"] + goneUplinks(IPv4Address.self, world, isOutput: true) + refusal(IPv4Address.self) + stale),
        ], balancing: balancing)
  }

  /// Of IPv6: a host is on ingress alone with it, so what is on other networks passes its bridges, and what leaves comes by ingress or by uplinks.
  /// nil: nothing here has it.
  /// - Parameters:
  ///   - published6: `publishedPorts6`.
  ///   - isRouter: forwarding was turned on for tasks: nobody else has it, as with docker. Frames that a bridge of others forwards, which
  ///   bridge-nf-call-ip6tables shows to these rules, are not routed.
  ///   - bridges: those, by their numbers.
  static func host6(
    _ world: NetworkWorld, _ published6: [Published<IPv6Address>], ready: Ready, _ counterpart: Counterpart, unavailable: Set<PublishedPort>,
    isRouter: Bool, bridges others: [UInt32]
  ) -> RuleTable<IPv6Address>? {
    let networks = world.networks.filter { $0.subnet6 != nil }
    guard !networks.isEmpty || !published6.isEmpty else { return nil }
    let ports = published6.filter { !unavailable.contains($0.port) }
    let closed = ports.filter(\.backends.isEmpty).map(\.port)
    let door = world.door6
    let own = Set(door == nil ? [] : [world.ingress].compactMap { $0?.id })
    let balancing = balancing6(in: world, on: own, ready: ready, counterpart)
    let stale = stale(IPv6Address.self, subnets6(of: world, on: own))
    // What answers calls by ::1 (LoopbackDetour) is tracked when it comes the second time.
    let detour = published6.isEmpty ? nil : LoopbackDetour.address(of: world)
    let returning = detour.map { ["ip6 daddr \($0) notrack"] } ?? []
    // Who asks for a neighbour's link address is no caller, and has no address that can be told from another's.
    let asking = "icmpv6 type { nd-neighbor-advert, nd-neighbor-solicit } accept"
    let entrance = door.map { "iifname \"\($0.bridge)\"" }
    let closedBridges = { (way: String) in "\(way) \(bridges)" + (door.map { " \(way) != \"\($0.bridge)\"" } ?? "") + " drop" }
    let inner = (door.map { ["\"\($0.bridge)\""] } ?? []) + [uplinks]

    var guarding = ["iifname \(bridges) notrack", "\(forgedByUplink) drop"] + returning.map { "iifname \(uplinks) \($0)" }
    var input = [closedBridges("iifname")]
    var forward = networks.isEmpty ? [] : ["\(within(networks)) accept"]
    if let detour {
      forward += ["ip6 daddr \(detour) ct state untracked accept", "drop"].map { "oifname \"\(LoopbackDetour.links[0])\" \($0)" }
    }
    forward += [closedBridges("iifname"), closedBridges("oifname")]
    var postrouting: [String] = []
    if let entrance {
      guarding.insert("\(entrance) goto inside", at: 0)
      input = ["\(entrance) \(asking)"] + input + ["\(entrance) ct state untracked drop"]
      forward.append("\(entrance) ct state untracked drop")
    }
    forward += stale + goneUplinks(IPv6Address.self, world) + insideOnly(world)
    for device in inner {
      // As over IPv4: callers inside would be answered there directly, past the translation.
      if let detour { postrouting.append("ct status dnat oifname \(device) ip6 saddr ::1 snat to \(detour)") }
      if let door { postrouting.append("ct status dnat oifname \(device) ip6 saddr \(door.subnet) masquerade") }
      postrouting.append("ct status dnat oifname \(device) iifname \(uplinks) masquerade")
      forward += ["iifname \(device) ct status dnat accept", "oifname \(device) ct status dnat accept"]
      forward.append("oifname \(device) ct state established,related accept")
    }
    forward += inner.map { "oifname \($0) drop" }
    if isRouter {
      if !others.isEmpty { forward.append("iif . oif \(set(others.map { "\($0) . \($0)" })) accept") }
      forward.append(inner.map { "iifname != \($0)" }.joined(separator: " ") + " drop")
    }
    let outward = "oifname != \(bridges) oifname != \(uplinks)"
    if let door { postrouting.append("\(outward) ip6 saddr \(door.subnet) masquerade") }
    postrouting.append("\(outward) iifname \(uplinks) masquerade")

    var chains =
      balancing.chains + leading(ports, unless: ["ip6 saddr fe80::/10 return"]) + [
        // Frames from one container to another, which bridge-nf-call-ip6tables shows to these rules, need nobody's memory.
        chain("guard", "type filter hook prerouting priority -300; policy accept;", guarding),
        chain("input", "type filter hook input priority 0; policy accept;", input + insideOnly(world) + refuse(closed)),
        chain("forward", "type filter hook forward priority 0; policy accept;", forward),
        chain("postrouting", "type nat hook postrouting priority 100; policy accept;", postrouting),
      ]
    if let door {
      // Whoever writes another's address would be taken for its answer.
      let link = "ether daddr \(mac(door.address4))"
      chains.append(
        chain("inside", "", [asking, "\(link) ip6 saddr != \(door.subnet) drop", "ether daddr != \(mac(door.address4)) notrack"] + returning))
    }
    if door != nil || !published6.isEmpty {
      chains += [
        chain("prerouting", "type nat hook prerouting priority -100; policy accept;", ["fib daddr type local jump published"]),
        chain(
          "output", "type nat hook output priority -100; policy accept;", ["fib daddr type local jump published"] + Balancing<IPv6Address>.lookup),
        chain(
          "refuse", "type filter hook output priority 0; policy accept;",
          ["ct state untracked accept"] + goneUplinks(IPv6Address.self, world, isOutput: true) + refusal(IPv6Address.self) + stale),
      ]
    }
    if detour != nil {
      // Only answers may be led to ::1.
      chains.append(
        chain(
          "detour", "type filter hook prerouting priority -150; policy accept;",
          ["iifname \"\(LoopbackDetour.links[1])\" ct state != { established, related } drop"]))
    }
    return RuleTable(chains: chains, balancing: balancing)
  }

  // MARK: Parts

  private static let uplinks = "\"\(InterfaceName.uplinkPrefix)*\""
  private static let bridges = "\"\(InterfaceName.bridgePrefix)*\""

  /// Frames from one container of a network to another, which pass its bridge.
  private static func within(_ networks: [NetworkAssignment]) -> String {
    "iifname . oifname \(set(networks.map { "\"\(bridge($0))\" . \"\(bridge($0))\"" }))"
  }

  /// What comes by an uplink with an address that is not reached by it (RFC 3704 2.2, strict reverse path; Linux asks for the host's greatest rp_filter
  /// of all links, so that a rule is needed).
  private static let forgedByUplink = "iifname \(uplinks) fib saddr . iif oif 0"

  /// Tasks on internal networks alone have an uplink for their host ports: they answer by it, and call nobody.
  private static func insideOnly(_ world: NetworkWorld) -> [String] {
    let inside = world.uplinks.keys.filter { task in world.containers[task].map { !world.leadsOutside($0) } ?? false }
    return inside.isEmpty ? [] : ["iifname \(set(inside.map { "\"\(InterfaceName.uplink($0))\"" })) ct direction original drop"]
  }

  /// VXLAN packets of our networks are heard from hosts that are on the network, and from no other; others' VNIs are none of our business.
  /// The VNI is bytes 4 to 6 of the header behind UDP's (RFC 7348 5).
  private static func members(_ world: NetworkWorld) -> (chains: [RuleChain], guarding: [String]) {
    let chains = world.networks.map { network in
      let peers = network.peers.map { "\($0.underlay)" }
      // Members send to this one address; at another of the host's may be what came from a container of theirs.
      let foreign = peers.isEmpty ? [""] : ["ip saddr != \(set(peers)) ", "ip daddr != \(world.underlay) "]
      return chain("vxlan-\(network.vni)", "", foreign.map { "\($0)\(dropped)" })
    }
    let guarding = Dictionary(grouping: world.networks, by: \.dataPathPort).sorted { $0.key < $1.key }.flatMap { port, networks in
      vmap("udp dport \(port) @th,96,24", networks.map { ("\($0.vni)", "jump vxlan-\($0.vni)") }.sorted { $0.0 < $1.0 })
    }
    return (chains.sorted { $0.name < $1.name }, guarding)
  }

  /// Containers send no VXLAN packets to hosts: a peer would see this host's own address on them, which is a member's, and this host whatever
  /// address the container wrote.
  private static func smuggled(_ world: NetworkWorld) -> (passing: [String], arriving: [String]) {
    let ports = Set(world.networks.map { "\($0.dataPathPort)" })
    let peers = Set(world.networks.flatMap(\.peers).map { "\($0.underlay)" })
    guard !ports.isEmpty else { return ([], []) }
    let inside = [bridges, uplinks].map { "udp dport \(set(Array(ports))) iifname \($0)" }
    // From one container to another is their own affair.
    let passing = peers.isEmpty ? [] : inside.map { "\($0) oifname != \(bridges) ip daddr \(set(Array(peers))) \(dropped)" }
    return (passing, inside.map { "\($0) \(dropped)" })
  }
  private static let dropped = "counter counter name \"strangers\" drop"

  struct Published<Address: OverlayAddress>: Equatable {
    var port: PublishedPort
    var target: UInt16
    var backends: [Address]
  }

  /// Ports of services through ingress, and of tasks of this host; the first of two that claim the same port has it.
  static func publishedPorts(_ world: NetworkWorld, ready: Ready) -> [Published<IPv4Address>] {
    publishedPorts(world, ready, .v4, throughIngress: true, { $1 }, world.hostPortAddress)
  }
  /// Those that answer at this host's IPv6 addresses.
  static func publishedPorts6(_ world: NetworkWorld, ready: Ready, _ counterpart: Counterpart) -> [Published<IPv6Address>] {
    publishedPorts(world, ready, .v6, throughIngress: world.door6 != nil, counterpart, world.hostPortAddress6)
  }

  private static func publishedPorts<Address: OverlayAddress>(
    _ world: NetworkWorld, _ ready: Ready, _ family: IPFamily, throughIngress: Bool, _ convert: (NetworkID, IPv4Address) -> Address?,
    _ hostPortAddress: (TaskNetwork) -> Address?
  ) -> [Published<Address>] {
    var result: [PublishedPort: [Published<Address>]] = [:]
    func add(_ config: PortConfig, _ backends: [Address]) {
      guard let port = PublishedPort(config, family), result[port.inFamily]?.contains(where: { $0.port.overlaps(port) }) != true else { return }
      result[port.inFamily, default: []].append(Published(port: port, target: config.targetPort, backends: backends))
    }
    if throughIngress, let ingress = world.ingress {
      for service in world.services.sorted(by: { $0.id < $1.id }) {
        for config in service.ports where (config.publishMode ?? .ingress) == .ingress {
          add(config, (ready[.init(service.id, ingress.id)] ?? []).compactMap { convert(ingress.id, $0) })
        }
      }
    }
    for container in world.containers.values.sorted(by: { $0.task < $1.task }) {
      guard let address = hostPortAddress(container) else { continue }
      for config in container.hostPorts where config.publishMode == .host { add(config, [address]) }
    }
    return result.values.joined().sorted { $0.port < $1.port }
  }

  /// - Parameter unless: rules for who is not led anywhere.
  private static func leading<Address>(_ ports: [Published<Address>], unless: [String] = []) -> [RuleChain] {
    let open = Dictionary(grouping: ports.filter { !$0.backends.isEmpty }, by: \.port.inFamily).sorted { $0.key < $1.key }
    let map = vmap("meta l4proto . th dport", open.map { ("\($0.key.protocol.rawValue) . \($0.key.number)", "goto \($0.key.chain)") })
    return open.map { port, published in
      // What calls another address of this host than these goes on.
      chain(
        port.chain, "",
        published.map {
          let own = $0.port.address.map { "\(Address.family) daddr \($0) " } ?? ""
          let count = port.protocol == .udp ? "\(counting) " : ""
          return "\(own)meta l4proto \(port.protocol.rawValue) \(count)\(translate($0.backends, port: $0.target))"
        })
    } + [chain("published", "", (map.isEmpty ? [] : unless) + map)]
  }

  private static func refuse(_ ports: [PublishedPort]) -> [String] {
    func rule(_ kind: PortConfig.PortProtocol, _ answer: String) -> [String] {
      let own = ports.filter { $0.protocol == kind }
      let everywhere = own.filter { $0.address == nil }.map { "\($0.number)" }
      let one = own.compactMap { port in port.address.map { "\($0) . \(port.number)" } }
      let family = own.first?.family == .v6 ? IPv6Address.family : IPv4Address.family
      return (everywhere.isEmpty ? [] : ["\(kind.rawValue) dport \(set(everywhere)) \(answer)"])
        + (one.isEmpty ? [] : ["\(family) daddr . \(kind.rawValue) dport \(set(one)) \(answer)"])
    }
    return rule(.tcp, "reject with tcp reset") + rule(.udp, "reject") + rule(.sctp, "reject")
  }

  private static func chain(_ name: String, _ hook: String, _ rules: [String]) -> RuleChain {
    RuleChain(name: name, hook: hook, rules: rules)
  }
  private static func set(_ items: [String]) -> String { "{ \(items.sorted().joined(separator: ", ")) }" }
  private static func hex(_ bytes: [UInt8]) -> [String] { bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) } }
  /// As nft writes a link address.
  private static func mac(_ address: IPv4Address) -> String { hex(address.mac).joined(separator: ":") }
  private static func vmap(_ key: String, _ items: [(String, String)]) -> [String] {
    items.isEmpty ? [] : ["\(key) vmap { \(items.map { "\($0.0) : \($0.1)" }.joined(separator: ", ")) }"]
  }
  private static func translate(_ backends: [some OverlayAddress], port: UInt16?) -> String {
    let suffix = port.map { ":\($0)" } ?? ""
    if backends.count == 1 { return "dnat to \(backends[0].beforePort)\(suffix)" }
    let map = backends.enumerated().map { "\($0.offset) : \($0.element)" }.joined(separator: ", ")
    return "dnat to numgen random mod \(backends.count) map { \(map) }\(suffix)"
  }
  /// Translation is asked for the first packet of a flow alone.
  private static let counting = "counter name \"datagrams\""
  private static func bridge(_ network: NetworkAssignment) -> String { InterfaceName.bridge(network.vni) }
}

/// A port of this host, at addresses of one family.
struct PublishedPort: Hashable, Comparable, Sendable, CustomStringConvertible {
  var `protocol`: PortConfig.PortProtocol
  var number: UInt16
  var family = IPFamily.v4
  /// Of the host's, the only one; nil: all of the family.
  var address: IPAddress?
  static func < (a: Self, b: Self) -> Bool {
    if a.inFamily == b.inFamily { return (a.address?.description ?? "") < (b.address?.description ?? "") }
    return (a.number, a.protocol.rawValue, a.family.rawValue) < (b.number, b.protocol.rawValue, b.family.rawValue)
  }
  var chain: String { "port-\(self.protocol.rawValue)-\(number)" }
  var claim: PortClaim { PortClaim(number, self.protocol, at: address) }
  var description: String { "\(claim)" }
  /// Two cannot both be held.
  func overlaps(_ other: Self) -> Bool { family == other.family && claim.overlaps(other.claim) }
  /// Whatever the address.
  var inFamily: Self { Self(protocol: self.protocol, number: number, family: family) }
  /// The same number at all addresses of the other family.
  var inOtherFamily: Self { Self(protocol: self.protocol, number: number, family: family == .v4 ? .v6 : .v4) }
  /// Whatever the family, as IPv4's: for looking up who has it.
  var anywhere: Self { Self(protocol: self.protocol, number: number) }
}

extension PublishedPort {
  /// nil when the number is not chosen, or the port is of addresses of the other family.
  init?(_ config: PortConfig, _ family: IPFamily) {
    guard let number = config.publishedPort, number > 0, config.families.contains(family) else { return nil }
    self.init(protocol: config.protocol ?? .tcp, number: number, family: family, address: config.hostIP.flatMap { $0.isUnspecified ? nil : $0 })
  }
}
