import Model

extension Reader {
  /// One service; nil when nothing sensible can be made of it (told).
  func service(_ entry: Value.Entry, _ stack: inout Declarations) -> ServiceSpec? {
    guard !entry.value.isNull else {
      error(entry.position, entry.value.path, "the service is empty", "give it at least an image")
      return nil
    }
    guard var fields = Fields(entry.value, self) else { return nil }
    let fullName = "\(stack.name)_\(entry.key)"
    checkName(fullName, of: "service", entry.position, entry.value.path)
    serviceKeys[fullName] = entry.key

    let building = fields.take("build")
    let unnamed = "\(stack.name)-\(entry.key)"
    let image = imageName(&fields, entry, default: building == nil ? nil : unnamed)
    if let building, let build = build(building, service: fullName, image: image, isUnnamed: image == unnamed) { builds.append(build) }
    var container = ContainerSpec(image: image)
    container.labels = fields.take("labels").map { dictionary($0) } ?? [:]
    container.labels?[StackLabel.namespace] = stack.name
    readProcess(&fields, &container)
    readSurroundings(&fields, &container)
    container.mounts = readMounts(&fields, stack)
    container.files = StoredFile.Kind.allCases.flatMap { readReferences($0, &fields, stack) }
    container.healthCheck = fields.take("healthcheck").flatMap { health($0) }

    var task = TaskSpec(containerSpec: container)
    task.logDriver = fields.take("logging").flatMap { logging($0) }
    task.networks = readAttachments(&fields, service: entry.key, &stack)
    var spec = ServiceSpec(name: fullName, taskTemplate: task)
    spec.labels = [:]
    if let value = fields.take("depends_on") { dependencies[fullName] = readDependencies(value) }
    let ports = fields.take("ports")
    readDeploy(&fields, &spec)
    if let value = fields.take("platform"), let constraints = platform(value) {
      var placement = spec.taskTemplate.placement ?? Placement()
      placement.constraints = (placement.constraints ?? []) + constraints
      spec.taskTemplate.placement = placement
    }
    spec.labels?[StackLabel.namespace] = stack.name
    spec.labels?[StackLabel.image] = image
    if let ports {
      portPositions[fullName] = ports.position
      let configs = readPorts(ports)
      if let mode = spec.predefinedNetwork, mode != Network.bridgeName, !configs.isEmpty {
        error(
          ports, "network_mode \(mode) and ports do not go together",
          mode == Network.hostName ? "remove them: the service listens on the host's own ports" : "remove one of the two")
      }
      if spec.endpointSpec?.mode == .dnsrr, configs.contains(where: { $0.publishMode != .host }) {
        error(ports, "ports cannot be published through a service with endpoint_mode dnsrr", "use endpoint_mode vip, or mode: host for the port")
      }
      spec.endpointSpec = EndpointSpec(mode: spec.endpointSpec?.mode ?? .vip, ports: configs)
    }
    fields.finish(KeyRules.service)
    return spec
  }

  /// `OS/ARCHITECTURE` as the hosts that it may run on: an agent pulls what is made for its own host.
  private func platform(_ value: Value) -> [String]? {
    guard let text = nonEmpty(value, "a platform such as linux/amd64") else { return nil }
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2 || (parts.count == 3 && text == "linux/arm64/v8"), parts[0] == "linux", !parts[1].isEmpty,
      parts[1].utf8.allSatisfy({ (48...57).contains($0) || (97...122).contains($0) || $0 == 95 })
    else {
      error(value, "'\(text)' is no platform that orch places tasks by", "write linux/ARCHITECTURE, for example linux/amd64 or linux/arm64")
      return nil
    }
    return ["node.platform.os == linux", "node.platform.arch == \(parts[1])"]
  }

  private func logging(_ value: Value) -> Driver? {
    guard var fields = Fields(value, self) else { return nil }
    let driver = Driver(name: fields.take("driver").flatMap { text($0) }, options: fields.take("options").map { dictionary($0) })
    fields.finish()
    do throws(LogLimits.Refusal) { _ = try LogLimits(driver) } catch { self.error(value, error.reason, error.advice) }
    return driver
  }

  private func imageName(_ fields: inout Fields, _ entry: Value.Entry, default name: String?) -> String {
    guard let value = fields.take("image") else {
      if let name { return name }
      error(entry.position, entry.value.path, "the service has no image", "add 'image: NAME:TAG'")
      return ""
    }
    guard let name = nonEmpty(value, "an image's name") else { return "" }
    do throws(ReferenceError) { _ = try ImageReference(name) } catch {
      self.error(value, "'\(name)' is not an image's name (\(error.reason))", ReferenceError.advice)
    }
    return name
  }

