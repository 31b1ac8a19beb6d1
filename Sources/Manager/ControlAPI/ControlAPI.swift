// The public API: Docker Engine API paths and behaviour for what Docker has, /orch/v1 for the rest.
//
// Two layers. `ControlAPI.respond(to:)` handles a request that is already parsed values, on the leader; it is used by the server
// shell here and by the daemon's handler of forwarded requests. `ControlServer` is the shell: Hummingbird on a unix socket and,
// if asked for, TCP with mutual TLS.
//
// Invariants: a body over its limit is refused before it is parsed; every error is {"message": …} as application/json; a request
// that changes something is one proposal. It refuses to know: Raft, the store, agents, how a follower reaches its leader.
import API
import Model
import NIOCore
import Orchestrator

public struct ControlAPI: Sendable {
  let backend: any ControlBackend

  public init(backend: any ControlBackend) { self.backend = backend }

  /// For the server shell: answers here what every manager can answer, sends the rest to the leader.
  public func serve(_ request: APIRequest) async -> APIResponse {
    let target = Target(uri: request.uri)
    switch (target.path.first, target.path.count) {
    case ("_ping", _), ("version", 1), ("info", 1): return await respond(to: request)
    // Read from the database of whoever is asked.
    case ("orch", 3) where ["sql", "backup"].contains(target.path[2]): return await respond(to: request)
    default: break
    }
    var request = await placed(request, target)
    let isRead = request.method == "GET"
    // No read has one, and a body of the server's can be read once only.
    if isRead { request.body = .empty }
    // The host that was asked builds, whoever leads; its own stream goes on after the request.
    let isBuild = target.path == ["build"]
    if isBuild, request.header(Self.askedHeader) == nil {
      request.headers.append(APIHeader(Self.askedHeader, (await backend.info()).node.description))
    }
    let isRepeatable = Self.isRepeatable(request.method, target.path)
    if isRepeatable {
      do { request.body = APIBody(try await request.body.collect(upTo: JSON.bodyMax)) } catch {
        return .error((error as? APIError)?.status ?? 400, "\(error)")
      }
    }
    let deadline = ContinuousClock.now + Self.readPatience
    while true {
      switch await backend.route() {
      case .local: return await respond(to: request)
      case .forward(let send):
        do {
          var response = try await send(request)
          if isBuild { response.hasReadRequest = true }
          return response
        } catch let error as APIError { return .error(error.status, error.message) } catch {
          // A read is asked again of whoever leads now; only its sender knows whether a change may be made twice.
          if isRead || isRepeatable, !Task.isCancelled, ContinuousClock.now < deadline {
            if isRepeatable { request.headers.append(Self.again) }
            continue
          }
          return .error(503, "the leader did not answer (\(error)): an election may be going on; look whether it was done before you try again")
        }
      // The leader that was asked first may have made the change before it was lost: then nobody may be told that nothing was done.
      case .unreachable where request.isAgain, .noLeader where request.isAgain:
        return .error(503, "the leader was lost while the change was made, and no other answers yet: look whether it was done before you try again")
      case .unreachable(let sentence): return .error(503, sentence)
      case .noLeader(let detail):
        if target.path == ["orch", "v1", "managers"] { return await respond(to: request) }
        return .error(
          503,
          "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online, then try again"
            + (detail.isEmpty ? "." : " (\(detail))."))
      }
    }
  }

  /// How long after its beginning a read may be begun anew when the leader is lost.
  private static var readPatience: Duration { .seconds(3) }

  /// Changes that end a leader's term, and with it the connection that their answer comes on. Done twice they do nothing more.
  private static func isRepeatable(_ method: String, _ path: [String]) -> Bool {
    switch (method, path.count) {
    case ("POST", 3): path[0] == "nodes" && path[2] == "update"
    case ("DELETE", 2): path[0] == "nodes"
    case ("POST", 4...), ("DELETE", 4): path[..<3] == ["orch", "v1", "managers"]
    default: false
    }
  }
  /// On a request that may have been carried out already.
  static let again = APIHeader("Orch-Again", "1")

