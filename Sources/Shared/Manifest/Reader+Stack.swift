import Model

extension Reader {
  func stack(text: String, projectName: String?) -> StackSpec? {
    guard let root = root(of: text), var fields = Fields(root, self) else { return nil }
    let name = stackName(given: projectName, declared: fields.take("name"))
    var stack = Declarations(name: name)
    if let networks = fields.take("networks") { readNetworks(networks, &stack) }
    if let volumes = fields.take("volumes") { readVolumes(volumes, &stack) }
    for kind in StoredFile.Kind.allCases { if let files = fields.take("\(kind)s") { readFiles(kind, files, &stack) } }
    var services: [ServiceSpec] = []
    if let value = fields.take("services") {
      let map = entries(value) ?? []
      if map.isEmpty, case .map = value.kind { error(value, "there is no service", "name at least one with its image") }
      for entry in map {
        if let spec = service(entry, &stack) { services.append(spec) }
      }
      refuseSharedPorts(services, map)
      resolveDependencies(&services, stack: name)
    } else {
      error(root.position, "", "there is no 'services'", "a manifest names at least one service with its image")
    }
    fields.finish(KeyRules.top)
    return StackSpec(
      name: name, services: services, networks: stack.networksToMake, volumes: stack.volumes.values.compactMap(\.volume).sorted { $0.name < $1.name },
      files: stack.fileOrder.compactMap { stack.files[$0]?.file },
      externalFiles: stack.fileOrder.compactMap { key in stack.files[key].flatMap { $0.file == nil ? .init(key.kind, $0.name) : nil } },
      externalNetworks: stack.networks.values.filter(\.external).map(\.spec.name).sorted(),
      externalVolumes: stack.volumes.values.filter(\.external).map(\.name).sorted(), builds: builds, warnings: [])
  }

  /// A map's entries; nil, and told, when it is none.
  func entries(_ value: Value) -> [Value.Entry]? {
    if case .map(let entries) = value.kind { return entries.filter { !$0.key.hasPrefix("x-") } }
    error(value, "expected a map, found \(value.found)", "write 'name:' lines, not a list")
    return nil
  }

