import Model
import Orchestrator

/// What users do to the cluster, and what an administrator does about lost managers.
struct Users {
  var serviceNames: [String] = []
  var stacks: [String] = []
  var networks: [String] = []
  var replacements: [String] = []
  var made = 0
  var removalAskedAt: Time?
}

extension World {
  /// The last client number: nobody waits for its answers.
  static let user = 900

  func operate() throws {
    guard !isHealing else { return }
    after(.milliseconds(userChance.int(scenario.operationEvery / 4...scenario.operationEvery * 2)), .operation)
    if let operation = nextOperation() { ask(for: operation) }
  }

  private func ask(for operation: Request.Kind) {
    operations += 1
    let manager = userChance.pick(Array(managers.indices))
    tell("user", "asks m\(manager): \(operation)")
    ask(manager, Request(client: Self.user, operation: operations, kind: operation))
  }

  /// As whoever takes a stack down and deploys the next: what a network had is asked for again at once.
  func networkIsGone() {
    if !isHealing, userChance.chance(permille: 500) { after(.milliseconds(userChance.int(1...50)), .anotherNetwork) }
  }

  func replaceNetwork() {
    guard !isHealing else { return }
    if users.replacements.count > 1 { ask(for: .user(.removeNetwork(name: users.replacements.removeFirst()))) }
    users.replacements.append("another\(operations)")
    ask(for: .user(.createNetwork(name: users.replacements.last!)))
  }

  private func nextOperation() -> Request.Kind? {
    let name = userChance.pickIfAny(users.serviceNames)
    switch userChance.int(0...19) {
    case _ where users.serviceNames.count < scenario.services && users.made < scenario.services * 2:
      users.made += 1
      if userChance.chance(permille: 250) {
        let stack = "stack\(users.made)"
        users.stacks.append(stack)
        let services = (0...userChance.int(0...1)).map { ("\(stack)_s\($0)", aService([stack])) }
        users.serviceNames += services.map(\.0)
        return .user(.deploy(stack: stack, services: services))
      }
      let name = "service\(users.made)"
      users.serviceNames.append(name)
      return .user(.createService(name: name, aService(users.networks)))
    case 0 where users.networks.count < 2:
      users.networks.append("net\(users.networks.count)")
      return .user(.createNetwork(name: users.networks.last!))
    case 1: return userChance.pickIfAny(users.networks).map { .user(.removeNetwork(name: $0)) }
    case 2...5: return name.map { .user(.scale(name: $0, replicas: UInt64(userChance.skewed(0...(agents.count > 20 ? 60 : 8))))) }
    case 6...8: return name.map { .user(.update(name: $0, image: anImage())) }
    case 9: return name.map { .user(.force(name: $0, UInt64(operations))) }
    case 10, 11: return name.map { .user(.rollback(name: $0)) }
    case 12 where userChance.chance(permille: 400):
      guard let name else { return nil }
      users.serviceNames.removeAll { $0 == name }
      return .user(.remove(name: name))
    case 13 where userChance.chance(permille: 400):
      guard let stack = userChance.pickIfAny(users.stacks) else { return nil }
      users.stacks.removeAll { $0 == stack }
      users.serviceNames.removeAll { $0.hasPrefix(stack + "_") }
      return .user(.removeStack(stack))
    case 14...16:
      let availability: NodeAvailability = userChance.pick([.active, .active, .drain, .pause])
      return .user(.availability(node: userChance.pick(agents).node, availability))
    case 17, 18: return .transfer(userChance.pick(managers).raftID.rawValue)
    case 19: return changeMembers()
    default: return nil
    }
  }

  private func anImage() -> String {
    let kind = userChance.pick(["app", "app", "app", "app", "flaky", "missing"])
    return "\(kind):\(userChance.int(1...9))"
  }

  private func aService(_ networks: [String]) -> UserService {
    UserService(
      image: userChance.chance(permille: 850) ? "app:1" : anImage(),
      replicas: userChance.chance(permille: 200) ? nil : UInt64(userChance.skewed(0...(agents.count > 20 ? 40 : 6))),
      startsFirst: userChance.chance(permille: 400), networks: networks.filter { _ in userChance.chance(permille: 600) },
      publishes: userChance.chance(permille: 400), port: userChance.chance(permille: 300) ? UInt16(userChance.int(8000...8002)) : nil,
      parallelism: UInt64(userChance.int(0...3)), fallsBack: userChance.chance(permille: 400), check: aCheck())
  }

  private func aCheck() -> HealthConfig? {
    guard healthChance.chance(permille: 500) else { return nil }
    var check = HealthConfig()
    check.test = ["CMD", "true"]
    check.interval = .milliseconds(Int64(healthChance.int(200...1_500)))
    check.timeout = .milliseconds(500)
    check.retries = healthChance.int(1...3)
    check.startPeriod = .milliseconds(Int64(healthChance.pick([0, 500, 3_000])))
    check.startInterval = .milliseconds(Int64(healthChance.int(50...300)))
    return check
  }

