/// A measurement as Prometheus reads it (text exposition format 0.0.4).
public struct Metric: Sendable {
  public enum Kind: String, Sendable { case counter, gauge }
  public struct Sample: Sendable {
    /// In the order in which they are written.
    public var labels: KeyValuePairs<String, String>
    var value: String
    public init(_ value: UInt64, _ labels: KeyValuePairs<String, String> = [:]) { (self.value, self.labels) = ("\(value)", labels) }
    /// In seconds, as Prometheus wants times, to the microsecond.
    public init(_ value: Duration, _ labels: KeyValuePairs<String, String> = [:]) {
      let (seconds, attoseconds) = value.components
      let fraction = "\(attoseconds / 1_000_000_000_000)"
      self.value = "\(seconds).\(String(repeating: "0", count: max(0, 6 - fraction.utf8.count)))\(fraction)"
      self.labels = labels
    }
  }
  /// `orch_dns_questions_total`: what it is of, and its unit or `total` last.
  public var name: String
  public var help: String
  public var kind: Kind
  public var samples: [Sample]
  public init(_ name: String, _ kind: Kind, _ help: String, _ samples: [Sample]) {
    (self.name, self.kind, self.help, self.samples) = (name, kind, help, samples)
  }

  public var text: String {
    func escaped(_ text: String) -> String { text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n") }
    let lines = samples.map { sample in
      let labels = sample.labels.map { "\($0.key)=\"\(escaped($0.value))\"" }.joined(separator: ",")
      return "\(name)\(labels.isEmpty ? "" : "{\(labels)}") \(sample.value)\n"
    }
    return "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n\(lines.joined())"
  }
}
