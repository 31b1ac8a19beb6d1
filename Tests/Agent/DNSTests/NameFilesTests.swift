import Model
import Testing

@testable import DNS

@Suite("The files of names in a container")
struct NameFilesTests {
  private let spec: ContainerSpec = {
    var spec = ContainerSpec(image: "a:1")
    spec.domainname = "example.org"
    spec.hosts = ["10.9.9.9 db", "fd00::9 db six"]
    spec.dnsConfig = .init(nameservers: ["10.0.0.2", "fd00::2"], search: ["a.example", "b.example"], options: ["timeout:1"])
    return spec
  }()
  private let extra = "10.9.9.9\tdb\nfd00::9\tdb\tsix\n"
  private let localhost = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

  @Test("on a network the resolver is ours, whatever servers the task has; the full name stands before the short one")
  func overlay() {
    let files = NameFiles(spec, hostname: "web", on: .overlay([.v4(IPv4Address("10.0.1.3")!), .v6(IPv6Address("fd00::3")!)]))
    #expect(files.hosts == localhost + extra + "10.0.1.3\tweb.example.org web\nfd00::3\tweb.example.org web\n")
    #expect(files.resolv == "search a.example b.example\nnameserver 127.0.0.11\noptions ndots:0 timeout:1\n")
    #expect(files.hostname == "web\n")
    let plain = NameFiles(ContainerSpec(image: "a:1"), hostname: "web", on: .overlay([.v4(IPv4Address("10.0.1.3")!)]))
    #expect(plain.hosts == localhost + "10.0.1.3\tweb\n")
    #expect(plain.resolv == "nameserver 127.0.0.11\noptions ndots:0\n")
  }

  @Test("on the host's network the files are the host's; what the task has for itself takes the place of that kind of line")
  func host() {
    let (hosts, resolv) = ("127.0.0.1 localhost\n10.1.1.1 box", "# x\ndomain box.example\nnameserver 10.1.1.2\noptions edns0\n")
    #expect(
      NameFiles(spec, hostname: "web", on: .host(hosts: hosts, resolv: resolv))
        == NameFiles(
          hosts: "127.0.0.1 localhost\n10.1.1.1 box\n" + extra,
          resolv: "# x\nsearch a.example b.example\nnameserver 10.0.0.2\nnameserver fd00::2\noptions timeout:1\n", hostname: "web\n"))
    var one = ContainerSpec(image: "a:1")
    #expect(NameFiles(one, hostname: "web", on: .host(hosts: hosts, resolv: resolv)).resolv == resolv)
    one.dnsConfig = .init(nameservers: ["10.0.0.2"])
    #expect(
      NameFiles(one, hostname: "web", on: .host(hosts: hosts, resolv: resolv)).resolv
        == "# x\ndomain box.example\noptions edns0\nnameserver 10.0.0.2\n")
  }

  @Test("with a way out and no network it has its address there, and the domains of its host's file unless it has some of its own")
  func bridge() {
    let own = IPAddress.v4(IPv4Address("172.28.240.2")!)
    let resolv = "domain old.example\nsearch box.example  lan\nnameserver 10.1.1.2\noptions edns0\n"
    let plain = NameFiles(ContainerSpec(image: "a:1"), hostname: "web", on: .bridge(own, resolv: resolv))
    #expect(plain.hosts == localhost + "172.28.240.2\tweb\n")
    #expect(plain.resolv == "search box.example lan\nnameserver 127.0.0.11\noptions ndots:0\n")
    let files = NameFiles(spec, hostname: "web", on: .bridge(own, resolv: resolv))
    #expect(files.resolv == "search a.example b.example\nnameserver 127.0.0.11\noptions ndots:0 timeout:1\n")
    #expect(NameFiles(ContainerSpec(image: "a:1"), hostname: "web", on: .bridge(nil, resolv: "")).hosts == localhost)
  }

  @Test("without a network there is what the task says, and nothing else; the domain '.' is none")
  func none() {
    var spec = spec
    #expect(NameFiles(ContainerSpec(image: "a:1"), hostname: "web", on: .none) == NameFiles(hosts: localhost, resolv: "", hostname: "web\n"))
    spec.dnsConfig?.search = ["."]
    #expect(NameFiles(spec, hostname: "web", on: .none).resolv == "nameserver 10.0.0.2\nnameserver fd00::2\noptions timeout:1\n")
  }
}
