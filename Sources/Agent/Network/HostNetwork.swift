import Glibc
import Model
import Netlink
import Synchronization

/// What happens on the network thread: reads the kernel, asks the plan, carries it out. Every method runs on that thread, and holds
/// its own small memory (which rules were loaded where) only there.
final class HostNetwork: Sendable {
  let configuration: OverlayNetwork.Configuration
  let thread: NetworkThread
  /// Conntrack is read here: it takes a second and more where many connections are remembered, and nobody who drains is to wait for it.
  let flows: NetworkThread
  let memory = Mutex(Memory())

  struct Memory {
    var hostRules: RuleTable?
    var containerRules: [TaskID: RuleTable] = [:]
    /// Whose rules an agent before this one loaded.
    var recovered: Set<TaskID> = []
    /// Sockets that hold published ports, so that nobody else takes them and that who has them is noticed.
    var ports: [PublishedPort: Int32] = [:]
    /// Those that someone else has.
    var taken: [PublishedPort: NodeDescription.Holder?] = [:]
    var watch: PortWatch?
    var drift: DriftWatch?
    /// What this host was brought to last; what differs from it since is drift.
    var reached: HostState?
    var rulesTouched = false
    /// Namespaces of containers whose rules somebody changed, by this host's id for them.
    var touchedNamespaces: Set<Int32> = []
    var allRulesTouched = false
    /// What was found changed by others, and repaired, since this agent began.
    var repairs: [String: UInt64] = [:]
  }
  /// Somebody changed something: `reconcile` again.
  let drifted = Mutex<(@Sendable () -> Void)?>(nil)
  /// One of the taken ports may be free: `reconcile` again.
  let portFreed = Mutex<(@Sendable () -> Void)?>(nil)

  init(configuration: OverlayNetwork.Configuration, thread: NetworkThread, flows: NetworkThread) {
    self.configuration = configuration
    self.thread = thread
    self.flows = flows
  }

  // MARK: The host

  func reconcile(_ world: NetworkWorld) throws -> [NetworkProblem] {
    let socket = try NetlinkSocket()
    var links = try socket.links()
    watchDrift()
    let wanted = HostState(world)
    let present = try observe(socket, links)
    let operations = wanted.operations(from: present.state)
    let (isKnown, rulesTouched) = memory.withLock { memory in
      defer { memory.rulesTouched = false }
      return (memory.reached == wanted, memory.rulesTouched)
    }
    if isKnown { count(operations.map(\.kind)) }
    let linkChanges = operations.filter(\.changesLinks)
    if !linkChanges.isEmpty {
      try socket.perform(linkChanges.map { message($0, links) })
      links = try socket.links()
      try socket.perform(links.filter { isOurs($0) && !$0.up }.map { .quietIPv6($0.index, $0.name) })
    }
    try socket.perform(operations.filter { !$0.changesLinks }.map { message($0, links) })
    var problems = parameters(world)
    let byName = Dictionary(links.map { ($0.name, $0) }, uniquingKeysWith: { a, _ in a })
    let successors = world.successors
    let lost = reattachments(world, byName, successors, present.ports)
    try socket.perform(lost + succeeded(world, byName, successors))
    if isKnown, linkChanges.isEmpty, !lost.isEmpty { count(["port"]) }
    problems += resize(world, byName, socket, isDrift: isKnown)
    noteDrift(world, byName)
    memory.withLock { $0.reached = wanted }
    let ready = world.readyEndpoints()
    let ports = Ruleset.publishedPorts(world, ready: ready).map(\.port)
    let taken = reserve(ports)
    problems += taken.map { NetworkProblem($0) }
    let rules = Ruleset.host(world, ready: ready, unavailable: Set(taken.map(PublishedPort.init)))
    let loaded = memory.withLock { $0.hostRules }
    if rulesTouched, loaded != nil { count(["rules"]) }
    if loaded != rules || rulesTouched {
      let lingering = RuleTable.linger(world.lingering, for: configuration.lingering)
      try Nftables.load(rules, before: rulesTouched ? nil : loaded, more: lingering, object: "this host")
      memory.withLock { $0.hostRules = rules }
    }
    var balancings: [Set<NetworkID>: Balancing] = [:]
    for container in world.containers.values.sorted(by: { $0.task < $1.task }) {
      do { try loadRules(container, world, ready, &balancings) } catch { problems.append(NetworkProblem("task \(container.task)", "\(error)")) }
    }
    return problems
  }

