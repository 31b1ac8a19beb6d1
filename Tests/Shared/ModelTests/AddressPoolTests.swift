import Model
import Testing

@Suite struct AddressPoolTests {
  @Test("a subnet that two networks had rests until the second is done, too")
  func restsTwice() throws {
    let subnet = IPv4Prefix("10.5.0.0/24")
    var resting = RestingAddresses()
    for _ in 1...2 { resting.begin(vni: nil, subnet: subnet) }
    resting.end(vni: nil, subnet: subnet)
    #expect(Array(resting.subnets) == [subnet])
    resting.end(vni: nil, subnet: subnet)
    #expect(resting.subnets.isEmpty)
  }

  @Test("a pool is Swarm's default or one that is named; what has no room for ingress and a network more is refused with a sentence")
  func pools() throws {
    let usual = try AddressPool([], length: nil)
    #expect(usual.prefix == IPv4Prefix("10.0.0.0/8") && usual.subnetLength == 24)
    let own = try AddressPool(["10.20.0.0/16"], length: 26)
    #expect(own.prefix == IPv4Prefix("10.20.0.0/16") && own.subnetLength == 26)
    for (pools, length, word) in [
      (["10.20.0.0"], 26, "not an IPv4 subnet"), (["10.20.0.1/16"], 26, "10.20.0.0/16 is meant?"), (["10.20.0.0/16"], 16, "longer than the pool's"),
      (["10.20.0.0/24"], nil, "longer than the pool's"), (["10.20.0.0/16"], 27, "26 at most"), (["0.0.0.0/0"], 24, "must be /8 or smaller"),
      (["10.20.0.0/16", "10.30.0.0/16"], 24, "one pool at most"), (["127.0.0.0/8"], nil, "127.0.0.0/8"), (["225.0.0.0/8"], nil, "224.0.0.0/4"),
    ] as [([String], Int?, String)] {
      let refusal = #expect(throws: AddressPool.Refusal.self) { try AddressPool(pools, length: length) }
      #expect(refusal?.description.contains(word) == true, "\(pools) \(String(describing: length)): \(String(describing: refusal))")
    }
  }
}
