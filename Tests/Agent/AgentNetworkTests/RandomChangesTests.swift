import CLinux
import Glibc
import LinuxSystem
import Logging
import Model
import Netlink
import Testing

@testable import AgentNetwork

@Suite("Random changes", .serialized, .enabled(if: geteuid() == 0))
struct RandomChangesTests {
  /// Hosts come and go, endpoints move, services publish ports, containers are attached and detached, others tamper, the agent begins anew. After
  /// every third step the host is compared with a namespace in which an agent made the same from nothing. ORCH_SEED: another run, `random` for one of
  /// many.
  @Test("random changes, containers, tampering and new agents leave the kernel as a fresh computation would make it, on the host and in containers")
  func changes() async throws {
    let text = getenv("ORCH_SEED").map { String(cString: $0) }
    let seed = text == "random" ? .random(in: 1...UInt64.max) : text.flatMap { UInt64($0) } ?? 17_353_426_218_590_000_260
    print("RandomChangesTests: ORCH_SEED=\(seed)")
    try await NamespaceWorld.with(1) { world in
      var run = try Run(world, seed)
      try await run.begin()
      for step in 1...72 {
        try await run.step()
        guard step % 3 == 0 else { continue }
        try await run.overlay.repair()
        let (grown, fresh) = (try await run.grown(), try await run.fresh())
        let difference = grown.symmetricDifference(fresh).sorted().map { (grown.contains($0) ? "grown: " : "fresh: ") + $0 }
        #expect(difference.isEmpty, "ORCH_SEED=\(seed), step \(step): \(run.history.suffix(6))\n\(difference.joined(separator: "\n"))")
        if !difference.isEmpty { break }
      }
      #expect(try await run.reaped(), "ORCH_SEED=\(seed): interfaces of tasks that were detached stay")
      try await run.overlay.removeAll()
    }
  }
}

private struct Run {
  let world: NamespaceWorld
  var state: UInt64
  var cluster = Cluster(hosts: 4)
  var overlay: OverlayNetwork
  /// By number of the task.
  var containers: [Int: TaskNetwork] = [:]
  var wider: Set<NetworkID> = []
  /// Ports of the three services: by virtual IP on one network and on two, and by DNS alone.
  var ports: [[PortConfig]] = [[], [], []]
  var history: [String] = []
  var twins = 0

  init(_ world: NamespaceWorld, _ seed: UInt64) throws {
    (self.world, state) = (world, seed)
    overlay = try world.overlay(1)
  }

  func begin() async throws {
    await overlay.whenDrifted { [overlay] in Task { _ = try await overlay.repair() } }
    try await apply(overlay)
  }

  mutating func random(_ below: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int(state >> 33) % below
  }

  // MARK: What the manager says

  var networks: [NetworkAssignment] {
    let needed = Set(containers.values.flatMap(\.attachments).map(\.network)).union(wider)
    return cluster.networks(of: 1).filter { needed.contains($0.id) }
  }
  func service(_ number: Int) -> ServiceID { ServiceID(value: UInt128(10 + number)) }
  /// Tasks of one service have numbers that are equal modulo 3.
  var endpoints: [EndpointRecord] {
    cluster.endpoints.map { endpoint in
      var endpoint = endpoint
      endpoint.service = service(Int(endpoint.slot) % 3)
      return endpoint
    }
  }
  var services: [ServiceRecord] {
    (0..<3).map { number in
      let networks = [[cluster.web], [cluster.web, cluster.inside], []][number]
      var record = ServiceRecord(
        id: service(number), name: "s\(number)", names: [cluster.web: ["s\(number)"]], mode: number == 2 ? .dnsrr : .vip,
        virtualIPs: networks.map { .init(network: $0, address: address("10.\($0 == cluster.web ? 77 : 78).0.\(2 + number)")) },
        ports: number == 2 ? [] : ports[number])
      if number == 1 { record.prefersSameNode = true }
      return record
    }
  }
  func apply(_ overlay: OverlayNetwork) async throws {
    var problems = try await overlay.apply(networks: networks, services: services, endpoints: endpoints)
    // The agent before, of this very process, may let go of its ports a moment later.
    for _ in 1...900 where problems.contains(where: { $0.conflict != nil }) {
      try await Task.sleep(for: .milliseconds(50))
      problems = try await overlay.apply(networks: networks, services: services, endpoints: endpoints)
    }
    #expect(problems == [])
  }

