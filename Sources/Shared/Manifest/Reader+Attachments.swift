import Model

extension Reader {
  /// A service's networks; the stack's own when it names none. Its short name is an alias everywhere, as Docker's stacks have it.
  func readAttachments(_ fields: inout Fields, service: String, _ stack: inout Declarations) -> [NetworkAttachmentConfig] {
    if let mode = fields.take("network_mode") {
      if let other = fields.take("networks") { error(other, "'networks' and 'network_mode' do not go together", "keep one of them") }
      switch text(mode) {
      case Network.hostName: return [.init(target: Network.hostName)]
      case Network.noneName: return [.init(target: Network.noneName)]
      case "bridge", "default": return [.init(target: stack.defaultNetwork(), aliases: [service])]
      case nil: return []
      case let name?:
        error(mode, "the network mode '\(name)' is not supported", "use host or none, or 'networks': a task shares no other's network")
        return []
      }
    }
    guard let value = fields.take("networks") else {
      return [.init(target: stack.defaultNetwork(), aliases: [service])]
    }
    var names: [(name: String, position: Value.Position, options: Value?)] = []
    switch value.kind {
    case .list(let items): names = items.compactMap { item in nonEmpty(item, "a network's name").map { ($0, item.position, nil) } }
    case .map(let entries): names = entries.map { ($0.key, $0.position, $0.value.isNull ? nil : $0.value) }
    default: error(value, "expected a list or a map of networks, found \(value.found)")
    }
    var result: [NetworkAttachmentConfig] = []
    for (name, position, options) in names {
      let path = "\(value.path).\(name)"
      var aliases = [service]
      if let options, var fields = Fields(options, self) {
        if let list = fields.take("aliases") {
          for alias in texts(list, "a list of names") ?? [] where !aliases.contains(alias) {
            if !isObjectName(alias) { error(list, "'\(alias)' cannot be an alias", "use letters, digits, '-', '_' and '.'") }
            aliases.append(alias)
          }
        }
        fields.finish(KeyRules.attachment)
      }
      let target: String
      if name == "default" {
        target = stack.defaultNetwork()
      } else if let declared = stack.networks[name] {
        target = declared.spec.name
      } else {
        let near = nearest(to: name, among: stack.networks.keys)
        error(position, path, "the network '\(name)' is not declared", near.map { "did you mean '\($0)'?" } ?? "add it under top-level 'networks'")
        continue
      }
      if result.contains(where: { $0.target == target }) {
        error(position, path, "the network '\(name)' is named twice", "keep one of them")
      } else {
        result.append(.init(target: target, aliases: aliases))
      }
    }
    return result
  }
}
