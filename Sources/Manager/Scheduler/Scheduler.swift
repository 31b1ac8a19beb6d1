import Model

/// What a placement preference spreads over.
public enum SpreadKey: Hashable, Sendable {
  case label(String)
  case engineLabel(String)

  public init?(_ descriptor: String) {
    if descriptor.lowercased().hasPrefix("node.labels."), descriptor.utf8.count > 12 {
      self = .label(String(descriptor.dropFirst(12)))
    } else if descriptor.lowercased().hasPrefix("engine.labels."), descriptor.utf8.count > 14 {
      self = .engineLabel(String(descriptor.dropFirst(14)))
    } else {
      return nil
    }
  }

  /// A node without the label belongs to the group of the empty value.
  public func value(of node: Node) -> String {
    switch self {
    case .label(let name): node.spec.labels?[name] ?? ""
    case .engineLabel(let name): node.description?.engine.labels?[name] ?? ""
    }
  }
}
