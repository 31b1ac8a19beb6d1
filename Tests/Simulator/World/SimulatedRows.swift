import Model
import Replica

/// Rows of the replicated state, one by one.
struct SimulatedRows {
  private var cluster: Cluster?
  private var nodes: [NodeID: Node] = [:]
  private var services: [ServiceID: Service] = [:]
  private var revisions: [ServiceRevision.Key: ServiceRevision] = [:]
  private var tasks: [TaskID: ClusterTask] = [:]
  private var networks: [NetworkID: Network] = [:]
  private var volumes: [String: Volume] = [:]
  private var stacks: [String: Stack] = [:]
  private var files: [FileID: StoredFile] = [:]

  init() {}

  init(_ state: ClusterState) {
    cluster = state.cluster
    nodes = Dictionary(uniqueKeysWithValues: state.nodes.map { ($0.key, $0.value) })
    services = Dictionary(uniqueKeysWithValues: state.services.map { ($0.key, $0.value) })
    revisions = Dictionary(uniqueKeysWithValues: state.revisions.map { ($0.key, $0.value) })
    tasks = Dictionary(uniqueKeysWithValues: state.tasks.map { ($0.key, $0.value) })
    networks = Dictionary(uniqueKeysWithValues: state.networks.map { ($0.key, $0.value) })
    volumes = Dictionary(uniqueKeysWithValues: state.volumes.map { ($0.key, $0.value) })
    stacks = Dictionary(uniqueKeysWithValues: state.stacks.map { ($0.key, $0.value) })
    files = Dictionary(uniqueKeysWithValues: state.files.map { ($0.key, $0.value) })
  }

  mutating func put(_ rows: [RowKey], in state: ClusterState) {
    for row in rows {
      switch row {
      case .cluster: cluster = state.cluster
      case .node(let id): nodes[id] = state.nodes[id]
      case .service(let id):
        services[id] = state.services[id]
        // Their removal is implied by the service's.
        if services[id] == nil { for key in revisions.keys where key.service == id { revisions[key] = nil } }
      case .revision(let key): revisions[key] = state.revisions[key]
      case .task(let id): tasks[id] = state.tasks[id]
      case .network(let id): networks[id] = state.networks[id]
      case .volume(let name): volumes[name] = state.volumes[name]
      case .stack(let name): stacks[name] = state.stacks[name]
      case .file(_, let id): files[id] = state.files[id]
      }
    }
  }

  /// As they were before a slice, with what the removal of a service took along.
  mutating func takeBack(_ rows: [RowKey], to before: ClusterState) {
    put(rows, in: before)
    for case .service(let id) in rows { for number in before.revisionNumbers(of: id) { put([.revision(.init(id, number))], in: before) } }
  }

  var actions: [Action] {
    var actions: [Action] = []
    if let cluster { actions.append(.putCluster(cluster)) }
    actions += nodes.values.sorted { $0.id < $1.id }.map { .putNode($0) }
    actions += services.values.sorted { $0.id < $1.id }.map { .putService($0) }
    actions += revisions.values.sorted { $0.key < $1.key }.map { .putRevision($0) }
    actions += tasks.values.sorted { $0.id < $1.id }.map { .createTask($0) }
    actions += networks.values.sorted { $0.id < $1.id }.map { .putNetwork($0) }
    actions += volumes.values.sorted { $0.name < $1.name }.map { .putVolume($0) }
    actions += stacks.values.sorted { $0.name < $1.name }.map { .putStack($0) }
    actions += files.values.sorted { $0.id < $1.id }.map { .putFile($0) }
    return actions
  }
}
