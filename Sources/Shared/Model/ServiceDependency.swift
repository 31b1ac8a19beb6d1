/// Compose's `depends_on`: how far another service must be before the first tasks of a service are started.
public struct ServiceDependency: Hashable, Sendable {
  public enum Condition: String, Sendable, CaseIterable {
    case started = "service_started"
    case healthy = "service_healthy"
    case completed = "service_completed_successfully"
  }
  /// As the manifest has it, without the stack.
  public var service: String
  public var condition: Condition
  public init(service: String, condition: Condition) {
    self.service = service
    self.condition = condition
  }
}

extension ServiceSpec {
  /// Kept in docker compose's own label ("db:service_healthy:false,…": service, condition, restart), so that Docker's clients, which know no
  /// such field, send it back as it was. What is not well-formed there is no dependency.
  public var dependencies: [ServiceDependency] {
    get {
      (labels?[StackLabel.dependsOn] ?? "").split(separator: ",").compactMap { text in
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count >= 2, !parts[0].isEmpty, let condition = ServiceDependency.Condition(rawValue: String(parts[1])) else { return nil }
        return ServiceDependency(service: String(parts[0]), condition: condition)
      }
    }
    set {
      let text = newValue.map { "\($0.service):\($0.condition.rawValue):false" }.joined(separator: ",")
      if text.isEmpty { labels?[StackLabel.dependsOn] = nil } else { labels = (labels ?? [:]).merging([StackLabel.dependsOn: text]) { $1 } }
    }
  }
}
