import API
import Model
import Orchestrator
import Surroundings

extension ControlAPI {
  func listNetworks(_ target: Target) async throws -> APIResponse {
    let filters = try Filters(target, accepted: ["dangling", "driver", "id", "label", "name", "scope", "type"])
    let state = try await backend.state()
    let networks = state.networks.values.filter { network in
      filters.match("id") { network.id.description.hasPrefix($0) } && filters.match("name") { network.name.contains($0) }
        && filters.match("driver") { (network.spec.driver ?? "overlay") == $0 } && filters.match("scope") { $0 == "swarm" || $0 == "global" }
        && filters.match("type") { ($0 == "builtin") == (network.name == Network.ingressName) }
        && filters.match("dangling") { wanted in (wanted == "true" || wanted == "1") != state.isUsed(network) }
        && filters.matchLabels("label", network.spec.labels ?? [:])
    }
    return .json(networks.sorted { $0.name < $1.name }.map { NetworkInspect($0) })
  }

  func inspectNetwork(_ name: String) async throws -> APIResponse {
    // Docker's clients look up what they attach a service to.
    let state = try await backend.state()
    if Network.predefinedNames.contains(name), state.network(named: name) == nil { return .json(NetworkInspect(predefined: name)) }
    return .json(NetworkInspect(try state.lookUpNetwork(name)))
  }

  func createNetwork(_ request: APIRequest) async throws -> APIResponse {
    var spec = try await JSON.body(NetworkSpec.self, of: request)
    if spec.driver?.isEmpty != false { spec.driver = "overlay" }
    try refuseUnsupported(spec)
    let now = Timestamp.now
    let id = try await edit { state in
      var generator = SystemRandomNumberGenerator()
      let created = try ServiceEdits.createNetwork(spec, state: state, now: now, generator: &generator)
      return (created.command, created.id)
    }
    return .json(NetworkCreateResponse(id: id.description), status: 201)
  }

  func removeNetwork(_ name: String) async throws -> APIResponse {
    try await edit { state in (try ServiceEdits.removeNetwork(try state.lookUpNetwork(name).id, state: state), ()) }
    return .noContent
  }
}

/// What orch's overlay cannot do yet and must not drop in silence.
func refuseUnsupported(_ spec: NetworkSpec) throws {
  if spec.ingress == true { throw APIError(501, "network \(spec.name): the ingress network is made by orch itself") }
}

extension ClusterState {
  func isUsed(_ network: Network) -> Bool {
    network.name == Network.ingressName
      || services.values.contains { service in spec(of: service)?.networks.contains { $0.target == network.id.description } == true }
  }
}
