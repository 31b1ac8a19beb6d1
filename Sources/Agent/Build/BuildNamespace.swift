import AgentNetwork
import DNS
import Logging
import Model
import Synchronization

/// Where namespaces of builds come from: each is as a task's that is on no network, with a way out of the host, and a resolver that asks the host's
/// servers and knows no name of the cluster. It is named by a task's id that no task has; what a crash left of it goes with what is left of tasks.
public final class BuildNetworks: Sendable {
  fileprivate let network: OverlayNetwork
  fileprivate let names: NameServer
  fileprivate let open = Mutex<Set<TaskID>>([])

  public init(_ network: OverlayNetwork, _ names: NameServer) { (self.network, self.names) = (network, names) }
}

extension Builder {
  /// A build that is under way has the namespace of that name, which is nobody's leftover.
  public func isBuilding(in id: TaskID) -> Bool { networks?.open.withLock { $0.contains(id) } ?? false }
  /// The same of an interface.
  public func isBuilding(behind link: ContainerLink) -> Bool { networks?.open.withLock { $0.contains { link.isOf($0) } } ?? false }
}

/// One build's, made when its first RUN wants it.
actor BuildNamespace {
  private let networks: BuildNetworks?
  private let log: Logger
  private let id: TaskID
  private var opened: AttachedNamespace?

  init(_ networks: BuildNetworks?, _ log: Logger) {
    (self.networks, self.log) = (networks, log)
    var generator = SystemRandomNumberGenerator()
    id = .random(using: &generator)
  }

  /// One after the other: RUNs are.
  func open() async throws -> AttachedNamespace {
    if let opened { return opened }
    guard let networks else {
      throw BuildError(.invalid, "this agent has none to give: build with --network none, or with the host's by --network host")
    }
    // Before anybody may take it for what a crash left.
    networks.open.withLock { _ = $0.insert(id) }
    let namespace = try await networks.network.attach(TaskNetwork(task: id, attachments: [], isBridged: true))
    try await networks.names.serve(id, namespace: namespace.path, client: DNSClient(networks: [], forwards: true))
    opened = namespace
    return namespace
  }

  /// After the last RUN's container is gone. Also of one that was not made whole.
  func close() async {
    guard let networks, networks.open.withLock({ $0.contains(id) }) else { return }
    networks.names.stop(id)
    do { try await networks.network.detach(id) } catch { log.warning("remove the network of a build: \(error)") }
    networks.open.withLock { _ = $0.remove(id) }
    opened = nil
  }
}
