import Model

/// Why an edit cannot be made; a sentence for the user.
public enum EditError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The spec is wrong in itself, or asks for what cannot be (HTTP 400).
  case invalid(String)
  /// HTTP 404.
  case notFound(String)
  /// A name, port or subnet that another object has, or an object that is in use (HTTP 409).
  case conflict(String)
  /// HTTP 500, as Docker answers, with its words: "update out of sequence".
  case outOfSequence

  public var description: String {
    switch self {
    case .invalid(let text), .notFound(let text), .conflict(let text): text
    case .outOfSequence: "update out of sequence"
    }
  }
}

/// What users do to services, networks and stacks, as commands to propose. Pure: nothing changes until the command is applied, and
/// the command's conditions make it fail if the object changed in between (read the state again, edit again).
public enum ServiceEdits {
  /// Replicas beyond this are refused: more likely a slip than a wish.
  public static let replicasMax: UInt64 = 10_000

  public struct Created<ID: Sendable>: Sendable {
    public var id: ID
    public var command: Command
  }

  // MARK: - Services

  /// Revision 1 of a new service. Networks may be named by name or id; they are stored as ids.
  public static func create(
    _ spec: ServiceSpec, state: ClusterState, now: Timestamp, generator: inout some RandomNumberGenerator
  ) throws(EditError) -> Created<ServiceID> {
    let id = ServiceID.random(using: &generator)
    let spec = try checked(spec, replacing: nil, state: state)
    return Created(id: id, command: Command(conditions: fileConditions(spec, state), actions: newService(id, spec, now: now)))
  }

  /// A new revision if the spec differs from the current one; otherwise only Docker's version rises.
  /// - Parameter version: Docker's `?version=`; nil takes the service as it is now.
  public static func update(
    _ id: ServiceID, to spec: ServiceSpec, version: UInt64? = nil, state: ClusterState, now: Timestamp
  ) throws(EditError) -> Command {
    let service = try find(id, version: version, state: state)
    let spec = try checked(spec, replacing: service, state: state)
    return Command(
      conditions: [.serviceVersion(id, service.version)] + fileConditions(spec, state),
      actions: try updateActions(service, to: spec, state: state, now: now))
  }

  /// Several services in one command: all or none.
  public static func scale(_ replicas: [(service: ServiceID, replicas: UInt64)], state: ClusterState, now: Timestamp) throws(EditError) -> Command {
    var command = Command(actions: [])
    for (id, count) in replicas {
      let service = try find(id, version: nil, state: state)
      guard var spec = state.spec(of: service) else { throw .notFound("service \(service.name) has no spec") }
      guard spec.mode?.global == nil, spec.mode?.replicatedJob == nil, spec.mode?.globalJob == nil else {
        throw .invalid("scale can only be used with replicated mode: service \(service.name) is not replicated")
      }
      spec.mode = .replicated(count)
      spec = try checked(spec, replacing: service, state: state)
      command.conditions.append(.serviceVersion(id, service.version))
      command.actions += try updateActions(service, to: spec, state: state, now: now)
    }
    return command
  }

  /// Points back: current and previous change places. No new revision is made.
  public static func rollback(_ id: ServiceID, version: UInt64? = nil, state: ClusterState, now: Timestamp) throws(EditError) -> Command {
    var service = try find(id, version: version, state: state)
    guard let previous = service.previous, let spec = state.revision(id, previous)?.spec else {
      throw .invalid("service \(service.name) does not have a previous spec: it was not updated since it was created")
    }
    _ = try checked(spec, replacing: service, state: state)
    let conditions = [.serviceVersion(id, service.version)] + fileConditions(spec, state)
    service.previous = service.current
    service.current = previous
    service.updatedAt = now
    service.updateStatus = Service.UpdateStatus(state: .rollbackStarted, startedAt: now, message: "manually requested rollback")
    return Command(conditions: conditions, actions: [.putService(service)])
  }

  /// The tasks are shut down first, then the row goes. Removing twice is harmless.
  public static func remove(_ id: ServiceID, state: ClusterState) throws(EditError) -> Command {
    guard var service = state.services[id] else { throw .notFound("service \(id) not found") }
    if service.pendingDelete { return Command(actions: []) }
    let conditions: [Condition] = [.serviceVersion(id, service.version)]
    service.pendingDelete = true
    return Command(conditions: conditions, actions: [.putService(service)])
  }

  // MARK: - Networks

  public static func createNetwork(
    _ spec: NetworkSpec, state: ClusterState, now: Timestamp, generator: inout some RandomNumberGenerator
  ) throws(EditError) -> Created<NetworkID> {
    try check(spec, state: state)
    let id = NetworkID.random(using: &generator)
    return Created(id: id, command: Command(actions: [.putNetwork(Network(id: id, spec: spec, createdAt: now))]))
  }

  public static func removeNetwork(_ id: NetworkID, state: ClusterState) throws(EditError) -> Command {
    guard let network = state.networks[id] else { throw .notFound("network \(id) not found") }
    if network.spec.ingress == true { throw .conflict("network \(network.name) carries the published ports and cannot be removed") }
    for service in state.services.values where state.spec(of: service)?.networks.contains(where: { $0.target == id.description }) == true {
      throw .conflict("network \(network.name) is in use by service \(service.name): remove the service first")
    }
    return Command(conditions: [.networkVersion(id, network.version)], actions: [.removeNetwork(id)])
  }
}
