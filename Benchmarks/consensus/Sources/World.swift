import Model

/// A large cluster as it looks in the state: every task has run for a while, has an address and a container.
enum World {
  static let start = Timestamp(nanoseconds: 1_700_000_000_000_000_000)

  static func node(_ number: Int) -> Node {
    var node = Node(id: NodeID(value: mixed(number, 1)), spec: NodeSpec(role: .worker), createdAt: start)
    node.spec.labels = ["zone": "z\(number % 16)"]
    node.description = NodeDescription(
      hostname: "host\(number)", platform: Platform(architecture: "x86_64", os: "linux"),
      resources: .init(nanoCPUs: 64_000_000_000, memoryBytes: 256 << 30), engine: .init(engineVersion: "0.1.0"))
    node.status = NodeStatus(state: .ready, address: IPv4Address(0x0a09_0000 + UInt32(number)))
    return node
  }

  static func spec(_ number: Int, replicas: Int) -> ServiceSpec {
    var spec = ServiceSpec(name: "stack_service\(number)", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "registry.example/app:1.2.3")))
    spec.mode = .replicated(UInt64(replicas))
    var reservation = ResourceRequirements.Reservation()
    reservation.memoryBytes = 16 << 20
    reservation.nanoCPUs = 1_000_000
    spec.taskTemplate.resources = ResourceRequirements(reservations: reservation)
    return spec
  }

  static func serviceID(_ number: Int) -> ServiceID { ServiceID(value: mixed(number, 2)) }

  /// A state at index 1: 10,000 nodes (fewer than tasks), 1,000 tasks a service.
  static func state(tasks: Int) -> ClusterState {
    var actions: [Action] = []
    let nodes = min(10_000, max(1, tasks / 100))
    let services = max(1, tasks / 1000)
    let network = NetworkID(value: mixed(1, 3))
    var cluster = Cluster(id: ClusterID(value: 1), createdAt: start)
    cluster.version = 1
    actions.append(.putCluster(cluster))
    for number in 0..<nodes { actions.append(.putNode(node(number))) }
    for number in 0..<services {
      actions.append(.putService(Service(id: serviceID(number), name: "stack_service\(number)", createdAt: start)))
      let key = ServiceRevision.Key(serviceID(number), 1)
      actions.append(.putRevision(ServiceRevision(key: key, spec: spec(number, replicas: tasks / services), template: 1, createdAt: start)))
    }
    var state = ClusterState()
    state.restore(index: 0, actions: actions)
    for number in 0..<tasks {
      let id = TaskID(value: mixed(number, 4))
      var task = ClusterTask(id: id, service: serviceID(number % services), revision: 1, slot: UInt64(number / services + 1), createdAt: start)
      task.node = NodeID(value: mixed(number % nodes, 1))
      task.attachments = [NetworkAttachment(network: network, address: IPv4Address(0x0a00_0000 + UInt32(number)))]
      task.status = TaskStatus(state: .running, timestamp: start, message: "started", containerID: id.description, pid: Int32(number % 4_000_000))
      _ = state.speculate([.createTask(task)])
    }
    state.skip(to: 1)
    return state
  }

  /// 128 bits that look random and are the same in every run (splitmix64, Steele et al. 2014).
  static func mixed(_ number: Int, _ kind: UInt64) -> UInt128 {
    func mix(_ seed: UInt64) -> UInt64 {
      var value = seed &+ 0x9e37_79b9_7f4a_7c15
      value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
      value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
      return value ^ value >> 31
    }
    let seed = UInt64(number) << 4 | kind
    return UInt128(mix(seed)) << 64 | UInt128(mix(~seed))
  }
}