  /// Handles the request here, whoever sent it. Never throws: what goes wrong is the answer.
  public func respond(to request: APIRequest) async -> APIResponse {
    do { return try await route(request) } catch let error as APIError {
      return .error(error.status, error.message)
    } catch let error as EditError {
      return .error(error.status, error.description)
    } catch let refusal as Refusal {
      // Whether it is its own first sending that made the version stale, or somebody else's change, cannot be told any more.
      if refusal == .outOfSequence, request.isAgain {
        return .error(
          503, "the leader changed while the change was made, and the object has changed since: look whether it was done before you try again")
      }
      return .error(refusal.status, refusal.description)
    } catch is CancellationError {
      return .error(503, "the request was cancelled: the manager is stopping or lost its lead, try again")
    } catch {
      return .error(500, "\(error)")
    }
  }

  private func route(_ request: APIRequest) async throws -> APIResponse {
    let target = Target(uri: request.uri)
    let path = target.path
    if let asked = target.apiVersion, let refusal = refuse(version: asked) { throw refusal }
    if path.first == "orch" { return try await routeOrch(request, target) }
    let method = request.method
    // Object of the path: ["services", NAME, VERB].
    let name = path.count > 1 ? path[1] : ""
    switch (method, path.first ?? "", path.count) {
    case ("HEAD", "_ping", 1), ("GET", "_ping", 1): return ping(request)
    case ("GET", "version", 1): return await version()
    case ("GET", "info", 1): return await info()
    case ("GET", "swarm", 1): return try await swarm()
    case ("GET", "events", 1): return try await events(target)
    case ("GET", "nodes", 1): return try await listNodes(target)
    case ("GET", "nodes", 2): return try await inspectNode(name)
    case ("DELETE", "nodes", 2): return try await removeNode(name, force: target.flag("force"), request)
    case ("POST", "nodes", 3) where path[2] == "update": return try await updateNode(name, target, request)
    case ("GET", "services", 1): return try await listServices(target)
    case ("POST", "services", 2) where name == "create": return try await createService(request)
    case ("GET", "services", 2): return try await inspectService(name, target)
    case ("DELETE", "services", 2): return try await removeService(name)
    case ("POST", "services", 3) where path[2] == "update": return try await updateService(name, target, request)
    case ("GET", "services", 3) where path[2] == "logs": return try await serviceLogs(name, target)
    case ("GET", "tasks", 1): return try await listTasks(target)
    case ("GET", "tasks", 2): return try await inspectTask(name)
    case ("GET", "tasks", 3) where path[2] == "logs": return try await taskLogs(name, target)
    case ("GET", "networks", 1): return try await listNetworks(target)
    case ("POST", "networks", 2) where name == "create": return try await createNetwork(request)
    case ("GET", "networks", 2): return try await inspectNetwork(name)
    case ("DELETE", "networks", 2): return try await removeNetwork(name)
    case ("GET", "volumes", 1): return try await listVolumes(target)
    case ("POST", "volumes", 2) where name == "create": return try await createVolume(request)
    case ("GET", "volumes", 2): return try await inspectVolume(name)
    case ("DELETE", "volumes", 2): return try await removeVolume(name)
    case ("GET", "distribution", 3...) where path.last == "json":
      // Clients warn and go on: agents resolve the image when they pull it.
      throw APIError(404, "the registry is asked by the hosts that run \(path[1..<(path.count - 1)].joined(separator: "/")), not by the manager")
    case ("POST", "build", 1): return try await build(target, request)
    case ("POST", "build", 2) where path[1] == "prune": return try await backend.ask(request, on: hostToBuild(target).id)
    case (_, "secrets", _): return try await routeFiles(.secret, request, target)
    case (_, "configs", _): return try await routeFiles(.config, request, target)
    case (_, "images", 2...): return try await routeImages(request, target)
    case (_, "containers", _), (_, "exec", _), (_, "swarm", _), (_, "plugins", _), (_, "system", _),
      (_, "auth", _), (_, "session", _), (_, "commit", _):
      throw APIError(501, "orch does not serve \(method) /\(path.joined(separator: "/")) yet; see the list of what works in README")
    default: throw APIError(404, "page not found")
    }
  }

