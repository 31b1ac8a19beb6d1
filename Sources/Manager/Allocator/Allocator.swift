import Model

// Allocator: who has which VNI, subnet, address and published port.
//
// What is given is written into rows (network, service endpoint, node and task attachments); what is kept here is only an index of
// them, so it can be rebuilt from the state at any time and seeing a change twice does no harm.
//
// Invariants
// - An address has one owner at a time. A task owns its addresses until it is terminal or its row is gone, whatever is desired of it.
// - On every network the first address (.1) stays unused, and so do the network's own, the broadcast and the declared gateway.
// - What nobody has is not given while it rests (`resting`), nor in the decision that frees it.
// - Subnets from the pool overlap no other; declared ones not ingress's. VNIs and published ports are not given twice. What a network had that is
//   gone is not given while it rests.
// - A number that is chosen goes around those that other services fix, through ingress or in host mode, and around what processes of hosts are known
//   to have. What a service was given it keeps while its spec fits.
// - An IPv6 address is nobody's choice: who has the n-th address of a network's IPv4 subnet has the n-th of its IPv6 subnet, and it rests with it.
//
// It refuses to know why a task exists and where it should run.

/// Why something could not be given; a sentence for the user.
public struct AllocationRefusal: Error, Hashable, Sendable, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }
}

public struct Allocator: Sendable {
  /// Who has an address.
  enum Owner: Hashable, Sendable {
    case service(ServiceID)
    case node(NodeID)
    case task(TaskID)
  }

  /// Addresses in use on one network.
  struct Space: Sendable {
    var prefix: IPv4Prefix
    var owners: [UInt32: Owner] = [:]
    /// Where the search for a free one begins: a freed address waits until all others had their turn.
    var cursor: UInt32
    /// The first and the last that may be given.
    var bounds: ClosedRange<UInt32>
    /// Never given: the declared gateway and auxiliary addresses.
    var reserved: Set<UInt32> = []
    /// Freed by what is being decided.
    var released: Set<UInt32> = []
  }

  var spaces: [NetworkID: Space] = [:]
  /// Kept apart from the spaces: attachments may be seen before their network.
  var vnis: [UInt32: NetworkID] = [:]
  var subnets: [NetworkID: IPv4Prefix] = [:]
  var subnets6: [NetworkID: IPv6Prefix] = [:]
  /// Through ingress.
  var ports = PortClaims<ServiceID>()
  /// In host mode, with a number: of several services, maybe, on different hosts.
  var hostPorts = PortClaims<ServiceID>()
  /// Numbers that services fix, given to them or not yet.
  var declared = PortClaims<ServiceID>()
  var declarations: [ServiceID: [PortClaim]] = [:]
  /// What processes of hosts had of the ports that hosts were asked for last, by what was asked.
  var occupied: [PortClaim: [PortClaim]] = [:]
  /// Somebody may still be sent to them.
  public var resting = RestingAddresses()
  var nextPort: UInt16 = PortConfig.dynamicNumbers.lowerBound
  public internal(set) var ingress: NetworkID?

  public static let firstVNI: UInt32 = 4096
  /// 24 bits (RFC 7348), without the last.
  public static let lastVNI: UInt32 = 0xFF_FFFE

  public init() {}
}
