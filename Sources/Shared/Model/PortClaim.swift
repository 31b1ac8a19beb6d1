/// Which calls to hosts a published port answers. No two ports of one host answer the same call.
public struct PortClaim: Hashable, Sendable, CustomStringConvertible {
  public var port: UInt16
  public var `protocol`: PortConfig.PortProtocol
  /// The only one of the host's; 0.0.0.0: all of IPv4, `::`: all of IPv6; nil: all.
  public var address: IPAddress?
  public init(_ port: UInt16, _ protocol: PortConfig.PortProtocol, at address: IPAddress? = nil) {
    self.port = port
    self.protocol = `protocol`
    self.address = address
  }
  /// nil when the number is the allocator's to choose.
  public init?(_ config: PortConfig) {
    guard let port = config.publishedPort, port != 0 else { return nil }
    self.init(port, config.protocol ?? .tcp, at: config.hostIP)
  }

  /// At any address.
  public var anywhere: Self { Self(port, `protocol`) }

  /// Whether both would answer the same call. All addresses of a family and one of them exclude each other, as with bind(2) (ip(7), EADDRINUSE).
  public func overlaps(_ other: Self) -> Bool {
    guard port == other.port, `protocol` == other.protocol else { return false }
    guard let own = address, let theirs = other.address else { return true }
    return own.family == theirs.family && (own == theirs || own.isUnspecified || theirs.isUnspecified)
  }

  /// "8080/tcp", "127.0.0.1:8080/tcp" or "[::1]:8080/tcp".
  public var description: String {
    let place = address.map { $0.family == .v6 ? "[\($0)]:" : "\($0):" } ?? ""
    return "\(place)\(port)/\(`protocol`.rawValue)"
  }
}

/// Who has which ports.
public struct PortClaims<Holder: Equatable & Sendable>: Sendable {
  private struct Entry: Equatable, Sendable {
    var claim: PortClaim
    var holder: Holder
  }
  private var entries: [PortClaim: [Entry]] = [:]
  public init() {}

  public var isEmpty: Bool { entries.isEmpty }
  /// In the order in which they were put in.
  public func holders(overlapping claim: PortClaim) -> [Holder] {
    (entries[claim.anywhere] ?? []).filter { $0.claim.overlaps(claim) }.map(\.holder)
  }
  public func isTaken(_ claim: PortClaim) -> Bool { entries[claim.anywhere]?.contains { $0.claim.overlaps(claim) } ?? false }
  /// The same once more changes nothing.
  public mutating func insert(_ claim: PortClaim, _ holder: Holder) {
    let entry = Entry(claim: claim, holder: holder)
    if entries[claim.anywhere]?.contains(entry) != true { entries[claim.anywhere, default: []].append(entry) }
  }
  /// No error when it has none.
  public mutating func remove(_ claim: PortClaim, _ holder: Holder) {
    guard var left = entries[claim.anywhere] else { return }
    left.removeAll { $0 == Entry(claim: claim, holder: holder) }
    entries[claim.anywhere] = left.isEmpty ? nil : left
  }
}

/// Of services that are looked at together.
public struct PortOwner: Equatable, Sendable {
  public var service: String
  public var isHost: Bool
  public init(_ service: String, _ port: PortConfig) { (self.service, isHost) = (service, port.publishMode == .host) }
}

extension PortClaims where Holder == PortOwner {
  /// Another service that stands in the way. Host-mode ports of two services may live side by side on different nodes.
  public func other(than owner: PortOwner, at claim: PortClaim) -> String? {
    holders(overlapping: claim).first { $0.service != owner.service && !($0.isHost && owner.isHost) }?.service
  }
}

// MARK: - Numbers that are chosen

extension PortConfig {
  /// Those that the allocator chooses from when nothing else is said (Swarm's).
  public static let dynamicNumbers: ClosedRange<UInt16> = 30_000...32_767
  /// The number is the allocator's to choose, of `choice`. In host mode it is each task's own.
  public var isChosen: Bool { (publishMode ?? .ingress) == .ingress && (publishedPort ?? 0) == 0 }
  public var choice: ClosedRange<UInt16> { publishedRange ?? Self.dynamicNumbers }
  /// Whether `given`, which has a number, may go on as what was chosen for this one.
  public func accepts(_ given: PortConfig) -> Bool {
    isChosen && given.targetPort == targetPort && (given.protocol ?? .tcp) == (self.protocol ?? .tcp) && given.name == name
      && (given.publishMode ?? .ingress) == .ingress && given.hostIP == hostIP && choice.contains(given.publishedPort ?? 0)
  }
}

extension [PortConfig] {
  /// Of what a service was given, what it keeps with these as its ports: the numbers that they fix, and one that was chosen before for each that is to be
  /// chosen.
  public func kept(of given: [PortConfig]) -> [PortConfig] {
    let fixed = compactMap { PortClaim($0) }
    var rest = given
    return compactMap { port in
      let place = rest.firstIndex { old in
        guard let claim = PortClaim(old) else { return old == port }
        if port.isChosen { return port.accepts(old) && !fixed.contains(where: claim.overlaps) }
        return claim == PortClaim(port) && (old.publishMode ?? .ingress) == (port.publishMode ?? .ingress)
      }
      return place.map { rest.remove(at: $0) }
    }
  }
}
