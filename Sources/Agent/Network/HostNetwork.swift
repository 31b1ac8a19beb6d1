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
  let memory: Mutex<Memory>

  /// What this agent loaded into a namespace.
  struct Loaded<Address: OverlayAddress> {
    var rules: RuleTable<Address>?
    /// What the set `lingering` was given.
    var told: Set<Address> = []
  }
  struct ContainerRules {
    var v4 = Loaded<IPv4Address>()
    var v6 = Loaded<IPv6Address>()
    /// What hosts may send it through ingress; of a task that ended as it was, so that who calls it still is refused by its namespace's kernel.
    var published: [PortConfig] = []
  }

  /// A table `orch`: of a task's namespace, or of this host's (nil).
  struct TablePlace: Hashable {
    var task: TaskID?
    var family: String
  }

  struct Generation {
    var loaded: UInt32
    var looked: UInt32?

    /// Somebody changed rules here of whom nobody told.
    /// - Parameters:
    ///   - now: the kernel's.
    ///   - heard: the last that the watch heard of; nil: of none.
    mutating func isUntold(now: UInt32, heard: UInt32?) -> Bool {
      if now == loaded { return false }
      guard let heard else { return true }
      // What was there at the last comparison has been told by now, if at all. The number begins anew after its greatest.
      defer { looked = now }
      return looked.map { Int32(bitPattern: heard &- $0) < 0 } ?? false
    }
  }

  struct Memory {
    /// Where datagrams may have been translated that the table's counter does not tell of: it was made anew, or another agent's, while conntrack kept
    /// the flows. How often that was.
    var translated: [TablePlace: Int] = [:]
    var host = Loaded<IPv4Address>()
    var host6 = Loaded<IPv6Address>()
    /// An agent before this one may have loaded some.
    var isFirst6 = true
    /// There is a way back for calls by ::1.
    var hasDetour = false
    var containerRules: [TaskID: ContainerRules] = [:]
    /// Whose rules an agent before this one loaded.
    var recovered: Set<TaskID> = []
    /// Whose interfaces are to be looked at: false: an agent before this one made them, so that what is missing is nobody's drift.
    var unchecked: [TaskID: Bool] = [:]
    var uplinks: [TaskID: Uplink] = [:]
    var uplinkSubnets: Set<IPv4Prefix> = []
    var uplinkMTU: UInt32?
    var bypass = Bypass.unknown
    var pool: UplinkPool
    /// Somebody changed host routes of uplinks.
    var uplinkRoutesTouched = false
    /// Or routes of bridges, or may have, before this agent began; they are read then, and with what is compared by time.
    var bridgeRoutesTouched = true
    /// Sockets that hold published ports, so that nobody else takes them and that who has them is noticed.
    var ports: [PublishedPort: Int32] = [:]
    /// Those that someone else has.
    var taken: [PublishedPort: NodeDescription.Holder?] = [:]
    var watch: PortWatch?
    var drift: DriftWatch?
    /// What this host was brought to last, and by which networks and endpoints; what differs from it since is drift.
    var reached: HostState?
    var reachedBy = NetworkWorld()
    /// Somebody changed links, addresses, entries or neighbours, or may have: `reached` is not known to be there.
    var linksTouched = true
    /// What containers' namespaces have in common, as they were brought to last.
    var balancings: CommonRules.Balancings = [:]
    var rulesTouched = false
    /// The kernel refused our own last change of this host's rules: what is loaded is not known, and nobody's drift.
    var rulesUnknown = false
    /// What is loaded forwards containers' packets, and says which.
    var isRouting = false
    /// Namespaces of containers whose rules somebody changed, by this host's id for them.
    var touchedNamespaces: Set<Int32> = []
    var allRulesTouched = false
    /// The same of interfaces, addresses and routes.
    var touchedLinks: Set<Int32> = []
    var allLinksTouched = false
    /// It is time to look at what nobody may have told of.
    var comparesAll = false
    /// Of rule sets, after the last of ours was loaded there (nil: this host's), and at the last comparison of all.
    var generations: [TaskID?: Generation] = [:]
    var isUnheard = false
    /// Ports that others gave to bridges of ours.
    var released: Set<ReleasedPort> = []
    /// What was found changed by others, and repaired, since this agent began.
    var repairs: [String: UInt64] = [:]
    init(_ uplinks: IPv4Prefix?) { pool = UplinkPool(uplinks) }
  }
  /// Somebody changed something: `reconcile` again.
  let drifted = Mutex<(@Sendable () -> Void)?>(nil)
  /// One of the taken ports may be free: `reconcile` again.
  let portFreed = Mutex<(@Sendable () -> Void)?>(nil)

  init(configuration: OverlayNetwork.Configuration, thread: NetworkThread, flows: NetworkThread) {
    self.configuration = configuration
    self.thread = thread
    self.flows = flows
    memory = Mutex(Memory(configuration.uplinkSubnet))
    LowDescriptors.hold()
  }

  // MARK: The host

  /// - Parameter comparesLinks: with what is read of the kernel, even if that told of no change since the last time.
  func reconcile(_ bare: NetworkWorld, comparesLinks: Bool = true) throws -> [NetworkProblem] {
    let socket = try NetlinkSocket()
    var links = try socket.links()
    let unheard = watchDrift()
    let comparesAll = compareRules(links)
    let addresses = try socket.addresses()
    let (able, lacking) = Self.withoutLacking6(bare)
    var (world, problems) = withUplinks(able, links, addresses)
    problems += lacking + unheard
    let (reached, isSame) = memory.withLock { memory in
      let isThere = !comparesLinks && !comparesAll && memory.drift != nil && !memory.linksTouched && !memory.bridgeRoutesTouched
      return isThere ? (memory.reached, world.hasSamePlaces(as: memory.reachedBy)) : (nil, false)
    }
    // To read and compare 10,000 endpoints' entries takes longer than their rules.
    let wanted = reached.flatMap { isSame ? $0 : nil } ?? HostState(world)
    let readsRoutes = memory.withLock { memory in
      defer { (memory.bridgeRoutesTouched, memory.linksTouched) = (false, false) }
      memory.drift?.destinations.all.withLock { $0 = wanted.destinations }
      return memory.bridgeRoutesTouched || comparesAll
    }
    var isDone = false
    defer { if !isDone { memory.withLock { ($0.bridgeRoutesTouched, $0.linksTouched) = (true, true) } } }
    let present = try observe(socket, world, links, addresses, routes: readsRoutes ? nil : wanted, entries: reached)
    let operations = wanted.operations(from: present.state)
    let (isKnown, rulesTouched, rulesUnknown) = memory.withLock { memory in
      defer { (memory.rulesTouched, memory.rulesUnknown) = (false, false) }
      return (memory.reached == wanted, memory.rulesTouched, memory.rulesUnknown)
    }
    if isKnown { count(operations.compactMap(\.kind)) }
    problems += noteReleased(operations, world)
    let linkChanges = operations.filter(\.changesLinks)
    // What stands in the way of one network (another program's link has its name, or its VNI) stops no other, and no rules.
    var refused: [UInt32: NetlinkError] = [:]
    if !linkChanges.isEmpty {
      try perform(linkChanges, socket, links, &refused)
      links = try socket.links()
      let news = links.filter { isOurs($0) && !$0.up }
      problems += attempt("IPv6 of new links", .told) { try socket.perform(news.map { .quietIPv6($0.index, $0.name) }) }
    }
    // What is wrong with links that are new is nobody's doing.
    let isSettled = isKnown && linkChanges.isEmpty
    // Links of that name are somebody else's.
    var made = world
    made.networks.removeAll { refused[$0.vni] != nil }
    let quieted = quiet6(made)
    problems += quieted.problems
    if isSettled, quieted.isChanged { count(["link"]) }
    problems += keep(parameters6(made), isDrift: isSettled)
    try perform(operations.filter { !$0.changesLinks && refused[$0.vni] == nil }, socket, links, &refused)
    if reached != nil, !refused.isEmpty {
      // Not as it was left, which nobody has told yet.
      memory.withLock { ($0.rulesTouched, $0.rulesUnknown) = ($0.rulesTouched || rulesTouched, $0.rulesUnknown || rulesUnknown) }
      isDone = true
      return try reconcile(bare)
    }
    problems += refused.sorted { $0.key < $1.key }.map { vni, error in
      let name = world.networks.first { $0.vni == vni }.map { "network \($0.name)" } ?? "network with VNI \(vni), which is gone"
      let advice = error.errno == EEXIST ? "; another program's link has this name, or this VNI and port: remove it" : ""
      return .unfinished(name, "\(error)\(advice)")
    }
    let byName = Self.byName(links)
    problems += keep(parameters(made, byName), isDrift: isSettled)
    problems += attempt("neighbours on uplinks", .again) {
      try forgetUplinkNeighbours(socket, links, present.neighbours ?? [], isDrift: isKnown)
    }
    let successors = world.successors
    let lost = reattachments(world, byName, successors, present.ports)
    let unattached = attempt("containers' interfaces", .again) { try socket.perform(lost) }
    if isSettled, !lost.isEmpty, unattached.isEmpty { count(["port"]) }
    // Frames for who has the address now would go to who had it.
    problems += unattached + attempt("interfaces of containers that ended", .unfinished) { try socket.perform(succeeded(world, byName, successors)) }
    let isSameRoom = memory.withLock { memory in
      defer { memory.uplinkMTU = world.uplinkMTU }
      return memory.uplinkMTU == world.uplinkMTU
    }
    problems += resize(world, byName, socket, isDrift: isKnown && isSameRoom)
    noteDrift(world, byName)
    let reconnected = reconnect(world, socket, byName, successors, addresses)
    problems += reconnected.problems
    // Links that are there since the last look have other numbers.
    if reconnected.madeLinks { links = (try? socket.links()) ?? links }
    problems += bypass(made, wanted, links, successors, socket, isSame: isSame, compares: comparesAll)
    isDone = refused.isEmpty
    memory.withLock { memory in
      memory.reached = refused.isEmpty ? wanted : nil
      (memory.reachedBy.underlay, memory.reachedBy.networks, memory.reachedBy.endpoints) = (world.underlay, world.networks, world.endpoints)
    }
    let ready = world.readyEndpoints()
    var common = CommonRules(world, ready: ready, before: memory.withLock { $0.balancings })
    let (ports, ports6) = (Ruleset.publishedPorts(world, ready: ready), Ruleset.publishedPorts6(world, ready: ready, common.counterpart))
    let (taken, conflicts) = reserve(ports.map(\.port) + ports6.map(\.port))
    problems += conflicts.map { NetworkProblem($0) }
    let rules = Ruleset.host(world, ports, ready: ready, unavailable: taken)
    let (loaded, told, loaded6) = memory.withLock { ($0.host.rules, $0.host.told, $0.host6.rules) }
    if rulesTouched, loaded != nil { count(["rules"]) }
    let isReloaded = rulesTouched || rulesUnknown
    if loaded != rules || isReloaded {
      let own = Set(world.ingress.map { [$0.id] } ?? [])
      let addresses = world.lingering(on: own)
      let lingering = Lingering(addresses: addresses, told: told, time: configuration.lingering)
      do {
        let isAnew = try Nftables.load(rules, before: isReloaded ? nil : loaded, lingering, object: "this host")
        memory.withLock { ($0.host, $0.isRouting) = (Loaded(rules: rules, told: addresses), world.isRouting) }
        if isAnew { distrustCounter(nil, IPv4Address.family) }
      } catch {
        memory.withLock { $0.rulesUnknown = true }
        problems.append(.unfinished(error.object, error.reason))
      }
    }
    // Rules of all of the host's IPv6 do not wait for it.
    problems += attempt("way back of calls by ::1", .again) { try detour6(world, isNeeded: !ports6.isEmpty, socket, links, present.neighbours) }
    do {
      problems += try forward6(common, ports6, unavailable: taken, links, isTouched: isReloaded, isDrift: isSettled)
    } catch {
      memory.withLock { $0.rulesUnknown = true }
      problems.append(.unfinished("IPv6 of this host", "\(error)"))
    }
    if loaded != rules || isReloaded || memory.withLock({ $0.host6.rules != loaded6 }) {
      let generation = Nftables.generation()
      memory.withLock { $0.generations[nil] = generation.map { Generation(loaded: $0) } }
    }
    for container in world.containers.values.sorted(by: { $0.task < $1.task }) {
      do { try loadRules(container, &common) } catch {
        // Nobody calls from a namespace that is gone.
        let isGone = access(path(container.task), F_OK) != 0
        problems.append(isGone ? NetworkProblem("task \(container.task)", "\(error)") : .unfinished("task \(container.task)", "\(error)"))
      }
    }
    for (balancing, balancing6) in common.balancings.values {
      balancing.settle()
      balancing6.settle()
    }
    memory.withLock { $0.balancings = common.balancings }
    return problems
  }

  private func perform(
    _ operations: [HostOperation], _ socket: NetlinkSocket, _ links: [LinkInfo], _ refused: inout [UInt32: NetlinkError]
  ) throws {
    for (number, error) in try socket.refusals(of: operations.map { message($0, links) }).sorted(by: { $0.key < $1.key }) {
      refused[operations[number].vni] = refused[operations[number].vni] ?? error
    }
  }

  private func attempt(_ object: String, _ weight: NetworkProblem.Weight, _ body: () throws -> Void) -> [NetworkProblem] {
    do { try body() } catch { return [NetworkProblem(object, "\(error)", weight)] }
    return []
  }

  /// What the kernel does not tell is told to people.
  private func watchDrift() -> [NetworkProblem] {
    guard memory.withLock({ $0.drift == nil }) else { return [] }
    let changed: @Sendable (Set<DriftWatch.Change>) -> Void = { [weak self] changes in
      guard let self else { return }
      self.memory.withLock { memory in
        for change in changes {
          switch change {
          case .links: memory.linksTouched = true
          case .rules: memory.rulesTouched = true
          case .containerRules(let namespace?): memory.touchedNamespaces.insert(namespace)
          case .containerRules(nil): memory.allRulesTouched = true
          case .uplinkRoutes: memory.uplinkRoutesTouched = true
          case .bridgeRoutes: memory.bridgeRoutesTouched = true
          case .containerLinks(let namespace?): memory.touchedLinks.insert(namespace)
          case .containerLinks(nil): memory.allLinksTouched = true
          }
        }
      }
      self.drifted.withLock { $0 }?()
    }
    let watch = configuration.hearsChanges ? DriftWatch(changed: changed) : nil
    return memory.withLock { memory in
      memory.drift = watch
      memory.linksTouched = true
      // What was changed while nobody listened is told by nobody.
      if watch != nil, memory.isUnheard { (memory.comparesAll, memory.allLinksTouched, memory.uplinkRoutesTouched) = (true, true, true) }
      memory.isUnheard = watch == nil
      if watch != nil { return [] }
      return [NetworkProblem("changes by others", "this kernel tells of none (netlink refused to listen): they are found within 15 s only")]
    }
  }

  /// Rules that were changed although nobody told of it are loaded anew; at the comparison that comes by time.
  /// - Returns: whether it is that one.
  private func compareRules(_ links: [LinkInfo]) -> Bool {
    let (isTime, drift, loaded) = memory.withLock { memory in
      defer { memory.comparesAll = false }
      if memory.comparesAll, memory.drift == nil { (memory.allLinksTouched, memory.uplinkRoutesTouched) = (true, true) }
      return (memory.comparesAll, memory.drift, memory.generations)
    }
    guard isTime else { return false }
    let links = drift == nil ? [:] : Self.byName(links)
    for (task, known) in loaded {
      let read = if let task { try? thread.inside(path(task)) { Nftables.generation() } } else { Nftables.generation() }
      guard let now = read else { continue }
      let namespace = task.flatMap { links[InterfaceName.veth($0, 0)] ?? links[InterfaceName.uplink($0)] }?.peerNamespace
      var known = known
      let isUntold = known.isUntold(now: now, heard: task != nil && namespace == nil ? nil : drift?.generation(of: namespace))
      memory.withLock { memory in
        memory.generations[task] = known
        guard isUntold else { return }
        guard let task else {
          memory.rulesTouched = true
          return
        }
        memory.recovered.insert(task)
        memory.repairs["container rules", default: 0] += 1
      }
    }
    return true
  }

  /// Tells the watch which links are tunnels, and whose rules are to be loaded anew.
  private func noteDrift(_ world: NetworkWorld, _ links: [String: LinkInfo]) {
    memory.withLock { memory in
      memory.drift?.tunnels.withLock { $0 = Set(links.values.filter { $0.kind == "vxlan" && isOurs($0) }.map(\.index)) }
      memory.drift?.links.withLock { indexes in
        indexes = Set(links.values.lazy.filter { self.isOurs($0) || ContainerLink($0) != nil }.map(\.index))
      }
      memory.drift?.uplinks.withLock { $0 = Set(links.values.filter { InterfaceName.isUplink($0.name) }.map(\.index)) }
      let (rules, allRules) = (memory.touchedNamespaces, memory.allRulesTouched)
      let (inside, allLinks) = (memory.touchedLinks, memory.allLinksTouched)
      (memory.touchedNamespaces, memory.allRulesTouched, memory.touchedLinks, memory.allLinksTouched) = ([], false, [], false)
      guard allRules || allLinks || !rules.isEmpty || !inside.isEmpty else { return }
      for container in world.containers.values where container.hasInterfaces {
        let namespace = links[InterfaceName.first(of: container)]?.peerNamespace
        func isIn(_ touched: Set<Int32>) -> Bool { namespace.map(touched.contains) ?? false }
        if allLinks || isIn(inside) { memory.unchecked[container.task] = memory.unchecked[container.task] ?? true }
        guard allRules || isIn(rules) else { continue }
        memory.recovered.insert(container.task)
        if isIn(rules) { memory.repairs["container rules", default: 0] += 1 }
      }
    }
  }

  func count(_ kinds: [String]) {
    memory.withLock { memory in for kind in kinds { memory.repairs[kind, default: 0] += 1 } }
  }

  /// Datagrams of a flow go on to where its first one went, as long as they come: those to tasks that are gone begin anew. On the thread `flows`.
  func forget(_ gone: Set<NetworkAttachment>, _ uplinks: Set<IPv4Address>, in world: NetworkWorld) -> [NetworkProblem] {
    var problems: [NetworkProblem] = []
    func attempt(_ object: String, _ body: () throws -> Void) {
      do { try body() } catch let error as NetlinkError where error.errno == ENOENT {
        // Detached meanwhile.
      } catch {
        problems.append(NetworkProblem(object, "\(error)"))
      }
    }
    /// Of these networks: on others the same addresses may be somebody else's.
    func addresses(on networks: Set<NetworkID>) -> Set<[UInt8]> {
      Set(
        gone.filter { networks.contains($0.network) }.flatMap { attachment in
          [attachment.address.octets] + (world.network(attachment.network)?.counterpart(of: attachment.address).map { [$0.octets] } ?? [])
        })
    }
    func forget(_ addresses: Set<[UInt8]>, of task: TaskID?) throws {
      for (family, length) in [(IPv4Address.family, 4), (IPv6Address.family, 16)] {
        let own = addresses.filter { $0.count == length }
        guard !own.isEmpty else { continue }
        let place = TablePlace(task: task, family: family)
        let doubts = memory.withLock { $0.translated[place] }
        if doubts == nil, Nftables.hasTranslatedDatagrams(family) == false { continue }
        let isLeft = try Nftables.ask { socket throws(NetlinkError) in try socket.forgetDatagrams(answeredBy: own) }
        memory.withLock { memory in
          // With none left the counter tells of what comes; until then somebody may set it back.
          if isLeft {
            memory.translated[place] = memory.translated[place] ?? 1
          } else if memory.translated[place] == doubts {
            memory.translated[place] = nil
          }
        }
      }
    }
    let own = addresses(on: Set(world.ingress.map { [$0.id] } ?? [])).union(uplinks.flatMap { [$0.octets, Uplink.address6(beside: $0).octets] })
    if !own.isEmpty { attempt("this host") { try forget(own, of: nil) } }
    for container in world.containers.values.sorted(by: { $0.task < $1.task }) {
      let own = addresses(on: Set(container.attachments.map(\.network)))
      if !own.isEmpty { attempt("task \(container.task)") { try flows.inside(path(container.task)) { try forget(own, of: container.task) } } }
    }
    return problems
  }

  func distrustCounter(_ task: TaskID?, _ family: String) {
    memory.withLock { $0.translated[TablePlace(task: task, family: family), default: 0] += 1 }
  }

  func unknownDestinations() throws -> UInt64 {
    try NetlinkSocket().links().filter { $0.kind == "vxlan" && isOurs($0) }.reduce(0) { $0 + $1.dropped }
  }

  static func byName(_ links: [LinkInfo]) -> [String: LinkInfo] { Dictionary(links.lazy.map { ($0.name, $0) }, uniquingKeysWith: { a, _ in a }) }

  func isOurs(_ link: LinkInfo) -> Bool {
    (link.kind == "bridge" && InterfaceName.vni(link.name, prefix: InterfaceName.bridgePrefix) != nil)
      || (link.kind == "vxlan" && InterfaceName.vni(link.name, prefix: InterfaceName.tunnelPrefix) != nil)
  }

  private struct Present {
    var state: HostState
    /// Entries of bridges, and neighbours; nil: they were not read, and are as they were left.
    var ports: Set<BridgeForwardingInfo>?
    var neighbours: [NeighbourInfo]?
  }

  /// The kernel's present state, as far as it is ours.
  /// - Parameters:
  ///   - assumed: what has the routes that nobody touched; nil: they are read.
  ///   - known: the same of entries and neighbours.
  private func observe(
    _ socket: NetlinkSocket, _ world: NetworkWorld, _ links: [LinkInfo], _ addresses: [AddressInfo], routes assumed: HostState?,
    entries known: HostState?
  ) throws -> Present {
    var state = HostState()
    let (ofTunnels, ofBridges) = known == nil ? try socket.forwarding() : ([], [])
    let entries = Dictionary(grouping: ofTunnels, by: \.index)
    let all = known == nil ? try socket.neighbours() : []
    let neighbours = Dictionary(grouping: all, by: \.index)
    let addresses = Dictionary(grouping: addresses, by: \.index)
    let surplus = Self.surplus(world, links, bridges: links.filter { $0.kind == "bridge" && isOurs($0) }, ofBridges, neighbours)
    for link in links where isOurs(link) {
      if link.kind == "bridge", let vni = InterfaceName.vni(link.name, prefix: InterfaceName.bridgePrefix) {
        let own = (addresses[link.index] ?? []).map { HostState.Address(address: IPAddress(octets: $0.address), length: $0.length) }
        var bridge = HostState.Bridge(mac: link.mac, mtu: link.mtu, up: link.up, isPlain: link.isPlainBridge, addresses: Set(own))
        (bridge.isFree, bridge.surplus) = (link.master == 0, surplus[link.index] ?? .init())
        if let assumed { bridge.routes = assumed.bridges[vni]?.routes ?? [] } else { bridge.routes = try routes(of: link, own, socket) }
        state.bridges[vni] = bridge
      } else if let vni = InterfaceName.vni(link.name, prefix: InterfaceName.tunnelPrefix), let vxlan = link.vxlan, vxlan.local.count == 4 {
        var (forwarding, there): (Set<HostState.Forwarding>, Set<HostState.Neighbour>) = ([], [])
        if let known {
          (forwarding, there) = (known.tunnels[vni]?.forwarding ?? [], known.tunnels[vni]?.neighbours ?? [])
        } else {
          forwarding = Set((entries[link.index] ?? []).map { HostState.Forwarding(mac: $0.mac, host: IPv4Address(octets: $0.destination)) })
          there = Set((neighbours[link.index] ?? []).map(HostState.Neighbour.init))
        }
        let bridge = links.first { $0.index == link.master }?.name
        state.tunnels[vni] = .init(
          local: IPv4Address(octets: vxlan.local), port: vxlan.port, mtu: link.mtu, up: link.up, bridged: bridge == InterfaceName.bridge(vni),
          bridgePort: link.bridgePort ?? .init(hairpin: false, learning: true, flood: true), isPlain: vxlan.isPlain, proxy: vxlan.proxy,
          forwarding: forwarding, neighbours: there)
      }
    }
    return known == nil ? Present(state: state, ports: Set(ofBridges), neighbours: all) : Present(state: state)
  }

  /// Of the families that it has addresses of.
  private func routes(of bridge: LinkInfo, _ addresses: [HostState.Address], _ socket: NetlinkSocket) throws -> Set<LinkRoute> {
    do {
      return Set(
        try Set(addresses.map(\.address.family)).flatMap { family in try socket.routes(family == .v4 ? AF_INET : AF_INET6, on: bridge.index) })
    } catch let error as NetlinkError where error.errno == ENODEV {
      // It went meanwhile.
      return []
    }
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
    case .plainBridge(let vni): return .setPlainBridge(bridge(vni), InterfaceName.bridge(vni))
    case .endVLANs(let vni): return .endVLANs(bridge(vni), InterfaceName.bridge(vni))
    case .plainTunnel(let vni): return .setPlainTunnel(tunnel(vni), InterfaceName.tunnel(vni))
    case .setPort(let vni): return .setBridgePort(tunnel(vni), InterfaceName.tunnel(vni), hairpin: false, learning: false, flood: true)
    case .openPort(let vni): return .openBridgePort(tunnel(vni), InterfaceName.tunnel(vni))
    case .addNeighbour(let vni, let neighbour): return .addNeighbour(neighbour.address.octets, neighbour.mac, on: tunnel(vni))
    case .deleteNeighbour(let vni, let neighbour): return .deleteNeighbour(neighbour.address.octets, on: tunnel(vni))
    case .addAddress(let vni, let address): return .addAddress(address.address.octets, length: address.length, on: bridge(vni))
    case .deleteAddress(let vni, let address): return .deleteAddress(address.address.octets, length: address.length, on: bridge(vni))
    case .freeBridge(let vni): return .releaseLink(bridge(vni), InterfaceName.bridge(vni))
    case .releasePort(_, let port): return .releaseLink(port.index, port.name)
    case .deleteBridgeForwarding(let vni, let entry):
      return .deleteBridgeForwarding(entry.mac, port: entry.index, isBridge: entry.index == bridge(vni))
    case .deleteBridgeNeighbour(let vni, let neighbour): return .deleteNeighbour(neighbour.address.octets, on: bridge(vni))
    case .addRoute(let vni, let route): return .addRoute(route, on: bridge(vni))
    case .addForwarding(let vni, let entry): return .addForwarding(entry.mac, to: entry.host.octets, on: tunnel(vni))
    case .deleteForwarding(let vni, let entry): return .deleteForwarding(entry.mac, to: entry.host.octets, on: tunnel(vni))
    }
  }

  private func parameters(_ world: NetworkWorld, _ links: [String: LinkInfo]) -> [KernelParameter] {
    guard world.isRouting else { return [] }
    let doors = world.networks.filter(\.ingress).map { InterfaceName.bridge($0.vni) } + world.uplinks.keys.sorted().map(InterfaceName.uplink)
    return [KernelParameter("ipv4/ip_forward", "1")] + doors.filter { links[$0] != nil }.flatMap { Self.door($0) }
  }
  /// Where tasks' packets come to the host's rules. Answers from ingress addresses leave containers through another network, and those of
  /// published ports by it: loose reverse path (RFC 3704 2.4).
  static func door(_ link: String) -> [KernelParameter] {
    [("rp_filter", "2"), ("route_localnet", "1"), ("forwarding", "1")].map { KernelParameter("ipv4/conf/\(link)/\($0)", $1) }
  }

  /// With every comparison.
  func keep(_ parameters: [KernelParameter], isDrift: Bool) -> [NetworkProblem] {
    var problems: [NetworkProblem] = []
    for parameter in parameters {
      do throws(NetworkProblem) { if try parameter.keep(), isDrift { count(["parameter"]) } } catch { problems.append(error) }
    }
    return problems
  }

  /// Containers' interfaces that lost their bridge (it was removed by someone and is new) come back to it, or what they are as its ports.
  private func reattachments(
    _ world: NetworkWorld, _ links: [String: LinkInfo], _ successors: [NetworkAttachment: TaskID], _ ports: Set<BridgeForwardingInfo>?
  ) -> [NetlinkMessage] {
    return world.containers.values.flatMap { container in
      container.attachments.enumerated().flatMap { index, attachment -> [NetlinkMessage] in
        guard let network = world.network(attachment.network), let bridge = links[InterfaceName.bridge(network.vni)], isOurs(bridge),
          let veth = links[InterfaceName.veth(container.task, index)], successors[attachment].map({ $0 == container.task }) ?? true
        else { return [] }
        let isPort = veth.master == bridge.index && veth.up && veth.bridgePort.map(Self.isContainers) ?? true
        if isPort, ports?.contains(BridgeForwardingInfo(mac: attachment.address.mac, port: veth.index)) ?? true { return [] }
        return [.setLink(veth.index, veth.name, up: true, master: bridge.index)] + Self.port(veth.index, veth.name, attachment)
      }
    }
  }

  /// The bridge knows where a container is and takes nobody's word for it; what is for others is not shown to it.
  static func port(_ index: UInt32, _ name: String, _ attachment: NetworkAttachment) -> [NetlinkMessage] {
    [
      .addBridgeForwarding(attachment.address.mac, port: index), .setBridgePort(index, name, hairpin: true, learning: false, flood: false),
      .openBridgePort(index, name),
    ]
  }
  static func isContainers(_ port: LinkInfo.BridgePort) -> Bool { port == .init(hairpin: true, learning: false, flood: false) }

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

  /// Containers' interfaces have their network's MTU, which a host that joins with a smaller one changes; uplinks that of the host's link.
  private func resize(_ world: NetworkWorld, _ links: [String: LinkInfo], _ socket: NetlinkSocket, isDrift: Bool) -> [NetworkProblem] {
    var problems: [NetworkProblem] = []
    for container in world.containers.values {
      for port in world.ports(of: container) {
        guard let veth = links[port.name], veth.mtu != port.mtu else { continue }
        do {
          try socket.perform([.setLink(veth.index, veth.name, mtu: port.mtu)])
          try thread.inside(path(container.task)) {
            let inner = try NetlinkSocket()
            guard let own = try inner.links().first(where: { $0.name == port.inner }) else { return }
            try inner.perform([.setLink(own.index, own.name, mtu: port.mtu)])
          }
          if isDrift { count(["link"]) }
        } catch {
          problems.append(.again("task \(container.task)", "\(error)"))
        }
      }
    }
    return problems
  }

  func removeAll(_ containers: [TaskNetwork]) throws {
    for container in containers { detach(container) }
    _ = try recover([])
    let socket = try NetlinkSocket()
    try socket.perform(
      try socket.links().filter { isOurs($0) || InterfaceName.isUplink($0.name) }.map { .deleteLink($0.index, $0.name) })
    try LoopbackDetour.remove(socket, try socket.links())
    let problem = forwarding6.turnOff()
    try Nftables.run(RuleTable<IPv4Address>.removal, object: "this host")
    if Self.hasIPv6 { try Nftables.run(RuleTable<IPv6Address>.removal, object: "this host") }
    memory.withLock { memory in
      for descriptor in memory.ports.values { close(descriptor) }
      memory = Memory(configuration.uplinkSubnet)
    }
    if let problem { throw problem }
  }

  deinit { memory.withLock { for descriptor in $0.ports.values { close(descriptor) } } }
}

extension IPv4Address {
  /// Of 4 bytes in network order; zero otherwise.
  init(octets: [UInt8]) { self.init(octets.count == 4 ? octets.reduce(0) { $0 << 8 | UInt32($1) } : 0) }
}
