import API
import Model
import Surroundings

extension ControlAPI {
  func ping(_ request: APIRequest) -> APIResponse {
    APIResponse(
      status: 200,
      headers: [
        APIHeader("Api-Version", APIVersion.current), APIHeader("Ostype", "linux"), APIHeader("Docker-Experimental", "false"),
        APIHeader("Swarm", "active/manager"), APIHeader("Builder-Version", "1"), APIHeader("Cache-Control", "no-cache, no-store, must-revalidate"),
        APIHeader("Pragma", "no-cache"),
        APIHeader("Content-Type", "text/plain; charset=utf-8"),
      ], body: request.method == "HEAD" ? .empty : APIBody(string: "OK"))
  }

  func version() async -> APIResponse {
    let info = await backend.info()
    return .json(Version(version: info.version, arch: goArchitecture(info.architecture), kernelVersion: info.kernelVersion))
  }

  /// Answers without a leader too; `Swarm.Error` says so then, as Docker's does.
  func info() async -> APIResponse {
    let info = await backend.info()
    let managers = await backend.managers()
    var state: ClusterState?
    var problem = ""
    do { state = try await backend.state() } catch { problem = "\(error)" }
    let swarm = Info.Swarm(
      nodeID: info.node.description, nodeAddr: host(of: info.address), error: problem,
      remoteManagers: managers.map { Info.Peer(nodeID: $0.node.description, addr: $0.address) }, nodes: state?.nodes.count,
      managers: managers.count, cluster: state?.cluster.map { SwarmInspect($0, tokens: false) })
    return .json(
      Info(
        id: info.node.description, name: info.hostname, serverVersion: info.version, kernelVersion: info.kernelVersion,
        operatingSystem: info.operatingSystem, architecture: info.architecture, ncpu: info.cpuCount, memTotal: info.memoryBytes,
        systemTime: .now, swarm: swarm))
  }

  func swarm() async throws -> APIResponse {
    guard let cluster = try await backend.state().cluster else { throw APIError(503, "the cluster is not initialized: run orch-manager init") }
    return .json(SwarmInspect(cluster, tokens: true))
  }

  /// Whoever may use the API may let others use it: there is one kind of user.
  func issueCertificate(_ request: APIRequest) async throws -> APIResponse {
    let wanted = try await JSON.body(CertificateRequest.self, of: request)
    let validity = try wanted.validSeconds.map { seconds in
      guard (1...10_000_000_000).contains(seconds) else { throw APIError(400, "a certificate cannot be valid for \(seconds) seconds") }
      return Nanoseconds(seconds &* 1_000_000_000)
    }
    return .json(try await backend.issueCertificate(user: wanted.name, signingRequest: wanted.signingRequest, validity: validity), status: 201)
  }
}

/// "10.0.0.1" of "10.0.0.1:2377", "::1" of "[::1]:2377".
func host(of address: String) -> String {
  guard let colon = address.lastIndex(of: ":") else { return address }
  return address[..<colon].trimming { $0 == "[" || $0 == "]" }
}

extension Substring {
  fileprivate func trimming(_ unwanted: (Character) -> Bool) -> String {
    var rest = self
    while let first = rest.first, unwanted(first) { rest.removeFirst() }
    while let last = rest.last, unwanted(last) { rest.removeLast() }
    return String(rest)
  }
}

/// Docker clients expect Go's names of architectures.
func goArchitecture(_ machine: String) -> String {
  switch machine {
  case "x86_64": "amd64"
  case "aarch64": "arm64"
  default: machine
  }
}
