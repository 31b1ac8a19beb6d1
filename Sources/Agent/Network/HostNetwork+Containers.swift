import Glibc
import Model
import Netlink

// Containers' namespaces: made, found again, taken away; rules in them.
extension HostNetwork {
  func path(_ task: TaskID) -> String { "\(configuration.runDirectory)/netns/\(task)" }

  func describe(_ network: TaskNetwork, in world: NetworkWorld) -> AttachedNamespace {
    AttachedNamespace(
      path: path(network.task), networks: network.attachments.map(\.network), reachesOutside: world.leadsOutside(network),
      addresses6: network.attachments.compactMap { attachment in world.network(attachment.network)?.counterpart(of: attachment.address) },
      bridged: network.isBridged ? world.uplinks[network.task]?.address : nil)
  }

  func attach(_ network: TaskNetwork, in bare: NetworkWorld) throws -> AttachedNamespace {
    for attachment in network.attachments where bare.network(attachment.network) == nil {
      throw NetworkProblem("network \(attachment.network)", "not assigned to this node yet")
    }
    try refuseOverlap(network, bare)
    let socket = try NetlinkSocket()
    let links = try socket.links()
    let (world, problems) = try withUplinks(Self.withoutLacking6(bare).world, links, socket.addresses())
    if world.needsUplink(network), world.uplinks[network.task] == nil { throw problems.first ?? NetworkProblem("uplink", "none is free") }
    let hostPorts = Self.hostPorts(network, hasIPv6: world.hostPortAddress6(network) != nil)
    try hold(all: hostPorts, for: network.task, in: world)
    do {
      try makeNamespace(network.task)
      var made: [String] = []
      try connect(network, world, socket, Self.byName(links), &made)
      var common = CommonRules(world, ready: world.readyEndpoints(), before: memory.withLock { $0.balancings })
      try loadRules(network, &common)
    } catch {
      detach(network)
      throw error
    }
    bypass(network, in: world, socket)
    return describe(network, in: world)
  }

  /// A task's ports in host mode, or none of them.
  private func hold(all ports: [PublishedPort], for task: TaskID, in world: NetworkWorld) throws {
    let before = memory.withLock { Array($0.ports.keys) }
    var held: [PublishedPort: Int32] = [:]
    do {
      for port in ports {
        // The rule set gives it to the first.
        if before.contains(where: port.overlaps) {
          throw NetworkProblem("port \(port)", "\(Self.owner(of: port, in: world, besides: task)) has it on this host: publish another port")
        }
        if port.protocol == .sctp, PortHolder.taken(of: [port]).isEmpty { continue }
        guard port.protocol != .sctp, let descriptor = Self.hold(port) else {
          // The process may have the other family's, too.
          let twins = Set(ports.filter { held[$0] == nil && ($0 == port || port.address == nil && $0 == port.inOtherFamily) })
          if let told = conflicts(on: twins).first { throw NetworkProblem(told) }
          throw NetworkProblem(.init(port: port.number, protocol: port.protocol, address: port.address, holder: nil))
        }
        held[port] = descriptor
      }
    } catch {
      for descriptor in held.values { close(descriptor) }
      throw error
    }
    memory.withLock { memory in memory.ports.merge(held) { own, _ in own } }
  }

  /// In one namespace an address has one meaning.
  private func refuseOverlap(_ network: TaskNetwork, _ world: NetworkWorld) throws(NetworkProblem) {
    let assigned = network.attachments.compactMap { world.network($0.network) }
    for (number, one) in assigned.enumerated() {
      for other in assigned[..<number] {
        guard let (own, taken) = one.subnets.overlap(with: other.subnets) else { continue }
        throw NetworkProblem(
          "network \(one.name)",
          "its subnet \(own) overlaps \(taken) of network \(other.name): one task cannot be on both; make one of them anew with another subnet")
      }
    }
  }

