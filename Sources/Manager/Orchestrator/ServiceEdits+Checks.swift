import Allocator
import Model
import Scheduler

extension ServiceEdits {
  static func find(_ id: ServiceID, version: UInt64?, state: ClusterState) throws(EditError) -> Service {
    guard let service = state.services[id] else { throw .notFound("service \(id) not found") }
    if service.pendingDelete { throw .notFound("service \(service.name) is being removed") }
    if let version, version != service.version { throw .outOfSequence }
    return service
  }

  static func newService(_ id: ServiceID, _ spec: ServiceSpec, now: Timestamp) -> [Action] {
    [
      .putService(Service(id: id, name: spec.name, createdAt: now)),
      .putRevision(ServiceRevision(key: .init(id, 1), spec: spec, template: 1, createdAt: now)),
    ]
  }

  static func updateActions(_ old: Service, to spec: ServiceSpec, state: ClusterState, now: Timestamp) throws(EditError) -> [Action] {
    guard let current = state.revision(old.id, old.current) else { throw .notFound("service \(old.name) has no spec") }
    var service = old
    service.updatedAt = now
    if current.spec == spec { return [.putService(service)] }
    service.latest += 1
    service.previous = old.current
    service.current = service.latest
    service.updateStatus = nil
    let sameTasks = current.spec.taskTemplate.canonical == spec.taskTemplate.canonical && current.spec.ports == spec.ports
    let revision = ServiceRevision(
      key: .init(old.id, service.current), spec: spec, template: sameTasks ? current.template : service.current, createdAt: now)
    return [.putService(service), .putRevision(revision)]
  }

  /// The spec with networks, secrets and configs as ids, or what is wrong with it.
  /// - Parameters:
  ///   - known: networks that the same command makes, by name.
  ///   - making: their specs.
  ///   - files: secrets and configs that the same command makes.
  ///   - leaving: services whose ports and names do not count: the same command removes or updates them.
  static func checked(
    _ spec: ServiceSpec, replacing old: Service?, state: ClusterState, known: [String: NetworkID] = [:], making: [NetworkSpec] = [],
    files: [StoredFile.Name: FileID] = [:], leaving: Set<ServiceID> = []
  ) throws(EditError) -> ServiceSpec {
    var spec = spec
    try checkName(spec.name, of: "service")
    if let old {
      if old.name != spec.name { throw .invalid("renaming services is not supported: \(old.name) to \(spec.name)") }
      if let before = state.spec(of: old), before.isGlobal != spec.isGlobal {
        throw .invalid("service \(spec.name): the mode cannot be changed; remove the service and create it again")
      }
    } else if let holder = state.service(named: spec.name) {
      throw .conflict(
        holder.pendingDelete
          ? "service \(spec.name) is still being removed: try again in a moment"
          : "name conflicts with an existing object: service \(spec.name) already exists")
    }
    // Docker's clients leave the default of one replica to the manager, and want to read it back.
    if spec.mode == nil || (spec.mode?.replicated != nil && spec.mode?.replicated?.replicas == nil) { spec.mode = .replicated(1) }
    try checkTemplate(spec)
    try checkUpdate(spec.updateConfig, "update_config", spec.name)
    try checkUpdate(spec.rollbackConfig, "rollback_config", spec.name)
    try checkPorts(spec, id: old?.id, state: state, leaving: leaving)
    if leaving.isEmpty { try checkRanges([spec], state: state, leaving: Set([old?.id].compactMap { $0 })) }
    if let networks = spec.taskTemplate.networks {
      spec.taskTemplate.networks = try resolve(networks, service: spec.name, state: state, known: known)
      let rows = (spec.taskTemplate.networks ?? []).compactMap { network -> Network? in
        guard let id = NetworkID(network.target) else { return nil }
        return state.networks[id] ?? making.first { known[$0.name] == id }.map { Network(id: id, spec: $0, createdAt: .zero) }
      }
      do { try Allocator.checkApart(spec.name, rows) } catch { throw .invalid(error.description) }
      if let predefined = spec.predefinedNetwork, predefined != Network.bridgeName, !spec.ports.isEmpty {
        throw .invalid(
          predefined == Network.hostName
            ? "service \(spec.name): on the host's network it listens on the host's own ports, so it publishes none: remove its ports or the network host"
            : "service \(spec.name): without a network it can publish no port: remove its ports or the network none")
      }
    }
    spec.taskTemplate.containerSpec.files = try resolve(spec.taskTemplate.containerSpec.files, service: spec.name, state: state, known: files)
    return spec
  }

