/// Swarm's placeholders in environment, hostname and mounts, as one task on one host has them (moby: "Create services using templates").
public struct Placeholders: Sendable {
  private let values: [(String, String)]

  /// - Parameters:
  ///   - spec: of the task's revision.
  ///   - hostname: of `node`, as its platform.
  public init(_ task: ClusterTask, _ spec: ServiceSpec, node: NodeID, hostname: String, platform: Platform?) {
    values =
      [
        ("Service.ID", "\(task.service)"), ("Service.Name", spec.name), ("Node.ID", "\(node)"), ("Node.Hostname", hostname),
        ("Node.Platform.Architecture", platform?.architecture ?? ""), ("Node.Platform.OS", platform?.os ?? ""),
        ("Task.ID", "\(task.id)"), ("Task.Name", task.containerName(spec)), ("Task.Slot", task.slot > 0 ? "\(task.slot)" : "\(node)"),
      ] + (spec.labels ?? [:]).map { ("index .Service.Labels \"\($0.key)\"", $0.value) }
  }

  /// As swarmkit does it (template/expand.go): the source, the target and the labels of a volume.
  public func expand(_ mount: Mount) -> Mount {
    var mount = mount
    mount.source = mount.source.map(expand)
    mount.target = expand(mount.target)
    if let labels = mount.volumeOptions?.labels { mount.volumeOptions?.labels = labels.mapValues(expand) }
    return mount
  }

  /// An unknown placeholder stays as it is.
  public func expand(_ text: String) -> String {
    guard text.contains("{{") else { return text }
    var result = ""
    var rest = text[...]
    while let open = rest.firstRange(of: "{{"), let close = rest[open.upperBound...].firstRange(of: "}}") {
      result += rest[..<open.lowerBound]
      let inside = rest[open.upperBound..<close.lowerBound].trimming(while: { $0 == " " })
      let name = inside.hasPrefix(".") ? String(inside.dropFirst()) : String(inside)
      result += values.first { $0.0 == name }?.1 ?? String(rest[open.lowerBound..<close.upperBound])
      rest = rest[close.upperBound...]
    }
    return result + rest
  }
}

extension ClusterTask {
  /// Docker's: service.slot.task, or service.node.task for a global one.
  public func containerName(_ spec: ServiceSpec) -> String { "\(spec.name).\(slot > 0 ? "\(slot)" : node?.description ?? "").\(id)" }

  /// The volumes that its service names for it, its placeholders filled in. Parameters: as those of `Placeholders`.
  public func volumeNames(_ spec: ServiceSpec, node: NodeID, hostname: String, platform: Platform?) -> [String] {
    let named = (spec.taskTemplate.containerSpec.mounts ?? []).filter { $0.volumeName != nil }
    if named.isEmpty { return [] }
    let placeholders = Placeholders(self, spec, node: node, hostname: hostname, platform: platform)
    return named.compactMap { placeholders.expand($0).volumeName }
  }
}

extension Mount {
  /// The name of the volume that it mounts, as it is written; nil: none, or one of the task's own.
  public var volumeName: String? { (type ?? .volume) == .volume ? source.flatMap { $0.isEmpty ? nil : $0 } : nil }
}

extension Substring {
  fileprivate func trimming(while drop: (Character) -> Bool) -> Substring {
    var part = self[...]
    while let first = part.first, drop(first) { part.removeFirst() }
    while let last = part.last, drop(last) { part.removeLast() }
    return part
  }
}
