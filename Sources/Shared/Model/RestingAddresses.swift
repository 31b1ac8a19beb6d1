/// Addresses that nobody has any more and that some host may still send to: not to be given again yet. The same of what networks had that are gone.
public struct RestingAddresses: Hashable, Sendable {
  public private(set) var addresses: [NetworkID: Set<IPv4Address>] = [:]
  /// Networks where it is not known which of the free addresses are at rest: none may be given.
  public private(set) var networks: Set<NetworkID> = []
  /// Of networks that are gone and that some host may still be on.
  public private(set) var vnis: Set<UInt32> = []
  /// How many of them had each: networks may declare the same one.
  private var subnetCounts: [IPv4Prefix: Int] = [:]
  public var subnets: some Collection<IPv4Prefix> { subnetCounts.keys }
  /// It is not known which networks are gone since a short while: no VNI and no subnet of the pool may be given.
  public private(set) var isClosed = false
  /// Rises whenever something may be given again.
  public private(set) var endings: UInt64 = 0

  public init() {}

  public func contains(_ address: IPv4Address, on network: NetworkID) -> Bool {
    networks.contains(network) || addresses[network]?.contains(address) == true
  }

  public mutating func begin(_ some: Set<IPv4Address>, on network: NetworkID) { addresses[network, default: []].formUnion(some) }
  public mutating func end(_ some: Set<IPv4Address>, on network: NetworkID) {
    addresses[network]?.subtract(some)
    if addresses[network]?.isEmpty == true { addresses[network] = nil }
    endings += 1
  }
  public mutating func begin(vni: UInt32?, subnet: IPv4Prefix?) {
    if let vni { vnis.insert(vni) }
    if let subnet { subnetCounts[subnet, default: 0] += 1 }
  }
  public mutating func end(vni: UInt32?, subnet: IPv4Prefix?) {
    if let vni { vnis.remove(vni) }
    if let subnet, let count = subnetCounts[subnet] { subnetCounts[subnet] = count > 1 ? count - 1 : nil }
    endings += 1
  }
  public mutating func close() { isClosed = true }
  public mutating func open() {
    if isClosed { endings += 1 }
    isClosed = false
  }
  public mutating func close(_ network: NetworkID) { networks.insert(network) }
  public mutating func open(_ network: NetworkID) {
    if networks.remove(network) != nil { endings += 1 }
  }
}