  // MARK: Steps

  mutating func step() async throws {
    let kind = random(13)
    var text = "\(kind)"
    switch kind {
    case 0, 1, 2:
      let number = 1 + random(9)
      let (host, isReady) = (1 + random(4), random(3) > 0)
      cluster.place(number, on: containers[number] == nil ? host : 1, ready: isReady)
      // Those of the second service are on the internal network, too.
      if number % 3 == 1, let one = cluster.endpoints.last { cluster.endpoints.append(inside(one, number)) }
    case 3: cluster.remove(1 + random(9))
    case 4: cluster.hosts = 1 + random(4)
    case 5:
      let service = random(2)
      ports[service] = (0..<random(4)).map { index in
        let number = UInt16(8080 + 10 * service + index)
        return PortConfig(targetPort: 80, publishedPort: number, protocol: random(2) == 0 ? .tcp : .udp)
      }
    case 6: wider = Set([cluster.web, cluster.ingress, cluster.inside].filter { _ in random(2) == 0 })
    case 7: cluster.mtu = [1450, 1400, 1350][random(3)]
    case 8 where random(3) == 0:
      // A network has IPv6 or has not, for good: nobody is on it.
      for number in containers.keys.sorted() { try await detach(number) }
      try await apply(overlay)
      if random(2) == 0 { cluster.dual.toggle() } else { cluster.dualIngress.toggle() }
      text = "dual \(cluster.dual), ingress \(cluster.dualIngress)"
    case 8, 9, 10:
      let number = 1 + random(9)
      if containers[number] != nil {
        try await detach(number)
        text = "detach \(number)"
      } else if containers.count < 3 {
        text = "attach \(number)"
        let sets = [
          [cluster.web], [cluster.ingress, cluster.web], [cluster.inside], [cluster.web, cluster.inside],
          [cluster.inside, cluster.web, cluster.ingress], [],
        ]
        var network = cluster.network(number, sets[random(sets.count)])
        network.isBridged = network.attachments.isEmpty
        if random(3) == 0 {
          network.hostPorts = [
            PortConfig(targetPort: 80, publishedPort: UInt16(9000 + number), protocol: random(2) == 0 ? .tcp : .udp, publishMode: .host)
          ]
        }
        containers[number] = network
        if cluster.endpoints.contains(where: { $0.slot == UInt64(number) }) { cluster.place(number, on: 1) }
        try await apply(overlay)
        _ = try await overlay.attach(network)
      }
    case 11: text = try await tamper()
    default:
      text = "new agent"
      await overlay.whenDrifted {}
      weak let old = overlay
      overlay = try world.overlay(1)
      // Its sockets hold ports.
      for _ in 1...4500 where old != nil { try await Task.sleep(for: .milliseconds(10)) }
      _ = try await overlay.recover(containers.sorted { $0.key < $1.key }.map(\.value))
      await overlay.whenDrifted { [overlay] in Task { _ = try await overlay.repair() } }
    }
    history.append(text)
    try await apply(overlay)
  }

  private func inside(_ endpoint: EndpointRecord, _ number: Int) -> EndpointRecord {
    var endpoint = endpoint
    (endpoint.network, endpoint.address) = (cluster.inside, address("10.78.0.\(10 + number)"))
    return endpoint
  }
  private mutating func detach(_ number: Int) async throws {
    if let network = containers.removeValue(forKey: number) { try await overlay.detach(network.task) }
  }

