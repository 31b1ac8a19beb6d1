import Model

extension Reader {
  func readPorts(_ value: Value) -> [PortConfig] {
    guard case .list(let items) = value.kind else {
      error(value, "expected a list of ports, found \(value.found)", "write '- \"8080:80\"'")
      return []
    }
    var ports: [PortConfig] = []
    var claims = PortClaims<Bool>()
    for item in items {
      let new: [PortConfig] = if case .map = item.kind { longPort(item) } else { shortPort(item) }
      for port in new {
        let claim = PortClaim(port)
        if let claim, claims.isTaken(claim) {
          error(item, "port \(claim.anywhere) is published twice", "publish another port")
          continue
        }
        if let claim { claims.insert(claim, true) }
        ports.append(port)
      }
    }
    return ports
  }

  private func shortPort(_ value: Value) -> [PortConfig] {
    guard let text = nonEmpty(value, "a port") else { return [] }
    return read(value, "PUBLISHED:TARGET such as 8080:80") { () throws(PortTextError) in try PortText.ports(text[...]) } ?? []
  }

  /// nil: refused.
  private func read<T>(_ value: Value, _ expected: String, _ body: () throws(PortTextError) -> T) -> T? {
    do throws(PortTextError) { return try body() } catch {
      self.error(value, error == .form ? "expected \(expected), found \(value.found)" : error.description, error.advice)
      return nil
    }
  }

  /// Brackets are the short form's; in the long one some write them too. nil: refused.
  private func hostAddress(_ text: String, _ value: Value) -> IPAddress? {
    let isBracketed = text.hasPrefix("[") && text.hasSuffix("]")
    return read(value, "") { () throws(PortTextError) in
      guard let address = IPAddress(isBracketed ? String(text.dropFirst().dropLast()) : text) else { throw .address(text) }
      return address
    }
  }

  private func longPort(_ value: Value) -> [PortConfig] {
    guard var fields = Fields(value, self) else { return [] }
    defer { fields.finish(KeyRules.port) }
    let name = fields.take("name").flatMap { nonEmpty($0, "a name") }
    let `protocol` = fields.take("protocol").flatMap { choice($0, [PortConfig.PortProtocol.tcp, .udp, .sctp]) } ?? .tcp
    let mode = fields.take("mode").flatMap { choice($0, [PortConfig.PublishMode.ingress, .host]) } ?? .ingress
    let published = fields.take("published").flatMap { publishedRange($0, mode) }
    let address = fields.take("host_ip").flatMap { value in nonEmpty(value, "an address").flatMap { hostAddress($0, value) } }
    guard let targetValue = fields.take("target") else {
      error(value, "'target' is missing", "name the container's port")
      return []
    }
    guard let target = integer(targetValue, 1...65_535) else { return [] }
    let isFixed = published.map { $0.lowerBound > 0 && $0.count == 1 } ?? false
    var port = PortConfig(
      targetPort: UInt16(target), publishedPort: isFixed ? published?.lowerBound : nil, protocol: `protocol`, publishMode: mode)
    if let published, published.count > 1 { port.publishedRange = published }
    port.name = name
    port.hostIP = address
    return [port]
  }

  /// A number, or a range as text: one of its ports that is free (compose-spec 05-services.md, "ports", long syntax). 0: any.
  private func publishedRange(_ value: Value, _ mode: PortConfig.PublishMode) -> ClosedRange<UInt16>? {
    guard case .scalar(let text, _) = value.kind, text.dropFirst().contains("-") else {
      return integer(value, 0...65_535).map { UInt16($0)...UInt16($0) }
    }
    let read = read(value, "a port or a range such as 8000-8010") { () throws(PortTextError) in try PortText.range(text[...]) }
    guard let range = read else { return nil }
    if range.count > 1, mode == .host {
      error(
        value, "a range of ports is not supported in host mode", "write one port, or leave 'published' out: each task has a free one of its host then"
      )
      return nil
    }
    return range
  }
}