  private func watchDrift() {
    guard memory.withLock({ $0.drift == nil }) else { return }
    let watch = DriftWatch { [weak self] changes in
      guard let self else { return }
      self.memory.withLock { memory in
        for change in changes {
          switch change {
          case .links: break
          case .rules: memory.rulesTouched = true
          case .containerRules(let namespace?): memory.touchedNamespaces.insert(namespace)
          case .containerRules(nil): memory.allRulesTouched = true
          }
        }
      }
      self.drifted.withLock { $0 }?()
    }
    memory.withLock { $0.drift = watch }
  }

  /// Tells the watch which links are tunnels, and whose rules are to be loaded anew.
  private func noteDrift(_ world: NetworkWorld, _ links: [String: LinkInfo]) {
    memory.withLock { memory in
      memory.drift?.tunnels.withLock { $0 = Set(links.values.filter { $0.kind == "vxlan" && isOurs($0) }.map(\.index)) }
      let (touched, all) = (memory.touchedNamespaces, memory.allRulesTouched)
      (memory.touchedNamespaces, memory.allRulesTouched) = ([], false)
      guard all || !touched.isEmpty else { return }
      for container in world.containers.values where !container.attachments.isEmpty {
        let namespace = links[InterfaceName.veth(container.task, 0)]?.peerNamespace
        let isTouched = namespace.map(touched.contains) ?? false
        guard all || isTouched else { continue }
        memory.recovered.insert(container.task)
        if isTouched { memory.repairs["container rules", default: 0] += 1 }
      }
    }
  }

  private func count(_ kinds: [String]) {
    memory.withLock { memory in for kind in kinds { memory.repairs[kind, default: 0] += 1 } }
  }

  /// Datagrams of a flow go on to where its first one went, as long as they come: those to tasks that are gone begin anew. On the thread `flows`.
  func forget(_ addresses: Set<[UInt8]>, in tasks: [TaskID]) -> [NetworkProblem] {
    var problems: [NetworkProblem] = []
    func attempt(_ object: String, _ body: () throws -> Void) {
      do { try body() } catch let error as NetlinkError where error.errno == ENOENT {
        // Detached meanwhile.
      } catch {
        problems.append(NetworkProblem(object, "\(error)"))
      }
    }
    func forget() throws {
      if Nftables.hasTranslatedDatagrams() != false { try NetlinkSocket.forgetDatagrams(answeredBy: addresses) }
    }
    attempt("this host", forget)
    for task in tasks { attempt("task \(task)") { try flows.inside(path(task), forget) } }
    return problems
  }

  private func isOurs(_ link: LinkInfo) -> Bool {
    (link.kind == "bridge" && InterfaceName.vni(link.name, prefix: InterfaceName.bridgePrefix) != nil)
      || (link.kind == "vxlan" && InterfaceName.vni(link.name, prefix: InterfaceName.tunnelPrefix) != nil)
  }

  /// The kernel's present state, as far as it is ours.
  private func observe(_ socket: NetlinkSocket, _ links: [LinkInfo]) throws -> (state: HostState, ports: Set<BridgeForwardingInfo>) {
    var state = HostState()
    let forwarding = try socket.forwarding()
    let entries = Dictionary(grouping: forwarding.tunnels, by: \.index)
    let neighbours = Dictionary(grouping: try socket.neighbours(), by: \.index)
    let addresses = Dictionary(grouping: try socket.addresses(), by: \.index)
    for link in links where isOurs(link) {
      if link.kind == "bridge", let vni = InterfaceName.vni(link.name, prefix: InterfaceName.bridgePrefix) {
        let own = (addresses[link.index] ?? []).map { HostState.Address(address: IPv4Address(octets: $0.address), length: $0.length) }
        state.bridges[vni] = .init(mac: link.mac, mtu: link.mtu, up: link.up, addresses: Set(own))
      } else if let vni = InterfaceName.vni(link.name, prefix: InterfaceName.tunnelPrefix), let vxlan = link.vxlan, vxlan.local.count == 4 {
        let known = (neighbours[link.index] ?? []).map { HostState.Neighbour(IPv4Address(octets: $0.address), mac: $0.mac) }
        let entries = (entries[link.index] ?? []).map { HostState.Forwarding(mac: $0.mac, host: IPv4Address(octets: $0.destination)) }
        let bridge = links.first { $0.index == link.master }?.name
        state.tunnels[vni] = .init(
          local: IPv4Address(octets: vxlan.local), port: vxlan.port, mtu: link.mtu, up: link.up, bridged: bridge == InterfaceName.bridge(vni),
          learning: link.bridgePort?.learning ?? false, proxy: vxlan.proxy, forwarding: Set(entries), neighbours: Set(known))
      }
    }
    return (state, Set(forwarding.bridges))
  }