  /// Of what there is; returns when it was noticed.
  private mutating func tamper() async throws -> String {
    guard let network = networks.first(where: { _ in true }) else { return "nothing" }
    var commands = [
      "ip link set orbr\(network.vni) down", "ip link del orvx\(network.vni)", "ip link set orvx\(network.vni) nomaster",
      "ip link set orbr\(network.vni) mtu 1300", "ip address add 10.99.0.1/24 dev orbr\(network.vni)", "nft flush chain ip orch forward",
      "nft delete table ip orch", "bridge fdb add 02:00:00:00:00:01 dev orvx\(network.vni) dst 192.168.77.99",
      "ip neigh add 10.77.0.99 lladdr 02:00:00:00:00:01 dev orvx\(network.vni)", "bridge link set dev orvx\(network.vni) learning on",
      "ip link del orbr\(network.vni)",
    ]
    if let container = containers.sorted(by: { $0.key < $1.key }).first?.value {
      let (veth, inner) = (InterfaceName.first(of: container), "nsenter --net=\(path(container, of: "run1"))")
      commands += [
        "ip link del \(veth)", "\(inner) ip address flush dev eth0", "\(inner) ip link set eth0 down", "\(inner) ip link set eth0 mtu 1200",
      ]
      if !container.isBridged { commands += ["ip link set \(veth) nomaster", "bridge link set dev \(veth) flood on"] }
    }
    let command = commands[random(commands.count)]
    let before = await overlay.repairs
    let done = try await world.run(in: world.host(1), "sh", "-c", command)
    #expect(done.code == 0, "\(command)")
    for _ in 1...4500 where await overlay.repairs == before { try await Task.sleep(for: .milliseconds(10)) }
    #expect(await overlay.repairs != before, "\(command) was not noticed")
    return command
  }

  // MARK: The kernel

  private func path(_ container: TaskNetwork, of run: String) -> String { "\(world.folder)/\(run)/netns/\(container.task)" }

  func grown() async throws -> Set<String> { try await kernel(of: world.host(1), run: "run1").union(try await bypass(of: world.host(1))) }

  /// The kernel takes a task's namespace away beside what goes on, some seconds after it was detached, with its interfaces: until then they are
  /// there, without a master where their bridge is gone.
  private var goneTasks: [Substring] {
    (1...9).filter { containers[$0] == nil }.map { cluster.task($0).description.suffix(InterfaceName.digits) }
  }
  func reaped() async throws -> Bool {
    for _ in 1...3000 {
      if try await overlay.containerLinks().allSatisfy({ link in containers.values.contains { link.isOf($0.task) } }) { return true }
      try await Task.sleep(for: .milliseconds(10))
    }
    return false
  }

  /// An agent that has done nothing before, in a namespace of its own with the same address.
  mutating func fresh() async throws -> Set<String> {
    twins += 1
    let (name, path) = ("twin\(twins)", world.namespace("twin\(twins)"))
    try await world.thread.run { [thread = world.thread] in
      close(Glibc.open(path, O_CREAT | O_RDONLY | O_CLOEXEC, 0o400))
      try thread.insideNew {
        guard mount("/proc/thread-self/ns/net", path, nil, UInt(MS_BIND), nil) == 0 else {
          throw NetlinkError(operation: "bind", object: path, errno: errno)
        }
      }
    }
    let underlay = "ip link set lo up; ip link add eth0 type veth peer name other0; ip link set other0 up; ip address add 192.168.77.1/24 dev eth0"
    #expect(try await world.run(in: path, "sh", "-c", "\(underlay); ip link set eth0 up").code == 0)
    let twin = try OverlayNetwork(
      configuration: .init(underlayAddress: address("192.168.77.1"), runDirectory: "\(world.folder)/\(name)-run", hostNamespace: path),
      log: Logger(label: "twin"))
    try await apply(twin)
    for (_, network) in containers.sorted(by: { $0.key < $1.key }) { _ = try await twin.attach(network) }
    try await twin.repair()
    let seen = try await kernel(of: path, run: "\(name)-run").union(try await bypass(of: path))
    try await twin.removeAll()
    umount2(path, Int32(MNT_DETACH))
    unlink(path)
    return seen
  }

