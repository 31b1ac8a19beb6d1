import Foundation
import Model
import SwiftProtobuf

extension Command {
  /// The payload of a Raft entry.
  public func serialized() throws -> [UInt8] {
    var message = WireCommand()
    message.conditions = conditions.map(WireCondition.init)
    message.actions = try actions.map(WireAction.init)
    return try message.serializedBytes()
  }

  public init(serialized bytes: [UInt8]) throws {
    let message = try WireCommand(serializedBytes: bytes)
    self.init(conditions: try message.conditions.map { try $0.model() }, actions: try message.actions.map { try $0.model() })
  }
}

extension Action {
  /// One row of a snapshot.
  public func serialized() throws -> [UInt8] { try WireAction(self).serializedBytes() }
  public init(serialized bytes: [UInt8]) throws { self = try WireAction(serializedBytes: bytes).model() }
}

extension WireCondition {
  init(_ condition: Condition) {
    self.init()
    switch condition {
    case .nodeVersion(let id, let version): (kind, self.id, self.version) = (.nodeVersion, id.data, version)
    case .serviceVersion(let id, let version): (kind, self.id, self.version) = (.serviceVersion, id.data, version)
    case .networkVersion(let id, let version): (kind, self.id, self.version) = (.networkVersion, id.data, version)
    case .clusterVersion(let version): (kind, self.version) = (.clusterVersion, version)
    case .stackRevision(let name, let revision): (kind, self.name, self.version) = (.stackRevision, name, revision)
    case .serviceExists(let id): (kind, self.id) = (.serviceExists, id.data)
    case .networkExists(let id): (kind, self.id) = (.networkExists, id.data)
    case .fileVersion(let id, let version): (kind, self.id, self.version) = (.fileVersion, id.data, version)
    case .fileExists(let id): (kind, self.id) = (.fileExists, id.data)
    }
  }

  func model() throws -> Condition {
    switch kind {
    case .nodeVersion: .nodeVersion(try NodeID(wire: id), version)
    case .serviceVersion: .serviceVersion(try ServiceID(wire: id), version)
    case .networkVersion: .networkVersion(try NetworkID(wire: id), version)
    case .clusterVersion: .clusterVersion(version)
    case .stackRevision: .stackRevision(name, version)
    case .serviceExists: .serviceExists(try ServiceID(wire: id))
    case .networkExists: .networkExists(try NetworkID(wire: id))
    case .fileVersion: .fileVersion(try FileID(wire: id), version)
    case .fileExists: .fileExists(try FileID(wire: id))
    case .unspecified, .UNRECOGNIZED: throw WireError("condition of kind \(kind.rawValue)")
    }
  }
}

extension WireObject {
  init<Tag>(_ id: Identifier<Tag>, _ value: (some Encodable)?) throws {
    self.init()
    self.id = id.data
    if let value { json = try ModelJSON.encode(value) }
  }
  func value<Value: Decodable>() throws -> Value {
    guard hasJson else { throw WireError("an object without its value") }
    return try ModelJSON.decode(from: json)
  }
  func optional<Value: Decodable>() throws -> Value? { hasJson ? try ModelJSON.decode(from: json) as Value : nil }
}

