import AgentImage
import AgentNetwork
import AgentVolume
import DNS
import Foundation
import LinuxSystem
import Logging
import Model
import RegistryLogin
import Runtime
import Surroundings
import Worker

/// Carries out what the worker decided for one task, and tells it how that went.
actor TaskController {
  private let id: TaskID
  private let rooms: Rooms
  private let log: Logger
  private var prepared: Prepared?
  private var watching = false
  private var health: Task<Void, Never>?

  private struct Prepared {
    var order: TaskOrder
    var config: ContainerConfig
    var health: HealthCheck.Config?
  }

  init(id: TaskID, rooms: Rooms, log: Logger) {
    self.id = id
    self.rooms = rooms
    self.log = log
  }

  private var container: String { id.description }

  func prepare(_ agent: Agent) async {
    guard let order = await agent.order(id) else { return await agent.input(.prepareFailed(id, "its service's spec is not known here")) }
    do {
      prepared = try await configure(order, agent)
      await agent.input(.prepared(id))
    } catch {
      if !Task.isCancelled { log.warning("prepare task \(order.name): \(error)") }
      await agent.input(.prepareFailed(id, "\(error)"))
    }
  }

  func start(_ agent: Agent) async {
    guard let prepared else { return await agent.input(.startFailed(id, "it was not prepared")) }
    do {
      let running = try await rooms.runtime.start(prepared.config)
      for warning in running.warnings { log.warning("task \(prepared.order.name): \(warning)") }
      await agent.input(.started(id, containerID: container, pid: running.pid, isHealthChecked: prepared.health != nil))
      await watch(agent)
      checkHealth(prepared.health, isHealthy: false, agent)
      // Its secrets with it.
      self.prepared = nil
    } catch {
      var code: Int32?
      if case .command(let exit) = error.kind { code = exit }
      await agent.input(.startFailed(id, "\(error)", exitCode: code))
    }
  }

  /// A container that outlived the agent before.
  func resume(_ agent: Agent) async {
    let isHealthy = await agent.task(id)?.status.state == .running
    await watch(agent)
    checkHealth(rooms.keptHealth(of: id), isHealthy: isHealthy, agent)
  }

  private func checkHealth(_ config: HealthCheck.Config?, isHealthy: Bool, _ agent: Agent) {
    guard let config, health == nil else { return }
    let runner = HealthRunner(container: container, config: config, runtime: rooms.runtime, log: log, isHealthy: isHealthy)
    health = Task { [id] in await runner.run { await agent.input(.health(id, $0)) } }
  }

  /// Tells the worker of the container's end; does not hold the lane up meanwhile.
  private func watch(_ agent: Agent) async {
    guard !watching else { return }
    watching = true
    let (id, container, runtime) = (id, container, rooms.runtime)
    Task {
      do {
        let exit = try await runtime.wait(container)
        await agent.input(.exited(id, TaskExit(code: exit.code, oomKilled: exit.oomKilled, finishedAt: exit.finishedAt)))
      } catch {
        await agent.input(.exited(id, TaskExit(code: 255, oomKilled: false, finishedAt: nil)))
      }
    }
  }

  func stop(_ agent: Agent) async {
    health?.cancel()
    let spec = await agent.order(id)?.container
    let grace = spec?.stopGracePeriod ?? ContainerSpec.defaultStopGracePeriod
    do {
      _ = try await rooms.runtime.stop(container, signal: nil, grace: grace.duration)
    } catch {
      // It has ended by itself: the watch tells.
      log.debug("stop task \(id): \(error)")
    }
  }

  /// It has ended. Its logs stay until the manager forgets it.
  func release() async {
    health?.cancel()
    rooms.names.stop(id)
    do { try await rooms.network.detach(id) } catch { log.warning("task \(id): \(error)") }
  }

  /// - Parameter volumes: names of those that other tasks use.
  func remove(sparing volumes: Set<String>) async {
    await release()
    do {
      try await rooms.runtime.delete(container)
      // Not while a process may have them; a start of the agent sweeps what stays.
      try await rooms.volumes.removeAnonymous(of: container, inUse: volumes)
    } catch { log.warning("task \(id): \(error)") }
    await rooms.images.release(container)
    let directory = rooms.taskDirectory(id)
    do {
      try await offPool {
        guard Files.exists(directory) else { return }
        // What is mounted there is not the task's to remove.
        try MountPoints.detach(below: directory)
        try FileManager.default.removeItem(atPath: directory)
      }
    } catch { log.warning("task \(id): its folder stays: \(error)") }
  }

  // MARK: - Preparation

  private func configure(_ order: TaskOrder, _ agent: Agent) async throws -> Prepared {
    let spec = order.container
    let template = order.placeholders(on: rooms.node)
    let image = try await image(order.spec)
    // Whoever wanted it does not any more.
    try Task.checkCancellation()
    try await offPool { try image.checkRuns() }
    try await rooms.images.use(image, by: container)

    let args = (spec.command ?? image.config.entrypoint) + (spec.args ?? (spec.command == nil ? image.config.cmd : []))
    guard !args.isEmpty else { throw AgentError("image \(spec.image) names no command: give the service one (`command:`)") }
    var config = ContainerConfig(id: container, layers: image.layerPaths, args: args)
    config.labels = ["orch.task": order.name]
    config.env = Environment.merge(image.config.env, (spec.env ?? []).map(template.expand))
    config.cwd = spec.dir ?? (image.config.workingDir.isEmpty ? "/" : image.config.workingDir)
    config.user = spec.user ?? image.config.user
    config.groups = spec.groups ?? []
    config.hostname = spec.hostname.map(template.expand)
    config.tty = spec.tty ?? false
    config.openStdin = spec.openStdin ?? false
    // `orch run -i` is about to attach: nothing that its command says first is to be missed.
    if order.spec.labels?["orch.run"] == "attach" { config.attachSeconds = 30 }
    config.useInit = spec.initProcess ?? false
    config.readOnlyRoot = spec.readOnly ?? false
    config.capabilityAdd = spec.capabilityAdd ?? []
    config.capabilityDrop = spec.capabilityDrop ?? []
    config.ulimits = spec.ulimits ?? []
    config.sysctls = spec.sysctls ?? [:]
    config.oomScoreAdj = spec.oomScoreAdj.map(Int.init)
    config.noNewPrivileges = spec.privileges?.noNewPrivileges ?? true
    // Checked by the manager; one of an older manager has what it had before.
    if let log = try? LogLimits(order.spec.taskTemplate.logDriver) {
      config.log = .init(maxSize: log.maxSize ?? config.log.maxSize, maxFiles: log.maxFiles ?? config.log.maxFiles)
    }
    config.stopSignal = spec.stopSignal ?? image.config.stopSignal ?? "SIGTERM"
    let limits = order.spec.taskTemplate.resources?.limits
    config.resources = ContainerConfig.Resources(memory: limits?.memoryBytes, nanoCPUs: limits?.nanoCPUs, pids: limits?.pids)
    (config.resources.cpuShares, config.resources.cpuset) = (limits?.cpuShares, limits?.cpuset)
    config.resources.swap = order.spec.taskTemplate.resources?.swapBytes
    config.resources.memoryReservation = order.spec.taskTemplate.resources?.reservations?.memoryBytes

    try await attach(order, agent, template, &config)
    config.mounts += try await mounts(spec, template, image)
    config.takeSharedMemory()
    config.files = try order.files.map { reference, file in
      guard let file else {
        throw AgentError("\(reference.kind.rawValue) \(reference.name) is not there any more: create it, and update the service")
      }
      let target = reference.target
      return FileConfig(
        target: reference.path, content: file.data, uid: target?.uid.flatMap { UInt32($0) } ?? 0, gid: target?.gid.flatMap { UInt32($0) } ?? 0,
        mode: target?.mode ?? FileTarget.defaultMode)
    }
    let health = HealthCheck.Config(spec.healthCheck, image: image.config.healthcheck, shell: image.config.shell)
    try rooms.keepHealth(health, of: id)
    return Prepared(order: order, config: config, health: health)
  }

  /// Pulled with what came with the service, or with the host's own credentials.
  private func image(_ spec: ServiceSpec) async throws -> ImageRecord {
    let name = spec.taskTemplate.containerSpec.image
    if let record = try rooms.images.resolve(name) { return record }
    let login = try spec.registryLogin.flatMap { try RegistryCredentials(header: String(decoding: $0.data, as: UTF8.self)) }
    return try await rooms.images.pull(name, credentials: login)
  }

  private func attach(_ order: TaskOrder, _ agent: Agent, _ template: Placeholders, _ config: inout ContainerConfig) async throws {
    let directory = rooms.taskDirectory(id)
    let hostname = config.hostname.flatMap { $0.isEmpty ? nil : $0 } ?? Rooms.hostname(unnamed: id)
    config.hostname = hostname
    config.domainname = order.container.domainname.flatMap { $0.isEmpty ? nil : $0 }
    var network = NameFiles.Network.none
    func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
    if order.spec.predefinedNetwork == Network.hostName {
      config.network = .host
      network = .host(hosts: text("/etc/hosts"), resolv: text("/etc/resolv.conf"))
    } else if let wanted = TaskNetwork(order.task, order.spec) {
      await agent.networkApplied()
      let namespace: AttachedNamespace
      do {
        namespace = try await rooms.network.attach(wanted)
      } catch let problem as NetworkProblem {
        if let conflict = problem.conflict { await agent.noteHostConflict(conflict) }
        throw problem
      }
      config.networkNamespacePath = namespace.path
      network =
        wanted.isBridged
        ? .bridge(namespace.bridged.map { .v4($0) }, resolv: text("/etc/resolv.conf"))
        : .overlay(order.task.attachments.map { .v4($0.address) } + namespace.addresses6.map { .v6($0) })
      try await rooms.names.serve(id, namespace: namespace.path, client: DNSClient(order.task, order.container, hostname, namespace))
    }
    let files = NameFiles(order.container, hostname: hostname, on: network)
    try await offPool {
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      try files.hosts.write(toFile: "\(directory)/hosts", atomically: false, encoding: .utf8)
      try files.resolv.write(toFile: "\(directory)/resolv.conf", atomically: false, encoding: .utf8)
      try files.hostname.write(toFile: "\(directory)/hostname", atomically: false, encoding: .utf8)
    }
    for file in ["hosts", "resolv.conf", "hostname"] { config.mounts.append(.bind("\(directory)/\(file)", "/etc/\(file)")) }
  }

  private func mounts(_ spec: ContainerSpec, _ template: Placeholders, _ image: ImageRecord) async throws -> [MountConfig] {
    var mounts: [MountConfig] = []
    let content = ImageContent(image, rooms.images)
    defer { Task { try? await offPool { content.close() } } }
    var spec = spec
    // What looks at targets, here and below, does so when they are what they will be.
    spec.mounts = spec.mounts?.map(template.expand)
    if let again = Mount.firstAgain(spec.mounts ?? []) {
      throw VolumeError(.invalid, "mount '\(again.target)': another mount has this target once its placeholders are filled in: give each its own")
    }
    for mount in (spec.mounts ?? []) + ImageContent.volumes(of: image, besides: spec) {
      let resolved = try await rooms.volumes.resolve(mount, task: container, now: .now) { try content.folder($0) }
      switch resolved {
      case .bind(let source, let subpath, let target, let readOnly, let recursive):
        mounts.append(MountConfig(.bind(source: source, subpath: subpath, recursive: recursive), target: target, readOnly: readOnly))
      case .tmpfs(let target, let size, let mode, let isExecutable, let readOnly):
        mounts.append(MountConfig(.tmpfs(size: size, mode: mode ?? 0o1777, isExecutable: isExecutable), target: target, readOnly: readOnly))
      }
    }
    return mounts
  }
}

