import AgentImage
import AgentNetwork
import AgentVolume
import Build
import DNS
import Foundation
import LinuxSystem
import Logging
import Model
import Runtime
import Wire

/// What the agent is assembled from.
struct Rooms: Sendable {
  let runtime: ContainerRuntime
  let images: ImageStore
  let builder: Builder
  let volumes: VolumeStore
  let network: OverlayNetwork
  let names: NameServer
  let underlay: IPv4Address
  let stateDirectory: String
  let runDirectory: String
  let node: NodeID

  /// Files that a container sees as /etc/hosts and the like.
  func taskDirectory(_ id: TaskID) -> String { "\(runDirectory)/tasks/\(id)" }

  /// Of a container whose task gives it none.
  static func hostname(unnamed id: TaskID) -> String { id.short }
  /// Of a container that is there.
  func hostname(of id: TaskID) -> String {
    let kept = try? String(contentsOfFile: "\(taskDirectory(id))/hostname", encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
    return kept.flatMap { $0.isEmpty ? nil : $0 } ?? Self.hostname(unnamed: id)
  }

  /// Tasks of which anything is here: folders, namespaces, cgroups, anonymous volumes. Only what is named as we name it.
  func leftovers() async -> [TaskID] {
    let (state, data) = (runtime.configuration.stateDirectory, runtime.configuration.dataDirectory)
    let folders = ["\(runDirectory)/tasks", "\(runDirectory)/netns", state + "/containers", data + "/containers"]
    let found = (try? await offPool { folders.flatMap { (try? Files.list($0)) ?? [] } }) ?? []
    let owners = (try? await volumes.owners()) ?? []
    return Set((found + owners + (await runtime.leftovers())).compactMap { TaskID($0) }).sorted()
  }

  private var assignmentsFile: String { "\(stateDirectory)/assignments" }

  /// So that a restarted agent knows its tasks before any manager answers, after a loss of power too.
  /// - Returns: whether they are on the disk.
  func keep(_ assignments: AssignmentsMessage, log: Logger) async -> Bool {
    do {
      try await offPool {
        let bytes: [UInt8] = try WireAssignments(assignments).serializedBytes()
        try Files.writeAtomically(assignmentsFile, bytes)
      }
      return true
    } catch {
      log.error("keep assignments in \(assignmentsFile): \(error); until that succeeds managers are not told what this host lives by")
      return false
    }
  }

  func keptAssignments() throws -> AssignmentsMessage? {
    guard let data = FileManager.default.contents(atPath: assignmentsFile) else { return nil }
    return try WireAssignments(serializedBytes: [UInt8](data)).model()
  }
}

/// Blocking work never runs on the cooperative pool.
func offPool<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
  try await withCheckedThrowingContinuation { continuation in
    DispatchQueue.global().async { continuation.resume(with: Result { try work() }) }
  }
}
