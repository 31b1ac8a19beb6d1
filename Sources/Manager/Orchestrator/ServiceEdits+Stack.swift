import Allocator
import Model

extension ServiceEdits {
  /// What a manifest declares. Names are full ones (`stack_web`); networks in the specs are named by full name or id.
  public struct Deployment: Sendable {
    public var name: String
    /// The text, kept with the stack.
    public var manifest: String
    public var services: [ServiceSpec]
    /// Networks that the stack makes; external ones are not listed.
    public var networks: [NetworkSpec]
    public var volumes: [Volume]
    /// Secrets and configs: new ones sealed under their new ids, known ones (the content is the same) as they shall be.
    public var files: [StoredFile]
    public init(
      name: String, manifest: String, services: [ServiceSpec], networks: [NetworkSpec] = [], volumes: [Volume] = [], files: [StoredFile] = []
    ) {
      self.name = name
      self.manifest = manifest
      self.services = services
      self.networks = networks
      self.volumes = volumes
      self.files = files
    }
  }

  public enum Change: String, Hashable, Sendable { case created, updated, unchanged, removed }

  /// What a deploy does, by full name, in the manifest's order.
  public struct Deployed: Sendable {
    public var command: Command
    public var services: [(name: String, id: ServiceID, change: Change)]
    public var networks: [(name: String, id: NetworkID, change: Change)]
    public var volumes: [(name: String, change: Change)]
    /// With the kind in front.
    public var files: [(name: String, change: Change)] = []
  }
}

extension ServiceEdits {
  /// Everything the manifest declares, as one command: what is new is made, what differs gets a new revision, what is the same is left
  /// alone, and services that the stack's earlier revision had and this one lacks are removed.
  public static func deploy(
    _ wanted: Deployment, state: ClusterState, now: Timestamp, generator: inout some RandomNumberGenerator
  ) throws(EditError) -> Deployed {
    var wanted = wanted
    for index in wanted.services.indices { wanted.services[index].labels = labelled(wanted.services[index].labels, wanted.name) }
    for index in wanted.networks.indices { wanted.networks[index].labels = labelled(wanted.networks[index].labels, wanted.name) }
    let known = state.stacks[wanted.name]
    if let known, known.isBeingRemoved { throw .conflict("stack \(wanted.name) is still being removed: try again in a moment") }
    if wanted.services.isEmpty { throw .invalid("stack \(wanted.name) declares no service") }
    var stack = known ?? Stack(name: wanted.name, createdAt: now)
    var result = Deployed(
      command: Command(conditions: [.stackRevision(wanted.name, stack.revision)], actions: []), services: [], networks: [], volumes: [])

    let networks = try deployNetworks(wanted, state: state, now: now, generator: &generator, &result)
    for volume in wanted.volumes {
      if state.volumes[volume.name] != nil {
        result.volumes.append((volume.name, .unchanged))
      } else {
        result.command.actions.append(.putVolume(volume))
        result.volumes.append((volume.name, .created))
      }
    }

    var files: [StoredFile.Name: FileID] = [:]
    for file in wanted.files {
      if files.updateValue(file.id, forKey: file.fullName) != nil {
        throw .invalid("stack \(wanted.name) declares \(file.kind.rawValue) \(file.name) twice")
      }
      let old = state.file(file.kind, named: file.name)
      if let old {
        // Made meanwhile by somebody else, when the id differs: look again.
        guard old.id == file.id else { throw .outOfSequence }
        result.command.conditions.append(.fileVersion(old.id, old.version))
      } else {
        try check(file.kind, name: file.name, size: 1)
      }
      if old != file { result.command.actions.append(.putFile(file)) }
      result.files.append(("\(file.kind.rawValue) \(file.name)", old == nil ? .created : old == file ? .unchanged : .updated))
    }

    let names = Set(wanted.services.map(\.name))
    if names.count != wanted.services.count { throw .invalid("stack \(wanted.name) declares a service twice") }
    let removed = stack.services.keys.compactMap { state.services[$0] }.filter { !$0.pendingDelete && !names.contains($0.name) }
    let leaving = Set(removed.map(\.id)).union(wanted.services.compactMap { state.service(named: $0.name)?.id })
    try checkPortsTogether(wanted.services, state: state)
    try checkRanges(wanted.services, state: state, leaving: leaving)
    stack.services = [:]
    for spec in wanted.services {
      let old = state.service(named: spec.name).flatMap { $0.pendingDelete ? nil : $0 }
      let spec = try checked(spec, replacing: old, state: state, known: networks, making: wanted.networks, files: files, leaving: leaving)
      let (id, change) = try deployService(spec, old, state: state, now: now, generator: &generator, &result.command)
      result.services.append((spec.name, id, change))
      stack.services[id] = change == .created ? 1 : change == .unchanged ? old?.current : (old?.latest ?? 0) + 1
    }
    for var service in removed.sorted(by: { $0.name < $1.name }) {
      service.pendingDelete = true
      result.command.actions.append(.putService(service))
      result.services.append((service.name, service.id, .removed))
    }

    // Networks that are not declared any more are removed by the reconciler once nothing uses them. Volumes hold data: they stay known.
    let networksBefore = stack.networks
    stack.networks = result.networks.map(\.id)
    for volume in wanted.volumes where !stack.volumes.contains(volume.name) { stack.volumes.append(volume.name) }
    if networksBefore == stack.networks, result.command.actions.isEmpty, stack.manifest == wanted.manifest, known != nil { return result }
    stack.manifest = wanted.manifest
    stack.revision += 1
    stack.updatedAt = now
    result.command.actions.append(.putStack(stack))
    return result
  }

