import API
import Model
import Orchestrator
import Surroundings

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// /secrets and /configs. A secret's content comes in and is sealed at once; no answer has it.
extension ControlAPI {
  /// nil: a request for something else.
  func routeFiles(_ kind: StoredFile.Kind, _ request: APIRequest, _ target: Target) async throws -> APIResponse {
    let path = target.path
    switch (request.method, path.count) {
    case ("GET", 1): return try await listFiles(kind, target)
    case ("POST", 2) where path[1] == "create": return try await createFile(kind, request)
    case ("GET", 2): return .json(FileInspect(try await backend.state().lookUpFile(kind, path[1])))
    case ("DELETE", 2):
      try await edit { state in (try ServiceEdits.removeFile(try state.lookUpFile(kind, path[1]).id, state: state), ()) }
      return .noContent
    case ("POST", 3) where path[2] == "update": return try await updateFile(kind, path[1], target, request)
    default: throw APIError(404, "page not found")
    }
  }

  private func listFiles(_ kind: StoredFile.Kind, _ target: Target) async throws -> APIResponse {
    let filters = try Filters(target, accepted: ["id", "label", "name", "names"])
    let files = try await backend.state().files.values.filter { file in
      file.kind == kind && filters.match("id") { file.id.description.hasPrefix($0) } && filters.match("name") { file.name.hasPrefix($0) }
        && filters.match("names") { file.name == $0 } && filters.matchLabels("label", file.labels)
    }
    return .json(files.sorted { $0.name < $1.name }.map { FileInspect($0) })
  }

  private func createFile(_ kind: StoredFile.Kind, _ request: APIRequest) async throws -> APIResponse {
    let file = try newFile(kind, try await JSON.body(FileSpec.self, of: request))
    _ = try await backend.propose(Command(actions: [.putFile(file)]))
    return .json(FileCreateResponse(id: file.id.description), status: 201)
  }

  /// Checked and sealed.
  func newFile(_ kind: StoredFile.Kind, _ spec: FileSpec) throws -> StoredFile {
    try refuseUnsupported(kind, spec)
    let content = [UInt8](spec.data ?? Data())
    try ServiceEdits.check(kind, name: spec.name, size: content.count)
    let id = FileID.random()
    return StoredFile(
      kind: kind, id: id, name: spec.name, labels: spec.labels ?? [:], data: kind == .secret ? try backend.seal(content, as: id) : content,
      createdAt: .now)
  }

  private func refuseUnsupported(_ kind: StoredFile.Kind, _ spec: FileSpec) throws {
    if let driver = spec.driver?.name, !driver.isEmpty {
      throw APIError(501, "\(kind.rawValue) \(spec.name): the driver '\(driver)' is not known: orch keeps secrets itself")
    }
    if let driver = spec.templating?.name, !driver.isEmpty {
      throw APIError(501, "\(kind.rawValue) \(spec.name): orch does not expand templates in secrets and configs: leave out the template driver")
    }
  }

  private func updateFile(_ kind: StoredFile.Kind, _ name: String, _ target: Target, _ request: APIRequest) async throws -> APIResponse {
    let version = try target.version()
    let spec = try await JSON.body(FileSpec.self, of: request)
    try refuseUnsupported(kind, spec)
    let now = Timestamp.now
    try await edit(retries: 0) { state in
      let file = try state.lookUpFile(kind, name)
      // Docker sends what it read: a secret without its content, a config with it.
      let isSameContent = try spec.data.map { $0.isEmpty ? true : try backend.content(of: file) == [UInt8]($0) } ?? true
      guard isSameContent, spec.name == file.name else { throw APIError(400, "only updates to Labels are allowed") }
      return (try ServiceEdits.updateFile(file.id, labels: spec.labels ?? [:], version: version, state: state, now: now), ())
    }
    return APIResponse(status: 200)
  }

  /// What a stack declares, as it shall be: a known one keeps its id and content, which must be the same.
  func files(_ kind: StoredFile.Kind, _ specs: [FileSpec], new: [StoredFile.Name: StoredFile], stack: String, in state: ClusterState) throws
    -> [StoredFile]
  {
    try specs.map { spec in
      guard var known = state.file(kind, named: spec.name) else { return new[.init(kind, spec.name)]! }
      guard known.labels[StackLabel.namespace] == stack else {
        throw APIError(
          409, "\(kind.rawValue) \(spec.name) exists and does not belong to stack \(stack): declare it as external or choose another name")
      }
      guard try backend.content(of: known) == [UInt8](spec.data ?? Data()) else {
        throw APIError(
          409,
          "\(kind.rawValue) \(spec.name) has another content in the cluster and cannot change: give the new one another name (`name:` in the manifest), so that the services roll"
        )
      }
      known.labels = spec.labels ?? [:]
      return known
    }
  }
}