  // MARK: - Process

  private func readProcess(_ fields: inout Fields, _ container: inout ContainerSpec) {
    container.command = fields.take("entrypoint").flatMap { words($0) }
    container.args = fields.take("command").flatMap { words($0) }
    container.env = environment(&fields)
    container.dir = fields.take("working_dir").flatMap { absolute($0) }
    container.user = fields.take("user").flatMap { nonEmpty($0, "a user such as 1000:1000 or www-data") }
    container.initProcess = fields.take("init").flatMap { bool($0) }
    container.tty = fields.take("tty").flatMap { bool($0) }
    container.openStdin = fields.take("stdin_open").flatMap { bool($0) }
    container.readOnly = fields.take("read_only").flatMap { bool($0) }
    container.stopGracePeriod = fields.take("stop_grace_period").flatMap { duration($0) }
    container.stopSignal = fields.take("stop_signal").flatMap { signal($0) }
    container.capabilityAdd = fields.take("cap_add").flatMap { capabilities($0) }
    container.capabilityDrop = fields.take("cap_drop").flatMap { capabilities($0) }
    if let value = fields.take("sysctls") { container.sysctls = dictionary(value) }
    container.ulimits = fields.take("ulimits").flatMap { ulimits($0) }
    container.groups = fields.take("group_add").flatMap { texts($0, "a list of groups") }
    container.oomScoreAdj = fields.take("oom_score_adj").flatMap { integer($0, -1000...1000) }
    if let value = fields.take("security_opt") { readSecurity(value, &container) }
  }

  private func readSecurity(_ value: Value, _ container: inout ContainerSpec) {
    guard case .list(let items) = value.kind else {
      error(value, "expected a list of options, found \(value.found)", "write '- no-new-privileges:true'")
      return
    }
    for item in items {
      guard let option = text(item) else { continue }
      switch option.split(separator: option.contains("=") ? "=" : ":", maxSplits: 1).map(String.init) {
      case ["no-new-privileges"], ["no-new-privileges", "true"]: container.privileges = .init(noNewPrivileges: true)
      case ["no-new-privileges", "false"]: container.privileges = .init(noNewPrivileges: false)
      case let words where words.first == "seccomp":
        error(item, "'\(option)' is not supported", "every container has Docker's own profile; name what it needs in 'cap_add'")
      case let words where words.first == "apparmor" || words.first == "label":
        error(item, "'\(option)' is not supported", "containers have no labels of AppArmor or SELinux")
      default: error(item, "unknown option '\(option)'", "use no-new-privileges:true or no-new-privileges:false")
      }
    }
  }

  private func words(_ value: Value) -> [String]? {
    switch value.kind {
    case .scalar(let line, _):
      if let words = shellWords(line) { return words }
      error(value, "a quote is not closed in '\(line)'", "close it, or write the words as a list")
      return nil
    case .list: return texts(value)
    default:
      error(value, "expected text or a list of texts, found \(value.found)")
      return nil
    }
  }

  func absolute(_ value: Value) -> String? {
    guard let path = nonEmpty(value, "an absolute path") else { return nil }
    if !path.hasPrefix("/") {
      error(value, "expected an absolute path, found \(value.found)", "begin it with '/'")
      return nil
    }
    if path.contains("\0") || path.split(separator: "/").contains("..") {
      error(value, "the path '\(path)' leaves its place", "write it without '..'")
      return nil
    }
    return path
  }

  /// `env_file` first, then `environment` over it; the order is that of first mention.
  private func environment(_ fields: inout Fields) -> [String]? {
    var order: [String] = []
    var values: [String: String] = [:]
    func set(_ key: String, _ value: String) {
      if values.updateValue(value, forKey: key) == nil { order.append(key) }
    }
    if let files = fields.take("env_file") { readEnvironmentFiles(files, set) }
    if let value = fields.take("environment") {
      var seen: Set<String> = []
      for pair in pairs(value) {
        if pair.key.isEmpty || pair.key.contains("=") || pair.key.contains("\0") {
          error(pair.value, "'\(pair.key)' cannot be a variable's name", "write NAME: VALUE")
        } else if !seen.insert(pair.key).inserted {
          error(pair.value, "the variable '\(pair.key)' stands twice", "keep one of them")
        } else if let text = pair.text ?? environment[pair.key] {
          set(pair.key, text)
        } else {
          warning(pair.value, "the variable '\(pair.key)' has no value here and is not set, so it is left out", "set it, or write \(pair.key)=")
        }
      }
    }
    return order.isEmpty ? nil : order.map { "\($0)=\(values[$0]!)" }
  }