  /// Where the way around the bridges begins, and whom it knows. None where the kernel has no such programs.
  private func bypass(of host: String) async throws -> Set<String> {
    try await world.thread.run(in: host) {
      let socket = try NetlinkSocket()
      let links = try socket.links()
      let names = Dictionary(uniqueKeysWithValues: links.map { ($0.index, $0.name) })
      var (seen, maps) = (Set<String>(), Set<UInt32>())
      for link in links {
        for filter in try socket.ingressFilters(link.index) {
          let program = SharedDescriptor(owning: clinux_bpf_open(0, filter.program))
          var (name, id, map) = ([CChar](repeating: 0, count: 16), UInt32(0), UInt32(0))
          #expect(clinux_bpf_program(program.rawValue, &name, &id, &map) == 0)
          let text = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
          seen.insert("at \(link.name): \(filter.priority) \(text)")
          maps.insert(map)
        }
      }
      #expect(maps.count <= 1, "one map has all receivers")
      for map in maps {
        let descriptor = SharedDescriptor(owning: clinux_bpf_open(1, map))
        var (keys, values) = ([UInt64](repeating: 0, count: 1000), [UInt64](repeating: 0, count: 1000))
        let count = clinux_bpf_read(descriptor.rawValue, &keys, &values, 1000)
        #expect(count >= 0)
        for entry in 0..<max(0, Int(count)) {
          let place = BypassState.Place(bits: keys[entry])
          let target =
            switch BypassState.Target(bits: values[entry]) {
            case .container(let link): "container \(names[link] ?? "nobody")"
            case .tunnel(let link): "tunnel \(names[link] ?? "nobody")"
            }
          seen.insert("receiver \(place.vni) \(place.address): \(target)")
        }
      }
      return seen
    }
  }

  private func kernel(of host: String, run: String) async throws -> Set<String> {
    // Names without the number of the other end, whether they are up, MTU, master; MACs of bridges. Who is gone is remembered for a while.
    let linkLines =
      "ip -o link | sed -nE 's/^[0-9]+: (o[rv][^:@]*|eth[0-9]+)[^:]*: <([^>]*)> (mtu [0-9]+) .*/\\1 \\2 \\3/p' | sed -E 's/ [^ ]*UP[^ ]* / up /'"
    let rules = "nft -s list table ip orch | sed '/set lingering/,/^\\t}/d'; nft -s list table ip6 orch | sed '/set lingering/,/^\\t}/d'"
    let script = """
      echo '# links'; \(linkLines); ip -o link | grep -oE ' o[rv][^ ]*.*master [^ ]*' | sed -E 's/@[^:]*//; s/: .*(master)/ \\1/'
      ip -o link | sed -nE 's/^[0-9]+: (orbr[^:]*):.* link.ether ([^ ]*) .*/\\1 \\2/p'; ip -o link | grep -o 'orch task .*' | sed 's/ *$//'
      ip -o -d link show type vxlan | grep -oE 'vxlan id.*(udpcsum|$)'
      echo '# ports'; bridge -o -d link | sed -nE 's/^[0-9]+: (o[rv][^:@]*).*(hairpin [a-z]+).*(learning [a-z]+ flood [a-z]+).*/\\1 \\2 \\3/p'
      echo '# entries'; bridge fdb show | grep -E ' dst | static' | sed 's/ *$//'
      echo '# neighbours'; ip neigh show nud permanent; ip -6 neigh show nud permanent
      echo '# addresses'; ip -o -4 address | sed -E 's/^[0-9]+: //; s/valid_lft.*//'; ip -o -6 address | sed -nE 's/^[0-9]+: (or[^ ]*.*) *valid_lft.*/\\1/p'
      echo '# routes'; (ip route; ip -6 route | grep ' o[rv]' | grep -v '^fe80::/64 dev ov') | sed 's/ linkdown//'
      # After the last network IPv4 is forwarded still.
      echo '# parameters'; cd /proc/sys/net; ls -d ipv4/conf/orbr* >/dev/null 2>&1 && cat ipv4/ip_forward
      grep -H . ipv6/conf/all/forwarding ipv4/conf/or*/rp_filter ipv4/conf/or*/route_localnet ipv6/conf/or*/disable_ipv6
      echo '# rules'; \(rules)
      """
    var texts = [try await world.run(in: host, "sh", "-c", script).output]
    // Rules are the agent's.
    let (links, rest) = texts[0].firstRange(of: "# rules").map { (texts[0][..<$0.lowerBound], texts[0][$0.lowerBound...]) } ?? (texts[0][...], "")
    texts[0] =
      links.split(separator: "\n").filter { line in !goneTasks.contains { line.contains($0) } }.joined(separator: "\n") + "\n" + rest
    for (number, container) in containers.sorted(by: { $0.key < $1.key }) {
      let script = """
        \(linkLines); ip -o -4 address | sed -E 's/^[0-9]+: //; s/valid_lft.*//'; ip -o -6 address | grep -v 'inet6 fe80' | sed -E 's/^[0-9]+: //; s/valid_lft.*//'
        ip route; ip -6 route | grep -v '^fe80'; nft -s list table netdev orch; \(rules)
        """
      texts.append("# container \(number)\n" + (try await world.run(in: path(container, of: run), "sh", "-c", script).output))
    }
    // Which addresses uplinks have is chance.
    var names: [(String, String)] = []
    for line in texts[0].split(separator: "\n") where line.hasPrefix(InterfaceName.uplinkPrefix) {
      let words = line.split(separator: " ")
      if let peer = words.firstIndex(of: "peer"), let address = IPv4Address(String(words[peer + 1].prefix { $0 != "/" })) {
        names.append(("\(Uplink(address: address, gateway: address).address6)", "(uplink6 of \(words[0]))"))
        names.append(("\(address)", "(uplink of \(words[0]))"))
      }
    }
    names.sort { $0.0.count > $1.0.count }
    return Set(texts.enumerated().flatMap { number, text in Self.settled(names.reduce(text) { $0.replacing($1.0, with: $1.1) }, number) })
  }