  static func checkName(_ name: String, of kind: String) throws(EditError) {
    let bytes = Array(name.utf8)
    func isAlphanumeric(_ byte: UInt8) -> Bool { (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) }
    guard (1...63).contains(bytes.count), isAlphanumeric(bytes[0]), isAlphanumeric(bytes[bytes.count - 1]),
      bytes.allSatisfy({ isAlphanumeric($0) || $0 == 45 || $0 == 95 || $0 == 46 })
    else {
      throw .invalid("\(kind) name '\(name)' is not valid: 1 to 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit")
    }
  }

  private static func checkTemplate(_ spec: ServiceSpec) throws(EditError) {
    let image = spec.taskTemplate.containerSpec.image
    if let value = spec.labels?[TrafficDistribution.label], TrafficDistribution(rawValue: value) == nil {
      throw .invalid("service \(spec.name): the label \(TrafficDistribution.label) is PreferSameNode or absent, not '\(value)'")
    }
    if image.isEmpty { throw .invalid("service \(spec.name): no image is given") }
    do { _ = try ImageReference(image) } catch { throw .invalid("service \(spec.name): \(error)") }
    if spec.mode?.replicatedJob != nil || spec.mode?.globalJob != nil {
      throw .invalid("service \(spec.name): jobs are not supported yet; use a replicated service with restart condition none")
    }
    if let replicas = spec.replicas, replicas > replicasMax {
      throw .invalid("service \(spec.name): \(replicas) replicas are more than the \(replicasMax) that one service may have")
    }
    for text in spec.taskTemplate.containerSpec.dnsConfig?.nameservers ?? [] where IPAddress(text) == nil {
      throw .invalid("service \(spec.name): '\(text)' is not the IP address of a name server")
    }
    for text in spec.taskTemplate.placement?.constraints ?? [] {
      do { _ = try Constraint(text) } catch { throw .invalid("service \(spec.name): \(error)") }
    }
    for preference in spec.taskTemplate.placement?.preferences ?? [] {
      guard let text = preference.spread?.spreadDescriptor, SpreadKey(text) != nil else {
        throw .invalid("service \(spec.name): a placement preference must spread over node.labels.KEY or engine.labels.KEY")
      }
    }
    if let reserved = spec.taskTemplate.resources?.reservations {
      if (reserved.nanoCPUs ?? 0) < 0 || (reserved.memoryBytes ?? 0) < 0 { throw .invalid("service \(spec.name): a reservation is negative") }
      let limits = spec.taskTemplate.resources?.limits
      if let limit = limits?.memoryBytes, limit > 0, let wanted = reserved.memoryBytes, wanted > limit {
        throw .invalid("service \(spec.name): the memory reserved (\(wanted)) is more than the memory limit (\(limit))")
      }
      if let limit = limits?.nanoCPUs, limit > 0, let wanted = reserved.nanoCPUs, wanted > limit {
        throw .invalid("service \(spec.name): the CPU reserved is more than the CPU limit")
      }
    }
    if let limits = spec.taskTemplate.resources?.limits {
      if (limits.nanoCPUs ?? 0) < 0 || (limits.memoryBytes ?? 0) < 0 || (limits.pids ?? 0) < 0 {
        throw .invalid("service \(spec.name): a limit is negative")
      }
      // Docker's own floor.
      if let memory = limits.memoryBytes, memory > 0, memory < 4 << 20 {
        throw .invalid("service \(spec.name): a memory limit of \(memory) bytes is below the 4 MiB that a container needs")
      }
    }
    if let swap = spec.taskTemplate.resources?.swapBytes, swap != 0 {
      guard swap >= -1 else { throw .invalid("service \(spec.name): swap of \(swap) bytes: it is at least 0, or -1 for no limit") }
      guard (spec.taskTemplate.resources?.limits?.memoryBytes ?? 0) > 0 else {
        throw .invalid("service \(spec.name): swap is given on top of a memory limit: set that too")
      }
    }
    if let cpuset = spec.taskTemplate.resources?.limits?.cpuset, !cpuset.isEmpty, !ResourceRequirements.isCPUList(cpuset) {
      throw .invalid("service \(spec.name): cpuset '\(cpuset)' is no list of CPUs such as 0-2,4")
    }
    if let shares = spec.taskTemplate.resources?.limits?.cpuShares, shares != 0, !(2...262_144).contains(shares) {
      throw .invalid("service \(spec.name): cpu_shares is 2 to 262144, not \(shares)")
    }
    do throws(LogLimits.Refusal) { _ = try LogLimits(spec.taskTemplate.logDriver) } catch {
      throw .invalid("service \(spec.name): \(error.reason): \(error.advice)")
    }
    try checkMounts(spec.taskTemplate.containerSpec.mounts ?? [], spec.name)
    try checkHealth(spec.taskTemplate.containerSpec.healthCheck, spec.name)
    let restart = spec.taskTemplate.restartPolicy
    if (restart?.delay ?? 0) < 0 || (restart?.window ?? 0) < 0 { throw .invalid("service \(spec.name): restart_policy has a negative duration") }
    if (spec.taskTemplate.containerSpec.stopGracePeriod ?? 0) < 0 { throw .invalid("service \(spec.name): stop_grace_period is negative") }
  }

