import Model

/// Which published ports of this host lead where. It is in named maps and sets of the table, changed element by element: what a change costs does not grow
/// with the ports, nor what a packet passes, as with a chain and a rule for each.
struct Publishing<Address: OverlayAddress>: Equatable, Sendable {
  struct Port: Equatable, Sendable {
    var target: UInt16
    /// On ingress, or of uplinks; none: calls are refused.
    var backends: [Address]
  }
  var ports: [PublishedPort: Port] = [:]

  init(_ ports: [Ruleset.Published<Address>] = []) {
    for port in ports { self.ports[port.port] = Port(target: port.target, backends: port.backends) }
  }

  /// Ports of all addresses of the family, and those of one: each kind has its own maps.
  private struct Kind: Hashable {
    var isOfOne: Bool
    static var both: [Self] { [Self(isOfOne: false), Self(isOfOne: true)] }
    var suffix: String { isOfOne ? "-at" : "" }
    var place: String { isOfOne ? "\(Address.family) daddr . " : "" }
    var key: String { place + "meta l4proto . th dport" }
    func chain(_ count: Int) -> String { "ports\(suffix)-\(count)" }
    init(isOfOne: Bool) { self.isOfOne = isOfOne }
    init(_ port: PublishedPort) { isOfOne = port.address != nil }
  }

  static var objects: String {
    Kind.both.map { kind in
      let type = (kind.isOfOne ? "\(Address.kind) . " : "") + "inet_proto . inet_service"
      return "  map ports\(kind.suffix) {\n    type \(type) : verdict\n  }\n  set closed\(kind.suffix) {\n    type \(type)\n  }\n"
        + "  map targets\(kind.suffix) {\n    typeof \(kind.key) . numgen random mod 65536 : \(Address.family) daddr . th dport\n  }\n"
    }.joined()
  }
  static var flush: String {
    Kind.both.flatMap { ["map ports\($0.suffix)", "set closed\($0.suffix)", "map targets\($0.suffix)"] }.map { object in
      let words = object.split(separator: " ")
      return "flush \(words[0]) \(Address.family) orch \(words[1])\n"
    }.joined()
  }

  private func kinds(_ isIncluded: (Port) -> Bool) -> [Kind] {
    Kind.both.filter { kind in ports.contains { Kind($0.key) == kind && isIncluded($0.value) } }
  }

  /// Twice, as with virtual IPs (Balancing.lookup). What calls another address than a port's own goes on.
  var lookup: [String] { kinds { !$0.backends.isEmpty }.flatMap { Array(repeating: "\($0.key) vmap @ports\($0.suffix)", count: 2) } }
  /// For who calls a port with no task behind it.
  var refusal: [String] {
    kinds(\.backends.isEmpty).flatMap { kind in
      ["meta l4proto tcp \(kind.key) @closed\(kind.suffix) reject with tcp reset", "\(kind.key) @closed\(kind.suffix) reject"]
    }
  }

  /// Where ports with so many backends go: `numgen` wants its number in the rule. nftables wants to know the protocol of a port that it writes.
  var chains: [RuleChain] {
    Kind.both.flatMap { kind in
      Set(ports.lazy.filter { Kind($0.key) == kind }.map(\.value.backends.count)).subtracting([0]).sorted().map { count in
        // Translation is asked for the first packet of a flow alone.
        RuleChain(
          name: kind.chain(count), hook: "",
          rules: ["meta l4proto udp counter name \"datagrams\""]
            + ["tcp", "udp", "sctp"].flatMap { name in
              Set([count, 1]).sorted(by: >).map {
                "meta l4proto \(name) dnat \(Address.family) addr . port to \(kind.key) . numgen random mod \($0) map @targets\(kind.suffix)"
              }
            })
      }
    }
  }

  /// - Returns: commands that take elements away, and those that add them, in this order around changed chains.
  func changes(from old: Publishing) -> (removals: String, additions: String) {
    if self == old { return ("", "") }
    var gone = Elements(), new = Elements()
    for (port, value) in ports where old.ports[port] != value { Self.compare(port, old.ports[port], value, &gone, &new) }
    for (port, value) in old.ports where ports[port] == nil { Self.compare(port, value, nil, &gone, &new) }
    return (gone.commands("delete"), new.commands("add"))
  }

  private static func compare(_ port: PublishedPort, _ old: Port?, _ new: Port?, _ gone: inout Elements, _ come: inout Elements) {
    let kind = Kind(port)
    let key = (port.address.map { "\($0) . " } ?? "") + "\(port.protocol.rawValue) . \(port.number)"
    if old?.backends.count != new?.backends.count {
      switch old?.backends.count {
      case nil: break
      case 0: gone.add("closed\(kind.suffix)", key)
      case _: gone.add("ports\(kind.suffix)", key)
      }
      switch new?.backends.count {
      case nil: break
      case 0: come.add("closed\(kind.suffix)", key)
      case let count?: come.add("ports\(kind.suffix)", "\(key) : goto \(kind.chain(count))")
      }
    }
    func targets(_ port: Port?) -> [String] { port.map { port in port.backends.map { "\($0) . \(port.target)" } } ?? [] }
    let (before, after) = (targets(old), targets(new))
    for number in 0..<max(before.count, after.count) {
      let (left, right) = (number < before.count ? before[number] : nil, number < after.count ? after[number] : nil)
      if left == right { continue }
      if left != nil { gone.add("targets\(kind.suffix)", "\(key) . \(number)") }
      if let right { come.add("targets\(kind.suffix)", "\(key) . \(number) : \(right)") }
    }
  }

  private struct Elements {
    private var all: [String: [String]] = [:]
    mutating func add(_ object: String, _ element: String) { all[object, default: []].append(element) }
    func commands(_ verb: String) -> String {
      all.sorted { $0.key < $1.key }.map { "\(verb) element \(Address.family) orch \($0.key) { \($0.value.sorted().joined(separator: ", ")) }\n" }
        .joined()
    }
  }
}