  private func readEnvironmentFiles(_ value: Value, _ set: (String, String) -> Void) {
    let items: [Value] = if case .list(let items) = value.kind { items } else { [value] }
    for item in items {
      var path: String?
      var required = true
      if case .map = item.kind {
        guard var fields = Fields(item, self) else { continue }
        path = fields.take("path").flatMap { nonEmpty($0, "a path") }
        if let flag = fields.take("required") { required = bool(flag) ?? true }
        if path == nil { error(item, "'path' is missing", "name the file") }
        fields.finish(KeyRules.environmentFile)
      } else {
        path = nonEmpty(item, "a path")
      }
      guard let path, let full = resolve(path, item) else { continue }
      guard let text = readFile(full) else {
        if required { error(item, "the file '\(full)' cannot be read", "make it, or write 'required: false'") }
        continue
      }
      do {
        for (key, value) in try EnvironmentFile.parse(text, environment: environment) { set(key, value) }
      } catch {
        self.error(item, "\(full), line \(error.line): \(error.reason)", "correct the file")
      }
    }
  }

  /// Relative to the manifest, `~` is the user's home.
  func resolve(_ path: String, _ value: Value) -> String? {
    if path.hasPrefix("/") { return normalized(path) }
    if path == "~" || path.hasPrefix("~/") {
      guard let home = environment["HOME"], home.hasPrefix("/") else {
        error(value, "'~' cannot be resolved: HOME is not set", "write the whole path")
        return nil
      }
      return normalized(home + path.dropFirst(1))
    }
    return normalized(directory + "/" + path)
  }

  /// Lexically: no `.`, no `..` where it can be taken away, no doubled `/`.
  private func normalized(_ path: String) -> String {
    var parts: [Substring] = []
    for part in path.split(separator: "/") where part != "." {
      if part == "..", let last = parts.last, last != ".." { parts.removeLast() } else if part != ".." || !path.hasPrefix("/") { parts.append(part) }
    }
    let joined = parts.joined(separator: "/")
    return path.hasPrefix("/") ? "/" + joined : joined.isEmpty ? "." : joined
  }

