import Dispatcher
import Model
import SwiftProtobuf
import Wire

/// What one change of an endpoint costs the leader when every node has a task on its network: without sockets and consensus.
enum DispatchBench {
  static func run(nodes count: Int) throws {
    var state = ClusterState()
    let network = NetworkID(value: 1)
    var row = Network(id: network, spec: NetworkSpec(name: "stack_default"), createdAt: World.start)
    (row.vni, row.subnet) = (4097, IPv4Prefix("10.64.0.0/16"))
    let service = World.serviceID(0)
    var actions: [Action] = [
      .putNetwork(row), .putService(Service(id: service, name: "stack_service0", createdAt: World.start)),
      .putRevision(ServiceRevision(key: .init(service, 1), spec: World.spec(0, replicas: count), template: 1, createdAt: World.start)),
    ]
    func attachment(_ number: Int) -> [NetworkAttachment] {
      [NetworkAttachment(network: network, address: IPv4Address(0x0a40_0002 + UInt32(number)))]
    }
    for number in 0..<count {
      var node = World.node(number)
      node.attachments = attachment(number)
      var task = ClusterTask(
        id: TaskID(value: World.mixed(number, 4)), service: service, revision: 1, slot: UInt64(number + 1), createdAt: World.start)
      task.node = node.id
      task.attachments = attachment(count + number)
      task.status = TaskStatus(state: .running, timestamp: World.start, message: "started")
      actions += [.putNode(node), .createTask(task)]
    }
    _ = state.speculate(actions)
    var dispatcher = Dispatcher()
    _ = dispatcher.reset(state: state, now: World.start)
    for (number, node) in state.nodes.values.enumerated() {
      let connected = DispatcherInput.connected(
        node: node.id, session: SessionID(UInt64(number + 1)), description: node.description!, underlay: node.status.address!)
      _ = dispatcher.step(connected, state: state, now: World.start)
    }

    var (deciding, encoding, answering) = ([Double](), [Double](), [Double]())
    var (messages, bytes) = (0, 0)
    for task in state.tasks.values.prefix(100) {
      let changes = state.speculate([.taskStatus(task.id, TaskStatus(state: .failed, timestamp: World.start, message: "exited"))])
      var outputs: [DispatcherOutput] = []
      deciding.append(seconds { outputs = dispatcher.step(.changes(changes), state: state, now: World.start) })
      var sent: [(SessionID, AssignmentsMessage)] = []
      for case .send(let session, let message) in outputs { sent.append((session, message)) }
      encoding.append(
        try seconds {
          for (_, message) in sent {
            for part in try WireAssignments(message).parts(itemMax: 4 << 20) {
              var wrapped = WireManagerMessage()
              wrapped.assignments = part
              bytes += (try wrapped.serializedBytes() as [UInt8]).count
            }
          }
        })
      answering.append(
        seconds {
          for (session, message) in sent { _ = dispatcher.step(.applied(session, message.resultsIn), state: state, now: World.start) }
        })
      messages += sent.count
    }
    report("dispatcher: hosts told of a changed endpoint", messages / deciding.count)
    report("dispatcher: bytes a host", Double(bytes) / Double(messages))
    report("dispatcher: deciding, ms for all hosts, median", deciding.sorted().quantile(0.5) * 1e3)
    report("dispatcher: encoding, ms for all hosts, median", encoding.sorted().quantile(0.5) * 1e3)
    report("dispatcher: their answers, ms for all hosts, median", answering.sorted().quantile(0.5) * 1e3)
  }
}