  /// What is accepted and not carried out would be believed.
  private static func checkMounts(_ mounts: [Mount], _ service: String) throws(EditError) {
    if let again = Mount.firstAgain(mounts) {
      throw .invalid("service \(service): mount \(again.target): another mount has this target: give each its own")
    }
    for mount in mounts {
      if let name = mount.bindOptions?.foreignPropagation {
        throw .invalid("service \(service): mount \(mount.target): propagation \(name) is not supported: \(Mount.BindOptions.propagationAdvice)")
      }
      if let options = mount.volumeOptions, options.isForeign {
        let driver = options.driverConfig?.name ?? ""
        throw .invalid(
          "service \(service): mount \(mount.target): "
            + (["", "local"].contains(driver) ? "local volumes have no driver options" : "the volume driver \(driver) is not supported")
            + ": mount what it means on every host, and bind that folder")
      }
      if let option = mount.tmpfsOptions?.unknownOption {
        throw .invalid("service \(service): mount \(mount.target): a tmpfs has the options exec and noexec, not '\(option.joined(separator: "="))'")
      }
    }
  }

  /// Docker's own rules (moby daemon/container.go, verifyContainerSettings): 0 means the default.
  private static func checkHealth(_ health: HealthConfig?, _ service: String) throws(EditError) {
    guard let health else { return }
    if let kind = health.test?.first {
      guard ["NONE", "CMD", "CMD-SHELL"].contains(kind) else {
        throw .invalid("service \(service): the health check's test begins with '\(kind)'; its first word must be NONE, CMD or CMD-SHELL")
      }
      if kind != "NONE", health.test?.count == 1 { throw .invalid("service \(service): the health check has no command to test with") }
    }
    let times = [
      ("interval", health.interval), ("timeout", health.timeout), ("start_period", health.startPeriod), ("start_interval", health.startInterval),
    ]
    for (name, time) in times {
      if let time, time != 0, time < .milliseconds(1) { throw .invalid("service \(service): the health check's \(name) is less than 1 ms") }
    }
    if let retries = health.retries, retries < 0 { throw .invalid("service \(service): the health check's retries are negative") }
  }

  private static func checkUpdate(_ config: UpdateConfig?, _ name: String, _ service: String) throws(EditError) {
    guard let config else { return }
    if (config.delay ?? 0) < 0 || (config.monitor ?? 0) < 0 { throw .invalid("service \(service): \(name) has a negative duration") }
    if let ratio = config.maxFailureRatio, !(0...1).contains(ratio) {
      throw .invalid("service \(service): \(name) max_failure_ratio is \(ratio), must be between 0 and 1")
    }
    if name == "rollback_config", config.failureAction == .rollback {
      throw .invalid("service \(service): a rollback cannot be rolled back; rollback_config failure_action is pause or continue")
    }
  }

