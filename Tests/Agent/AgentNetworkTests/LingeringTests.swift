import Model
import Testing

@testable import AgentNetwork

@Suite struct LingeringTests {
  @Test("who is gone is added to a set once; to an empty set all are")
  func once() {
    func addresses(_ last: Int...) -> Set<IPv4Address> { Set(last.map { IPv4Address("10.0.1.\($0)")! }) }
    let lingering = Lingering(addresses: addresses(7, 8, 9), told: addresses(5, 7, 9), time: .seconds(10))
    #expect(lingering.news == "add element ip orch lingering { 10.0.1.8 timeout 10000ms }\n")
    #expect(
      lingering.whole == "add element ip orch lingering { 10.0.1.7 timeout 10000ms, 10.0.1.8 timeout 10000ms, 10.0.1.9 timeout 10000ms }\n")
    #expect(Lingering(addresses: addresses(7), told: addresses(7), time: .seconds(10)).news == "")
  }
}
