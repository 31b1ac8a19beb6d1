/// How long a container's log may grow, as a service's `LogDriver` says it. Logs are Docker's json-file in any case; `local` is taken for the
/// same wish, since what differs is a file that nobody but the daemon reads.
public struct LogLimits: Hashable, Sendable {
  /// Bytes after which a file is rotated, 0: never. nil: the agent's own.
  public var maxSize: Int64?
  /// Files kept, the current one included. nil: the agent's own.
  public var maxFiles: Int?

  public struct Refusal: Error, Hashable, Sendable {
    public var reason: String
    public var advice: String
  }
  /// What rotation has to rename each time.
  public static let filesMax = 1000

  public init(_ driver: Driver?) throws(Refusal) {
    let name = driver?.name ?? ""
    guard ["", "json-file", "local"].contains(name) else {
      throw Refusal(reason: "the logging driver '\(name)' is not supported", advice: "use json-file or leave it out; 'orch logs' reads what it keeps")
    }
    for (key, value) in (driver?.options ?? [:]).sorted(by: { $0.key < $1.key }) {
      switch key {
      case "max-size":
        // As docker's log drivers read it (moby daemon/logger/jsonfilelog): 10m is 10,000,000.
        guard let size = value == "-1" ? 0 : ByteSize.parse(value, thousand: 1000), size > 0 || value == "-1" else {
          throw Refusal(reason: "the log's max-size '\(value)' is no size", advice: "write one such as 10m, or -1 for no limit")
        }
        maxSize = size
      case "max-file":
        guard let count = Int(value), (1...Self.filesMax).contains(count) else {
          throw Refusal(reason: "the log's max-file '\(value)' is no number of files", advice: "write 1 to \(Self.filesMax)")
        }
        maxFiles = count
      default:
        throw Refusal(reason: "the logging option '\(key)' is not supported", advice: "use max-size and max-file")
      }
    }
  }
}