  private static func resolve(
    _ networks: [NetworkAttachmentConfig], service: String, state: ClusterState, known: [String: NetworkID]
  ) throws(EditError) -> [NetworkAttachmentConfig] {
    var resolved: [NetworkAttachmentConfig] = []
    // `bridge` was no name of its own once: who has such a network has it still.
    func isTaken(_ name: String) -> Bool { name == Network.bridgeName && (known[name] != nil || state.network(named: name) != nil) }
    if let predefined = networks.first(where: { Network.predefinedNames.contains($0.target) && !isTaken($0.target) }) {
      guard networks.count == 1 else {
        throw .invalid("service \(service): network \(predefined.target) cannot be combined with others: name it alone, or leave it out")
      }
      return [NetworkAttachmentConfig(target: predefined.target)]
    }
    for network in networks {
      var entry = network
      if let id = known[network.target] {
        entry.target = id.description
      } else if let found = NetworkID(network.target).flatMap({ state.networks[$0] }) ?? state.network(named: network.target) {
        if found.spec.ingress == true {
          throw .invalid("service \(service): network \(found.name) carries published ports; services are not attached to it by hand")
        }
        entry.target = found.id.description
      } else if NetworkID(network.target).map({ id in known.values.contains(id) }) != true {
        throw .notFound("service \(service): network \(network.target) not found: create it first, or name one that exists")
      }
      if resolved.contains(where: { $0.target == entry.target }) {
        throw .invalid("service \(service): network \(network.target) is named twice")
      }
      resolved.append(entry)
    }
    return resolved
  }

  static func check(_ spec: NetworkSpec, state: ClusterState) throws(EditError) {
    try checkName(spec.name, of: "network")
    if state.network(named: spec.name) != nil {
      throw .conflict("name conflicts with an existing object: network \(spec.name) already exists")
    }
    if let driver = spec.driver, !driver.isEmpty, driver != "overlay" {
      throw .invalid("network \(spec.name): driver \(driver) is not supported in a cluster; use overlay")
    }
    if Network.predefinedNames.contains(spec.name) {
      throw .invalid("network \(spec.name): the name is taken, as \(Network.predefinedNames.sorted().joined(separator: ", ")) are: choose another")
    }
    for option in (spec.options ?? [:]).keys.sorted() {
      if let reason = NetworkSpec.refusal(of: option) { throw .invalid("network \(spec.name): \(reason)") }
    }
    try checkMTU(spec, state)
    do { try Allocator.check(spec, state: state) } catch { throw .invalid(error.description) }
  }

  private static func checkMTU(_ spec: NetworkSpec, _ state: ClusterState) throws(EditError) {
    let links = state.nodes.values.compactMap { node in node.description?.underlayMTU.map { (node.hostname, $0) } }
    let smallest = links.min { $0.1 == $1.1 ? $0.0 < $1.0 : $0.1 < $1.1 }
    guard let text = spec.options?[NetworkSpec.mtuOption] else {
      guard let (host, link) = smallest, link - NetworkSpec.tunnelOverhead < 1280, spec.enableIPv6 == true else { return }
      throw .invalid(
        "network \(spec.name): IPv6 needs packets of 1280 bytes; the link of host \(host) takes \(link), of which VXLAN needs "
          + "\(NetworkSpec.tunnelOverhead): raise the link's MTU, or leave IPv6 out")
    }
    guard let mtu = Int(text), (576...65_485).contains(mtu) else {
      throw .invalid("network \(spec.name): \(NetworkSpec.mtuOption) is 576 to 65485 bytes, not '\(text)'")
    }
    // RFC 8200 5.
    guard mtu >= 1280 || spec.enableIPv6 != true else {
      throw .invalid("network \(spec.name): IPv6 needs packets of 1280 bytes, \(NetworkSpec.mtuOption) says \(mtu): raise it, or leave IPv6 out")
    }
    guard let (host, link) = smallest, mtu > link - NetworkSpec.tunnelOverhead else { return }
    throw .invalid(
      "network \(spec.name): packets of \(mtu) bytes do not fit: the link of host \(host) takes \(link), and VXLAN adds "
        + "\(NetworkSpec.tunnelOverhead): at most \(link - NetworkSpec.tunnelOverhead)")
  }
}