  private func message(_ operation: HostOperation, _ links: [LinkInfo]) -> NetlinkMessage {
    func index(_ name: String) -> UInt32 { links.first { $0.name == name }?.index ?? 0 }
    func bridge(_ vni: UInt32) -> UInt32 { index(InterfaceName.bridge(vni)) }
    func tunnel(_ vni: UInt32) -> UInt32 { index(InterfaceName.tunnel(vni)) }
    switch operation {
    case .deleteBridge(let vni): return .deleteLink(bridge(vni), InterfaceName.bridge(vni))
    case .deleteTunnel(let vni): return .deleteLink(tunnel(vni), InterfaceName.tunnel(vni))
    case .addBridge(let vni, let mac, let mtu): return .addLink(InterfaceName.bridge(vni), .bridge, mac: mac, mtu: mtu)
    case .addTunnel(let vni, let local, let port, let mtu):
      return .addLink(InterfaceName.tunnel(vni), .vxlan(id: vni, local: local.octets, port: port), mtu: mtu)
    case .setBridge(let vni, let mac, let mtu): return .setLink(bridge(vni), InterfaceName.bridge(vni), up: true, mtu: mtu, mac: mac)
    case .setTunnel(let vni, let mtu): return .setLink(tunnel(vni), InterfaceName.tunnel(vni), up: true, mtu: mtu)
    case .bridgeTunnel(let vni): return .setLink(tunnel(vni), InterfaceName.tunnel(vni), master: bridge(vni))
    case .setPort(let vni): return .setBridgePort(tunnel(vni), InterfaceName.tunnel(vni), hairpin: false, learning: false, flood: true)
    case .addNeighbour(let vni, let neighbour): return .addNeighbour(neighbour.address.octets, neighbour.mac, on: tunnel(vni))
    case .deleteNeighbour(let vni, let neighbour): return .deleteNeighbour(neighbour.address.octets, on: tunnel(vni))
    case .addAddress(let vni, let address): return .addAddress(address.address.octets, length: address.length, on: bridge(vni))
    case .deleteAddress(let vni, let address): return .deleteAddress(address.address.octets, length: address.length, on: bridge(vni))
    case .addForwarding(let vni, let entry): return .addForwarding(entry.mac, to: entry.host.octets, on: tunnel(vni))
    case .deleteForwarding(let vni, let entry): return .deleteForwarding(entry.mac, to: entry.host.octets, on: tunnel(vni))
    }
  }

  private func parameters(_ world: NetworkWorld) -> [NetworkProblem] {
    guard !world.networks.isEmpty else { return [] }
    var problems = [KernelParameter.set("ipv4/ip_forward", "1")]
    for network in world.networks {
      let name = InterfaceName.bridge(network.vni)
      // Answers from ingress addresses leave containers through another network: loose reverse path (RFC 3704 2.4).
      problems.append(KernelParameter.set("ipv4/conf/\(name)/rp_filter", "2"))
      problems.append(KernelParameter.set("ipv4/conf/\(name)/route_localnet", "1"))
    }
    return problems.compactMap { $0 }
  }

  /// Containers' interfaces that lost their bridge (it was removed by someone and is new) come back to it, or what they are as its ports.
  private func reattachments(
    _ world: NetworkWorld, _ links: [String: LinkInfo], _ successors: [NetworkAttachment: TaskID], _ ports: Set<BridgeForwardingInfo>
  ) -> [NetlinkMessage] {
    return world.containers.values.flatMap { container in
      container.attachments.enumerated().flatMap { index, attachment -> [NetlinkMessage] in
        guard let network = world.network(attachment.network), let bridge = links[InterfaceName.bridge(network.vni)],
          let veth = links[InterfaceName.veth(container.task, index)], successors[attachment].map({ $0 == container.task }) ?? true
        else { return [] }
        let isPort = veth.master == bridge.index && veth.up && veth.bridgePort.map(Self.isContainers) ?? true
        if isPort, ports.contains(BridgeForwardingInfo(mac: attachment.address.mac, port: veth.index)) { return [] }
        return [.setLink(veth.index, veth.name, up: true, master: bridge.index)] + Self.port(veth.index, veth.name, attachment)
      }
    }
  }

