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

  /// `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]`, an IPv6 address in brackets, ranges `3000-3005:4000-4005`.
  private func shortPort(_ value: Value) -> [PortConfig] {
    guard let text = nonEmpty(value, "a port") else { return [] }
    let expected = "expected PUBLISHED:TARGET such as 8080:80, found \(value.found)"
    let halves = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let `protocol` = PortConfig.PortProtocol(rawValue: halves.count > 1 ? String(halves[1]) : "tcp") else {
      error(value, "expected one of 'tcp', 'udp', 'sctp' after '/', found '\(halves[1])'")
      return []
    }
    guard let written = PortText(halves[0]) else {
      error(value, expected)
      return []
    }
    var address: IPAddress?
    if let text = written.address {
      guard let given = hostAddress(text, value) else { return [] }
      address = given
    }
    guard let target = portRange(written.ports[written.ports.count - 1], value, expected) else { return [] }
    guard written.ports.count > 1, case let text = written.ports[0], !text.isEmpty else {
      return target.map { port($0, nil, `protocol`, address) }
    }
    guard let published = portRange(text, value, expected) else { return [] }
    guard published.count == target.count else {
      error(
        value, "\(published.count) published ports for \(target.count) of the container",
        "make both ranges equally long" + (target.count == 1 ? ", or write 'target' and 'published' for one of the range" : ""))
      return []
    }
    return zip(published, target).map { port($1, $0, `protocol`, address) }
  }

  private func port(_ target: UInt16, _ published: UInt16?, _ kind: PortConfig.PortProtocol, _ address: IPAddress?) -> PortConfig {
    var port = PortConfig(targetPort: target, publishedPort: published, protocol: kind)
    port.hostIP = address
    return port
  }

  /// nil: refused.
  private func hostAddress(_ text: String, _ value: Value) -> IPAddress? {
    // Brackets are the short form's; in the long one some write them too.
    let isBracketed = text.hasPrefix("[") && text.hasSuffix("]")
    if let address = IPAddress(isBracketed ? String(text.dropFirst().dropLast()) : text) { return address }
    error(value, "expected an address of a host before the published port, found '\(text)'", "write it as 127.0.0.1:8080:80 or '[::1]:8080:80'")
    return nil
  }

  private func portRange(_ text: Substring, _ value: Value, _ expected: String) -> ClosedRange<UInt16>? {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false)
    guard ends.count <= 2, ends.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { (48...57).contains($0) } }) else {
      error(value, expected)
      return nil
    }
    let numbers = ends.compactMap { UInt16($0) }
    guard numbers.count == ends.count, numbers.allSatisfy({ $0 > 0 }) else {
      error(value, "a port is a number from 1 to 65535, found '\(text)'")
      return nil
    }
    guard numbers[0] <= numbers[numbers.count - 1] else {
      error(value, "the range '\(text)' runs backwards", "write the lower port first")
      return nil
    }
    return numbers[0]...numbers[numbers.count - 1]
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
    guard let range = portRange(text[...], value, "expected a port or a range such as 8000-8010, found \(value.found)") else { return nil }
    if range.count > 1, mode == .host {
      error(
        value, "a range of ports is not supported in host mode", "write one port, or leave 'published' out: each task has a free one of its host then"
      )
      return nil
    }
    return range
  }
}
