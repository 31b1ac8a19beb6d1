import Model
import Surroundings
import Testing
import Wire

struct WireTests {
  var generator = SystemRandomNumberGenerator()

  static var samples: [Action] {
    let now = Timestamp(nanoseconds: 1_700_000_000_123_456_789)
    let (node, service, task, network) = (NodeID.random(), ServiceID.random(), TaskID.random(), NetworkID.random())
    var cluster = Cluster(id: .random(), createdAt: now)
    cluster.sealedKey = [1, 2, 255]
    var spec = ServiceSpec(
      name: "a_b", labels: ["x": "y"], taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "web:1")), mode: .replicated(3))
    spec.taskTemplate.networks = [NetworkAttachmentConfig(target: network.description, aliases: ["site"])]
    spec.endpointSpec = EndpointSpec(mode: .vip, ports: [PortConfig(targetPort: 80, publishedPort: 8080)])
    let status = TaskStatus(
      state: .failed, timestamp: now, message: "m", error: "e", containerID: "c", pid: 7, exitCode: 137, oomKilled: true,
      health: TaskHealth(status: .unhealthy, failingStreak: 3, log: [.init(start: now, end: now + .seconds(1), exitCode: -1, output: "slow")]))
    var full = ClusterTask(id: task, service: service, revision: 4, slot: 2, desiredState: .shutdown, createdAt: now)
    (full.node, full.status, full.restartCount, full.startAfter) = (node, status, 3, now + .seconds(1))
    full.attachments = [NetworkAttachment(network: network, address: IPv4Address("10.0.1.5")!)]
    var stack = Stack(name: "s", createdAt: now)
    stack.services = [service: 2]
    var net = Network(id: network, spec: NetworkSpec(name: "n"), createdAt: now)
    (net.vni, net.subnet) = (4097, IPv4Prefix("10.0.1.0/24"))
    let manager = ManagerStatus(raftID: RaftID(9), address: "h:1")
    return [
      .putCluster(cluster), .putNode(Node(id: node, spec: NodeSpec(role: .manager), createdAt: now)),
      .nodeSpec(node, NodeSpec(role: .worker, availability: .drain), at: now),
      .nodeStatus(node, NodeStatus(state: .ready, message: "hello", address: IPv4Address("192.168.1.1"))),
      .nodeAttachments(node, full.attachments), .nodeManager(node, manager), .nodeManager(node, nil), .removeNode(node),
      .putService(Service(id: service, name: "a_b", createdAt: now)),
      .putRevision(ServiceRevision(key: .init(service, 1), spec: spec, template: 1, createdAt: now)),
      .serviceUpdateStatus(service, Service.UpdateStatus(state: .rollbackStarted, startedAt: now, message: "m")),
      .serviceUpdateStatus(service, nil), .serviceEndpoint(service, Service.Endpoint()), .removeService(service),
      .removeRevision(.init(service, 1)), .createTask(full),
      .assignTask(task, node: nil, attachments: [], status: status), .assignTask(task, node: node, attachments: full.attachments, status: status),
      .taskDesiredState(task, .remove), .taskStatus(task, status), .removeTask(task), .putNetwork(net), .removeNetwork(network),
      .putVolume(Volume(name: "v", createdAt: now)), .removeVolume("v"), .putStack(stack), .removeStack("s"),
    ]
  }

  @Test("every action comes back from its bytes as it was", arguments: samples)
  func actionRoundTrip(action: Action) throws {
    #expect(try Action(serialized: action.serialized()) == action)
  }

  @Test("a command keeps its conditions and the order of its actions")
  func commandRoundTrip() throws {
    let conditions: [Condition] = [
      .nodeVersion(.random(), 3), .serviceVersion(.random(), .max), .networkVersion(.random(), 0), .clusterVersion(1), .stackRevision("é", 9),
      .serviceExists(.random()), .networkExists(.random()),
    ]
    let command = Command(conditions: conditions, actions: Self.samples)
    #expect(try Command(serialized: command.serialized()) == command)
  }

  @Test("cut or changed bytes of a command are an error or another command, never a crash")
  func damagedCommand() throws {
    let bytes = try Command(conditions: [.clusterVersion(1)], actions: Self.samples).serialized()
    for length in stride(from: 0, to: bytes.count, by: 7) { _ = try? Command(serialized: Array(bytes[..<length])) }
    for position in stride(from: 0, to: bytes.count, by: 3) {
      var damaged = bytes
      damaged[position] ^= 0x55
      _ = try? Command(serialized: damaged)
    }
  }
}