  /// The bridge knows where a container is and takes nobody's word for it; what is for others is not shown to it.
  private static func port(_ index: UInt32, _ name: String, _ attachment: NetworkAttachment) -> [NetlinkMessage] {
    [
      .addBridgeForwarding(attachment.address.mac, port: index), .setBridgePort(index, name, hairpin: true, learning: false, flood: false),
    ]
  }
  private static func isContainers(_ port: LinkInfo.BridgePort) -> Bool { port.hairpin && !port.learning && !port.flood }

  /// A namespace outlives its task by some seconds: whose address another task has by now gets no frames any more.
  private func succeeded(
    _ world: NetworkWorld, _ links: [String: LinkInfo], _ successors: [NetworkAttachment: TaskID]
  ) -> [NetlinkMessage] {
    return world.containers.values.flatMap { container in
      container.attachments.enumerated().flatMap { index, attachment -> [NetlinkMessage] in
        guard let successor = successors[attachment], successor != container.task,
          let veth = links[InterfaceName.veth(container.task, index)], veth.master != 0
        else { return [] }
        return [.deleteBridgeForwarding(attachment.address.mac, port: veth.index), .setLink(veth.index, veth.name, master: 0)]
      }
    }
  }

  /// Containers' interfaces have their network's MTU, which a host that joins with a smaller one changes.
  private func resize(_ world: NetworkWorld, _ links: [String: LinkInfo], _ socket: NetlinkSocket, isDrift: Bool) -> [NetworkProblem] {
    var problems: [NetworkProblem] = []
    for container in world.containers.values {
      for (number, attachment) in container.attachments.enumerated() {
        guard let network = world.network(attachment.network), let veth = links[InterfaceName.veth(container.task, number)] else { continue }
        let mtu = UInt32(clamping: network.mtu)
        guard veth.mtu != mtu else { continue }
        do {
          try socket.perform([.setLink(veth.index, veth.name, mtu: mtu)])
          try thread.inside(path(container.task)) {
            let inner = try NetlinkSocket()
            guard let own = try inner.links().first(where: { $0.name == "eth\(number)" }) else { return }
            try inner.perform([.setLink(own.index, own.name, mtu: mtu)])
          }
          if isDrift { count(["link"]) }
        } catch {
          problems.append(NetworkProblem("task \(container.task)", "\(error)"))
        }
      }
    }
    return problems
  }

  // MARK: Ports

