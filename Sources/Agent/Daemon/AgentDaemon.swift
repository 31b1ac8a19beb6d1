import AgentImage
import AgentNetwork
import AgentVolume
import Build
import DNS
import Foundation
import Identity
import LinuxSystem
import Logging
import Model
import Runtime
import ServiceLifecycle
import Telemetry
import Transport
import Wire
import Worker

/// Assembles the rooms, finds the containers that outlived the last agent, and keeps a session.
struct AgentDaemon {
  let options: OrchAgent.Options
  let membership: Membership

  func run() async throws {
    ProcessMemory.bound()
    let log = Logger(label: "agent")
    let identity = try membership.identity()
    let credentials = try Credentials(identity)
    let rooms = try await assemble(identity, log)
    let agent = Agent(rooms: rooms, log: log)
    let compare: @Sendable () -> Void = { [weak agent] in
      guard let agent else { return }
      Task { await agent.compareNetwork() }
    }
    await rooms.network.whenPortFreed(compare)
    await rooms.network.whenDrifted(compare)
    let regularly = Task { await rooms.network.compareRegularly() }
    defer { regularly.cancel() }
    if let address = options.metricsAddress {
      let server = try MetricsServer(address) { [weak agent] in await rooms.metrics() + (agent?.taskMetrics() ?? []) }
      log.info("metrics at port \(server.port) of \(address)")
    }
    await recover(agent, rooms, log)

    let router = Router()
    ManagerStreams(rooms: rooms, agent: agent, log: log).serve(on: router)
    let session = Session(credentials: credentials, membership: membership, router: router, agent: agent, log: log)
    await agent.attach(session)
    Supervisor.notify("READY=1")
    log.info("node \(identity.node) at \(rooms.underlay)")
    let group = ServiceGroup(
      configuration: ServiceGroupConfiguration(
        services: [.init(service: SessionService(session: session))], gracefulShutdownSignals: [.sigterm, .sigint], logger: log))
    defer { rooms.runtime.close() }
    try await group.run()
  }

  private func assemble(_ identity: NodeIdentity, _ log: Logger) async throws -> Rooms {
    let managers = try membership.managers
    let underlay = try options.address() ?? managers.lazy.compactMap { try? Membership.address($0).host }.compactMap(HostFacts.address).first
    guard let underlay else { throw AgentError("this host's address is not known: give --advertise-addr") }
    for folder in [options.stateDir, options.runDir] { try SecretFile.makeFolder(folder) }
    let program = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    let initPath = URL(fileURLWithPath: program).deletingLastPathComponent().appendingPathComponent("orch-init").path
    let runtime = try ContainerRuntime(
      configuration: RuntimeConfiguration(
        stateDirectory: "\(options.runDir)/containers", dataDirectory: "\(options.stateDir)/containers", cgroupParent: options.cgroupParent,
        initPath: initPath, stubs: options.stubs))
    let store = try ImageStore(directory: "\(options.stateDir)/images", configuration: options.images())
    let network = try OverlayNetwork(
      configuration: .init(
        underlayAddress: underlay, runDirectory: options.runDir, uplinkSubnet: options.uplinkSubnet.flatMap { IPv4Prefix($0) },
        bypassesBridges: !options.bridgeFrames), log: log)
    let names = try NameServer(log: log)
    let builder = Builder(
      store: store, runtime: runtime, cacheFile: "\(options.stateDir)/build-cache", networks: BuildNetworks(network, names), log: log)
    return Rooms(
      runtime: runtime, images: store, builder: builder, volumes: try VolumeStore(directory: "\(options.stateDir)/volumes"), network: network,
      names: names, underlay: underlay, stateDirectory: options.stateDir, runDirectory: options.runDir, node: identity.node)
  }

  /// Containers that run go on; those that ended meanwhile are told of; those of tasks that nobody knows are removed. What this host was assigned is
  /// read from its disk; when that fails, containers are left alone till the manager has said it.
  private func recover(_ agent: Agent, _ rooms: Rooms, _ log: Logger) async {
    var kept: AssignmentsMessage?
    do { kept = try rooms.keptAssignments() } catch { log.error("read kept assignments: \(error)") }
    let containers = await rooms.runtime.recover()
    await rooms.builder.removeLeftovers(containers.map(\.id) + rooms.runtime.leftovers())
    await agent.readUnderlay()
    guard kept != nil || !containers.contains(where: { TaskID($0.id) != nil }) else {
      log.warning("\(containers.count) containers are here and what was assigned is not known: they are left alone until a manager says it")
      return await agent.recoverLater { [weak agent] told in
        if let agent { await resume(containers, told, agent, rooms, log) }
      }
    }
    await resume(containers, kept, agent, rooms, log)
  }

  private func resume(_ containers: [RecoveredContainer], _ kept: AssignmentsMessage?, _ agent: Agent, _ rooms: Rooms, _ log: Logger) async {
    var tasks: [TaskID: ClusterTask] = [:]
    var specs: [ServiceRevision.Key: ServiceSpec] = [:]
    for item in kept?.updates ?? [] {
      if case .task(let task) = item { tasks[task.id] = task }
      if case .revision(let revision) = item { specs[revision.key] = revision.spec }
    }
    var found: [RecoveredTask] = []
    var networks: [TaskNetwork] = []
    for container in containers {
      guard let id = TaskID(container.id) else { continue }
      switch container.state {
      case .running(let running):
        found.append(
          RecoveredTask(id: id, containerID: container.id, pid: running.pid, isHealthChecked: rooms.keptHealth(of: id) != nil))
        // One that an older agent made without a way out has no namespace of ours, and stays as it is.
        guard let task = tasks[id], let network = TaskNetwork(task, specs[ServiceRevision.Key(task.service, task.revision)]) else { continue }
        networks.append(network)
      case .exited: found.append(RecoveredTask(id: id, containerID: container.id, pid: nil))
      case .incomplete: try? await rooms.runtime.delete(container.id)
      }
    }
    // Names before whoever asks for them.
    if let kept { rooms.names.update(kept.updates) }
    do {
      for (task, namespace) in try await rooms.network.recover(networks) {
        guard let known = tasks[task] else { continue }
        let spec = specs[ServiceRevision.Key(known.service, known.revision)]?.taskTemplate.containerSpec
        try await rooms.names.serve(task, namespace: namespace.path, client: DNSClient(known, spec, rooms.hostname(of: task), namespace))
      }
    } catch {
      log.error("find networks again: \(error)")
    }
    // Of tasks that are known but have no container yet, too: they may be about to get one.
    await rooms.images.recover(users: Set(found.map(\.containerID)).union(tasks.keys.map(\.description)))
    if !found.isEmpty { log.info("found \(found.count) containers again") }
    await agent.input(.recovered(kept, found))
  }
}

private struct SessionService: ServiceLifecycle.Service {
  let session: Session
  func run() async throws {
    await cancelWhenGracefulShutdown { await session.run() }
  }
}