  private func stackName(given: String?, declared: Value?) -> String {
    let written = declared.flatMap { nonEmpty($0, "a name") }
    if let name = given ?? environment["COMPOSE_PROJECT_NAME"].flatMap({ $0.isEmpty ? nil : $0 }) ?? written {
      let position = given == nil ? declared?.position ?? .none : .none
      if !isStackName(name) {
        error(position, "name", "'\(name)' cannot be a stack's name", "use lower-case letters, digits, '-' and '_', a letter or digit first")
      }
      return name
    }
    if declared != nil { return "stack" }
    let file = String(self.file.split(separator: "/").last ?? "")
    let stem = file.hasSuffix(".yaml") ? file.dropLast(5) : file.hasSuffix(".yml") ? file.dropLast(4) : file[...]
    let generic = ["compose", "docker-compose", "-", ""].contains(String(stem)) || stem.hasPrefix("compose.")
    let base = generic ? self.file.split(separator: "/").dropLast().last.map(String.init) ?? "" : String(stem)
    let name = String(
      base.lowercased().filter { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_") }.drop { $0 == "-" || $0 == "_" })
    if name.isEmpty { error(.none, "name", "the stack has no name", "write 'name: NAME' at the top of the manifest, or give it on the command line") }
    return name
  }

  private func isStackName(_ name: String) -> Bool {
    guard let first = name.utf8.first, first != UInt8(ascii: "-"), first != UInt8(ascii: "_"), name.utf8.count <= 40 else { return false }
    return name.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 45 || $0 == 95 }
  }

  /// A name that may become part of a DNS name, a path and a table: Docker's rule.
  func isObjectName(_ name: String) -> Bool {
    guard let first = name.utf8.first, let last = name.utf8.last, isAlphanumeric(first), isAlphanumeric(last) else { return false }
    return name.utf8.count <= 63 && name.utf8.allSatisfy { isAlphanumeric($0) || $0 == 45 || $0 == 95 || $0 == 46 }
  }
  private func isAlphanumeric(_ byte: UInt8) -> Bool {
    (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
  }

  func checkName(_ name: String, of kind: String, _ position: Value.Position, _ path: String) {
    if !isObjectName(name) {
      error(
        position, path, "'\(name)' cannot be a \(kind)'s name", "use at most 63 letters, digits, '-', '_' and '.', a letter or digit first and last")
    }
  }

  // MARK: - Networks and volumes

  private func readNetworks(_ value: Value, _ stack: inout Declarations) {
    for entry in entries(value) ?? [] {
      var spec = NetworkSpec(name: "\(stack.name)_\(entry.key)")
      spec.driver = "overlay"
      var external = false
      if !entry.value.isNull, var fields = Fields(entry.value, self) {
        external = readExternal(&fields, name: &spec.name, key: entry.key)
        if let driver = fields.take("driver"), let name = text(driver), name != "overlay" {
          error(driver, "the network driver '\(name)' is not supported", "use 'overlay' or leave it out: a stack's networks reach across hosts")
        }
        if let labels = fields.take("labels") { spec.labels = dictionary(labels) }
        if let value = fields.take("internal") { spec.internalOnly = bool(value) }
        if let value = fields.take("attachable") { spec.attachable = bool(value) }
        if let value = fields.take("enable_ipv6") { spec.enableIPv6 = bool(value) }
        if let options = fields.take("driver_opts") { spec.options = readOptions(options) }
        if let ipam = fields.take("ipam") {
          spec.ipam = readIPAM(ipam)
          if spec.declared6 != nil, spec.enableIPv6 != true { error(ipam, "an IPv6 subnet needs 'enable_ipv6: true'") }
        }
        fields.finish(KeyRules.network)
      }
      if !external { spec.labels = (spec.labels ?? [:]).merging([StackLabel.namespace: stack.name]) { $1 } }
      checkName(spec.name, of: "network", entry.position, entry.value.path)
      stack.networks[entry.key] = .init(spec: spec, external: external)
      stack.networkOrder.append(entry.key)
    }
  }

  private func readOptions(_ value: Value) -> [String: String]? {
    let options = dictionary(value)
    for key in options.keys.sorted() {
      if let reason = NetworkSpec.refusal(of: key) { error(value, reason) }
    }
    if let text = options[NetworkSpec.mtuOption], Int(text) == nil { error(value, "\(NetworkSpec.mtuOption) is a number of bytes, not '\(text)'") }
    return options.isEmpty ? nil : options
  }

  /// `external: true` with `name`, or the old `external: {name: x}`.
  func readExternal(_ fields: inout Fields, name: inout String, key: String) -> Bool {
    var external = false
    if let value = fields.take("external") {
      if case .map = value.kind, var inner = Fields(value, self) {
        external = true
        name = inner.take("name").flatMap { nonEmpty($0, "a name") } ?? key
        inner.finish()
        warning(value, "'external.name' is an old form", "write 'external: true' and 'name: \(name)'")
      } else if bool(value) == true {
        external = true
        name = key
      }
    }
    if let value = fields.take("name"), let given = nonEmpty(value, "a name") { name = given }
    return external
  }

  private func readIPAM(_ value: Value) -> NetworkSpec.IPAM? {
    guard var fields = Fields(value, self) else { return nil }
    if let driver = fields.take("driver"), let name = text(driver), name != "default" {
      error(driver, "the IPAM driver '\(name)' is not supported", "use 'default' or leave it out")
    }
    var configs: [NetworkSpec.IPAM.Config] = []
    if let list = fields.take("config") {
      if case .list(let items) = list.kind {
        for item in items {
          guard var config = Fields(item, self) else { continue }
          let subnet = config.take("subnet")
          let prefix = subnet.flatMap { text($0) }
          if let subnet, let prefix, IPv4Prefix(prefix) == nil, IPv6Prefix(prefix) == nil {
            error(subnet, "expected a subnet such as 10.1.0.0/24 or fd00:1::/64, found \(subnet.found)")
          }
          let gateway = config.take("gateway")
          let address = gateway.flatMap { text($0) }
          if let gateway, let address, IPAddress(address) == nil {
            error(gateway, "expected an address such as 10.1.0.1, found \(gateway.found)")
          }
          let range = config.take("ip_range")
          let part = range.flatMap { text($0) }
          if let range, let part, IPv6Prefix(part) != nil {
            error(range, "an IPv6 range is not supported", "remove it: IPv6 addresses follow the IPv4 ones")
          } else if let range, let part, IPv4Prefix(part) == nil {
            error(range, "expected a part of the subnet such as 10.1.0.128/25, found \(range.found)")
          }
          let auxiliary = config.take("aux_addresses").map { dictionary($0) }
          config.finish([:])
          configs.append(.init(subnet: prefix, gateway: address, range: part, auxiliary: auxiliary))
        }
        for count in [configs.count(where: \.isIPv6), configs.count { !$0.isIPv6 }] where count > 1 {
          error(list, "a network has one subnet of each family, found \(count)", "keep one")
        }
      } else {
        error(list, "expected a list, found \(list.found)", "write '- subnet: 10.1.0.0/24'")
      }
    }
    fields.finish(["options": .unsupported("remove it")])
    return NetworkSpec.IPAM(config: configs)
  }

  private func readVolumes(_ value: Value, _ stack: inout Declarations) {
    for entry in entries(value) ?? [] {
      var volume = Volume(name: "\(stack.name)_\(entry.key)", createdAt: .zero)
      var external = false
      if !entry.value.isNull, var fields = Fields(entry.value, self) {
        external = readExternal(&fields, name: &volume.name, key: entry.key)
        if let labels = fields.take("labels") { volume.labels = dictionary(labels) }
        if let driver = fields.take("driver"), let name = text(driver), name != "local" {
          error(driver, "the volume driver '\(name)' is not supported", "use 'local' or leave it out")
        }
        fields.finish(KeyRules.volume)
      }
      volume.labels[StackLabel.namespace] = stack.name
      if !isObjectName(volume.name) || volume.name.hasPrefix(".") { checkName(volume.name, of: "volume", entry.position, entry.value.path) }
      stack.volumes[entry.key] = .init(name: volume.name, volume: external ? nil : volume)
    }
  }

  // MARK: - Ports of all services

  private func refuseSharedPorts(_ services: [ServiceSpec], _ entries: [Value.Entry]) {
    var owners = PortClaims<PortOwner>()
    for spec in services {
      guard let key = serviceKeys[spec.name], let entry = entries.first(where: { $0.key == key }) else { continue }
      for port in spec.ports {
        guard let claim = PortClaim(port) else { continue }
        let own = PortOwner(entry.key, port)
        if let other = owners.other(than: own, at: claim) {
          let position = portPositions[spec.name] ?? entry.position
          error(
            position, "services.\(entry.key).ports", "port \(claim.anywhere) is already published by services.\(other)",
            "publish another port")
        } else {
          owners.insert(claim, own)
        }
      }
    }
  }
}

/// Networks and volumes of one manifest while its services are read.
struct Declarations {
  struct DeclaredNetwork {
    var spec: NetworkSpec
    var external: Bool
  }
  struct DeclaredVolume {
    var name: String
    /// nil: external.
    var volume: Volume?
    var external: Bool { volume == nil }
  }
  struct DeclaredFile {
    /// The cluster's.
    var name: String
    /// nil: external.
    var file: StackFile?
  }
  var name: String
  /// By kind and key.
  var files: [StoredFile.Name: DeclaredFile] = [:]
  var fileOrder: [StoredFile.Name] = []
  var networks: [String: DeclaredNetwork] = [:]
  var networkOrder: [String] = []
  var volumes: [String: DeclaredVolume] = [:]

  /// The stack's own network, made when the first service needs it.
  mutating func defaultNetwork() -> String {
    if let declared = networks["default"] { return declared.spec.name }
    var spec = NetworkSpec(name: "\(name)_default")
    spec.driver = "overlay"
    spec.labels = [StackLabel.namespace: name]
    networks["default"] = .init(spec: spec, external: false)
    networkOrder.append("default")
    return spec.name
  }
  var networksToMake: [NetworkSpec] { networkOrder.compactMap { networks[$0] }.filter { !$0.external }.map(\.spec) }
}
