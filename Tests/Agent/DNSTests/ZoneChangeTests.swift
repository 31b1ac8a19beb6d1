import Model
import Testing

@testable import DNS

@Suite("Names that follow changes")
struct ZoneChangeTests {
  /// A small world in which names, aliases, addresses and slots meet.
  private static func item(_ random: inout some RandomNumberGenerator) -> AssignmentItem {
    func number(_ count: UInt64) -> UInt64 { UInt64.random(in: 1...count, using: &random) }
    func network() -> NetworkID { NetworkID(value: UInt128(number(2))) }
    func address() -> IPv4Address { IPv4Address(0x0a00_0000 + UInt32(number(8))) }
    switch number(8) {
    case 1:
      let id = network()
      return .network(
        NetworkAssignment(
          id: id, name: "n", vni: 4096, subnet: IPv4Prefix(IPv4Address(0x0a00_0000), length: UInt8(23 + number(2)))!, internalOnly: false,
          ingress: false, mtu: 1450, dataPathPort: 4789, nodeAddress: address(), peers: []))
    case 2, 3:
      let id = number(3)
      var names: [NetworkID: [String]] = [:]
      for _ in 0..<number(3) - 1 {
        names[network()] = (0..<number(3)).map { _ in ["web", "Web", "alias\(number(2))", "tasks.web"].randomElement(using: &random)! }
      }
      var port = PortConfig(targetPort: UInt16(number(2)), publishedPort: 80)
      if number(2) == 1 { port.name = "http" }
      return .service(
        ServiceRecord(
          id: ServiceID(value: UInt128(id)), name: number(6) == 1 ? "renamed\(id)" : "service\(id)", names: names,
          mode: number(2) == 1 ? .vip : .dnsrr,
          virtualIPs: number(2) == 1 ? [NetworkAttachment(network: network(), address: address())] : [], ports: number(2) == 1 ? [port] : []))
    default:
      return .endpoint(
        EndpointRecord(
          task: TaskID(value: UInt128(number(6))), service: ServiceID(value: UInt128(number(3))), network: network(), node: NodeID(value: 1),
          slot: number(3) - 1, address: address(), underlay: IPv4Address(1), ready: number(3) > 1))
    }
  }

  @Test("a zone that followed random changes equals one made of the same records at once", arguments: 0..<20 as Range<UInt64>)
  func property(seed: UInt64) {
    var random = SplitMix64(seed: seed)
    var zone = Zone()
    var records: [AssignmentItem.Key: AssignmentItem] = [:]
    for step in 0..<300 {
      let item = Self.item(&random)
      if Bool.random(using: &random) || Bool.random(using: &random) {
        zone.update(item)
        records[item.key] = item
      } else {
        zone.remove(item.key)
        records[item.key] = nil
      }
      guard step % 5 == 0 else { continue }
      var anew = Zone()
      for record in records.values.shuffled(using: &random) { anew.update(record) }
      guard zone == anew else {
        Issue.record("seed \(seed), step \(step), after \(item)")
        return
      }
    }
    for key in records.keys { zone.remove(key) }
    #expect(zone == Zone())
  }
}
