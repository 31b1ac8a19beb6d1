import Model

/// Top-level `secrets` and `configs`, and what services say of them (Compose specification, 08-configs.md, 09-secrets.md).
extension Reader {
  func readFiles(_ kind: StoredFile.Kind, _ value: Value, _ stack: inout Declarations) {
    for entry in entries(value) ?? [] {
      var name = "\(stack.name)_\(entry.key)"
      var file: StackFile?
      if entry.value.isNull {
        error(entry.position, entry.value.path, "the \(kind) says not where its content is", "write file: or environment:, or external: true")
      } else if var fields = Fields(entry.value, self) {
        let external = readExternal(&fields, name: &name, key: entry.key)
        var labels = fields.take("labels").map { dictionary($0) } ?? [:]
        let source = readSource(kind, &fields, entry, external: external)
        fields.finish(KeyRules.file)
        if !external, let source {
          labels[StackLabel.namespace] = stack.name
          file = StackFile(kind: kind, name: name, labels: labels, source: source)
        }
        if !isObjectName(name) {
          error(
            entry.position, entry.value.path, "'\(name)' cannot be a \(kind)'s name",
            "use at most 63 letters, digits, '-', '_' and '.', a letter or digit first and last")
        }
      }
      let key = StoredFile.Name(kind, entry.key)
      stack.files[key] = .init(name: name, file: file)
      stack.fileOrder.append(key)
    }
  }

  private func readSource(_ kind: StoredFile.Kind, _ fields: inout Fields, _ entry: Value.Entry, external: Bool) -> StackFile.Source? {
    let (path, variable) = (fields.take("file"), fields.take("environment"))
    let content = kind == .config ? fields.take("content") : nil
    let given = [path, variable, content].compactMap { $0 }
    if external {
      if let first = given.first { error(first, "an external \(kind) has its content in the cluster already", "remove it, or remove external") }
      return nil
    }
    guard given.count == 1 else {
      let choices = kind == .config ? "file, environment or content" : "file or environment"
      error(
        given.last?.position ?? entry.position, given.last?.path ?? entry.value.path,
        given.isEmpty ? "the \(kind) says not where its content is" : "the \(kind) says more than once where its content is",
        "write one of \(choices), or external: true")
      return nil
    }
    if let content { return text(content).map { .text($0) } }
    if let variable, let name = nonEmpty(variable, "a variable's name") {
      guard let value = environment[name], !value.isEmpty else {
        error(variable, "the variable '\(name)' is not set", "set it where the manifest is deployed")
        return nil
      }
      return .text(value)
    }
    guard let path, let name = nonEmpty(path, "a path"), let full = resolve(name, path) else { return nil }
    guard readFile(full) != nil else {
      error(path, "the file '\(full)' cannot be read", "make it: it is brought to the cluster when the manifest is deployed")
      return nil
    }
    return .path(full)
  }

  /// A list of names, or of maps with source, target, uid, gid and mode.
  func readReferences(_ kind: StoredFile.Kind, _ fields: inout Fields, _ stack: Declarations) -> [FileReference] {
    guard let value = fields.take("\(kind)s") else { return [] }
    guard case .list(let items) = value.kind else {
      error(value, "expected a list of \(kind)s, found \(value.found)", "write '- NAME'")
      return []
    }
    var references: [FileReference] = []
    for item in items {
      guard let reference = readReference(kind, item, stack) else { continue }
      if references.contains(where: { $0.path == reference.path }) {
        error(item, "another \(kind) is at '\(reference.path)' already", "give one of them another target")
      }
      references.append(reference)
    }
    return references
  }

  private func readReference(_ kind: StoredFile.Kind, _ value: Value, _ stack: Declarations) -> FileReference? {
    guard case .map = value.kind else { return nonEmpty(value, "a \(kind)'s name").flatMap { reference(kind, $0, value, stack) } }
    guard var fields = Fields(value, self) else { return nil }
    defer { fields.finish() }
    guard let source = fields.take("source") else {
      error(value, "'source' is missing", "name one of the \(kind)s under top-level '\(kind)s'")
      return nil
    }
    guard let key = nonEmpty(source, "a \(kind)'s name"), var reference = reference(kind, key, source, stack) else { return nil }
    if let target = fields.take("target"), let name = nonEmpty(target, "a file's name or an absolute path") {
      let parts = name.split(separator: "/")
      if parts.isEmpty || parts.contains("..") || name.hasSuffix("/") || name.contains("\0") {
        error(target, "'\(name)' names no file", "write a name for \(kind.folder)NAME, or an absolute path")
      }
      reference.target?.name = name
    }
    reference.target?.uid = fields.take("uid").flatMap { owner($0) } ?? "0"
    reference.target?.gid = fields.take("gid").flatMap { owner($0) } ?? "0"
    if let value = fields.take("mode") { reference.target?.mode = text(value).flatMap { mode($0, value) } ?? FileTarget.defaultMode }
    return reference
  }

  private func reference(_ kind: StoredFile.Kind, _ key: String, _ value: Value, _ stack: Declarations) -> FileReference? {
    guard let declared = stack.files[.init(kind, key)] else {
      let near = nearest(to: key, among: stack.files.keys.filter { $0.kind == kind }.map(\.name))
      error(value, "the \(kind) '\(key)' is not declared", near.map { "did you mean '\($0)'?" } ?? "add it under top-level '\(kind)s'")
      return nil
    }
    return FileReference(
      kind: kind, target: FileTarget(name: key, uid: "0", gid: "0", mode: FileTarget.defaultMode), id: "", name: declared.name)
  }

  private func owner(_ value: Value) -> String? {
    guard let text = text(value) else { return nil }
    if let number = UInt32(text), number < .max { return text }
    error(value, "expected a number such as 1000, found \(value.found)", "names are the image's; give the number")
    return nil
  }
}
