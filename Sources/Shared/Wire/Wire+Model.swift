// Model <-> bytes. What comes from outside is checked here: every conversion from the wire throws WireError on what it can't be.
import Foundation
import Model
import SwiftProtobuf

/// A message that is well-formed protobuf and still not one of ours.
public struct WireError: Error, Hashable, CustomStringConvertible {
  public let description: String
  public init(_ description: String) { self.description = description }
}

extension Identifier {
  public var data: Data { Data(bytes) }
  public init(wire data: Data) throws(WireError) {
    guard let id = Self(bytes: data) else { throw WireError("an id of \(data.count) bytes instead of 16") }
    self = id
  }
}

extension TaskState {
  init(wire value: UInt32) throws(WireError) {
    guard let state = TaskState(rawValue: Int(value)) else { throw WireError("task state \(value)") }
    self = state
  }
}

/// JSON of Model's types, with sorted keys so that equal values are equal bytes.
public enum ModelJSON {
  public static func encode(_ value: some Encodable) throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return try encoder.encode(value)
  }
  public static func decode<Value: Decodable>(_ type: Value.Type = Value.self, from data: Data) throws -> Value {
    try JSONDecoder().decode(type, from: data)
  }
}

extension WireAttachment {
  public init(_ value: NetworkAttachment) {
    self.init()
    network = value.network.data
    address = value.address.rawValue
  }
  public func model() throws -> NetworkAttachment {
    NetworkAttachment(network: try NetworkID(wire: network), address: IPv4Address(address))
  }
}

extension WireTaskStatus {
  public init(_ value: TaskStatus) {
    self.init()
    state = UInt32(value.state.rawValue)
    timestamp = value.timestamp.nanoseconds
    message = value.message
    error = value.error
    if let id = value.containerID { containerID = id }
    if let pid = value.pid { self.pid = pid }
    if let code = value.exitCode { exitCode = code }
    oomKilled = value.oomKilled
    if let health = value.health { self.health = WireHealth(health) }
  }
  public func model() throws -> TaskStatus {
    TaskStatus(
      state: try TaskState(wire: state), timestamp: Timestamp(nanoseconds: timestamp), message: message, error: error,
      containerID: hasContainerID ? containerID : nil, pid: hasPid ? pid : nil, exitCode: hasExitCode ? exitCode : nil, oomKilled: oomKilled,
      health: hasHealth ? try health.model() : nil)
  }
}

extension WireHealth {
  init(_ value: TaskHealth) {
    self.init()
    status =
      switch value.status {
      case .starting: .starting
      case .healthy: .healthy
      case .unhealthy: .unhealthy
      }
    failingStreak = UInt32(clamping: value.failingStreak)
    log = value.log.map { probe in
      var message = WireProbe()
      (message.start, message.end, message.exitCode, message.output) = (
        probe.start.nanoseconds, probe.end.nanoseconds, probe.exitCode, probe.output
      )
      return message
    }
  }
  /// What is more than the bounds allow is left out.
  func model() throws -> TaskHealth {
    let status: TaskHealth.Status =
      switch self.status {
      case .starting: .starting
      case .healthy: .healthy
      case .unhealthy: .unhealthy
      case .unspecified, .UNRECOGNIZED: throw WireError("health \(self.status.rawValue)")
      }
    var health = TaskHealth(status: status, failingStreak: Int(failingStreak))
    for probe in log.suffix(TaskHealth.probesMax) {
      health.add(
        TaskHealth.Probe(
          start: Timestamp(nanoseconds: probe.start), end: Timestamp(nanoseconds: probe.end), exitCode: probe.exitCode, output: probe.output))
    }
    return health
  }
}

extension WireTask {
  public init(_ value: ClusterTask) {
    self.init()
    id = value.id.data
    service = value.service.data
    revision = value.revision
    slot = value.slot
    if let node = value.node { self.node = node.data }
    desiredState = UInt32(value.desiredState.rawValue)
    status = WireTaskStatus(value.status)
    attachments = value.attachments.map(WireAttachment.init)
    createdAt = value.createdAt.nanoseconds
    restartCount = value.restartCount
    startAfter = value.startAfter.nanoseconds
    version = value.version
  }
  public func model() throws -> ClusterTask {
    var task = ClusterTask(
      id: try TaskID(wire: id), service: try ServiceID(wire: service), revision: revision, slot: slot,
      desiredState: try TaskState(wire: desiredState), createdAt: Timestamp(nanoseconds: createdAt))
    task.node = node.isEmpty ? nil : try NodeID(wire: node)
    task.status = try status.model()
    task.attachments = try attachments.map { try $0.model() }
    task.restartCount = restartCount
    task.startAfter = Timestamp(nanoseconds: startAfter)
    task.version = version
    return task
  }
}

extension WireVolume {
  init(_ value: Volume) {
    self.init()
    name = value.name
    labels = value.labels
    driver = value.driver
    driverOptions = value.driverOptions
    createdAt = value.createdAt.nanoseconds
    version = value.version
  }
  var model: Volume {
    var volume = Volume(
      name: name, labels: labels, driver: driver, driverOptions: driverOptions, createdAt: Timestamp(nanoseconds: createdAt))
    volume.version = version
    return volume
  }
}

extension WireEndpoint {
  public init(_ value: EndpointRecord) {
    self.init()
    task = value.task.data
    service = value.service.data
    network = value.network.data
    node = value.node.data
    slot = value.slot
    address = value.address.rawValue
    underlay = value.underlay.rawValue
    ready = value.ready
    lacksIpv6 = value.lacksIPv6
    lost = value.lost
    hostname = value.hostname ?? ""
  }
  public func model() throws -> EndpointRecord {
    var record = EndpointRecord(
      task: try TaskID(wire: task), service: try ServiceID(wire: service), network: try NetworkID(wire: network), node: try NodeID(wire: node),
      slot: slot, address: IPv4Address(address), underlay: IPv4Address(underlay), ready: ready)
    record.lacksIPv6 = lacksIpv6
    record.lost = lost
    if !hostname.isEmpty { record.hostname = hostname }
    return record
  }
}

extension WireRevisionKey {
  public init(_ key: ServiceRevision.Key) {
    self.init()
    service = key.service.data
    number = key.number
  }
  public func model() throws -> ServiceRevision.Key { ServiceRevision.Key(try ServiceID(wire: service), number) }
}

extension WireTaskReport {
  public init(_ value: TaskReport) {
    self.init()
    task = value.task.data
    status = WireTaskStatus(value.status)
  }
  public func model() throws -> TaskReport { TaskReport(task: try TaskID(wire: task), status: try status.model()) }
}

extension WireStoredFile {
  public init(_ file: StoredFile) {
    self.init()
    (id, kind, name, labels, data) = (file.id.data, file.kind.rawValue, file.name, file.labels, Data(file.data))
    (createdAt, updatedAt, version) = (file.createdAt.nanoseconds, file.updatedAt.nanoseconds, file.version)
  }
  public func model() throws -> StoredFile {
    guard let kind = StoredFile.Kind(rawValue: kind) else { throw WireError("a stored file of kind \(kind)") }
    var file = StoredFile(
      kind: kind, id: try FileID(wire: id), name: name, labels: labels, data: [UInt8](data), createdAt: Timestamp(nanoseconds: createdAt))
    file.updatedAt = Timestamp(nanoseconds: updatedAt)
    file.version = version
    return file
  }
}
