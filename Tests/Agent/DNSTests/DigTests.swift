import Glibc
import LinuxSystem
import Logging
import Model
import Testing

@testable import DNS

/// The name server as BIND's dig sees it.
@Suite(
  "Names, asked by dig", .enabled(if: geteuid() == 0, "needs root"),
  .enabled(if: access("/usr/bin/dig", X_OK) == 0, "dig is not installed (Debian: bind9-dnsutils)"))
struct DigTests {
  private static func text(_ command: String) -> String {
    guard let stream = popen("\(command) 2>&1", "r") else { return "" }
    defer { pclose(stream) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while case let count = fread(&buffer, 1, buffer.count, stream), count > 0 { bytes += buffer[..<count] }
    return String(decoding: bytes, as: UTF8.self)
  }

  @Test("A, AAAA, SRV and PTR, over UDP and TCP, with and without EDNS0, cut and whole, in the asker's spelling")
  func dig() async throws {
    let network = NetworkID(value: 1)
    var web = ServiceRecord(
      id: ServiceID(value: 1), name: "demo_web", names: [network: ["demo_web", "web"]], mode: .vip,
      virtualIPs: [NetworkAttachment(network: network, address: IPv4Address("10.0.0.2")!)], ports: [PortConfig(targetPort: 80, publishedPort: 8080)])
    web.ports[0].name = "http"
    let many = ServiceRecord(id: ServiceID(value: 2), name: "many", names: [network: ["many"]], mode: .dnsrr, virtualIPs: [], ports: [])
    let endpoints = (0..<101).map { number in
      EndpointRecord(
        task: TaskID(value: UInt128(number + 1)), service: ServiceID(value: number == 0 ? 1 : 2), network: network, node: NodeID(value: 1),
        slot: UInt64(max(1, number)), address: IPv4Address("10.0.1.\(number)")!, underlay: IPv4Address("192.168.0.1")!, ready: true)
    }
    let path = "/tmp/orch-dig-\(UInt64.random(in: 0...UInt64.max))"
    close(open(path, O_CREAT | O_RDONLY | O_CLOEXEC, 0o400))
    defer {
      while umount2(path, 2) == 0 {}
      unlink(path)
    }
    _ = Self.text("unshare --net=\(path) ip link set lo up")
    let server = try NameServer(upstreams: ResolvConf(), log: Logger(label: "test"))
    server.update([.service(web), .service(many)] + endpoints.map { .endpoint($0) })
    try await server.serve(TaskID(value: 1), namespace: path, client: DNSClient(networks: [network], forwards: false))
    func dig(_ arguments: String) async -> String {
      await withCheckedContinuation { continuation in
        let command = "nsenter --net=\(path) dig @127.0.0.11 -p \(EmbeddedDNS.port) +tries=2 +time=5 \(arguments)"
        startThread("test-dig") { continuation.resume(returning: Self.text(command)) }
      }
    }
    // The second time the answer was prepared.
    for _ in 1...2 {
      for (question, expected) in [
        ("web A", ["status: NOERROR", "flags: qr aa rd ra;", "web.\t\t\t1\tIN\tA\t10.0.0.2"]),
        ("web AAAA", ["status: NOERROR", "ANSWER: 0"]),
        ("demo_web A +tcp", ["status: NOERROR", "IN\tA\t10.0.0.2", "(TCP)"]),
        ("tasks.web A", ["status: NOERROR", "IN\tA\t10.0.1.0"]),
        ("_http._tcp.web SRV", ["status: NOERROR", "IN\tSRV\t0 0 80 demo_web.1.\(TaskID(value: 1))."]),
        ("-x 10.0.0.2", ["status: NOERROR", "IN\tPTR\tdemo_web."]),
        ("nobody A", ["status: NXDOMAIN"]),
        ("web TXT", ["status: NOERROR", "ANSWER: 0"]),
        ("WeB A", ["status: NOERROR", "WeB.\t\t\t1\tIN\tA"]),
        ("many A +noedns +ignore", ["flags: qr aa tc rd ra;"]),
        ("many A +noedns", ["Truncated, retrying in TCP mode", "ANSWER: 100"]),
        ("many A +bufsize=4096", ["ANSWER: 100", "EDNS: version: 0", "(UDP)"]),
        ("many A +tcp +noedns", ["ANSWER: 100", "(TCP)"]),
        ("web A +opcode=update", ["status: NOTIMP"]),
      ] {
        let answer = await dig(question)
        for text in expected { #expect(answer.contains(text), "\(question): \(answer)") }
      }
    }
    var first: Set<String> = []
    for _ in 1...8 { first.insert((await dig("many A +short +bufsize=4096")).split(separator: "\n").first.map(String.init) ?? "") }
    #expect(first.count > 4, "another is first each time: \(first)")
  }
}
