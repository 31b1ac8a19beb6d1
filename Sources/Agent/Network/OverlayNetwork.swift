// Room: AgentNetwork. One host's part of the overlay: a bridge and a VXLAN device per network, a namespace and a veth per attachment,
// and one nftables table of our own (`ip orch`) here and in each container's namespace.
// Invariants: what the kernel has is compared with what the assignments ask for, and only the difference is done; nothing that is not
// named orbr*, orvx*, ov* or `table ip orch` is touched; containers' networks outlive this process.
// Refuses to know what a service's spec is, where tasks run and why, and how names are answered (room DNS).

import Glibc
import Logging
import Model
import Netlink

/// What stays wrong after `apply`, for people; the rest was done.
public struct NetworkProblem: Error, Hashable, Sendable, CustomStringConvertible {
  public var object: String
  public var reason: String
  /// A port that another process of this host has.
  public var conflict: NodeDescription.PortConflict?
  /// What follows from it.
  public enum Weight: Hashable, Sendable {
    /// Another comparison changes nothing, until somebody removes the cause.
    case told
    /// A container of this host's lacks something, or callers by ::1 do. Another comparison may bring it; whom others are sent to does not hang on it, so that nobody's drain
    /// is to wait for it.
    case again
    /// Rules or forwarding entries are not what was asked for: somebody may be sent to who is gone. Nobody may rely on them.
    case unfinished
  }
  public var weight = Weight.told
  public init(_ object: String, _ reason: String, _ weight: Weight = .told) {
    self.object = object
    self.reason = reason
    self.weight = weight
  }
  init(_ conflict: NodeDescription.PortConflict) {
    self.init("port \(conflict.claim)", "\(conflict.holderText) has it on this host: stop that or publish another port")
    self.conflict = conflict
  }
  static func unfinished(_ object: String, _ reason: String) -> Self { Self(object, reason, .unfinished) }
  static func again(_ object: String, _ reason: String) -> Self { Self(object, reason, .again) }
  public var description: String { "\(object): \(reason)" }
}

/// A container's network namespace.
public struct AttachedNamespace: Hashable, Sendable {
  /// A bound namespace file: join it with setns; it stays until `detach`.
  public var path: String
  /// Of the attachments, in their order.
  public var networks: [NetworkID]
  /// false: every network is internal, so names from outside are not answered.
  public var reachesOutside: Bool
  /// On the networks that have IPv6.
  public var addresses6: [IPv6Address] = []
  /// The container's end of its way out, where it has no network; not known of those that were found again.
  public var bridged: IPv4Address?
}

/// A task's place in the network, as it is given to `attach` and, after a restart of the agent, to `recover`.
public struct TaskNetwork: Hashable, Sendable {
  public var task: TaskID
  public var attachments: [NetworkAttachment]
  /// Of its service, those with publishMode host: this host's port leads to this task alone.
  public var hostPorts: [PortConfig]
  /// On no network, with a way out of this host (docker's `bridge`); never with attachments, of which those say what leads outside.
  public var isBridged: Bool
  public init(task: TaskID, attachments: [NetworkAttachment], hostPorts: [PortConfig] = [], isBridged: Bool = false) {
    self.task = task
    self.attachments = attachments
    self.hostPorts = hostPorts
    self.isBridged = isBridged && attachments.isEmpty
  }
  /// Besides its loopback.
  var hasInterfaces: Bool { isBridged || !attachments.isEmpty }
}

