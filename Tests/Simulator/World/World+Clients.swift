import Linearizability
import Model
import Orchestrator
import Raft
import Replica

/// Reads and writes two registers and a set through any manager, one call at a time. The registers are rows of nodes that do not exist,
/// the set is the names of volumes: what users change, by the commands that users use.
struct Client {
  static let registers = 2
  static func row(_ register: Int) -> NodeID { NodeID(value: UInt128(1 + register)) }
  static let value = "value"
  static let element = "element-"

  let number: Int
  /// A client whose call was never answered begins anew under another name: a process does one thing at a time.
  var name: Int
  var pending: (operation: Int, calls: [History.ID], kind: Request.Kind)?
  /// Of each register, as last read: what to expect of it.
  var known: [Int: (value: Int64?, version: UInt64)] = [:]

  init(number: Int) { (self.number, name) = (number, number) }
}

extension World {
  static let patience: Time = .seconds(3)

  func act(_ number: Int) throws {
    guard !isHealing, clients[number].pending == nil else { return }
    let testimony = isWitness(number) ? self.testimony(of: number) : nil
    if isWitness(number), testimony == nil { return }
    operations += 1
    let operation = operations
    var client = clients[number]
    let register = userChance.int(0...Client.registers - 1)
    let value = Int64(operation)
    var calls: [(History.Input, Request.Kind)] = []
    switch testimony.map({ $0.isRead ? 0 : 4 }) ?? userChance.int(0...9) {
    case 0...3: calls = []
    case 4, 5: calls = [(.register("r\(register)", .write(value)), .writeRegister(register, value, version: nil))]
    case 6, 7:
      guard let known = client.known[register] else { break }
      calls = [
        (.register("r\(register)", .compareAndSet(expected: known.value, new: value)), .writeRegister(register, value, version: known.version))
      ]
    case 8: calls = [(.set("s", .add(value % 40)), .add(value % 40))]
    default: calls = [(.set("s", .remove(value % 40)), .remove(value % 40))]
    }
    let kind = calls.first?.1 ?? .read
    let inputs: [History.Input] =
      calls.isEmpty ? (0..<Client.registers).map { .register("r\($0)", .read) } + [.set("s", .read)] : calls.map(\.0)
    client.pending = (operation, inputs.map { history.invoke(client: client.name, at: now, $0) }, kind)
    clients[number] = client
    figures.calls += 1
    let manager = testimony?.manager ?? userChance.pick(managers.indices.filter { !managers[$0].isGone || managers.count == 1 })
    tell("client\(client.name)", "asks m\(manager): \(inputs.count > 1 ? "read" : "\(inputs[0])")")
    ask(manager, Request(client: number, operation: operation, kind: kind))
    after(testimony == nil ? Self.patience : .milliseconds(150), .giveUp(client: number, operation: operation))
  }

  func ask(_ manager: Int, _ request: Request) {
    transmit(Packet(from: .client(request.client), to: .manager(manager), body: .request(request, hops: 0)))
  }

  func giveUp(_ number: Int, _ operation: Int) {
    guard let pending = clients[number].pending, pending.operation == operation else { return }
    clients[number].pending = nil
    clients[number].name += 100
    tell("client\(clients[number].name)", "hears nothing of its call")
    after(.milliseconds(isWitness(number) ? ambushChance.int(1...30) : userChance.int(1...300)), .client(number))
  }

  func replied(_ number: Int, _ operation: Int, _ reply: Reply) throws {
    guard number < clients.count, let pending = clients[number].pending, pending.operation == operation else { return }
    if case .unknown = reply { return giveUp(number, operation) }
    clients[number].pending = nil
    switch (pending.kind, reply) {
    case (.read, .state(let state)):
      for register in 0..<Client.registers {
        let node = state.nodes[Client.row(register)]
        let value = node?.spec.labels?[Client.value].flatMap { Int64($0) }
        clients[number].known[register] = (value, node?.version ?? 0)
        history.complete(pending.calls[register], at: now, .register(.value(value)))
      }
      let elements = state.volumes.keys.compactMap { $0.hasPrefix(Client.element) ? Int64($0.dropFirst(Client.element.utf8.count)) : nil }
      history.complete(pending.calls[Client.registers], at: now, .set(.elements(Set(elements))))
      mix(state.index)
    case (.writeRegister(_, _, version: nil), .done): history.complete(pending.calls[0], at: now, .register(.written))
    case (.writeRegister, .done): history.complete(pending.calls[0], at: now, .register(.swapped(true)))
    case (.writeRegister(_, _, version: .some), .refused(outOfSequence: true, _)):
      history.complete(pending.calls[0], at: now, .register(.swapped(false)))
    case (.add, .done), (.remove, .done): history.complete(pending.calls[0], at: now, .set(.done))
    default: for call in pending.calls { history.fail(call) }
    }
    after(.milliseconds(isWitness(number) ? ambushChance.int(1...30) : userChance.skewed(1...800)), .client(number))
  }

