import Glibc
import Model

/// A folder that goes away with the test.
final class TemporaryFolder {
  let path: String
  init() {
    var template = Array("/tmp/orch-store-XXXXXX".utf8CString)
    path = String(cString: mkdtemp(&template)!)
  }
  var database: String { path + "/manager.db" }
  func copyDatabase(to name: String) -> String {
    let target = "\(path)/\(name)"
    for suffix in ["", "-wal"] { copyFile(database + suffix, target + suffix) }
    return target
  }
  deinit {
    guard let directory = opendir(path) else { return }
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } }
      unlink("\(path)/\(name)")
    }
    closedir(directory)
    rmdir(path)
  }
}

private func copyFile(_ source: String, _ target: String) {
  let from = open(source, O_RDONLY)
  guard from >= 0 else { return }
  let to = open(target, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  var buffer = [UInt8](repeating: 0, count: 1 << 20)
  while case let count = read(from, &buffer, buffer.count), count > 0 { _ = write(to, buffer, count) }
  close(from)
  close(to)
}

func id<Tag>(_ number: UInt64) -> Identifier<Tag> { Identifier(value: UInt128(number) << 64 | UInt128(number &* 7919)) }
let noon = Timestamp("2026-11-21T12:00:00.123456789Z")!

enum Sample {
  static let cluster: Cluster = {
    var cluster = Cluster(id: id(1), createdAt: noon)
    cluster.certificateAuthority = "-----BEGIN CERTIFICATE-----\nMII…\n"
    cluster.sealedKey = [0, 1, 255]
    return cluster
  }()

  static func node(_ number: UInt64) -> Node {
    var node = Node(id: id(100 + number), spec: NodeSpec(role: .manager), createdAt: noon)
    node.spec.labels = ["zone": "a"]
    return node
  }

  static let description = NodeDescription(
    hostname: "host-1", platform: Platform(architecture: "x86_64", os: "linux"),
    resources: .init(nanoCPUs: 2_000_000_000, memoryBytes: 1 << 34), engine: .init(engineVersion: "1"))

  static let network: Network = {
    var network = Network(id: id(300), spec: NetworkSpec(name: "web_default"), createdAt: noon)
    network.vni = 4097
    network.subnet = IPv4Prefix("10.0.1.0/24")
    return network
  }()

  static let attachments = [
    NetworkAttachment(network: id(300), address: IPv4Address("10.0.1.9")!), NetworkAttachment(network: id(301), address: IPv4Address("10.0.2.2")!),
  ]

  static let service: Service = {
    var service = Service(id: id(200), name: "web_web", createdAt: noon)
    service.previous = 1
    service.current = 2
    service.latest = 2
    return service
  }()

  static let endpoint: Service.Endpoint = {
    var endpoint = Service.Endpoint()
    endpoint.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
    endpoint.virtualIPs = attachments
    return endpoint
  }()

  static func revision(_ number: UInt64) -> ServiceRevision {
    var container = ContainerSpec(image: "web:\(number)")
    container.env = ["QUOTE=\"'\u{0}ü"]
    return ServiceRevision(
      key: .init(id(200), number), spec: ServiceSpec(name: "web_web", taskTemplate: TaskSpec(containerSpec: container), mode: .replicated(3)),
      template: number, createdAt: noon)
  }

  static func task(_ number: UInt64) -> ClusterTask {
    ClusterTask(id: id(1000 + number), service: id(200), revision: 2, slot: number, createdAt: noon)
  }

  static let stack: Stack = {
    var stack = Stack(name: "web", createdAt: noon)
    stack.revision = 3
    stack.manifest = "services: {}\n"
    stack.services = [id(200): 2]
    stack.networks = [id(300)]
    stack.volumes = ["web_data"]
    return stack
  }()

  /// Of a secret the store sees only what is sealed.
  static func file(_ kind: StoredFile.Kind, labels: [String: String] = [:]) -> StoredFile {
    StoredFile(kind: kind, id: id(kind == .secret ? 400 : 401), name: "key", labels: labels, data: [0, 255, 10], createdAt: noon)
  }

  static let failed = TaskStatus(
    state: .failed, timestamp: noon, message: "finished", error: "task: non-zero exit (137)", containerID: "4f2a", pid: 4711, exitCode: 137,
    oomKilled: true,
    health: TaskHealth(
      status: .unhealthy, failingStreak: 3, log: [.init(start: noon, end: noon + .seconds(1), exitCode: -1, output: "no answer\n")]))

  /// Every kind of action, in an order in which none is refused. After each the database must hold exactly the state.
  static let actions: [Action] = [
    .putCluster(cluster), .putNode(node(1)), .putNode(node(2)),
    .nodeStatus(id(101), NodeStatus(state: .ready, message: "hello", address: IPv4Address("192.168.0.1"))),
    .nodeDescription(id(101), description), .nodeAttachments(id(101), attachments),
    .nodeManager(id(101), ManagerStatus(raftID: RaftID(UInt64.max - 1), address: "192.168.0.1:2377")), .nodeAttachments(id(101), [attachments[1]]),
    .nodeManager(id(101), nil), .putNetwork(network),
    .putVolume(Volume(name: "web_data", labels: ["a": "b"], driverOptions: ["o": "x"], createdAt: noon)),
    .putService(service), .putRevision(revision(1)), .putRevision(revision(2)), .serviceEndpoint(id(200), endpoint),
    .serviceUpdateStatus(id(200), .init(state: .updating, startedAt: noon, message: "update in progress")), .putStack(stack),
    .createTask(task(1)), .createTask(task(2)), .createTask(task(3)),
    .assignTask(id(1001), node: nil, attachments: [], status: TaskStatus(state: .pending, timestamp: noon, message: "", error: "no suitable node")),
    .assignTask(id(1001), node: id(101), attachments: attachments, status: TaskStatus(state: .assigned, timestamp: noon, message: "assigned")),
    .putFile(file(.secret)), .putFile(file(.config)), .putFile(file(.secret, labels: ["a": "b"])), .removeFile(id(400)), .removeFile(id(401)),
    .taskStatus(id(1001), failed), .taskDesiredState(id(1001), .shutdown), .removeTask(id(1001)), .removeRevision(.init(id(200), 1)),
    .serviceUpdateStatus(id(200), nil), .removeStack("web"), .removeVolume("web_data"), .removeService(id(200)), .removeNetwork(id(300)),
    .removeNode(id(102)),
  ]
}

/// Equality of what can be seen.
func same(_ a: ClusterState, _ b: ClusterState) -> Bool {
  a.index == b.index && a.cluster == b.cluster && a.nodes == b.nodes && a.services == b.services && a.revisions == b.revisions && a.tasks == b.tasks
    && a.networks == b.networks && a.volumes == b.volumes && a.stacks == b.stacks
    && a.files == b.files
}