public actor OverlayNetwork {
  public struct Configuration: Sendable {
    /// This host's address: source of VXLAN packets, and how its own endpoints are told from others'.
    public var underlayAddress: IPv4Address
    /// Namespaces are bound at `<runDirectory>/netns/<task>`.
    public var runDirectory: String
    /// The host's network namespace; nil: the process's own.
    public var hostNamespace: String?
    /// How long what a task said last may take to arrive, retransmissions included, before connections to it are reset.
    var lingering = Duration.seconds(10)
    /// false: as on a kernel that tells of no change.
    var hearsChanges = true
    /// Where uplinks' addresses come from; nil: a private range that this host does not use.
    public var uplinkSubnet: IPv4Prefix?
    /// Frames between containers go around the bridges where the kernel can do it (Linux 5.10, with BPF's classifier).
    public var bypassesBridges: Bool
    public init(
      underlayAddress: IPv4Address, runDirectory: String, hostNamespace: String? = nil, uplinkSubnet: IPv4Prefix? = nil, bypassesBridges: Bool = true
    ) {
      self.uplinkSubnet = uplinkSubnet
      self.bypassesBridges = bypassesBridges
      self.underlayAddress = underlayAddress
      self.runDirectory = runDirectory
      self.hostNamespace = hostNamespace
    }
  }

  let host: HostNetwork
  private let thread: NetworkThread
  private let log: Logger
  private var desired = NetworkWorld()
  private var containers: [TaskID: TaskNetwork] = [:]
  /// Of tasks that leave, are gone or lost, while rules still lead to them; then, while conntrack remembers flows to them.
  private var departed: Set<NetworkAttachment> = []
  private var remembered: Set<NetworkAttachment> = []
  private var rememberedUplinks: Set<IPv4Address> = []
  private var forgetting: Task<Void, Never>?
  private var isReleasing = false
  /// The next comparison reads what of links, entries and neighbours is there, though the kernel told of no change.
  private var comparesLinks = false
  private var asked = 0
  private var done = 0
  private var inFlight: Task<[NetworkProblem], any Error>?

  /// Changes nothing yet.
  public init(configuration: Configuration, log: Logger) throws {
    thread = try NetworkThread(name: DriftWatch.RuleEvents.loader, home: configuration.hostNamespace)
    let flows = try NetworkThread(name: "orch-flows", home: configuration.hostNamespace)
    host = HostNetwork(configuration: configuration, thread: thread, flows: flows)
    desired.underlay = configuration.underlayAddress
    self.log = log
  }

  /// Brings this host to exactly these networks, services and endpoints. Idempotent. What others removed is repaired when nothing else changes,
  /// as by `repair`; a change does not wait for all links, forwarding entries and neighbours to be read, which are as this agent made them while
  /// the kernel tells of no change (`whenDrifted`). Calls that come while one runs are done together, with the newest state. Throws NetlinkError when the kernel does not tell what it has; what stayed wrong (a port
  /// in use, a network whose link the kernel refuses) is returned, and stops nothing else.
  @discardableResult
  public func apply(networks: [NetworkAssignment], services: [ServiceRecord], endpoints: [EndpointRecord]) async throws -> [NetworkProblem] {
    let changed = endpoints.changed(from: desired.endpoints)
    let isChanged = !changed.old.isEmpty || !changed.new.isEmpty
    // Who asks for what is there already asks for a look.
    if !isChanged, networks == desired.networks, services == desired.services { comparesLinks = true }
    desired.networks = networks
    desired.services = services
    desired.endpoints = endpoints
    if isChanged { change(from: changed.old) }
    // One that came back while the kernel refused.
    endpoints.removeReady(from: &departed)
    return try await reconcile()
  }

  /// - Parameter old: of what was there, all that is not as it was.
  private func change(from old: ArraySlice<EndpointRecord>) {
    let endpoints = desired.endpoints
    endpoints.removeReachable(from: &desired.lingering)
    var gone = Set(old.lazy.filter { !$0.lost }.map(\.attachment))
    endpoints.removeReachable(from: &gone)
    depart(gone)
    // Those that leave: datagrams that never pause would follow them to the end. Where nobody is left to go to, they stay while it is there.
    var unready = Set(old.lazy.filter(\.ready).map(\.attachment))
    endpoints.removeReady(from: &unready)
    let leaving = unready.isEmpty ? [] : endpoints.filter { !$0.lost && unready.contains($0.attachment) }
    guard !leaving.isEmpty else { return }
    let services = Set(leaving.map(\.service))
    let ready = endpoints.lazy.filter { $0.ready && services.contains($0.service) }
    let served = Set(ready.map { NetworkWorld.ServiceOnNetwork($0.service, $0.network) })
    for endpoint in leaving where served.contains(.init(endpoint.service, endpoint.network)) { departed.insert(endpoint.attachment) }
  }

  private func depart(_ gone: Set<NetworkAttachment>) {
    guard !gone.isEmpty else { return }
    departed.formUnion(gone)
    desired.lingering.formUnion(gone)
    Task { [weak self, time = host.configuration.lingering] in
      try? await Task.sleep(for: time)
      await self?.forgetLingering(gone)
    }
  }

  /// As the kernel does by itself: no rule changes.
  private func forgetLingering(_ addresses: Set<NetworkAttachment>) { desired.lingering.subtract(addresses) }

  /// Those of a moment together, beside what comes: who changed rules does not wait.
  private func forget(_ addresses: Set<NetworkAttachment>, uplink: IPv4Address? = nil) {
    remembered.formUnion(addresses)
    if let uplink { rememberedUplinks.insert(uplink) }
    guard !remembered.isEmpty || !rememberedUplinks.isEmpty, forgetting == nil else { return }
    forgetting = Task {
      while !remembered.isEmpty || !rememberedUplinks.isEmpty {
        let (gone, uplinks, host) = (remembered, rememberedUplinks, self.host)
        var world = desired
        world.containers = containers
        (remembered, rememberedUplinks) = ([], [])
        let problems = try? await host.flows.run { [world] in host.forget(gone, uplinks, in: world) }
        for problem in problems ?? [] { log.warning("network: \(problem)") }
      }
      forgetting = nil
    }
  }

  /// Returns when no flow of datagrams leads to a task that was gone at the call.
  func flowsForgotten() async { while let forgetting { await forgetting.value } }

  /// `freed` is called when a port that another process had may be free: `apply` or `repair` takes it then.
  public func whenPortFreed(_ freed: @escaping @Sendable () -> Void) { host.portFreed.withLock { $0 = freed } }

  /// `drifted` is called when somebody else changed links, forwarding entries or rules of this host: `repair` compares and counts.
  public func whenDrifted(_ drifted: @escaping @Sendable () -> Void) { host.drifted.withLock { $0 = drifted } }

  /// Calls `drifted` in regular intervals too, once there is something to compare with, until its task is cancelled: most parameters of the
  /// kernel (sysctl) change without an event. Rules are compared then by the generation of their namespace's rule set, which every transaction raises.
  public func compareRegularly(every interval: Duration = .seconds(15), clock: some Clock<Duration> = ContinuousClock()) async {
    while (try? await clock.sleep(for: interval)) != nil {
      guard done > 0 else { continue }
      host.memory.withLock { $0.comparesAll = true }
      host.drifted.withLock { $0 }?()
    }
  }

  /// What others changed of ours on this host and was repaired, by kind ("link", "address", "route", "forwarding", "neighbour", "port", "rules", "parameter",
  /// "bypass", those of containers), since this agent began.
  public var repairs: [String: UInt64] { host.memory.withLock { $0.repairs } }

  /// Whether frames between containers go around the bridges.
  public var bypassesBridges: Bool {
    host.memory.withLock { if case .held = $0.bypass { true } else { false } }
  }

  /// VXLAN packets of our networks that came from hosts which are not on them, or from containers, and were dropped; 0 anew when the table was made anew.
  public var strangers: UInt64 {
    get async { (try? await thread.run { Nftables.packets("strangers") }).flatMap { $0 } ?? 0 }
  }

  /// Frames that ended at our tunnels, since their receiver is no task that is known, or all were meant; of the tunnels that are there now.
  public var unknownDestinations: UInt64 {
    get async { (try? await thread.run { [host] in try host.unknownDestinations() }) ?? 0 }
  }

  /// As they are now.
  public func underlayFacts() async throws -> UnderlayFacts {
    let underlay = host.configuration.underlayAddress
    return try await thread.run { try UnderlayFacts.read(underlay: underlay) }
  }

  /// Which of these a process of this host has; asked before a service that publishes them is made.
  public func conflicts(on ports: [PortConfig]) async throws -> [NodeDescription.PortConflict] {
    let world = desired
    let wanted = Set(
      ports.flatMap { config in
        let isDual = Self.hasIPv6 && (config.publishMode == .host || world.door6 != nil)
        return (isDual ? IPFamily.allCases : [.v4]).compactMap { PublishedPort(config, $0) }
      })
    return try await thread.run { [host] in host.conflicts(on: wanted) }
  }

  /// Compares with the kernel once more, with the state of the last `apply`.
  @discardableResult
  public func repair() async throws -> [NetworkProblem] {
    comparesLinks = true
    return try await reconcile()
  }

  @discardableResult
  private func reconcile() async throws -> [NetworkProblem] {
    asked += 1
    let mine = asked
    let previous = inFlight
    let next = Task { () async throws -> [NetworkProblem] in
      let before = await previous?.result
      if self.done >= mine, case .success(let problems)? = before { return problems }
      return try await self.reconcileNow()
    }
    inFlight = next
    return try await next.value
  }

  private func reconcileNow() async throws -> [NetworkProblem] {
    let upTo = asked
    var world = desired
    world.containers = containers
    let host = self.host
    let (departed, compares) = (departed, comparesLinks)
    self.departed = []
    comparesLinks = false
    let problems: [NetworkProblem]
    do { problems = try await thread.run { [world] in try host.reconcile(world, comparesLinks: compares) } } catch {
      self.departed.formUnion(departed)
      comparesLinks = true
      throw error
    }
    // Some may have come back meanwhile.
    var gone = departed
    desired.endpoints.removeReady(from: &gone)
    forget(gone)
    // Rules that lead to them make new flows.
    if problems.contains(where: { $0.weight == .unfinished }) { self.departed.formUnion(gone) }
    release()
    done = max(done, upTo)
    return problems
  }

  /// Nobody waits for it.
  private func release() {
    guard !isReleasing else { return }
    isReleasing = true
    Task {
      // The kernel has let go by then: closing at once would wait, and hold the next rules of that namespace up meanwhile.
      try? await Task.sleep(for: .milliseconds(100))
      isReleasing = false
      try? await host.flows.run { Nftables.release() }
    }
  }

  /// Makes the task's namespace with an interface for each attachment (eth0, eth1, …), routes and virtual IPs; ready when it returns.
  /// A task that is attached already is made anew. Throws when a network is not assigned to this node, or a host port is taken; one that is on no
  /// network also where the rules that keep it from this host are not loaded: before the first `apply`, or when the kernel refuses them.
  public func attach(_ network: TaskNetwork) async throws -> AttachedNamespace {
    if network.isBridged, done == 0 { throw NetworkProblem("network of this host", "it is not known yet: try again in a moment") }
    var world = desired
    world.containers = containers
    world.containers[network.task] = network
    let host = self.host
    let namespace = try await thread.run { [world] in try host.attach(network, in: world) }
    release()
    containers[network.task] = network
    // An `apply` between the two lines above did not know the container.
    let isChanged = desired.networks != world.networks || desired.services != world.services || desired.endpoints != world.endpoints
    // A host without networks has no rules for what leaves it.
    let isFirst = network.isBridged && desired.networks.isEmpty
    var problems: [NetworkProblem] = []
    if !network.hostPorts.isEmpty || isChanged || isFirst { problems = try await reconcile() }
    if network.isBridged, !host.memory.withLock({ $0.isRouting && !$0.rulesUnknown }) {
      try await detach(network.task)
      throw problems.first { $0.weight == .unfinished } ?? NetworkProblem("this host", "its rules are not loaded: try again in a moment")
    }
    return namespace
  }

  /// Takes the task's namespace away; the kernel removes its interfaces once nothing runs in it. No error when there is none.
  public func detach(_ task: TaskID) async throws {
    guard let network = containers.removeValue(forKey: task) else {
      _ = try await thread.run { [host] in host.detach(TaskNetwork(task: task, attachments: [])) }
      return
    }
    let uplink = try await thread.run { [host] in host.detach(network) }
    if network.hostPorts.isEmpty { return }
    _ = try await reconcile()
    if network.hostPorts.contains(where: { $0.protocol == .udp }) { forget([], uplink: uplink) }
  }

  /// Whether this host's kernel has IPv6.
  public static var hasIPv6: Bool { HostNetwork.hasIPv6 }

  /// After a restart of the agent, before the first `apply`: takes over the namespaces of tasks that are alive and removes all others.
  /// Returns those found; a task that is not among them has lost its network and cannot be saved.
  public func recover(_ alive: [TaskNetwork]) async throws -> [TaskID: AttachedNamespace] {
    let found = try await thread.run { [host] in try host.recover(alive) }
    var result: [TaskID: AttachedNamespace] = [:]
    for network in alive {
      guard let reachesOutside = found[network.task] else { continue }
      containers[network.task] = network
      result[network.task] = AttachedNamespace(
        path: host.path(network.task), networks: network.attachments.map(\.network), reachesOutside: reachesOutside)
    }
    return result
  }

  /// Nothing of ours is left on this host afterwards.
  public func removeAll() async throws {
    let all = Array(containers.values)
    containers = [:]
    desired = NetworkWorld()
    desired.underlay = host.configuration.underlayAddress
    try await thread.run { [host] in
      defer { Nftables.release() }
      try host.removeAll(all)
    }
  }
}