  private func signal(_ value: Value) -> String? {
    guard let name = nonEmpty(value, "a signal") else { return nil }
    let bare = name.uppercased().hasPrefix("SIG") ? String(name.uppercased().dropFirst(3)) : name.uppercased()
    if let number = Int(bare), (1...64).contains(number) { return name }
    if Self.signals.contains(bare) || bare.hasPrefix("RTMIN+") || bare.hasPrefix("RTMAX-") { return "SIG" + bare }
    error(
      value, "expected a signal such as SIGTERM, found \(value.found)",
      nearest(to: bare.lowercased(), among: Self.signals.map { $0.lowercased() }).map { "did you mean 'SIG\($0.uppercased())'?" } ?? "")
    return nil
  }
  private static let signals = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT",
    "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS", "RTMIN", "RTMAX",
  ]

  private func capabilities(_ value: Value) -> [String]? {
    guard case .list(let items) = value.kind else {
      error(value, "expected a list of capabilities, found \(value.found)", "write '- NET_ADMIN'")
      return nil
    }
    return items.compactMap { item in
      guard let name = nonEmpty(item, "a capability") else { return nil }
      let upper = name.uppercased()
      let bare = upper.hasPrefix("CAP_") ? String(upper.dropFirst(4)) : upper
      if bare == "ALL" { return bare }
      if Self.knownCapabilities.contains(bare) { return "CAP_" + bare }
      let near = nearest(to: bare.lowercased(), among: Self.knownCapabilities.map { $0.lowercased() })
      error(item, "there is no capability '\(name)'", near.map { "did you mean '\($0.uppercased())'?" } ?? "see capabilities(7)")
      return nil
    }
  }
  /// capabilities(7), Linux 5.9 and later.
  private static let knownCapabilities = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE",
    "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN",
    "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE",
    "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
  ]

  private func ulimits(_ value: Value) -> [ContainerSpec.Ulimit]? {
    entries(value)?.compactMap { entry in
      if !Self.limits.contains(entry.key) {
        let near = nearest(to: entry.key, among: Self.limits)
        error(entry.position, entry.value.path, "there is no limit '\(entry.key)'", near.map { "did you mean '\($0)'?" } ?? "see getrlimit(2)")
        return nil
      }
      guard case .map = entry.value.kind, var fields = Fields(entry.value, self) else {
        return integer(entry.value, -1...(.max)).map { .init(name: entry.key, hard: $0, soft: $0) }
      }
      let soft = fields.take("soft").flatMap { integer($0, -1...(.max)) }
      let hard = fields.take("hard").flatMap { integer($0, -1...(.max)) }
      fields.finish()
      if let soft, let hard, hard != -1, soft > hard || soft == -1 { error(entry.value, "the soft limit is above the hard limit", "lower 'soft'") }
      return .init(name: entry.key, hard: hard ?? soft, soft: soft ?? hard)
    }
  }
  private static let limits = [
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
  ]

  // MARK: - Surroundings

  private func readSurroundings(_ fields: inout Fields, _ container: inout ContainerSpec) {
    container.hostname = fields.take("hostname").flatMap { value in
      guard let name = nonEmpty(value, "a hostname") else { return nil }
      if !isObjectName(name) { error(value, "'\(name)' cannot be a hostname", "use at most 63 letters, digits, '-' and '.'") }
      return name
    }
    container.domainname = fields.take("domainname").flatMap { value in
      guard let name = nonEmpty(value, "a domain name") else { return nil }
      if !isObjectName(name) { error(value, "'\(name)' cannot be a domain name", "use at most 63 letters, digits, '-' and '.'") }
      return name
    }
    if let value = fields.take("extra_hosts") {
      container.hosts = pairs(value, separators: "=:").compactMap { host in
        guard let address = host.text, !address.isEmpty else {
          error(host.value, "expected NAME:ADDRESS, found \(host.value.found)")
          return nil
        }
        let plain = address.hasPrefix("[") && address.hasSuffix("]") ? String(address.dropFirst().dropLast()) : address
        if IPAddress(plain) == nil {
          error(host.value, "expected an IP address for '\(host.key)', found '\(address)'", "host-gateway and names are not supported")
          return nil
        }
        return "\(plain) \(host.key)"
      }
    }
    var dns = ContainerSpec.DNSConfig()
    if let value = fields.take("dns") {
      dns.nameservers = oneOrMore(value).map { entry in
        if IPAddress(entry.text) == nil {
          error(entry.value, "expected the IP address of a name server, found '\(entry.text)'")
        }
        return entry.text
      }
    }
    dns.search = fields.take("dns_search").map { oneOrMore($0).map(\.text) }
    dns.options = fields.take("dns_opt").map { oneOrMore($0).map(\.text) }
    if dns != .init() { container.dnsConfig = dns }
  }

  private func health(_ value: Value) -> HealthConfig? {
    guard var fields = Fields(value, self) else { return nil }
    var health = HealthConfig()
    if let test = fields.take("test") {
      switch test.kind {
      case .scalar(let line, _): health.test = ["CMD-SHELL", line]
      case .list:
        let words = texts(test) ?? []
        health.test = words
        if let first = words.first, !["NONE", "CMD", "CMD-SHELL"].contains(first) {
          error(test, "the first word must be NONE, CMD or CMD-SHELL, found '\(first)'", "write [CMD, \(first), ...]")
        } else if words.isEmpty || (words.count == 1 && words != ["NONE"]) {
          error(test, "there is no command to test with", "write [CMD, program, argument]")
        } else if words.first == "CMD-SHELL", words.count > 2 {
          error(test, "CMD-SHELL takes one line, found \(words.count - 1)", "join them, or use CMD")
        }
      default: error(test, "expected text or a list of texts, found \(test.found)")
      }
    }
    health.interval = fields.take("interval").flatMap { duration($0) }
    health.timeout = fields.take("timeout").flatMap { duration($0) }
    health.retries = fields.take("retries").flatMap { integer($0, 0...10_000) }.map { Int($0) }
    health.startPeriod = fields.take("start_period").flatMap { duration($0) }
    health.startInterval = fields.take("start_interval").flatMap { duration($0) }
    if let disable = fields.take("disable"), bool(disable) == true {
      if health.test != nil, health.test != ["NONE"] { error(disable, "'disable' and 'test' exclude each other", "keep one of them") }
      health.test = ["NONE"]
    }
    fields.finish()
    return health
  }
}
