import Model
import Testing

@Suite("IPv6 addresses")
struct IPv6Tests {
  @Test(
    "are read as RFC 4291 has them and written as RFC 5952 has it",
    arguments: [
      ("::", "::"), ("::1", "::1"), ("fd00:0:0:0:0:0:0:A", "fd00::a"), ("2001:db8::1:0:0:1", "2001:db8::1:0:0:1"),
      ("2001:0db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"), ("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"),
      ("fd00::", "fd00::"), ("::ffff:10.0.0.1", "::ffff:a00:1"), ("1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"),
      ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
    ])
  func texts(text: String, written: String) throws {
    let address = try #require(IPv6Address(text))
    #expect(address.description == written)
    #expect(IPv6Address(written) == address && IPv6Address(octets: address.octets) == address)
  }

  @Test(
    "what is none is refused",
    arguments: [
      "", ":", ":::", "1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "g::", "::1%eth0", "[::1]", "1:2:3:4:5:6:7:8::", "::+1",
      "10.0.0.1", "::10.0.0", "1:2:3:4:5:6:7:1.2.3.4", " ::1",
    ])
  func refused(text: String) { #expect(IPv6Address(text) == nil) }

  @Test("the n-th of an IPv4 subnet has the n-th of an IPv6 one, and back; a cluster's own are unique local addresses")
  func counterparts() throws {
    let (subnet, prefix) = (try #require(IPv4Prefix("10.0.4.0/22")), try #require(IPv6Prefix("fd00:1::/64")))
    let address = try #require(IPv4Address("10.0.5.7"))
    #expect(prefix.counterpart(of: address, in: subnet).description == "fd00:1::107")
    #expect(prefix.counterpart(of: prefix.counterpart(of: address, in: subnet), in: subnet) == address)
    for text in ["fd00:1::400", "fd00:2::107", "fd00:1::1:0:0:107"] { #expect(prefix.counterpart(of: IPv6Address(text)!, in: subnet) == nil) }
    #expect(IPv6Prefix.uniqueLocal(of: ClusterID(value: 0xab_cdef_0123)).description == "fdab:cdef:123::/48")
    #expect(IPv6Prefix("fd00::1/64")?.description == "fd00::/64" && IPv6Prefix("::/0")?.contains(IPv6Address("ff::")!) == true)
    #expect(IPv6Prefix("fd00::/129") == nil)
  }
}
