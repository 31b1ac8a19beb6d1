import Model
import Synchronization

/// Who answers for which virtual IP, and which addresses are tasks'. It is in named maps and sets of the table, changed element by element: what a
/// change costs does not grow with the services, as a chain for each did (5,000 of them took 4 s of the kernel, in every container).
struct Balancing<Address: OverlayAddress>: Equatable, Sendable {
  /// Ready endpoints by virtual IP; none: calls are refused.
  var virtual: [Address: [Address]] { content.virtual }
  /// Of all tasks of the networks that are not lost, whether ready or not; what was translated to another address is refused.
  var alive: Set<Address> { content.alive }
  private let content: Content

  init(virtual: [Address: [Address]] = [:], alive: Set<Address> = []) { content = Content(virtual: virtual, alive: alive) }

  static func == (a: Balancing, b: Balancing) -> Bool {
    if a.content === b.content { return true }
    let change = a.changes(from: b)
    return change.removals.isEmpty && change.additions.isEmpty
  }

  /// A packet under way when elements change may be too late for the number that it drew, or meet no element between the one that goes and the one
  /// that comes: the kernel's lookups see each its own generation. So maps are asked twice, the second time for number 0, which every virtual IP has.
  static var lookup: [String] { Array(repeating: "\(Address.family) daddr vmap @virtual", count: 2) }
  static var objects: String {
    let (family, kind) = (Address.family, Address.kind)
    return "  map virtual {\n    type \(kind) : verdict\n  }\n"
      + "  map backends {\n    typeof \(family) daddr . numgen random mod 65536 : \(family) daddr\n  }\n"
      + "  set refused {\n    type \(kind)\n  }\n  set alive {\n    type \(kind)\n  }\n"
  }
  static var flush: String {
    ["map virtual", "map backends", "set refused", "set alive"].map { object in
      let words = object.split(separator: " ")
      return "flush \(words[0]) \(Address.family) orch \(words[1])\n"
    }.joined()
  }

  /// Where virtual IPs with so many endpoints go: `numgen` wants its number in the rule.
  var chains: [RuleChain] {
    content.counts.map { count in
      RuleChain(
        name: Self.chain(count), hook: "",
        rules: ["meta l4proto udp counter name \"datagrams\""]
          + Set([count, 1]).sorted(by: >).map { "dnat to \(Address.family) daddr . numgen random mod \($0) map @backends" })
    }
  }
  private static func chain(_ count: Int) -> String { "spread-\(count)" }

  /// Commands that take elements away, and those that add them, in this order around changed chains.
  typealias Change = (removals: String, additions: String)
  /// Worked out once for all namespaces that go from the same content to the same one.
  func changes(from old: Balancing) -> Change { content.changes(from: old.content) }
  /// No namespace is left that goes to this content now: what led to it is not kept.
  func settle() { content.forgetChange() }

  /// Namespaces on the same networks share it.
  private final class Content: Sendable {
    let virtual: [Address: [Address]]
    let alive: Set<Address>
    /// Of endpoints, as virtual IPs have them; sorted, without 0.
    let counts: [Int]
    /// What was asked for last.
    private let last = Mutex<(old: Old, change: Change)?>(nil)
    private enum Old {
      case nothing
      case content(Weak)
    }
    /// Contents would keep one another.
    private struct Weak { weak var content: Content? }

    init(virtual: [Address: [Address]], alive: Set<Address>) {
      (self.virtual, self.alive) = (virtual, alive)
      var counts: Set<Int> = []
      for backends in virtual.values where !backends.isEmpty { counts.insert(backends.count) }
      self.counts = counts.sorted()
    }

    func changes(from old: Content) -> Change {
      let isNothing = old.virtual.isEmpty && old.alive.isEmpty
      return last.withLock { last in
        switch last?.old {
        case .nothing where isNothing: return last!.change
        case .content(let weak) where weak.content === old: return last!.change
        default: break
        }
        let change = Balancing.changes(from: old, to: self)
        last = (isNothing ? .nothing : .content(Weak(content: old)), change)
        return change
      }
    }
    func forgetChange() { last.withLock { $0 = nil } }
  }

  private static func changes(from old: Content, to content: Content) -> Change {
    var gone = Elements(), new = Elements()
    for (address, backends) in content.virtual { compare(address, old.virtual[address], backends, &gone, &new) }
    for (address, backends) in old.virtual where content.virtual[address] == nil { compare(address, backends, nil, &gone, &new) }
    if content.alive != old.alive {
      gone.alive = old.alive.subtracting(content.alive).map { "\($0)" }
      new.alive = content.alive.subtracting(old.alive).map { "\($0)" }
    }
    return (gone.commands("delete"), new.commands("add"))
  }

  private static func compare(_ address: Address, _ old: [Address]?, _ new: [Address]?, _ gone: inout Elements, _ come: inout Elements) {
    if old == new { return }
    if old?.count != new?.count {
      switch old?.count {
      case nil: break
      case 0: gone.refused.append("\(address)")
      case _: gone.virtual.append("\(address)")
      }
      switch new?.count {
      case nil: break
      case 0: come.refused.append("\(address)")
      case let count?: come.virtual.append("\(address) : goto \(chain(count))")
      }
    }
    let (before, after) = (old ?? [], new ?? [])
    for number in 0..<max(before.count, after.count) {
      let (left, right) = (number < before.count ? before[number] : nil, number < after.count ? after[number] : nil)
      if left == right { continue }
      if left != nil { gone.backends.append("\(address) . \(number)") }
      if let right { come.backends.append("\(address) . \(number) : \(right)") }
    }
  }

  private struct Elements {
    var virtual: [String] = []
    var backends: [String] = []
    var refused: [String] = []
    var alive: [String] = []

    func commands(_ verb: String) -> String {
      [("virtual", virtual), ("backends", backends), ("refused", refused), ("alive", alive)].map { name, elements in
        elements.isEmpty ? "" : "\(verb) element \(Address.family) orch \(name) { \(elements.sorted().joined(separator: ", ")) }\n"
      }.joined()
    }
  }
}
