/// What a task's health check has found, in the shape of Docker's container state. Told when the status changes and when probes begin to
/// fail, not with every probe.
public struct TaskHealth: Hashable, Sendable, Codable {
  public enum Status: String, Sendable, Codable { case starting, healthy, unhealthy }
  public var status: Status
  /// Probes in a row that failed; those of the start period do not count.
  public var failingStreak: Int
  /// The last probes, oldest first; at most `probesMax`, their outputs together at most `outputMax` bytes.
  public var log: [Probe]

  public static let probesMax = 5
  public static let outputMax = 4096

  public struct Probe: Hashable, Sendable, Codable {
    public var start: Timestamp
    public var end: Timestamp
    /// 0: healthy. -1: it did not end in time.
    public var exitCode: Int32
    public var output: String
    public init(start: Timestamp, end: Timestamp, exitCode: Int32, output: String) {
      self.start = start
      self.end = end
      self.exitCode = exitCode
      self.output = output
    }
    enum CodingKeys: String, CodingKey { case start = "Start", end = "End", exitCode = "ExitCode", output = "Output" }

    /// Why it failed, in one line: "exit 1: connection refused".
    public var reason: String {
      let line = output.split(whereSeparator: \.isNewline).first.map(String.init) ?? ""
      return exitCode < 0 ? line : "exit \(exitCode)" + (line.isEmpty ? "" : ": \(line)")
    }
  }

  public init(status: Status, failingStreak: Int = 0, log: [Probe] = []) {
    self.status = status
    self.failingStreak = failingStreak
    self.log = log
  }
  enum CodingKeys: String, CodingKey { case status = "Status", failingStreak = "FailingStreak", log = "Log" }

  /// Keeps the newest within the bounds.
  public mutating func add(_ probe: Probe) {
    log.append(probe)
    if log.count > Self.probesMax { log.removeFirst(log.count - Self.probesMax) }
    var room = Self.outputMax
    for place in log.indices.reversed() {
      if log[place].output.utf8.count > room { log[place].output = String(decoding: log[place].output.utf8.prefix(room), as: UTF8.self) }
      // A character cut in two grows by its replacement.
      room = max(0, room - log[place].output.utf8.count)
    }
  }
}