  /// Holds every port of the list by a bound socket that does not listen, lets go of others; returns those that someone else has.
  private func reserve(_ ports: [PublishedPort]) -> [NodeDescription.PortConflict] {
    let wanted = Set(ports.filter { $0.protocol != .sctp })
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

  private func hold(_ ports: Set<PublishedPort>) -> Set<PublishedPort> {
    memory.withLock { memory in
      ports.filter { port in
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
    let taken = ports.filter { port in
      if ours.contains(port.anywhere) { return false }
      guard port.protocol != .sctp else { return false }
      guard let descriptor = Self.hold(port) else { return true }
      close(descriptor)
      return false
    }
    let holders = taken.isEmpty ? [:] : PortHolder.find(Set(taken.map(\.anywhere)))
    return conflicts(Dictionary(uniqueKeysWithValues: taken.map { ($0, holders[$0.anywhere]) }))
  }

  private static func hold(_ port: PublishedPort) -> Int32? {
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

  // MARK: Containers

  func path(_ task: TaskID) -> String { "\(configuration.runDirectory)/netns/\(task)" }

  func describe(_ network: TaskNetwork, in world: NetworkWorld) -> AttachedNamespace {
    AttachedNamespace(
      path: path(network.task), networks: network.attachments.map(\.network), reachesOutside: world.gateway(of: network.attachments) != nil)
  }

  func attach(_ network: TaskNetwork, in world: NetworkWorld) throws -> AttachedNamespace {
    for attachment in network.attachments where world.network(attachment.network) == nil {
      throw NetworkProblem("network \(attachment.network)", "not assigned to this node yet")
    }
    try refuseConflicts(network, world)
    let hostPorts = network.hostPorts.compactMap(PublishedPort.init)
    let before = memory.withLock { Set($0.ports.keys.map(\.anywhere)) }
    for port in hostPorts {
      // One that we hold is another task's or service's; the rule set gives it to the first.
      if before.contains(port.anywhere) { throw NetworkProblem("host port \(port)", "already published on this host by another task or service") }
      guard let descriptor = Self.hold(port) else {
        throw NetworkProblem(.init(port: port.number, protocol: port.protocol, holder: PortHolder.find([port.anywhere])[port.anywhere]))
      }
      memory.withLock { $0.ports[port] = descriptor }
    }
    do {
      try makeNamespace(network.task)
      try connect(network, world)
      var balancings: [Set<NetworkID>: Balancing] = [:]
      try loadRules(network, world, world.readyEndpoints(), &balancings)
    } catch {
      detach(network)
      throw error
    }
    return describe(network, in: world)
  }

  /// A route of this host into a network's subnet would take what is sent to tasks. (A broader one loses to the network's own. Ingress is on
  /// every host: not to start there would be worse.)
  private func refuseConflicts(_ network: TaskNetwork, _ world: NetworkWorld) throws(NetworkProblem) {
    let assigned = network.attachments.compactMap { world.network($0.network) }.filter { !$0.ingress }
    guard !assigned.isEmpty else { return }
    let routes = UnderlayFacts.readRoutes()
    for network in assigned {
      guard let route = routes.first(where: { $0.destination.length >= network.subnet.length && $0.destination.overlaps(network.subnet) }) else {
        continue
      }
      throw NetworkProblem(
        "network \(network.name)",
        "its subnet \(network.subnet) overlaps the route \(route.destination) dev \(route.device) of this host: remove that route, or make the network "
          + "anew with another subnet")
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
      // Kernels without IPv6 have no such file. lo keeps ::1; interfaces that come later get no IPv6 of their own.
      _ = KernelParameter.set("ipv6/conf/default/disable_ipv6", "1")
      // Published ports keep the client's address: it comes in by ingress and its answer leaves by the default route.
      _ = KernelParameter.set("ipv4/conf/all/rp_filter", "2")
      // As Docker: a program without privileges may listen on port 80, and may ping.
      _ = KernelParameter.set("ipv4/ip_unprivileged_port_start", "0")
      _ = KernelParameter.set("ipv4/ping_group_range", "0 2147483647")
      try NetlinkSocket().perform([.setLink(1, "lo", up: true)])
    }
  }

  private func connect(_ network: TaskNetwork, _ world: NetworkWorld) throws {
    guard !network.attachments.isEmpty else { return }
    let path = path(network.task)
    let namespace = open(path, O_RDONLY | O_CLOEXEC)
    guard namespace >= 0 else { throw NetlinkError(operation: "open namespace", object: path, errno: errno) }
    defer { close(namespace) }
    let socket = try NetlinkSocket()
    let links = try socket.links()
    func index(_ name: String, _ links: [LinkInfo]) throws -> UInt32 {
      guard let link = links.first(where: { $0.name == name }) else {
        throw NetlinkError(operation: "find link", object: name, errno: ENODEV)
      }
      return link.index
    }
    var births: [NetlinkMessage] = []
    for (number, attachment) in network.attachments.enumerated() {
      guard let assigned = world.network(attachment.network) else { continue }
      births.append(
        .addVeth(
          InterfaceName.veth(network.task, number), master: try index(InterfaceName.bridge(assigned.vni), links), mtu: UInt32(clamping: assigned.mtu),
          peer: "eth\(number)", peerMAC: attachment.address.mac, peerNamespace: namespace, alias: "orch task \(network.task)"))
    }
    try socket.perform(births)
    let born = try socket.links()
    try socket.perform(
      network.attachments.enumerated().flatMap { number, attachment -> [NetlinkMessage] in
        let name = InterfaceName.veth(network.task, number)
        return Self.port(try index(name, born), name, attachment)
      })
    try thread.inside(path) {
      let inner = try NetlinkSocket()
      let links = try inner.links()
      var messages: [NetlinkMessage] = []
      for (number, attachment) in network.attachments.enumerated() {
        guard let assigned = world.network(attachment.network) else { continue }
        let own = try index("eth\(number)", links)
        messages.append(.addAddress(attachment.address.octets, length: assigned.subnet.length, on: own))
        messages.append(.setLink(own, "eth\(number)", up: true))
      }
      if let gateway = world.gateway(of: network.attachments) { messages.append(.addDefaultRoute(gateway: gateway.octets)) }
      try inner.perform(messages)
    }
  }

  /// - Parameter balancings: one for all containers on the same networks.
  private func loadRules(
    _ network: TaskNetwork, _ world: NetworkWorld, _ ready: Ruleset.Ready, _ balancings: inout [Set<NetworkID>: Balancing]
  ) throws {
    let networks = Set(network.attachments.map(\.network))
    let balancing = balancings[networks] ?? Ruleset.balancing(in: world, on: networks, ready: ready)
    balancings[networks] = balancing
    let rules = Ruleset.container(network, in: world, balancing)
    let (loaded, isRecovered) = memory.withLock { ($0.containerRules[network.task], $0.recovered.contains(network.task)) }
    if rules == loaded, !isRecovered { return }
    try thread.inside(path(network.task)) {
      let object = "task \(network.task)"
      // An agent of another version may have chosen another way out.
      if isRecovered, let gateway = world.gateway(of: network.attachments) {
        try NetlinkSocket().perform([.addDefaultRoute(gateway: gateway.octets)])
      }
      if let rules {
        // A namespace that was made just now has no table.
        let lingering = world.lingering.filter { address in
          network.attachments.contains { world.network($0.network)?.subnet.contains(address) == true }
        }
        try Nftables.load(
          rules, before: isRecovered ? nil : loaded ?? RuleTable(chains: []), more: RuleTable.linger(lingering, for: configuration.lingering),
          object: object)
      } else {
        try Nftables.run(RuleTable.removal, object: object)
      }
    }
    memory.withLock { memory in
      memory.containerRules[network.task] = rules
      memory.recovered.remove(network.task)
    }
  }

  func detach(_ network: TaskNetwork) {
    // Its addresses may be given to a task elsewhere before the kernel has reaped the namespace.
    if !network.attachments.isEmpty, let socket = try? NetlinkSocket(), let links = try? socket.links() {
      for (number, attachment) in network.attachments.enumerated() {
        if let veth = links.first(where: { $0.name == InterfaceName.veth(network.task, number) }) {
          try? socket.perform([.deleteBridgeForwarding(attachment.address.mac, port: veth.index)])
        }
      }
    }
    unbind(path(network.task))
    memory.withLock { memory in
      memory.containerRules[network.task] = nil
      memory.recovered.remove(network.task)
      for port in network.hostPorts.compactMap(PublishedPort.init) { if let held = memory.ports.removeValue(forKey: port) { close(held) } }
    }
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
      if let task = known[name], let outside = try? thread.inside("\(folder)/\(name)", Self.hasDefaultRoute) {
        found[task] = outside
        // What the agent before loaded there is not known: load anew.
        memory.withLock { _ = $0.recovered.insert(task) }
      } else {
        unbind("\(folder)/\(name)")
      }
    }
    return found
  }

  /// Of the calling thread's namespace (proc_net(5): route; the second column is the destination).
  private static func hasDefaultRoute() -> Bool {
    let descriptor = open("/proc/thread-self/net/route", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    var buffer = [UInt8](repeating: 0, count: 16_384)
    let count = read(descriptor, &buffer, buffer.count)
    return String(decoding: buffer[..<max(0, count)], as: UTF8.self).split(separator: "\n").dropFirst().contains { line in
      line.split(whereSeparator: \.isWhitespace).dropFirst().first == "00000000"
    }
  }

  func removeAll(_ containers: [TaskNetwork]) throws {
    for container in containers { detach(container) }
    _ = try recover([])
    let socket = try NetlinkSocket()
    try socket.perform(try socket.links().filter(isOurs).map { .deleteLink($0.index, $0.name) })
    try Nftables.run(RuleTable.removal, object: "this host")
    memory.withLock { memory in
      for descriptor in memory.ports.values { close(descriptor) }
      memory = Memory()
    }
  }

  deinit { memory.withLock { for descriptor in $0.ports.values { close(descriptor) } } }
}

extension IPv4Address {
  /// Of 4 bytes in network order; zero otherwise.
  init(octets: [UInt8]) { self.init(octets.count == 4 ? octets.reduce(0) { $0 << 8 | UInt32($1) } : 0) }
}
