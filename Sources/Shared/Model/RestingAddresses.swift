/// Addresses that nobody has any more and that some host may still send to: not to be given again yet.
public struct RestingAddresses: Hashable, Sendable {
  public private(set) var addresses: [NetworkID: Set<IPv4Address>] = [:]
  /// Networks where it is not known which of the free addresses are at rest: none may be given.
  public private(set) var networks: Set<NetworkID> = []
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
  public mutating func close(_ network: NetworkID) { networks.insert(network) }
  public mutating func open(_ network: NetworkID) {
    if networks.remove(network) != nil { endings += 1 }
  }
}