enum Environment {
  /// Later entries win; order is kept.
  static func merge(_ base: [String], _ over: [String]) -> [String] {
    var values: [String: String] = [:]
    var names: [String] = []
    for entry in base + over {
      let name = String(entry.prefix { $0 != "=" })
      if values.updateValue(entry, forKey: name) == nil { names.append(name) }
    }
    // "NAME" alone removes what the image set, as Docker's does.
    return names.compactMap { name in values[name].flatMap { $0.contains("=") ? $0 : nil } }
  }
}

extension TaskNetwork {
  /// nil: it has its loopback alone, or its host's network.
  /// - Parameter spec: nil: not known; a task without networks then has none.
  init?(_ task: ClusterTask, _ spec: ServiceSpec?) {
    self.init(
      task: task.id, attachments: task.attachments, hostPorts: spec?.hostPorts(of: task.id) ?? [], isBridged: spec?.isBridged ?? false)
    if attachments.isEmpty, !isBridged { return nil }
  }
}

extension DNSClient {
  /// What a container asks for: the names of its networks, its own, and those of the world unless it is shut in.
  init(_ task: ClusterTask, _ spec: ContainerSpec?, _ hostname: String, _ namespace: AttachedNamespace) {
    var own: [String: IPv4Address] = [:]
    if let address = task.attachments.first?.address {
      own[hostname] = address
      if let full = spec?.fullHostname(hostname) { own[full] = address }
    }
    let servers = ResolvConf(spec?.dnsConfig)
    // Its own servers may be on an internal network: the namespace says what can be reached.
    self.init(networks: namespace.networks, ownNames: own, forwards: namespace.reachesOutside || servers != nil, servers: servers)
  }
}

extension ContainerConfig {
  /// Every container has a tmpfs there: a mount that says no more than its size is that one's (Compose `shm_size`).
  mutating func takeSharedMemory() {
    guard let index = mounts.firstIndex(where: { $0.target == "/dev/shm" && !$0.readOnly }),
      case .tmpfs(let size?, 0o1777, false) = mounts[index].kind,
      size > 0
    else { return }
    shmSize = size
    mounts.remove(at: index)
  }
}
