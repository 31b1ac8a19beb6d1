import API
import Model

extension NodeInspect {
  /// What is wrong with this host, a sentence each.
  /// - Parameter services: whose ports to name; nil: every port that this host cannot answer.
  public func warnings(for services: [ServiceInspect]? = nil) -> [String] {
    var lines: [String] = []
    if services == nil, status.state == "unknown", let message = status.message, description != nil { lines.append("\(hostname): \(message)") }
    for conflict in description?.portConflicts ?? [] {
      let holders = services.map { services in
        services.filter { ($0.endpoint.ports ?? []).contains { PortClaim($0)?.overlaps(conflict.claim) ?? false } }
      }
      if let holders, holders.isEmpty { continue }
      let names = holders.map { " of " + $0.map(\.spec.name).joined(separator: ", ") } ?? ""
      lines.append(
        "\(hostname): port \(conflict.claim)\(names) is held by \(conflict.holderText), so this host does not answer it; "
          + "the other hosts do. Stop that process, or publish another port")
    }
    return lines
  }
}

extension [NodeInspect] {
  /// By node id.
  public var hostnames: [String: String] { Dictionary(map { ($0.id, $0.hostname) }) { first, _ in first } }
}