  /// Removes the stack's services; the reconciler then removes its networks and its row. With `volumes`, its volumes' rows at once.
  public static func removeStack(_ name: String, volumes: Bool = false, state: ClusterState, now: Timestamp) throws(EditError) -> Command {
    var command = Command(actions: [])
    var stack = state.stacks[name] ?? Stack(name: name, createdAt: now)
    let services = state.services.values.filter { stack.services[$0.id] != nil || state.spec(of: $0)?.stack == name }
    if state.stacks[name] == nil && services.isEmpty { throw .notFound("stack \(name) not found") }
    command.conditions.append(.stackRevision(name, stack.revision))
    for var service in services.sorted(by: { $0.name < $1.name }) where !service.pendingDelete {
      service.pendingDelete = true
      command.actions.append(.putService(service))
    }
    // What another service uses stays.
    let leaving = Set(services.map(\.name))
    for file in state.files.values.sorted(by: { $0.name < $1.name }) where file.labels[StackLabel.namespace] == name {
      if leaving.isSuperset(of: state.users(of: file.id)) { command.actions.append(.removeFile(file.id)) }
    }
    if volumes { command.actions += stack.volumes.map { .removeVolume($0) } }
    stack.services = [:]
    stack.manifest = ""
    stack.updatedAt = now
    command.actions.append(.putStack(stack))
    return command
  }

  private static func labelled(_ labels: [String: String]?, _ stack: String) -> [String: String] {
    var labels = labels ?? [:]
    labels[StackLabel.namespace] = stack
    return labels
  }

  private static func deployNetworks(
    _ wanted: Deployment, state: ClusterState, now: Timestamp, generator: inout some RandomNumberGenerator, _ result: inout Deployed
  ) throws(EditError) -> [String: NetworkID] {
    var ids: [String: NetworkID] = [:]
    for spec in wanted.networks {
      if let old = state.network(named: spec.name) {
        guard old.spec.labels?[StackLabel.namespace] == wanted.name else {
          throw .conflict("network \(spec.name) exists and does not belong to stack \(wanted.name): declare it as external or choose another name")
        }
        var comparable = old.spec
        comparable.labels = spec.labels
        guard comparable == spec else {
          throw .conflict("network \(spec.name) cannot be changed while it exists: remove the stack first, or give the network another name")
        }
        ids[spec.name] = old.id
        if old.spec != spec {
          var network = old
          network.spec = spec
          result.command.conditions.append(.networkVersion(old.id, old.version))
          result.command.actions.append(.putNetwork(network))
        }
        result.networks.append((spec.name, old.id, old.spec == spec ? .unchanged : .updated))
        continue
      }
      if ids[spec.name] != nil { throw .invalid("stack \(wanted.name) declares network \(spec.name) twice") }
      try check(spec, state: state)
      let id = NetworkID.random(using: &generator)
      ids[spec.name] = id
      result.command.actions.append(.putNetwork(Network(id: id, spec: spec, createdAt: now)))
      result.networks.append((spec.name, id, .created))
    }
    return ids
  }

  private static func deployService(
    _ spec: ServiceSpec, _ old: Service?, state: ClusterState, now: Timestamp, generator: inout some RandomNumberGenerator,
    _ command: inout Command
  ) throws(EditError) -> (ServiceID, Change) {
    guard let old else {
      let id = ServiceID.random(using: &generator)
      command.conditions += fileConditions(spec, state)
      command.actions += newService(id, spec, now: now)
      return (id, .created)
    }
    if state.spec(of: old) == spec { return (old.id, .unchanged) }
    command.conditions += [.serviceVersion(old.id, old.version)] + fileConditions(spec, state)
    command.actions += try updateActions(old, to: spec, state: state, now: now)
    return (old.id, .updated)
  }
}

extension Stack {
  /// Its services are on their way out; the row stays until its networks are gone too.
  public var isBeingRemoved: Bool { services.isEmpty && manifest.isEmpty }
}