  /// A manager more, or one less: as many as the cluster began with, give or take one.
  private func changeMembers() -> Request.Kind? {
    guard scenario.managers > 1 else { return nil }
    let live = managers.filter { !$0.isGone }
    if live.count <= scenario.managers, userChance.chance(permille: 500) {
      let host = newManager(managers.count)
      managers.append(host)
      join(host)
      return .addMember(host.raftID.rawValue)
    }
    guard live.count > max(3, scenario.managers - 1) else { return nil }
    let leaving = userChance.pick(live)
    // Two voters less at once would be an administrator's mistake, which a leader that has just heard of both cannot see.
    let leader = managers.first { $0.isUp && $0.view.leadership.isLeader }
    guard let leader, !managers.contains(where: { isLost($0) && leader.view.membership.members[$0.raftID]?.role == .voter }) else { return nil }
    users.removalAskedAt = now
    return .removeMember(leaving.raftID.rawValue)
  }

  /// A disk that rots is as good as lost; its manager finds it at its next start.
  private func isLost(_ host: ManagerHost) -> Bool { host.isGone || host.disk.isCorrupt }

  func join(_ host: ManagerHost) {
    figures.members += 1
    prepareJoin(host)
    after(.milliseconds(chance.int(1...300)), .startManager(host.number))
  }

  /// Who is lost is taken out, who is not in is added: until it is so.
  func administer() throws {
    after(.milliseconds(userChance.int(700...1_500)), .administer)
    guard let leader = managers.first(where: { $0.isUp && $0.view.leadership.isLeader }) else { return }
    let members = leader.view.membership.members
    func ask(_ kind: Request.Kind) {
      operations += 1
      self.ask(leader.number, Request(client: Self.user, operation: operations, kind: kind))
    }
    for host in managers {
      let role = members[host.raftID]?.role
      if host.isGone, role == .voter || role == .learner { return ask(.removeMember(host.raftID.rawValue)) }
    }
    let live = managers.filter { !$0.isGone && members[$0.raftID]?.role != .removed }
    for host in live where members[host.raftID] == nil || members[host.raftID]?.role == .contact { return ask(.addMember(host.raftID.rawValue)) }
    if live.count < scenario.managers, isHealing || userChance.chance(permille: 300) {
      let host = newManager(managers.count)
      managers.append(host)
      join(host)
      ask(.addMember(host.raftID.rawValue))
    }
  }

  // MARK: - From a wish to a command, as the API does

  func make(_ operation: UserOperation, _ state: ClusterState, _ host: ManagerHost) throws -> Command {
    let now = host.moment(now).wall
    func id(_ name: String) throws -> ServiceID {
      guard let service = state.service(named: name) else { throw EditError.notFound(name) }
      return service.id
    }
    switch operation {
    case .createService(let name, let service):
      return try ServiceEdits.create(spec(name, service, state), state: state, now: now, generator: &coreChance).command
    case .scale(let name, let replicas): return try ServiceEdits.scale([(id(name), replicas)], state: state, now: now)
    case .update(let name, let image):
      return try ServiceEdits.update(id(name), to: edited(name, state) { $0.taskTemplate.containerSpec.image = image }, state: state, now: now)
    case .force(let name, let number):
      return try ServiceEdits.update(id(name), to: edited(name, state) { $0.taskTemplate.forceUpdate = number }, state: state, now: now)
    case .rollback(let name): return try ServiceEdits.rollback(id(name), state: state, now: now)
    case .remove(let name): return try ServiceEdits.remove(id(name), state: state)
    case .createNetwork(let name):
      return try ServiceEdits.createNetwork(NetworkSpec(name: name), state: state, now: now, generator: &coreChance).command
    case .removeNetwork(let name):
      guard let network = state.network(named: name) else { throw EditError.notFound(name) }
      return try ServiceEdits.removeNetwork(network.id, state: state)
    case .deploy(let stack, let services):
      let network = NetworkSpec(name: "\(stack)_net")
      let specs = services.map { name, service in
        var spec = self.spec(name, service, state)
        spec.taskTemplate.networks = [NetworkAttachmentConfig(target: network.name)]
        return spec
      }
      let wanted = ServiceEdits.Deployment(name: stack, manifest: "\(operations)", services: specs, networks: [network])
      return try ServiceEdits.deploy(wanted, state: state, now: now, generator: &coreChance).command
    case .removeStack(let name): return try ServiceEdits.removeStack(name, state: state, now: now)
    case .availability(let id, let availability):
      guard let node = state.nodes[id] else { throw EditError.notFound("\(id)") }
      var spec = node.spec
      spec.availability = availability
      return Command(conditions: [.nodeVersion(id, node.version)], actions: [.nodeSpec(id, spec, at: now)])
    }
  }

  private func edited(_ name: String, _ state: ClusterState, _ change: (inout ServiceSpec) -> Void) throws -> ServiceSpec {
    guard let service = state.service(named: name), var spec = state.spec(of: service) else { throw EditError.notFound(name) }
    change(&spec)
    return spec
  }

  private func spec(_ name: String, _ service: UserService, _ state: ClusterState) -> ServiceSpec {
    var spec = ServiceSpec(
      name: name, taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: service.image)),
      mode: service.replicas.map { .replicated($0) } ?? .globalMode)
    spec.taskTemplate.containerSpec.healthCheck = service.check
    spec.taskTemplate.networks = service.networks.filter { state.network(named: $0) != nil }.map { NetworkAttachmentConfig(target: $0) }
    var config = UpdateConfig()
    config.parallelism = service.parallelism
    config.order = service.startsFirst ? .startFirst : .stopFirst
    config.monitor = .milliseconds(500)
    config.failureAction = service.fallsBack ? .rollback : .pause
    spec.updateConfig = config
    var back = config
    back.failureAction = .pause
    spec.rollbackConfig = back
    if service.publishes { spec.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: service.port)]) }
    return spec
  }
}
