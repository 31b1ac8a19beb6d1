import Testing

@testable import Worker

@Suite("Whether networks are applied")
struct AppliedNetworksTests {
  @Test("what was refused is not told as applied, and is tried again after 250 ms, twice as long each time, 5 s at most")
  func refusals() {
    var networks = AppliedNetworks()
    #expect(networks.isWhole && networks.passed(isWhole: true) == nil)
    let pauses = (1...40).map { _ in networks.passed(isWhole: false) }
    #expect(pauses.prefix(6) == [.milliseconds(250), .milliseconds(500), .seconds(1), .seconds(2), .seconds(4), .seconds(5)])
    #expect(pauses.dropFirst(5).allSatisfy { $0 == .seconds(5) } && !networks.isWhole)
    #expect(networks.passed(isWhole: true) == nil && networks.isWhole)
    #expect(networks.passed(isWhole: false) == .milliseconds(250))
  }
}