  private func routeOrch(_ request: APIRequest, _ target: Target) async throws -> APIResponse {
    let path = Array(target.path.dropFirst(2))
    guard target.path.count >= 3, target.path[1] == "v1" else { throw APIError(404, "page not found") }
    switch (request.method, path[0], path.count) {
    case ("GET", "stacks", 1): return try await listStacks()
    case ("GET", "stacks", 2): return try await inspectStack(path[1])
    case ("POST", "stacks", 2): return try await deployStack(path[1], request)
    case ("DELETE", "stacks", 2): return try await removeStack(path[1], volumes: target.flag("volumes"))
    case ("POST", "scale", 1): return try await scale(request)
    case ("GET", "managers", 1): return try await managers()
    case ("POST", "managers", 2) where path[1] == "transfer-leadership": return try await transferLeadership(request)
    case ("POST", "managers", 3) where path[2] == "promote": return try await promoteManager(path[1])
    case ("POST", "managers", 3) where path[2] == "demote": return try await demoteManager(path[1], force: target.flag("force"), request)
    case ("DELETE", "managers", 2): return try await removeManager(path[1], force: target.flag("force"), request)
    case ("POST", "sql", 1): return try await query(request)
    case ("GET", "backup", 1): return try await backup(target)
    case ("POST", "restore", 1): return try await restore(target, request)
    case ("POST", "certificates", 1): return try await issueCertificate(request)
    case ("POST", "tasks", 3) where path[2] == "exec": return try await exec(path[1], request)
    case ("POST", "tasks", 3) where path[2] == "kill": return try await signalTask(path[1], target)
    case ("GET", "stats", 1): return try await stats(target)
    case ("GET", "images", 1): return try await listImages()
    case ("POST", "images", 2) where path[1] == "load": return try await loadImage(.archive, request, target)
    case ("POST", "images", 2) where path[1] == "distribute": return try await distributeImage(target)
    case ("POST", "images", 2) where path[1] == "import":
      guard let name = target["name"], !name.isEmpty else { throw APIError(400, "give the image's name: /orch/v1/images/import?name=NAME") }
      return try await loadImage(.rootfs(name: name), request, target)
    default: throw APIError(404, "page not found")
    }
  }

  /// Docker's two sentences about versions that do not fit.
  private func refuse(version: String) -> APIError? {
    func number(_ text: String) -> (Int, Int) {
      let parts = text.split(separator: ".").map { Int($0) ?? 0 }
      return (parts.first ?? 0, parts.count > 1 ? parts[1] : 0)
    }
    guard number(version) < number(APIVersion.minimum) else { return nil }
    return APIError(
      400,
      "client version \(version) is too old. Minimum supported API version is \(APIVersion.minimum), please upgrade your client to a newer version")
  }
}

extension ControlAPI {
  /// One change: read, decide, propose; again when the object changed in between and the caller named no version.
  @discardableResult
  func edit<Result>(retries: Int = 5, _ decide: (ClusterState) throws -> (Command, Result)) async throws -> Result {
    var retries = retries
    while true {
      let (command, result) = try decide(try await backend.state())
      if command.actions.isEmpty { return result }
      do {
        _ = try await backend.propose(command)
        return result
      } catch let refusal as Refusal where refusal == .outOfSequence && retries > 0 {
        retries -= 1
      }
    }
  }
}

extension EditError {
  var status: Int {
    switch self {
    case .invalid: 400
    case .notFound: 404
    case .conflict: 409
    case .outOfSequence: Refusal.outOfSequence.status
    }
  }
}

extension Refusal {
  var status: Int {
    switch self {
    // Docker answers 500 with "rpc error: … update out of sequence"; clients look for the words.
    case .outOfSequence: 500
    case .nameTaken, .inUse: 409
    case .notFound: 404
    }
  }
}
