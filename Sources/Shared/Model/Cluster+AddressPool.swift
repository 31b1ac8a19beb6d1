/// What a cluster's overlay networks get their subnets from, as `docker swarm init --default-addr-pool` says it.
public struct AddressPool: Hashable, Sendable {
  public var prefix: IPv4Prefix
  /// Of each network's subnet.
  public var subnetLength: UInt8

  public struct Refusal: Error, Hashable, Sendable, CustomStringConvertible { public var description: String }

  /// - Parameters:
  ///   - pools: IPv4 subnets; none: 10.0.0.0/8.
  ///   - length: nil: 24, as Swarm has it.
  /// - Throws: when there is more than one pool (Swarm takes several), one is malformed, or has no room for ingress and one more network.
  public init(_ pools: [String], length: Int?) throws(Refusal) {
    guard pools.count <= 1 else {
      throw Refusal(description: "--default-addr-pool: one pool at most; networks outside of it declare their subnets")
    }
    let text = pools.first ?? "10.0.0.0/8"
    guard let prefix = IPv4Prefix(text) else { throw Refusal(description: "--default-addr-pool \(text): not an IPv4 subnet like 10.20.0.0/16") }
    guard "\(prefix)" == text else { throw Refusal(description: "--default-addr-pool \(text): has bits behind its length; \(prefix) is meant?") }
    let length = length ?? 24
    guard prefix.length >= 8, length > prefix.length, length <= 26 else {
      throw Refusal(
        description:
          "--default-addr-pool \(text) of subnets of /\(length): the pool must be /8 or smaller, and --default-addr-pool-mask-length longer "
          + "than the pool's (ingress has the first subnet) and 26 at most (ingress needs an address for each host)")
    }
    // RFC 6890: this network, loopback, multicast, reserved.
    if let other = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"].compactMap(IPv4Prefix.init).first(where: { $0.overlaps(prefix) }) {
      throw Refusal(description: "--default-addr-pool \(text): hosts cannot have addresses of \(other); choose private ones, like 10.20.0.0/16")
    }
    (self.prefix, subnetLength) = (prefix, UInt8(length))
  }
}
