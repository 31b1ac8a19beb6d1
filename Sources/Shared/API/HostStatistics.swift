import Model

/// One line of `GET /orch/v1/stats`: what the containers of one host use, or why that is not known.
public struct HostStatistics: Codable, Hashable, Sendable {
  public var nodeID: String
  public var host: String
  /// Empty with `error`.
  public var tasks: [TaskStatistics]
  public var error: String?
  public init(nodeID: String, host: String, tasks: [TaskStatistics] = [], error: String? = nil) {
    (self.nodeID, self.host, self.tasks, self.error) = (nodeID, host, tasks, error)
  }
  enum CodingKeys: String, CodingKey { case nodeID = "NodeID", host = "Host", tasks = "Tasks", error = "Error" }
}

/// Counters begin with the container.
public struct TaskStatistics: Codable, Hashable, Sendable {
  public var id: String
  /// As docker names its container: service.slot.id.
  public var name: String
  public var service: String
  /// Of one CPU, in the second before.
  public var cpuPercent: Double
  public var cpuNanoseconds: Int64
  /// Bytes that count against the limit, without inactive file cache.
  public var memory: Int64
  /// The host's memory where there is no limit.
  public var memoryLimit: Int64
  public var oomKills: Int64
  public var pids: Int64
  public var pidsLimit: Int64?
  /// Of block devices.
  public var readBytes: Int64
  public var writtenBytes: Int64
  /// Of its own interfaces, without loopback; zero in the host's network.
  public var receivedBytes: UInt64
  public var sentBytes: UInt64
  /// By `cpu`, `memory` and `io`; a kernel without pressure has none.
  public var pressure: [String: Pressure]

  /// Percent of the last 10 seconds in which some, or all, of its processes waited (kernel, accounting/psi.rst).
  public struct Pressure: Codable, Hashable, Sendable {
    public var some10: Double
    public var full10: Double
    public init(some10: Double, full10: Double) { (self.some10, self.full10) = (some10, full10) }
    enum CodingKeys: String, CodingKey { case some10 = "Some10", full10 = "Full10" }
  }

  public init(
    id: String, name: String, service: String, cpuPercent: Double, cpuNanoseconds: Int64, memory: Int64, memoryLimit: Int64, oomKills: Int64,
    pids: Int64, pidsLimit: Int64?, readBytes: Int64, writtenBytes: Int64, receivedBytes: UInt64, sentBytes: UInt64, pressure: [String: Pressure]
  ) {
    (self.id, self.name, self.service) = (id, name, service)
    (self.cpuPercent, self.cpuNanoseconds) = (cpuPercent, cpuNanoseconds)
    (self.memory, self.memoryLimit, self.oomKills) = (memory, memoryLimit, oomKills)
    (self.pids, self.pidsLimit) = (pids, pidsLimit)
    (self.readBytes, self.writtenBytes, self.receivedBytes, self.sentBytes) = (readBytes, writtenBytes, receivedBytes, sentBytes)
    self.pressure = pressure
  }

  enum CodingKeys: String, CodingKey {
    case id = "ID", name = "Name", service = "Service", cpuPercent = "CPUPercent", cpuNanoseconds = "CPUNanoseconds", memory = "MemoryBytes",
      memoryLimit = "MemoryLimitBytes", oomKills = "OOMKills", pids = "PIDs", pidsLimit = "PIDsLimit", readBytes = "ReadBytes",
      writtenBytes = "WrittenBytes", receivedBytes = "ReceivedBytes", sentBytes = "SentBytes", pressure = "Pressure"
  }
}
