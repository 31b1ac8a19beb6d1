import Model
import Testing

@Test("a change of a node's spec raises its version and leaves what managers learned meanwhile")
func nodeSpecKeepsStatus() throws {
  var state = ClusterState()
  let id = NodeID(value: 7)
  _ = try state.apply(Command(actions: [.putNode(Node(id: id, spec: NodeSpec(role: .worker), createdAt: .zero))]), at: 1).get()
  let read = state.nodes[id]!
  let status = NodeStatus(state: .ready, address: IPv4Address("10.0.0.1"))
  _ = try state.apply(Command(actions: [.nodeStatus(id, status)]), at: 2).get()
  let later = Timestamp(nanoseconds: 5)
  var spec = read.spec
  spec.availability = .drain
  _ = try state.apply(Command(conditions: [.nodeVersion(id, read.version)], actions: [.nodeSpec(id, spec, at: later)]), at: 3).get()
  let node = try #require(state.nodes[id])
  #expect(node.status == status)
  #expect(node.spec.availability == .drain)
  #expect((node.version, node.updatedAt) == (3, later))
  guard
    case .failure(.outOfSequence) = state.apply(
      Command(conditions: [.nodeVersion(id, read.version)], actions: [.nodeSpec(id, read.spec, at: later)]), at: 4)
  else { Issue.record("a stale version was accepted"); return }
}

@Test("a port in host mode without a number has one of its own for each task, which all who know the task know")
func hostPortsOfTasks() {
  var spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "i")))
  func port(_ target: UInt16, _ published: UInt16?, _ mode: PortConfig.PublishMode = .host) -> PortConfig {
    PortConfig(targetPort: target, publishedPort: published, publishMode: mode)
  }
  spec.endpointSpec = EndpointSpec(ports: [port(80, nil), port(81, 0), port(82, 8082), port(83, nil, .ingress), port(84, 32_770)])
  // The next two numbers of this one are 32769 and 32770, of which the second is another port's.
  #expect(spec.hostPorts(of: TaskID(value: 28_232 + 1)).map(\.publishedPort) == [32_769, 32_771, 8082, 32_770])
  #expect(spec.hostPorts(of: TaskID(value: 28_231)).map(\.publishedPort) == [60_999, 32_768, 8082, 32_770])
  var generator = SystemRandomNumberGenerator()
  let many = Set((0..<200).map { _ in spec.hostPorts(of: .random(using: &generator))[0].publishedPort! })
  #expect(many.count > 150 && many.allSatisfy { (32_768...60_999).contains($0) })
}

@Suite struct StoredFileTests {
  @Test("names are one kind's own; what a service uses is not removed, what it used before is")
  func rules() throws {
    var state = ClusterState()
    func file(_ kind: StoredFile.Kind, _ id: UInt128) -> StoredFile {
      StoredFile(kind: kind, id: FileID(value: id), name: "key", data: [1], createdAt: .zero)
    }
    _ = try state.apply(Command(actions: [.putFile(file(.secret, 1)), .putFile(file(.config, 2))]), at: 1).get()
    #expect(throws: Refusal.nameTaken(kind: "secret", name: "key")) { try state.apply(Command(actions: [.putFile(file(.secret, 3))]), at: 2).get() }
    func use(_ id: FileID?, revision: UInt64) -> [Action] {
      var spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "i")))
      spec.taskTemplate.containerSpec.files = id.map { [FileReference(kind: .secret, target: nil, id: $0.description, name: "key")] } ?? []
      var service = Service(id: ServiceID(value: 1), name: "web", createdAt: .zero)
      service.current = revision
      return [
        .putService(service), .putRevision(ServiceRevision(key: .init(service.id, revision), spec: spec, template: revision, createdAt: .zero)),
      ]
    }
    _ = try state.apply(Command(conditions: [.fileExists(FileID(value: 1))], actions: use(FileID(value: 1), revision: 1)), at: 3).get()
    #expect(throws: Refusal.inUse(kind: "secret", name: "key", by: "service web")) {
      try state.apply(Command(actions: [.removeFile(FileID(value: 1))]), at: 4).get()
    }
    _ = try state.apply(Command(actions: use(nil, revision: 2) + [.removeFile(FileID(value: 1))]), at: 5).get()
    #expect(state.file(.secret, named: "key") == nil && state.file(.config, named: "key")?.version == 1)
    #expect(throws: Refusal.notFound(kind: "secret or config", id: FileID(value: 1).description)) {
      try state.apply(Command(conditions: [.fileExists(FileID(value: 1))], actions: use(FileID(value: 1), revision: 3)), at: 6).get()
    }
  }
}
