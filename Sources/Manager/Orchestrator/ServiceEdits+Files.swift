import Model

/// Secrets and configs: what users do to them, and what services say of them.
extension ServiceEdits {
  /// Labels alone can change (Docker's rule: another content is another name, so that services roll).
  public static func updateFile(
    _ id: FileID, labels: [String: String], version: UInt64, state: ClusterState, now: Timestamp
  ) throws(EditError) -> Command {
    guard var file = state.files[id] else { throw .notFound("secret or config \(id) not found") }
    guard file.version == version else { throw .outOfSequence }
    file.labels = labels
    file.updatedAt = now
    return Command(conditions: [.fileVersion(id, version)], actions: [.putFile(file)])
  }

  public static func removeFile(_ id: FileID, state: ClusterState) throws(EditError) -> Command {
    guard let file = state.files[id] else { throw .notFound("secret or config \(id) not found") }
    let users = state.users(of: id)
    guard users.isEmpty else {
      throw .invalid(
        "\(file.kind.rawValue) '\(file.name)' is in use by the following service\(users.count == 1 ? "" : "s"): \(users.joined(separator: ", "))")
    }
    return Command(actions: [.removeFile(id)])
  }

  /// What a new one must be. The rule for names is swarmkit's (`api/validation`): it becomes a file's name.
  public static func check(_ kind: StoredFile.Kind, name: String, size: Int) throws(EditError) {
    let bytes = Array(name.utf8)
    func isAlphanumeric(_ byte: UInt8) -> Bool { (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) }
    guard (1...64).contains(bytes.count), isAlphanumeric(bytes[0]), isAlphanumeric(bytes[bytes.count - 1]),
      bytes.allSatisfy({ isAlphanumeric($0) || $0 == 45 || $0 == 95 || $0 == 46 })
    else {
      throw .invalid(
        "\(kind.rawValue) name '\(name)' is not valid: 1 to 64 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit")
    }
    guard size > 0, size < kind.sizeBound else {
      throw .invalid("\(kind.rawValue) data must be larger than 0 and less than \(kind.sizeBound) bytes; that of \(name) has \(size)")
    }
  }

  /// Nobody removes meanwhile what the spec was checked against.
  static func fileConditions(_ spec: ServiceSpec, _ state: ClusterState) -> [Condition] {
    spec.taskTemplate.containerSpec.files.compactMap { FileID($0.id) }.filter { state.files[$0] != nil }.map { .fileExists($0) }
  }

  /// References by id, or by name where a client gave no id, with the id and every default written out.
  static func resolve(
    _ references: [FileReference], service: String, state: ClusterState, known: [StoredFile.Name: FileID]
  ) throws(EditError) -> [FileReference] {
    var resolved: [FileReference] = []
    var missing: [String] = []
    for var reference in references {
      let kind = reference.kind.rawValue
      if let id = FileID(reference.id), let file = state.files[id], file.kind == reference.kind {
        guard reference.name.isEmpty || reference.name == file.name else {
          throw .invalid("service \(service): \(kind) \(id) is called \(file.name), not \(reference.name)")
        }
        reference.name = file.name
      } else if let id = known[.init(reference.kind, reference.name)] ?? state.file(reference.kind, named: reference.name)?.id,
        reference.id.isEmpty || reference.id == id.description
      {
        reference.id = id.description
      } else {
        missing.append("\(kind) \(reference.name.isEmpty ? reference.id : reference.name)")
        continue
      }
      try checkTarget(&reference, service)
      if let other = resolved.first(where: { $0.path == reference.path }) {
        throw .invalid(
          "service \(service): \(other.kind.rawValue) '\(other.name)' and \(kind) '\(reference.name)' have a conflicting target: \(reference.path)")
      }
      resolved.append(reference)
    }
    if !missing.isEmpty {
      throw .invalid("service \(service): \(missing.joined(separator: ", ")) not found: create it first (orch secret create, orch config create)")
    }
    return resolved
  }

  private static func checkTarget(_ reference: inout FileReference, _ service: String) throws(EditError) {
    var target = reference.target ?? FileTarget(name: reference.name)
    if target.name.isEmpty { target.name = reference.name }
    for (what, text) in [("uid", target.uid), ("gid", target.gid)] {
      if let text, !text.isEmpty, UInt32(text).map({ $0 == .max }) != false {
        throw .invalid("service \(service): \(reference.kind.rawValue) \(reference.name) has the \(what) '\(text)', which is no number of one")
      }
    }
    if target.uid?.isEmpty != false { target.uid = "0" }
    if target.gid?.isEmpty != false { target.gid = "0" }
    let mode = target.mode ?? FileTarget.defaultMode
    guard mode <= 0o7777 else {
      throw .invalid("service \(service): \(reference.kind.rawValue) \(reference.name) has the mode \(mode), which is over 07777")
    }
    target.mode = mode
    reference.target = target
    let parts = reference.path.split(separator: "/", omittingEmptySubsequences: true)
    guard !parts.isEmpty, !reference.path.hasSuffix("/"), !parts.contains(".."), !parts.contains("."), !reference.path.utf8.contains(0) else {
      throw .invalid("service \(service): the target '\(target.name)' of \(reference.kind.rawValue) \(reference.name) names no file")
    }
  }
}
