import Model

extension ServiceEdits {
  /// What makes a running cluster want what a backup says, by name: services, networks, volumes, secrets, configs and stacks.
  public struct Restored: Sendable {
    /// In this order, each an entry of the log. Made again from the state that there is then, they do what is left to do.
    public var commands: [Command] = []
    /// "service web_web" and what becomes of it.
    public var lines: [(name: String, change: Change)] = []
    /// What the backup does not have and stays nevertheless.
    public var kept: [String] = []
  }

  /// About so many bytes of specs go into one command; one that is larger by itself goes alone.
  static let restoreBytes = 1 << 20

  /// What exists keeps its id and gets a new revision where it differs; what does not is made with the backup's id; services and stacks that
  /// the backup lacks are removed. Volumes hold data and stay, and so do secrets, configs and networks of no stack. Nodes are left alone.
  public static func restore(
    _ backup: ClusterState, state: ClusterState, now: Timestamp, generator: inout some RandomNumberGenerator
  ) throws(EditError) -> Restored {
    var result = Restored()
    var packer = Packer()
    var networks: [String: NetworkID] = [:]
    for wanted in backup.networks.values.sorted(by: { $0.name < $1.name }) where wanted.spec.ingress != true {
      networks[wanted.name] = try restoreNetwork(wanted, state: state, now: now, generator: &generator, &packer, &result)
    }
    for volume in backup.volumes.values.sorted(by: { $0.name < $1.name }) {
      let exists = state.volumes[volume.name] != nil
      if !exists { packer.add([], [.putVolume(volume)], bytes: 200) }
      result.lines.append(("volume \(volume.name)", exists ? .unchanged : .created))
    }
    let files = try restoreFiles(backup, state: state, &packer, &result)

    let wanted = backup.services.values.filter { !$0.pendingDelete }.sorted { $0.name < $1.name }
    let names = Set(wanted.map(\.name))
    let removed = state.services.values.filter { !$0.pendingDelete && !names.contains($0.name) }.sorted { $0.name < $1.name }
    // Their ports are free for those of the backup.
    for var service in removed {
      let version = service.version
      service.pendingDelete = true
      packer.add([.serviceVersion(service.id, version)], [.putService(service)], bytes: 200)
      result.lines.append(("service \(service.name)", .removed))
    }
    let leaving = Set(removed.map(\.id)).union(wanted.compactMap { state.service(named: $0.name)?.id })
    var numbers: [String: (id: ServiceID, number: UInt64)] = [:]
    for service in wanted {
      guard var spec = backup.spec(of: service) else { throw .invalid("the backup has service \(service.name) without its spec: it is damaged") }
      // By name: ids are the cluster's of today.
      for index in spec.taskTemplate.networks?.indices ?? 0..<0 {
        let target = spec.taskTemplate.networks![index].target
        if let name = NetworkID(target).flatMap({ backup.networks[$0]?.name }) { spec.taskTemplate.networks![index].target = name }
      }
      for index in spec.taskTemplate.containerSpec.files.indices { spec.taskTemplate.containerSpec.files[index].id = "" }
      // Sealed with the other cluster's key: `--with-registry-auth` gives it anew.
      if backup.cluster?.id != state.cluster?.id { spec.registryLogin = nil }
      let old = state.service(named: service.name).flatMap { $0.pendingDelete ? nil : $0 }
      spec = try checked(spec, replacing: old, state: state, known: networks, files: files, leaving: leaving)
      let bytes = String(describing: spec).utf8.count
      if let old {
        let same = state.spec(of: old) == spec
        if !same { packer.add([.serviceVersion(old.id, old.version)], try updateActions(old, to: spec, state: state, now: now), bytes: bytes) }
        result.lines.append(("service \(service.name)", same ? .unchanged : .updated))
        numbers[service.name] = (old.id, same ? old.current : old.latest + 1)
      } else {
        let id = state.services[service.id] == nil ? service.id : ServiceID.random(using: &generator)
        packer.add([], newService(id, spec, now: now), bytes: bytes)
        result.lines.append(("service \(service.name)", .created))
        numbers[service.name] = (id, 1)
      }
    }
    try restoreStacks(backup, state: state, now: now, networks: networks, numbers: numbers, &packer, &result)
    result.kept = kept(backup, state: state)
    result.commands = packer.commands
    return result
  }

  private static func restoreNetwork(
    _ wanted: Network, state: ClusterState, now: Timestamp, generator: inout some RandomNumberGenerator, _ packer: inout Packer,
    _ result: inout Restored
  ) throws(EditError) -> NetworkID {
    if let old = state.network(named: wanted.name) {
      var comparable = old.spec
      comparable.labels = wanted.spec.labels
      guard comparable == wanted.spec else {
        throw .conflict("network \(wanted.name) exists and is another than the backup's: remove it and what uses it first, then restore again")
      }
      result.lines.append(("network \(wanted.name)", .unchanged))
      return old.id
    }
    try check(wanted.spec, state: state)
    let id = state.networks[wanted.id] == nil ? wanted.id : NetworkID.random(using: &generator)
    packer.add([], [.putNetwork(Network(id: id, spec: wanted.spec, createdAt: now))], bytes: 500)
    result.lines.append(("network \(wanted.name)", .created))
    return id
  }

