import API
import Model
import NIOCore
import Surroundings

extension ControlAPI {
  /// What happens from now on, as JSON lines; the cluster keeps no history of events (`since` finds nothing older).
  /// Docker's types service, node, network, volume with its actions; orch's own: type task with the state as action, type stack.
  func events(_ target: Target) async throws -> APIResponse {
    let filters = try Filters(
      target,
      accepted: [
        "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "task", "stack",
        "type", "volume",
      ])
    let until = try target.instant("until")
    let changes = await backend.watch()
    let response = Pipe<ByteBuffer>(capacity: 256)
    let pump = Task {
      await withTaskGroup(of: Void.self) { group in
        group.addTask {
          for await (batch, state) in changes {
            let now = Timestamp.now
            for change in batch {
              guard let event = Event(change, state, at: now), event.passes(filters, Related(change, state)) else { continue }
              guard await response.send(ByteBuffer(bytes: JSON.encode(event) + [10])) else { return }
            }
          }
        }
        if let until {
          group.addTask { try? await Task.sleep(for: max(.zero, (until - .now).duration)) }
        }
        await group.next()
        group.cancelAll()
      }
      response.finish()
    }
    return APIResponse(
      status: 200, headers: [APIHeader("Content-Type", "application/json")], body: APIBody(stream: Guarded(response, holding: pump)))
  }
}

extension Event {
  /// nil for what no user asked to hear of.
  init?(_ change: StateChange, _ state: ClusterState, at now: Timestamp) {
    func make(_ type: String, _ action: String, _ id: String, _ attributes: [String: String]) -> Event {
      Event(type: type, action: action, actor: Actor(id: id, attributes: attributes), at: now)
    }
    switch change {
    case .cluster, .revision: return nil
    case .service(let old, let new):
      guard let service = new ?? old else { return nil }
      var attributes = ["name": service.name]
      // Docker tells of a removal when it is asked for, not when the last task is gone.
      if let old, let new, new.pendingDelete, !old.pendingDelete {
        self = make("service", "remove", service.id.description, attributes)
      } else if old == nil {
        self = make("service", "create", service.id.description, attributes)
      } else if let old, let new, !new.pendingDelete {
        if old.updateStatus?.state != new.updateStatus?.state, let update = new.updateStatus?.state {
          attributes["updatestate.old"] = old.updateStatus?.state.rawValue
          attributes["updatestate.new"] = update.rawValue
        } else if old.version == new.version {
          return nil
        }
        if let before = state.revision(old.id, old.current)?.spec, let after = state.spec(of: new) {
          if let from = before.replicas, let to = after.replicas, from != to {
            attributes["replicas.old"] = String(from)
            attributes["replicas.new"] = String(to)
          }
          let images = (before.taskTemplate.containerSpec.image, after.taskTemplate.containerSpec.image)
          if images.0 != images.1 {
            attributes["image.old"] = images.0
            attributes["image.new"] = images.1
          }
        }
        self = make("service", "update", service.id.description, attributes)
      } else {
        return nil
      }
    case .node(let old, let new):
      guard let node = new ?? old else { return nil }
      var attributes = ["name": node.hostname]
      if let old, let new {
        if old.status.state != new.status.state {
          attributes["state.old"] = old.status.state.rawValue
          attributes["state.new"] = new.status.state.rawValue
        }
        if old.spec.availability != new.spec.availability {
          attributes["availability.old"] = old.spec.availability.rawValue
          attributes["availability.new"] = new.spec.availability.rawValue
        }
        if attributes.count == 1 && old.spec == new.spec { return nil }
      }
      self = make("node", new == nil ? "remove" : old == nil ? "create" : "update", node.id.description, attributes)
    case .network(let old, let new):
      guard let network = new ?? old, old == nil || new == nil else { return nil }
      self = make(
        "network", new == nil ? "remove" : "create", network.id.description, ["name": network.name, "type": network.spec.driver ?? "overlay"])
    case .volume(let old, let new):
      guard let volume = new ?? old, old == nil || new == nil else { return nil }
      self = make("volume", new == nil ? "destroy" : "create", volume.name, ["driver": volume.driver])
    case .file(let old, let new):
      guard let file = new ?? old else { return nil }
      self = make(file.kind.rawValue, new == nil ? "remove" : old == nil ? "create" : "update", file.id.description, ["name": file.name])
    case .stack(let old, let new):
      guard let stack = new ?? old, old?.revision != new?.revision else { return nil }
      self = make("stack", new == nil ? "remove" : "deploy", stack.name, ["name": stack.name, "revision": String(stack.revision)])
    case .task(let old, let new):
      guard let new, old?.status.state != new.status.state || old?.status.error != new.status.error else { return nil }
      var attributes = ["name": state.name(of: new), "service": state.services[new.service]?.name ?? new.service.description]
      attributes["node"] = new.node.flatMap { state.nodes[$0]?.hostname }
      attributes["image"] = state.spec(of: new)?.taskTemplate.containerSpec.image
      attributes["error"] = new.status.error.isEmpty ? nil : new.status.error
      attributes["exitCode"] = new.status.exitCode.map(String.init)
      self = make("task", new.status.state.description, new.id.description, attributes)
    }
  }

  /// `service=`, `node=` and so on ask for what concerns the object: its own events, and those of tasks and services that belong to it.
  func passes(_ filters: Filters, _ related: Related) -> Bool {
    filters.match("type") { type == $0 } && filters.match("event") { action == $0 } && filters.match("scope") { scope == $0 }
      && Related.kinds.allSatisfy { kind in filters.match(kind) { wanted in related.names(of: kind).contains { $0.hasPrefix(wanted) } } }
      && filters.matchLabels("label", actor.attributes)
      && ["container", "image", "plugin", "daemon"].allSatisfy { filters[$0] == nil }
  }
}

/// The ids and names, by kind, of all that a change concerns.
struct Related {
  static let kinds = ["service", "node", "network", "volume", "task", "stack", "secret", "config"]
  private var byKind: [String: [String]] = [:]
  func names(of kind: String) -> [String] { byKind[kind] ?? [] }

  init(_ change: StateChange, _ state: ClusterState) {
    switch change {
    case .cluster, .revision: break
    case .service(let old, let new): if let service = new ?? old { add(service, state) }
    case .node(let old, let new): if let node = new ?? old { byKind["node"] = [node.id.description, node.hostname] }
    case .network(let old, let new): if let network = new ?? old { byKind["network"] = [network.id.description, network.name] }
    case .volume(let old, let new): if let volume = new ?? old { byKind["volume"] = [volume.name] }
    case .stack(let old, let new): if let stack = new ?? old { byKind["stack"] = [stack.name] }
    case .file(let old, let new): if let file = new ?? old { byKind[file.kind.rawValue] = [file.id.description, file.name] }
    case .task(let old, let new):
      guard let task = new ?? old else { return }
      byKind["task"] = [task.id.description, state.name(of: task)]
      if let service = state.services[task.service] { add(service, state) } else { byKind["service"] = [task.service.description] }
      if let node = task.node { byKind["node"] = [node.description] + (state.nodes[node].map { [$0.hostname] } ?? []) }
    }
  }

  private mutating func add(_ service: Service, _ state: ClusterState) {
    byKind["service"] = [service.id.description, service.name] + (state.shortName(of: service).map { [$0] } ?? [])
    if let stack = state.spec(of: service)?.labels?[StackLabel.namespace] { byKind["stack"] = [stack] }
  }
}
