import Model

/// A family's addresses, as nftables writes them.
protocol OverlayAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// Of the table, and of its addresses in rules.
  static var family: String { get }
  static var addresses: IPFamily { get }
  static var kind: String { get }
  /// How a host that is not there is told.
  static var unreachable: String { get }
  /// The protocol of such messages.
  static var icmp: String { get }
  var octets: [UInt8] { get }
  /// As it stands before a colon and a port.
  var beforePort: String { get }
}
extension IPv4Address: OverlayAddress {
  static let (family, kind, unreachable, icmp) = ("ip", "ipv4_addr", "icmp type host-unreachable", "icmp")
  static let addresses = IPFamily.v4
  var beforePort: String { description }
}
extension IPv6Address: OverlayAddress {
  static let (family, kind, unreachable, icmp) = ("ip6", "ipv6_addr", "icmpv6 type addr-unreachable", "ipv6-icmp")
  static let addresses = IPFamily.v6
  var beforePort: String { "[\(self)]" }
}

struct RuleChain: Equatable, Sendable {
  var name: String
  /// "type nat hook output priority -100; policy accept;", or empty.
  var hook: String
  var rules: [String]
}

/// The table `ip orch` or `ip6 orch` of one namespace: its chains, in order, and what its maps hold.
///
/// It is changed in place, in one transaction, and not taken away and made anew. A chain that takes the place of another of the same hook comes
/// before it in the kernel, and each of the two looks by itself at which generation of the rules holds: a packet that passes the first before the
/// change and the second after it meets no rule at all. Such a connection was translated and not masqueraded, and hung.
/// (Linux net/netfilter: core.c, nf_hook_entries_grow; nf_tables_core.c, nft_do_chain.)
struct RuleTable<Address: OverlayAddress>: Equatable, Sendable {
  var chains: [RuleChain]
  /// What is done to frames that leave by a device, in a table of its own (`netdev orch`): packets' link headers are written there alone.
  var egress: Egress?
  struct Egress: Equatable, Sendable {
    var device: String
    var rule: String
  }
  var balancing: Balancing<Address>
  init(chains: [RuleChain], egress: Egress? = nil, balancing: Balancing<Address> = Balancing()) {
    self.chains = chains
    self.egress = egress
    self.balancing = balancing
  }

  private static func text(_ chains: [RuleChain]) -> String {
    chains.map { chain in
      "  chain \(chain.name) {\n" + (chain.hook.isEmpty ? "" : "    \(chain.hook)\n") + chain.rules.map { "    \($0)\n" }.joined() + "  }\n"
    }.joined()
  }
  private var body: String {
    "table \(Address.family) orch {\n\(Self.objects)\(Self.text(chains))}\n" + balancing.changes(from: Balancing()).additions + frames
  }
  /// Whether there are some or not. IPv6's table has none of its own to take away.
  private static var noFrames: String { Address.family == IPv4Address.family ? "table netdev orch {\n}\ndelete table netdev orch\n" : "" }

  /// What keeps its content when rules are replaced: who is gone since a short while (Ruleset.stale; the kernel forgets by itself), and how many
  /// flows of datagrams were translated, and how many VXLAN packets came from hosts that are not on their network.
  private static var objects: String {
    Balancing<Address>.objects + "  counter strangers {\n  }\n"
      + "  set lingering {\n    type \(Address.kind)\n    flags timeout\n  }\n  counter datagrams {\n  }\n"
  }

  /// A container's interfaces stay what they are, so the chain does.
  private var frames: String {
    guard let egress else { return Self.noFrames }
    let hook = "type filter hook egress device \"\(egress.device)\" priority 0; policy accept;"
    return "table netdev orch {\n  chain depart {\n    \(hook)\n  }\n}\nflush table netdev orch\n"
      + "table netdev orch {\n  chain depart {\n    \(egress.rule)\n  }\n}\n"
  }

  /// Where there is none, or one of a kind that cannot be changed in place.
  var fresh: String { Self.removal + body }

  /// In place of a table with these chains, whose content is not known. A packet meets all of the old rules of a chain or all of the new ones.
  func replacing(_ names: some Sequence<String>) -> String {
    let own = Set(chains.map(\.name))
    let gone = names.filter { !own.contains($0) }.sorted().map { "delete chain \(Address.family) orch \($0)\n" }
    return "table \(Address.family) orch {\n\(Self.objects)}\nflush table \(Address.family) orch\n\(Balancing<Address>.flush)" + gone.joined() + body
  }

  /// What makes this table of `old`, one transaction after the other; nil: it has to be made anew. Chains that are new come before those who lead
  /// to them: a packet under way sees the maps of this moment and the rules of the one before.
  func changes(from old: RuleTable) -> [String]? {
    let before = Dictionary(uniqueKeysWithValues: old.chains.map { ($0.name, $0) })
    let own = Set(chains.map(\.name))
    let gone = old.chains.filter { !own.contains($0.name) }
    guard chains.allSatisfy({ chain in before[chain.name].map { $0.hook == chain.hook } ?? chain.hook.isEmpty }), gone.allSatisfy(\.hook.isEmpty)
    else {
      return nil
    }
    let new = chains.filter { before[$0.name] == nil }
    let changed = chains.filter { chain in before[chain.name].map { $0.rules != chain.rules } ?? false }
    let elements = balancing.changes(from: old.balancing)
    let change =
      elements.removals + (changed + gone).map { "flush chain \(Address.family) orch \($0.name)\n" }.joined()
      + (changed.isEmpty ? "" : "table \(Address.family) orch {\n\(Self.text(changed))}\n") + elements.additions
      + gone.map { "delete chain \(Address.family) orch \($0.name)\n" }.joined() + (egress == old.egress ? "" : frames)
    return [new.isEmpty ? "" : "table \(Address.family) orch {\n\(Self.text(new))}\n", change].filter { !$0.isEmpty }
  }

  /// No error when there is none.
  static var removal: String { "table \(Address.family) orch {\n}\ndelete table \(Address.family) orch\n\(noFrames)" }
}