  /// A secret is sealed under its id and the cluster's data key, so it comes back with its id, and to its own cluster only.
  private static func restoreFiles(
    _ backup: ClusterState, state: ClusterState, _ packer: inout Packer, _ result: inout Restored
  ) throws(EditError) -> [StoredFile.Name: FileID] {
    var ids: [StoredFile.Name: FileID] = [:]
    let isOwn = backup.cluster?.id == state.cluster?.id
    for file in backup.files.values.sorted(by: { ($0.kind.rawValue, $0.name) < ($1.kind.rawValue, $1.name) }) {
      let name = "\(file.kind.rawValue) \(file.name)"
      if let old = state.file(file.kind, named: file.name) {
        guard old.id == file.id || (file.kind == .config ? old.data == file.data : !isOwn) else {
          throw .conflict("\(name) exists and is another than the backup's: remove it and what uses it first, then restore again")
        }
        ids[file.fullName] = old.id
        result.lines.append((name, .unchanged))
        continue
      }
      if file.kind == .secret, !isOwn {
        throw .conflict("\(name) is sealed with the other cluster's key: create it here first (orch secret create \(file.name))")
      }
      ids[file.fullName] = file.id
      packer.add([], [.putFile(file)], bytes: file.data.count + 200)
      result.lines.append((name, .created))
    }
    return ids
  }

  private static func restoreStacks(
    _ backup: ClusterState, state: ClusterState, now: Timestamp, networks: [String: NetworkID],
    numbers: [String: (id: ServiceID, number: UInt64)], _ packer: inout Packer, _ result: inout Restored
  ) throws(EditError) {
    let wanted = backup.stacks.values.filter { !$0.isBeingRemoved }.sorted { $0.name < $1.name }
    for stack in wanted {
      let old = state.stacks[stack.name]
      if let old, old.isBeingRemoved { throw .conflict("stack \(stack.name) is still being removed: try again in a moment") }
      var new = old ?? Stack(name: stack.name, createdAt: now)
      new.manifest = stack.manifest
      new.services = [:]
      for id in stack.services.keys {
        guard let name = backup.services[id]?.name, let made = numbers[name] else { continue }
        new.services[made.id] = made.number
      }
      new.networks = stack.networks.compactMap { backup.networks[$0].flatMap { networks[$0.name] } }
      new.volumes = stack.volumes + (old?.volumes ?? []).filter { !stack.volumes.contains($0) }
      if new == old {
        result.lines.append(("stack \(stack.name)", .unchanged))
        continue
      }
      new.revision = old.map { $0.revision + 1 } ?? stack.revision
      new.updatedAt = now
      packer.add([.stackRevision(stack.name, old?.revision ?? 0)], [.putStack(new)], bytes: stack.manifest.utf8.count + 200)
      result.lines.append(("stack \(stack.name)", old == nil ? .created : .updated))
    }
    let names = Set(wanted.map(\.name))
    for var stack in state.stacks.values.sorted(by: { $0.name < $1.name }) where !names.contains(stack.name) && !stack.isBeingRemoved {
      // As `removeStack`: the reconciler removes its networks and its row once the services are gone.
      stack.services = [:]
      stack.manifest = ""
      stack.updatedAt = now
      packer.add([.stackRevision(stack.name, stack.revision)], [.putStack(stack)], bytes: 200)
      result.lines.append(("stack \(stack.name)", .removed))
    }
  }

  private static func kept(_ backup: ClusterState, state: ClusterState) -> [String] {
    let volumes = state.volumes.keys.filter { backup.volumes[$0] == nil }.map { "volume \($0)" }
    let networks = state.networks.values.filter {
      $0.spec.ingress != true && backup.network(named: $0.name) == nil && $0.spec.labels?[StackLabel.namespace] == nil
    }.map { "network \($0.name)" }
    let files = state.files.values.filter { backup.file($0.kind, named: $0.name) == nil }.map { "\($0.kind.rawValue) \($0.name)" }
    return (volumes + networks + files).sorted()
  }

  /// Changes in as few commands as fit.
  private struct Packer {
    var commands: [Command] = []
    private var bytes = 0

    mutating func add(_ conditions: [Condition], _ actions: [Action], bytes count: Int) {
      if commands.isEmpty || (bytes > 0 && bytes + count > ServiceEdits.restoreBytes) {
        commands.append(Command(actions: []))
        bytes = 0
      }
      commands[commands.count - 1].conditions += conditions
      commands[commands.count - 1].actions += actions
      bytes += count
    }
  }
}
