import API
import Model
import Orchestrator
import Surroundings

extension ControlAPI {
  func backup(_ target: Target) async throws -> APIResponse {
    let (summary, file) = try await backend.backup(stale: target.flag("stale"))
    let headers = [
      APIHeader("Content-Type", "application/vnd.sqlite3"), APIHeader(BackupSummary.header, String(decoding: JSON.encode(summary), as: UTF8.self)),
    ]
    return APIResponse(status: 200, headers: headers, body: file)
  }

  /// Says what a restore would do, and with `apply` does it. Entry by entry: asked again after it was interrupted, it does the rest.
  func restore(_ target: Target, _ request: APIRequest) async throws -> APIResponse {
    let (summary, backup) = try await backend.readBackup(request.body)
    let own = try await backend.state().cluster?.id
    guard backup.cluster?.id == own || target.flag("other") else {
      throw APIError(
        409,
        "this backup is of cluster \(summary.cluster), and this is cluster \(own.map { "\($0)" } ?? "-"): its services would be made here as new ones; "
          + "say --other-cluster if that is meant")
    }
    var attempts = 5
    while true {
      var generator = SystemRandomNumberGenerator()
      let plan = try ServiceEdits.restore(backup, state: try await backend.state(), now: .now, generator: &generator)
      var response = RestoreResponse(backup: summary, applied: target.flag("apply"))
      for line in plan.lines {
        switch line.change {
        case .created: response.created.append(line.name)
        case .updated: response.updated.append(line.name)
        case .unchanged: response.unchanged.append(line.name)
        case .removed: response.removed.append(line.name)
        }
      }
      response.kept = plan.kept
      if !response.applied { return .json(response) }
      do {
        for command in plan.commands { _ = try await backend.propose(command) }
        return .json(response)
      } catch let refusal as Refusal where refusal == .outOfSequence && attempts > 1 {
        attempts -= 1
      }
    }
  }
}
