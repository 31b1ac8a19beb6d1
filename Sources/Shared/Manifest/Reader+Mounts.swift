import Model

extension Reader {
  func readMounts(_ fields: inout Fields, _ stack: Declarations) -> [Mount]? {
    var mounts: [(mount: Mount, value: Value)] = []
    if let value = fields.take("volumes") {
      if case .list(let items) = value.kind {
        for item in items {
          let mount: Mount? = if case .map = item.kind { longMount(item, stack) } else { shortMount(item, stack) }
          if let mount { mounts.append((mount, item)) }
        }
      } else {
        error(value, "expected a list of volumes, found \(value.found)", "write '- NAME:/path'")
      }
    }
    if let value = fields.take("tmpfs") {
      for item in oneOrMore(value) {
        if let mount = tmpfs(item.text, item.value) { mounts.append((mount, item.value)) }
      }
    }
    // Docker's services have no other word for it either.
    if let value = fields.take("shm_size"), let size = bytes(value, minimum: 4096) {
      var mount = Mount(type: .tmpfs, source: nil, target: "/dev/shm")
      mount.tmpfsOptions = Mount.TmpfsOptions()
      mount.tmpfsOptions?.sizeBytes = size
      mounts.append((mount, value))
    }
    var targets: Set<String> = []
    for (mount, value) in mounts where !targets.insert(mount.target).inserted {
      error(value, "something else is mounted at '\(mount.target)' already", "mount it elsewhere")
    }
    return mounts.isEmpty ? nil : mounts.map(\.mount)
  }

  /// `[SOURCE:]TARGET[:OPTION,...]`
  private func shortMount(_ value: Value, _ stack: Declarations) -> Mount? {
    guard let text = nonEmpty(value, "SOURCE:TARGET") else { return nil }
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    guard parts.count <= 3, !parts.contains("") else {
      error(value, "expected SOURCE:TARGET or SOURCE:TARGET:ro, found \(value.found)")
      return nil
    }
    let source = parts.count == 1 ? nil : parts[0]
    let target = parts.count == 1 ? parts[0] : parts[1]
    guard let target = absolute(Value(kind: .scalar(target, quoted: true), position: value.position, path: value.path)), target != "/" else {
      if target == "/" { error(value, "nothing can be mounted at '/'", "name a folder below it") }
      return nil
    }
    guard var mount = mount(source, target, value, stack) else { return nil }
    for option in parts.count == 3 ? parts[2].split(separator: ",") : [] {
      switch option {
      case "ro": mount.readOnly = true
      case "rw": mount.readOnly = false
      case "nocopy" where mount.type == .volume: mount.volumeOptions?.noCopy = true
      case "z", "Z": warning(value, "the option '\(option)' is ignored", "SELinux labels are not changed")
      case "cached", "delegated", "consistent": warning(value, "the option '\(option)' is ignored", "it is for Docker Desktop")
      case "private", "rprivate", "shared", "rshared", "slave",
        "rslave" where mount.type == .bind:
        mount.bindOptions = mount.bindOptions ?? Mount.BindOptions()
        mount.bindOptions?.propagation = String(option)
        checkPropagation(mount.bindOptions, value)
      default: error(value, "unknown option '\(option)'", mount.type == .volume ? "use ro, rw or nocopy" : "use ro or rw")
      }
    }
    return mount
  }

  /// A source that begins with '.', '/' or '~' is a path, anything else a declared volume.
  private func mount(_ source: String?, _ target: String, _ value: Value, _ stack: Declarations) -> Mount? {
    guard let source else {
      var mount = Mount(type: .volume, source: nil, target: target)
      mount.volumeOptions = Mount.VolumeOptions()
      mount.volumeOptions?.labels = [StackLabel.namespace: stack.name]
      return mount
    }
    if source.hasPrefix(".") || source.hasPrefix("/") || source.hasPrefix("~") {
      return resolve(source, value).map { Mount(type: .bind, source: $0, target: target) }
    }
    return named(source, target, value, stack)
  }

  private func named(_ source: String, _ target: String, _ value: Value, _ stack: Declarations) -> Mount? {
    guard let declared = stack.volumes[source] else {
      let near = nearest(to: source, among: stack.volumes.keys)
      error(
        value, "the volume '\(source)' is not declared",
        near.map { "did you mean '\($0)'?" } ?? "add it under top-level 'volumes', or write './\(source)' for a folder beside the manifest")
      return nil
    }
    var mount = Mount(type: .volume, source: declared.name, target: target)
    mount.volumeOptions = Mount.VolumeOptions()
    mount.volumeOptions?.labels = declared.volume?.labels
    return mount
  }