extension WireAction {
  init(_ action: Action) throws {
    self.init()
    switch action {
    case .putCluster(let cluster): putCluster = try ModelJSON.encode(cluster)
    case .putNode(let node): putNode = try ModelJSON.encode(node)
    case .nodeSpec(let id, let spec, let at):
      var change = WireNodeSpecChange()
      (change.id, change.json, change.at) = (id.data, try ModelJSON.encode(spec), at.nanoseconds)
      nodeSpec = change
    case .nodeStatus(let id, let status): nodeStatus = try WireObject(id, status)
    case .nodeDescription(let id, let description): nodeDescription = try WireObject(id, description)
    case .nodeAttachments(let id, let attachments): nodeAttachments = try WireObject(id, attachments)
    case .nodeManager(let id, let manager): nodeManager = try WireObject(id, manager)
    case .removeNode(let id): removeNode = id.data
    case .putService(let service): putService = try ModelJSON.encode(service)
    case .putRevision(let revision): putRevision = try ModelJSON.encode(revision)
    case .serviceUpdateStatus(let id, let status): serviceUpdateStatus = try WireObject(id, status)
    case .serviceEndpoint(let id, let endpoint): serviceEndpoint = try WireObject(id, endpoint)
    case .removeService(let id): removeService = id.data
    case .removeRevision(let key): removeRevision = WireRevisionKey(key)
    case .createTask(let task): createTask = WireTask(task)
    case .assignTask(let id, let node, let attachments, let status):
      var assign = WireAssignTask()
      assign.id = id.data
      if let node { assign.node = node.data }
      assign.attachments = attachments.map(WireAttachment.init)
      assign.status = WireTaskStatus(status)
      assignTask = assign
    case .taskDesiredState(let id, let state):
      var desired = WireDesiredState()
      desired.id = id.data
      desired.state = UInt32(state.rawValue)
      taskDesiredState = desired
    case .taskStatus(let id, let status): taskStatus = WireTaskReport(TaskReport(task: id, status: status))
    case .removeTask(let id): removeTask = id.data
    case .putNetwork(let network): putNetwork = try ModelJSON.encode(network)
    case .removeNetwork(let id): removeNetwork = id.data
    case .putVolume(let volume): putVolume = WireVolume(volume)
    case .removeVolume(let name): removeVolume = name
    case .putStack(let stack): putStack = try ModelJSON.encode(stack)
    case .removeStack(let name): removeStack = name
    case .putFile(let file): putFile = WireStoredFile(file)
    case .removeFile(let id): removeFile = id.data
    }
  }

  func model() throws -> Action {
    switch kind {
    case .putCluster(let json): .putCluster(try ModelJSON.decode(from: json))
    case .putNode(let json): .putNode(try ModelJSON.decode(from: json))
    case .nodeSpec(let change):
      .nodeSpec(try NodeID(wire: change.id), try ModelJSON.decode(from: change.json), at: Timestamp(nanoseconds: change.at))
    case .nodeStatus(let object): .nodeStatus(try NodeID(wire: object.id), try object.value())
    case .nodeDescription(let object): .nodeDescription(try NodeID(wire: object.id), try object.value())
    case .nodeAttachments(let object): .nodeAttachments(try NodeID(wire: object.id), try object.value())
    case .nodeManager(let object): .nodeManager(try NodeID(wire: object.id), try object.optional())
    case .removeNode(let id): .removeNode(try NodeID(wire: id))
    case .putService(let json): .putService(try ModelJSON.decode(from: json))
    case .putRevision(let json): .putRevision(try ModelJSON.decode(from: json))
    case .serviceUpdateStatus(let object): .serviceUpdateStatus(try ServiceID(wire: object.id), try object.optional())
    case .serviceEndpoint(let object): .serviceEndpoint(try ServiceID(wire: object.id), try object.value())
    case .removeService(let id): .removeService(try ServiceID(wire: id))
    case .removeRevision(let key): .removeRevision(try key.model())
    case .createTask(let task): .createTask(try task.model())
    case .assignTask(let assign):
      .assignTask(
        try TaskID(wire: assign.id), node: assign.node.isEmpty ? nil : try NodeID(wire: assign.node),
        attachments: try assign.attachments.map { try $0.model() }, status: try assign.status.model())
    case .taskDesiredState(let desired): .taskDesiredState(try TaskID(wire: desired.id), try TaskState(wire: desired.state))
    case .taskStatus(let report): .taskStatus(try TaskID(wire: report.task), try report.status.model())
    case .removeTask(let id): .removeTask(try TaskID(wire: id))
    case .putNetwork(let json): .putNetwork(try ModelJSON.decode(from: json))
    case .removeNetwork(let id): .removeNetwork(try NetworkID(wire: id))
    case .putVolume(let volume): .putVolume(volume.model)
    case .removeVolume(let name): .removeVolume(name)
    case .putStack(let json): .putStack(try ModelJSON.decode(from: json))
    case .removeStack(let name): .removeStack(name)
    case .putFile(let file): .putFile(try file.model())
    case .removeFile(let id): .removeFile(try FileID(wire: id))
    case nil: throw WireError("an action of a kind that this version does not know: upgrade this manager")
    }
  }
}
