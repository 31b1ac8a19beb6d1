import Foundation
import Model
import SwiftProtobuf

extension WireAssignments {
  public init(_ message: AssignmentsMessage) throws {
    self.init()
    complete = message.complete
    appliesTo = message.appliesTo
    resultsIn = message.resultsIn
    updates = try message.updates.map(WireItem.init)
    removals = message.removals.map(WireItemKey.init)
  }
  public func model() throws -> AssignmentsMessage {
    AssignmentsMessage(
      complete: complete, appliesTo: appliesTo, resultsIn: resultsIn, updates: try updates.map { try $0.model() },
      removals: try removals.map { try $0.model() })
  }
}

extension WireItem {
  init(_ item: AssignmentItem) throws {
    self.init()
    switch item {
    case .task(let task): self.task = WireTask(task)
    case .revision(let revision): self.revision = try ModelJSON.encode(revision)
    case .network(let network): self.network = try ModelJSON.encode(network)
    case .service(let service): self.service = try ModelJSON.encode(service)
    case .endpoint(let endpoint): self.endpoint = WireEndpoint(endpoint)
    case .file(let file): self.file = WireStoredFile(file)
    }
  }
  func model() throws -> AssignmentItem {
    switch kind {
    case .task(let task): .task(try task.model())
    case .revision(let json): .revision(try ModelJSON.decode(from: json))
    case .network(let json): .network(try ModelJSON.decode(from: json))
    case .service(let json): .service(try ModelJSON.decode(from: json))
    case .endpoint(let endpoint): .endpoint(try endpoint.model())
    case .file(let file): .file(try file.model())
    case nil: throw WireError("an assignment of a kind that this version does not know: upgrade this agent")
    }
  }
}

extension WireItemKey {
  init(_ key: AssignmentItem.Key) {
    self.init()
    switch key {
    case .network(let id): (kind, self.id) = (.network, id.data)
    case .revision(let key): (kind, id, number) = (.revision, key.service.data, key.number)
    case .service(let id): (kind, self.id) = (.service, id.data)
    case .endpoint(let task, let network): (kind, id, self.network) = (.endpoint, task.data, network.data)
    case .task(let id): (kind, self.id) = (.task, id.data)
    case .file(let id): (kind, self.id) = (.file, id.data)
    }
  }
  func model() throws -> AssignmentItem.Key {
    switch kind {
    case .network: .network(try NetworkID(wire: id))
    case .revision: .revision(ServiceRevision.Key(try ServiceID(wire: id), number))
    case .service: .service(try ServiceID(wire: id))
    case .endpoint: .endpoint(try TaskID(wire: id), try NetworkID(wire: network))
    case .task: .task(try TaskID(wire: id))
    case .file: .file(try FileID(wire: id))
    case .unspecified, .UNRECOGNIZED: throw WireError("an assignment key of kind \(kind.rawValue)")
    }
  }
}