  private func longMount(_ value: Value, _ stack: Declarations) -> Mount? {
    guard var fields = Fields(value, self) else { return nil }
    defer { fields.finish(KeyRules.mount) }
    let typeValue = fields.take("type")
    if typeValue == nil { error(value, "'type' is missing", "write type: volume, bind or tmpfs") }
    let type = typeValue.flatMap { choice($0, [Mount.Kind.volume, .bind, .tmpfs]) }
    let source = fields.take("source")
    let targetValue = fields.take("target")
    if targetValue == nil { error(value, "'target' is missing", "name the path in the container") }
    let target = targetValue.flatMap { absolute($0) }
    let readOnly = fields.take("read_only").flatMap { bool($0) } ?? false
    let options = (bind: fields.take("bind"), volume: fields.take("volume"), tmpfs: fields.take("tmpfs"))
    guard let type, let target else { return nil }
    for (kind, option) in [(Mount.Kind.bind, options.bind), (.volume, options.volume), (.tmpfs, options.tmpfs)] where kind != type {
      if let option { error(option, "'\(kind.rawValue)' options for a mount of type \(type.rawValue)", "remove them") }
    }
    var mount: Mount
    switch type {
    case .tmpfs:
      if let source { error(source, "a tmpfs has no source", "remove it") }
      mount = Mount(type: .tmpfs, source: nil, target: target)
      if let options = options.tmpfs { mount.tmpfsOptions = tmpfsOptions(options) }
    case .bind:
      guard let source, let path = nonEmpty(source, "a path"), let full = resolve(path, source) else {
        if source == nil { error(value, "'source' is missing", "name the folder or file of the host") }
        return nil
      }
      mount = Mount(type: .bind, source: full, target: target)
      if let options = options.bind { mount.bindOptions = bindOptions(options) }
    case .volume:
      guard let made = source.map({ source in text(source).flatMap { named($0, target, source, stack) } }) ?? self.mount(nil, target, value, stack)
      else { return nil }
      mount = made
      if let options = options.volume, var fields = Fields(options, self) {
        mount.volumeOptions?.noCopy = fields.take("nocopy").flatMap { bool($0) }
        if let labels = fields.take("labels") { mount.volumeOptions?.labels?.merge(dictionary(labels)) { $1 } }
        if let path = fields.take("subpath") {
          mount.volumeOptions?.subpath = nonEmpty(path, "a path")
          if mount.volumeOptions?.subpath?.split(separator: "/").contains("..") == true {
            error(path, "the path leaves the volume", "write it without '..'")
          }
        }
        fields.finish()
      }
    }
    mount.readOnly = readOnly
    return mount
  }

  private func bindOptions(_ value: Value) -> Mount.BindOptions? {
    guard var fields = Fields(value, self) else { return nil }
    var options = Mount.BindOptions()
    options.createMountpoint = fields.take("create_host_path").flatMap { bool($0) }
    if let value = fields.take("propagation"), let name = text(value) {
      options.propagation = name
      checkPropagation(options, value)
    }
    if let value = fields.take("recursive"), let name = text(value) {
      options.nonRecursive = name == "disabled"
      if name != "enabled", name != "disabled" { error(value, "expected one of 'enabled', 'disabled', found \(value.found)") }
    }
    fields.finish(KeyRules.bind)
    return options
  }

  private func checkPropagation(_ options: Mount.BindOptions?, _ value: Value) {
    guard let name = options?.foreignPropagation else { return }
    error(value, "the propagation '\(name)' is not supported", "remove it: \(Mount.BindOptions.propagationAdvice)")
  }

  private func tmpfsOptions(_ value: Value) -> Mount.TmpfsOptions? {
    guard var fields = Fields(value, self) else { return nil }
    var options = Mount.TmpfsOptions()
    options.sizeBytes = fields.take("size").flatMap { bytes($0) }
    options.mode = fields.take("mode").flatMap { text($0) }.flatMap { mode($0, value) }
    fields.finish()
    return options
  }

  /// `/path[:size=64m,mode=1777,exec]`
  private func tmpfs(_ text: String, _ value: Value) -> Mount? {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard let target = absolute(Value(kind: .scalar(String(parts[0]), quoted: true), position: value.position, path: value.path)) else { return nil }
    var mount = Mount(type: .tmpfs, source: nil, target: target)
    guard parts.count > 1 else { return mount }
    var options = Mount.TmpfsOptions()
    for option in parts[1].split(separator: ",") {
      let pair = option.split(separator: "=", maxSplits: 1).map(String.init)
      switch (pair[0], pair.count > 1 ? pair[1] : nil) {
      case ("size", let size?):
        options.sizeBytes = ByteSize.parse(size)
        if options.sizeBytes == nil { error(value, "expected a size such as 64m, found '\(size)'") }
      case ("mode", let bits?): options.mode = mode(bits, value)
      case ("ro", nil): mount.readOnly = true
      // As it is without them.
      case ("rw", nil), ("nosuid", nil), ("nodev", nil): break
      case ("exec", nil), ("noexec", nil): options.options = [[pair[0]]]
      case ("suid", nil), ("dev", nil):
        error(value, "the option '\(pair[0])' is not supported", "remove it: a tmpfs has neither set-id programs nor devices")
      default: error(value, "unknown option '\(option)'", "use size=64m, mode=1777 or exec")
      }
    }
    mount.tmpfsOptions = options
    return mount
  }

  /// Permission bits are octal, with or without a leading 0 or 0o.
  func mode(_ text: String, _ value: Value) -> UInt32? {
    let digits = text.hasPrefix("0o") ? text.dropFirst(2) : text[...]
    if let bits = UInt32(digits, radix: 8), bits <= 0o7777 { return bits }
    error(value, "expected permission bits such as 1777, found '\(text)'", "they are octal")
    return nil
  }
}
