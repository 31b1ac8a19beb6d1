import Model

/// Addresses of tasks that are gone since a short while, as one namespace's set `lingering` is to have them (Ruleset.stale). The kernel ends each by
/// itself, so each is added once: added with every change as long as they linger, 10,000 of them took 20 ms more in every container.
struct Lingering<Address: OverlayAddress> {
  var addresses: Set<Address>
  /// Those that the set was given already.
  var told: Set<Address>
  var time: Duration

  /// What a set that is as it was left has to get.
  var news: String { Self.commands(addresses.subtracting(told), time) }
  /// What an empty one has to get. Those that are in the set already keep their time (from Linux 6.12 on they begin anew).
  var whole: String { Self.commands(addresses, time) }

  private static func commands(_ addresses: Set<Address>, _ time: Duration) -> String {
    if addresses.isEmpty { return "" }
    let milliseconds = time.components.seconds * 1000 + time.components.attoseconds / 1_000_000_000_000_000
    return
      "add element \(Address.family) orch lingering { \(addresses.sorted().map { "\($0) timeout \(milliseconds)ms" }.joined(separator: ", ")) }\n"
  }
}