  func checkHistory() throws {
    do { try history.check() } catch { throw Violation(checker: "linearizability", what: error.description) }
  }

  // MARK: - At a manager

  func take(_ request: Request, _ hops: Int, at host: ManagerHost) throws {
    if case .read = request.kind {
      if fault == .readFromFollower || (fault == .staleRead && host.view.leadership.isLeader) {
        return reply(request, .state(host.view.state), from: host)
      }
      return try input(.read(host.nextRequest(.client(request))), to: host)
    }
    guard host.view.leadership.isLeader else {
      guard hops < 3, let leader = host.view.leader.flatMap({ Int($0.address.dropFirst()) }), leader != host.number else {
        return reply(request, .refused(outOfSequence: false, "no leader"), from: host)
      }
      return transmit(Packet(from: .manager(host.number), to: .manager(leader), body: .request(request, hops: hops + 1)))
    }
    switch request.kind {
    case .read: break
    case .writeRegister(let register, let value, let version):
      let id = Client.row(register)
      var spec = host.view.state.nodes[id]?.spec ?? NodeSpec(role: .worker)
      spec.labels = [Client.value: "\(value)"]
      let conditions = version.map { [Condition.nodeVersion(id, $0)] } ?? []
      propose(Command(conditions: conditions, actions: [.nodeSpec(id, spec, at: host.moment(now).wall)]), for: request, at: host)
    case .add(let element):
      propose(
        Command(actions: [.putVolume(Volume(name: "\(Client.element)\(element)", createdAt: host.moment(now).wall))]), for: request, at: host)
    case .remove(let element): propose(Command(actions: [.removeVolume("\(Client.element)\(element)")]), for: request, at: host)
    case .user: try input(.read(host.nextRequest(.operation(request))), to: host)
    case .addMember(let id):
      let joining = managers[Int(id) - 1]
      let member = Membership.Member(raftID: RaftID(id), node: joining.node, address: joining.address, role: .learner)
      let change = ConfigurationChange([.addLearner(RaftID(id))], context: commands.encode(member))
      try input(.changeMembers(change, force: false, host.nextRequest(.client(request))), to: host)
    case .removeMember(let id):
      try input(.changeMembers(ConfigurationChange([.remove(RaftID(id))]), force: false, host.nextRequest(.client(request))), to: host)
    case .transfer(let id): try input(.transfer(RaftID(id), host.nextRequest(.client(request))), to: host)
    }
  }

  func propose(_ command: Command, for request: Request, at host: ManagerHost) {
    var command = command
    if fault == .versionCheckSkipped { command.conditions = [] }
    let id = host.nextRequest(.client(request))
    try? input(.propose(commands.encode(command), id), to: host)
    if fault == .answeredBeforeCommit, host.waiting.removeValue(forKey: id) != nil { reply(request, .done, from: host) }
  }

  func reply(_ request: Request, _ reply: Reply, from host: ManagerHost) {
    transmit(Packet(from: .manager(host.number), to: .client(request.client), body: .reply(operation: request.operation, reply)))
  }

  func answered(_ id: RequestID, _ answer: ReplicaCore.Answer, _ host: ManagerHost) throws {
    guard let waiting = host.waiting.removeValue(forKey: id) else { return }
    switch waiting {
    case .client(let request):
      switch answer {
      case .applied, .done, .status: reply(request, .done, from: host)
      case .state(let state): reply(request, .state(state), from: host)
      case .failed(let error): reply(request, Reply(error), from: host)
      }
    case .operation(let request):
      guard case .state(let state) = answer, case .user(let operation) = request.kind else { return reply(request, .unknown, from: host) }
      do { propose(try make(operation, state, host), for: request, at: host) } catch {
        reply(request, .refused(outOfSequence: false, "\(error)"), from: host)
      }
    case .leader(let number):
      let answer: LeaderAnswer =
        switch answer {
        case .applied(let index, _): LeaderAnswer(number: number, answer: .applied(index: index))
        case .failed(.refused(let refusal)): LeaderAnswer(number: number, answer: .refused(refusal))
        case .failed(.busy(let reason)): LeaderAnswer(number: number, answer: .busy(reason))
        case .failed(.notLeader), .failed(.stopped): LeaderAnswer(number: number, answer: .notLeading)
        case .failed(let error): LeaderAnswer(number: number, answer: .failed("\(error)"))
        default: LeaderAnswer(number: number, answer: .failed("?"))
        }
      after(Time(chance.skewed(1...2_000)), .leaderAnswer(host.number, life: host.life, answer))
    case .session(let agent, let life, let attempt):
      if case .state = answer { try connect(host, agent, life, attempt) } else { refuse(agent, attempt, by: host) }
    }
  }
}

extension Reply {
  init(_ error: ConsensusError) {
    switch error {
    case .refused(let refusal): self = .refused(outOfSequence: refusal == .outOfSequence, "\(refusal)")
    case .notLeader, .busy, .tooLarge, .membership: self = .refused(outOfSequence: false, "\(error)")
    default: self = .unknown
    }
  }
}
