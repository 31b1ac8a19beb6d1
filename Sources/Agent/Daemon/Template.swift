import Model

/// Swarm's placeholders in environment, hostname and mounts (moby: "Create services using templates").
struct Template {
  private let values: [(String, String)]

  init(order: TaskOrder, node: NodeID) {
    let facts = HostFacts.description()
    let task = order.task
    values =
      [
        ("Service.ID", "\(task.service)"), ("Service.Name", order.spec.name), ("Node.ID", "\(node)"), ("Node.Hostname", facts.hostname),
        ("Node.Platform.Architecture", facts.platform.architecture ?? ""), ("Node.Platform.OS", facts.platform.os ?? ""),
        ("Task.ID", "\(task.id)"), ("Task.Name", order.name), ("Task.Slot", task.slot > 0 ? "\(task.slot)" : "\(node)"),
      ] + (order.spec.labels ?? [:]).map { ("index .Service.Labels \"\($0.key)\"", $0.value) }
  }

  /// As swarmkit does it (template/expand.go): the source, the target and the labels of a volume.
  func expand(_ mount: Mount) -> Mount {
    var mount = mount
    mount.source = mount.source.map(expand)
    mount.target = expand(mount.target)
    if let labels = mount.volumeOptions?.labels { mount.volumeOptions?.labels = labels.mapValues(expand) }
    return mount
  }

  /// An unknown placeholder stays as it is.
  func expand(_ text: String) -> String {
    guard text.contains("{{") else { return text }
    var result = ""
    var rest = text[...]
    while let open = rest.range(of: "{{"), let close = rest[open.upperBound...].range(of: "}}") {
      result += rest[..<open.lowerBound]
      let inside = rest[open.upperBound..<close.lowerBound].trimming(while: { $0 == " " })
      let name = inside.hasPrefix(".") ? String(inside.dropFirst()) : String(inside)
      result += values.first { $0.0 == name }?.1 ?? String(rest[open.lowerBound..<close.upperBound])
      rest = rest[close.upperBound...]
    }
    return result + rest
  }
}

extension Substring {
  fileprivate func trimming(while drop: (Character) -> Bool) -> Substring {
    var part = self[...]
    while let first = part.first, drop(first) { part.removeFirst() }
    while let last = part.last, drop(last) { part.removeLast() }
    return part
  }
}