  /// Chains, elements and links are listed in the order in which they were made. Subnets that uplinks once had are remembered.
  fileprivate static func settled(_ text: String, _ place: Int) -> [String] {
    let blocks = text.split(separator: "\n").filter { $0 != "}" && !$0.contains("ip daddr 172.28.240.0/20") }.reduce(into: [""]) { blocks, line in
      if ["\tchain ", "\tset ", "\tmap ", "# ", "table "].contains(where: line.hasPrefix) { blocks.append("") }
      blocks[blocks.count - 1] += line + "\n"
    }
    return blocks.filter { !$0.isEmpty }.map { block in
      if block.hasPrefix("\tchain ") || block.hasPrefix("table ") { return "\(place) \(block)" }
      if block.hasPrefix("# ") { return "\(place) " + block.split(separator: "\n").map { $0.trimmed }.sorted().joined(separator: "\n") }
      // One element, with what it leads to, whole; nft breaks lines between them.
      let parts = block.split(separator: "elements = {", maxSplits: 1)
      let elements = parts.count < 2 ? [] : parts[1].prefix { $0 != "}" }.split(separator: ",").map(\.trimmed)
      return "\(place) " + ([parts[0].trimmed] + elements.sorted()).joined(separator: "\n")
    }
  }
}

extension Substring {
  /// With one space where there were several, or line breaks.
  fileprivate var trimmed: String { split(whereSeparator: \.isWhitespace).joined(separator: " ") }
}

@Suite("What random changes are compared by")
struct ComparedTextTests {
  private func table(_ elements: String) -> [String] {
    Run.settled("table ip orch {\n\tmap backends {\n\t\ttype ipv4_addr . integer : ipv4_addr\n\t\telements = { \(elements) }\n\t}\n}", 0)
  }

  @Test("elements in another order are the same; what they lead to exchanged between two of them is not")
  func elements() {
    let (one, other) = ("10.77.0.2 . 0 : 10.77.0.11", "10.77.0.3 . 0 : 10.77.0.12")
    let text = table("\(one),\n\t\t\t     \(other)")
    #expect(text == table("\(other), \(one)"))
    #expect(text != table("10.77.0.2 . 0 : 10.77.0.12, 10.77.0.3 . 0 : 10.77.0.11"))
    #expect(text != table(one) && table(one) != table(""))
  }
}
