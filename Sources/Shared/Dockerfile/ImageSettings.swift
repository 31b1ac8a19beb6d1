/// What a Dockerfile says of a container (OCI image specification, config.md).
public struct ImageSettings: Hashable, Sendable {
  public var env: [String] = []
  public var entrypoint: [String] = []
  public var cmd: [String] = []
  public var workingDir = ""
  public var user = ""
  /// "80/tcp"; sorted.
  public var exposedPorts: [String] = []
  /// Sorted.
  public var volumes: [String] = []
  public var labels: [String: String] = [:]
  public var stopSignal: String?
  public var shell: [String] = []
  public var onbuild: [String] = []
  public var author: String?
  public var health: Health?
  public struct Health: Hashable, Sendable {
    /// ["NONE"], ["CMD", …] or ["CMD-SHELL", line].
    public var test: [String]
    /// Nanoseconds.
    public var interval: Int64?
    public var timeout: Int64?
    public var startPeriod: Int64?
    public var startInterval: Int64?
    public var retries: Int?
    public init(
      test: [String], interval: Int64? = nil, timeout: Int64? = nil, startPeriod: Int64? = nil, startInterval: Int64? = nil, retries: Int? = nil
    ) {
      (self.test, self.interval, self.timeout) = (test, interval, timeout)
      (self.startPeriod, self.startInterval, self.retries) = (startPeriod, startInterval, retries)
    }
  }
  public init() {}

  mutating func set(_ name: String, _ value: String) {
    let entry = "\(name)=\(value)"
    if let index = env.firstIndex(where: { $0.hasPrefix(name + "=") }) { env[index] = entry } else { env.append(entry) }
  }
  func variable(_ name: String) -> String? {
    env.last { $0.hasPrefix(name + "=") }.map { String($0.dropFirst(name.count + 1)) }
  }
}