  private func makeNamespace(_ task: TaskID) throws {
    let path = path(task)
    mkdir(configuration.runDirectory, 0o755)
    mkdir("\(configuration.runDirectory)/netns", 0o700)
    unbind(path)
    let file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o444)
    guard file >= 0 else { throw NetlinkError(operation: "create", object: path, errno: errno) }
    close(file)
    try thread.insideNew {
      guard mount("/proc/thread-self/ns/net", path, nil, UInt(MS_BIND), nil) == 0 else {
        throw NetlinkError(operation: "bind namespace", object: path, errno: errno)
      }
      // Kernels without IPv6 have no such file. lo keeps ::1; interfaces that come later get IPv6 where their network has it.
      _ = KernelParameter.set("ipv6/conf/default/disable_ipv6", "1")
      // Published ports keep the client's address: it comes in by ingress and its answer leaves by the default route.
      _ = KernelParameter.set("ipv4/conf/all/rp_filter", "2")
      // A router that drops what is too large and does not say so stops a stream for good otherwise (RFC 4821): whoever is outside, past any host.
      _ = KernelParameter.set("ipv4/tcp_mtu_probing", "1")
      // As Docker: a program without privileges may listen on port 80, and may ping.
      _ = KernelParameter.set("ipv4/ip_unprivileged_port_start", "0")
      _ = KernelParameter.set("ipv4/ping_group_range", "0 2147483647")
      try NetlinkSocket().perform([.setLink(1, "lo", up: true)])
    }
  }

  /// What rules have in common: of all containers, or of those on the same networks. Made once for a world, when first asked for.
  struct CommonRules {
    let world: NetworkWorld
    let ready: Ruleset.Ready
    let counterpart: Ruleset.Counterpart
    private lazy var published = Ruleset.publishedByTask(world)
    typealias Balancings = [Set<NetworkID>: (Balancing<IPv4Address>, Balancing<IPv6Address>)]
    private(set) var balancings: Balancings = [:]
    private let before: Balancings
    /// By the number of the container's interface on ingress.
    private var arrivals: [Int: Ruleset.Arrival] = [:]

    /// - Parameter before: of the world before, which most namespaces have loaded.
    init(_ world: NetworkWorld, ready: Ruleset.Ready, before: Balancings) {
      (self.world, self.ready, self.before) = (world, ready, before)
      counterpart = Ruleset.counterparts(in: world)
    }

    /// nil: the task is none, or none of a service, that others are told of.
    mutating func published(by task: TaskID) -> [PortConfig]? { published[task] }

    mutating func balancing(on networks: Set<NetworkID>) -> (Balancing<IPv4Address>, Balancing<IPv6Address>) {
      if let made = balancings[networks] { return made }
      var new = (
        Ruleset.balancing(in: world, on: networks, ready: ready), Ruleset.balancing6(in: world, on: networks, ready: ready, counterpart)
      )
      // What is the same as before is compared with no table again.
      if let old = before[networks] {
        if new.0 == old.0 { new.0 = old.0 }
        if new.1 == old.1 { new.1 = old.1 }
      }
      balancings[networks] = new
      return new
    }

    mutating func arrival(_ network: TaskNetwork) -> Ruleset.Arrival? {
      guard let (ingress, number) = Ruleset.entrance(network, in: world) else { return nil }
      if let made = arrivals[number] { return made }
      let new = Ruleset.Arrival(by: number, ingress)
      arrivals[number] = new
      return new
    }
  }

  func loadRules(_ network: TaskNetwork, _ common: inout CommonRules) throws {
    let world = common.world
    let networks = Set(network.attachments.map(\.network))
    let (balancing, balancing6) = common.balancing(on: networks)
    var loaded = memory.withLock { $0.containerRules[network.task] ?? ContainerRules() }
    let published = common.published(by: network.task) ?? loaded.published
    let arrival = common.arrival(network)
    let rules = Ruleset.container(network, in: world, balancing, published: published, arrival)
    let rules6 = Ruleset.container6(network, in: world, balancing6, published: published, arrival)
    let isRecovered = memory.withLock { $0.recovered.contains(network.task) }
    if rules == loaded.v4.rules, rules6 == loaded.v6.rules, !isRecovered { return }
    var generation: UInt32?
    try thread.inside(path(network.task)) {
      // An agent of before may not have done it, and connections of then are there.
      if isRecovered { trackLoosely() }
      defer { if !isRecovered { trackLoosely() } }
      try load(rules, world.lingering(on: networks), &loaded.v4, network.task, isRecovered: isRecovered)
      // A kernel without IPv6 has no such table either.
      if rules6 != nil || loaded.v6.rules != nil || (isRecovered && Self.hasIPv6) {
        try load(rules6, world.lingering6(on: networks), &loaded.v6, network.task, isRecovered: isRecovered)
      }
      generation = Nftables.generation()
    }
    loaded.published = published
    memory.withLock { memory in
      memory.containerRules[network.task] = loaded
      memory.generations[network.task] = generation.map { Generation(loaded: $0) }
      memory.recovered.remove(network.task)
    }
  }

  /// Connections that conntrack does not know, or of which it sees the answers alone, go on as they are: those from before their callers' hosts were
  /// told apart (Ruleset.arrival) are sought in zones where they are not. In the namespace of the calling thread, once conntrack works in it.
  private func trackLoosely() {
    let own = [("loose", "0"), ("be_liberal", "1")].map { KernelParameter("netfilter/nf_conntrack_tcp_\($0)", $1) }
    _ = keep(own, isDrift: false)
  }

  /// In the namespace of the calling thread, a container's.
  private func load<Address>(
    _ rules: RuleTable<Address>?, _ addresses: Set<Address>, _ loaded: inout Loaded<Address>, _ task: TaskID, isRecovered: Bool
  ) throws {
    if rules == loaded.rules, !isRecovered { return }
    let object = "task \(task)"
    if let rules {
      // A namespace that was made just now has no table, and no connections to who is gone.
      let isNew = loaded.rules == nil && !isRecovered
      let isAnew = try Nftables.load(
        rules, before: isRecovered ? nil : loaded.rules ?? RuleTable(chains: []),
        Lingering(addresses: addresses, told: isNew ? addresses : loaded.told, time: configuration.lingering), object: object)
      if isAnew, !isNew { distrustCounter(task, Address.family) }
    } else {
      try Nftables.run(RuleTable<Address>.removal, object: object)
      distrustCounter(task, Address.family)
    }
    loaded = Loaded(rules: rules, told: addresses)
  }

  /// Returns the uplink that it had.
  @discardableResult
  func detach(_ network: TaskNetwork) -> IPv4Address? {
    let uplink = memory.withLock { $0.uplinks[network.task]?.address }
    // Its addresses may be given to a task elsewhere before the kernel has reaped the namespace.
    if !network.attachments.isEmpty, let socket = try? NetlinkSocket(), let links = try? socket.links() {
      let own = Set(network.attachments.indices.map { InterfaceName.veth(network.task, $0) })
      endBypass(Set(links.lazy.filter { own.contains($0.name) }.map(\.index)), socket)
      for (number, attachment) in network.attachments.enumerated() {
        if let veth = links.first(where: { $0.name == InterfaceName.veth(network.task, number) }) {
          try? socket.perform([.deleteBridgeForwarding(attachment.address.mac, port: veth.index)])
        }
      }
    }
    unbind(path(network.task))
    memory.withLock { memory in
      memory.containerRules[network.task] = nil
      memory.generations[network.task] = nil
      memory.recovered.remove(network.task)
      memory.unchecked[network.task] = nil
      memory.uplinks[network.task] = nil
      for family in [IPv4Address.family, IPv6Address.family] { memory.translated[.init(task: network.task, family: family)] = nil }
      for port in Self.hostPorts(network, hasIPv6: true) { if let held = memory.ports.removeValue(forKey: port) { close(held) } }
    }
    return uplink
  }

  private static func hostPorts(_ network: TaskNetwork, hasIPv6: Bool) -> [PublishedPort] {
    network.hostPorts.flatMap { config in (hasIPv6 ? IPFamily.allCases : [.v4]).compactMap { PublishedPort(config, $0) } }
  }

  private func unbind(_ path: String) {
    while umount2(path, Int32(MNT_DETACH)) == 0 {}
    unlink(path)
  }

  /// Those found, and whether their namespace has a way out: the networks are not known yet, the kernel's routes are.
  func recover(_ alive: [TaskNetwork]) throws -> [TaskID: Bool] {
    let known = Dictionary(alive.map { ($0.task.description, $0.task) }, uniquingKeysWith: { a, _ in a })
    var found: [TaskID: Bool] = [:]
    let folder = "\(configuration.runDirectory)/netns"
    guard let directory = opendir(folder) else { return [:] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      names.append(withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } })
    }
    for name in names where name != "." && name != ".." {
      if let task = known[name],
        let outside = try? thread.inside("\(folder)/\(name)", { KernelRoute.all().contains { $0.destination.length == 0 } })
      {
        found[task] = outside
        // What the agent before loaded there is not known: load anew.
        memory.withLock { memory in
          memory.recovered.insert(task)
          memory.unchecked[task] = false
        }
      } else {
        unbind("\(folder)/\(name)")
      }
    }
    return found
  }
}
