import Glibc
import Model
import Testing

@testable import AgentNetwork

@Suite("Traffic over overlays", .serialized, .enabled(if: geteuid() == 0))
struct TrafficTests {
  @Test("a virtual IP and a published port spread evenly over five tasks on three hosts: chi-squared stays below 40 (p = 4e-8 of an even spread)")
  func spread() async throws {
    try await NamespaceWorld.with(3) { world in
      var cluster = Cluster(hosts: 3)
      cluster.ports = [PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
      for number in 1...5 { cluster.place(number, on: 1 + number % 3) }
      let overlays = try (1...3).map { try world.overlay($0) }
      #expect(try await cluster.apply(to: overlays) == [])
      var servers: [Int32] = []
      for number in 1...5 {
        servers.append(try await world.open(SOCK_DGRAM, in: try await overlays[number % 3].attach(cluster.network(number)).path, port: 53))
      }
      defer { for server in servers { close(server) } }
      let client = try await overlays[0].attach(cluster.network(9)).path
      for (path, target, port) in [(client, "10.77.0.2", UInt16(53)), (world.outside, "192.168.77.2", 5300)] {
        var counts = [Int](repeating: 0, count: 5)
        let calls = 500
        for call in 1...calls {
          let flow = try await world.open(SOCK_DGRAM, in: path, connectedTo: target, port: port)
          send(flow, "ask", 3, 0)
          close(flow)
          // What waits fits any buffer.
          if call % 50 == 0 { for _ in 1...900 where !Self.count(servers, &counts, upTo: call) { try await Task.sleep(for: .milliseconds(50)) } }
        }
        let expected = Double(calls) / 5
        let chi = counts.reduce(0) { $0 + (Double($1) - expected) * (Double($1) - expected) / expected }
        #expect(counts.reduce(0, +) == calls && chi < 40, "\(target): \(counts)")
      }
    }
  }
  private static func count(_ servers: [Int32], _ counts: inout [Int], upTo all: Int) -> Bool {
    var bytes = [UInt8](repeating: 0, count: 8)
    for (index, server) in servers.enumerated() { while recv(server, &bytes, 8, Int32(MSG_DONTWAIT)) == 3 { counts[index] += 1 } }
    return counts.reduce(0, +) >= all
  }

  @Test("PreferSameNode: calls stay on the caller's host while a task is ready there, by virtual IP and by port, and go elsewhere when none is")
  func sameNode() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      for (number, host) in [(1, 1), (2, 2), (3, 2)] { cluster.place(number, on: host) }
      for (number, host) in [(8, 1), (9, 2)] { cluster.place(number, on: host, ready: false) }
      let overlays = try (1...2).map { try world.overlay($0) }
      func apply() async throws {
        var services = cluster.services
        services[0].prefersSameNode = true
        #expect(try await cluster.apply(to: overlays, services: services) == [])
      }
      try await apply()
      var servers: [pid_t] = []
      defer { world.stop(servers) }
      for (number, host) in [(1, 1), (2, 2), (3, 2)] {
        servers.append(try await world.serve("task\(number)", in: try await overlays[host - 1].attach(cluster.network(number)).path))
      }
      let clients = [try await overlays[0].attach(cluster.network(8)).path, try await overlays[1].attach(cluster.network(9)).path]
      func called(from path: String, _ target: String) async throws -> Set<String> {
        var names: Set<String> = []
        for _ in 1...16 { names.insert(try await world.ask(target, from: path)?.name ?? "nobody") }
        return names
      }
      #expect(try await called(from: clients[0], "10.77.0.2") == ["task1"])
      #expect(try await called(from: clients[1], "10.77.0.2") == ["task2", "task3"])
      #expect(try await called(from: world.outside, "192.168.77.1:8080") == ["task1"])
      #expect(try await called(from: world.outside, "192.168.77.2:8080") == ["task2", "task3"])
      cluster.place(1, on: 1, ready: false)
      try await apply()
      #expect(try await called(from: clients[0], "10.77.0.2") == ["task2", "task3"])
      #expect(try await called(from: world.outside, "192.168.77.1:8080") == ["task2", "task3"])
    }
  }

  @Test("each port of a range leads to its own port of the task")
  func ranges() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.ports = (0..<20).map { PortConfig(targetPort: UInt16(7000 + $0), publishedPort: UInt16(8100 + $0), protocol: .udp) }
      cluster.place(1, on: 1)
      let overlays = try (1...2).map { try world.overlay($0) }
      #expect(try await cluster.apply(to: overlays) == [])
      let path = try await overlays[0].attach(cluster.network(1)).path
      for offset in [UInt16(0), 1, 9, 19] {
        let server = try await world.open(SOCK_DGRAM, in: path, port: 7000 + offset)
        defer { close(server) }
        for host in 1...2 {
          let client = try await world.open(SOCK_DGRAM, in: world.outside, connectedTo: "192.168.77.\(host)", port: 8100 + offset)
          defer { close(client) }
          send(client, "ask", 3, 0)
          #expect(world.echo(server) == "192.168.77.100", "port \(8100 + offset) of host \(host)")
        }
      }
      let beyond = try await world.open(SOCK_DGRAM, in: world.outside, connectedTo: "192.168.77.1", port: 8120)
      defer { close(beyond) }
      send(beyond, "ask", 3, 0)
      var bytes = [UInt8](repeating: 0, count: 8)
      #expect(recv(beyond, &bytes, 8, 0) < 0 && errno == ECONNREFUSED)
    }
  }

  @Test("datagrams of a flow to a published port go on to the next task when theirs is gone, whichever host they were sent to")
  func publishedFlows() async throws {
    try await NamespaceWorld.with(3) { world in
      var cluster = Cluster(hosts: 3)
      cluster.ports = [PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
      cluster.place(1, on: 1)
      let overlays = try (1...3).map { try world.overlay($0) }
      func apply() async throws {
        #expect(try await cluster.apply(to: overlays) == [])
        for overlay in overlays { await overlay.flowsForgotten() }
      }
      try await apply()
      let paths = [try await overlays[0].attach(cluster.network(1)).path, try await overlays[1].attach(cluster.network(2)).path]
      var servers: [Int32] = []
      for path in paths { servers.append(try await world.open(SOCK_DGRAM, in: path, port: 53)) }
      var flows: [Int32] = []
      for host in 1...3 {
        for path in [world.outside, world.host(2)] {
          flows.append(try await world.open(SOCK_DGRAM, in: path, connectedTo: "192.168.77.\(host)", port: 5300))
        }
      }
      defer { for descriptor in servers + flows { close(descriptor) } }
      var bytes = [UInt8](repeating: 0, count: 8)
      for (number, server) in servers.enumerated() {
        for (index, flow) in flows.enumerated() {
          for _ in 1...2 {
            send(flow, "ask", 3, 0)
            #expect(world.echo(server) != nil, "flow \(index) to task \(number + 1)")
            #expect(recv(flow, &bytes, 8, 0) == 3, "flow \(index) from task \(number + 1)")
          }
        }
        // The first one's namespace stays, and its socket: nothing refuses.
        cluster.remove(1)
        cluster.place(2, on: 2)
        try await apply()
      }
    }
  }

  @Test("datagrams of a flow leave a task that is told to stop while it still hears them; where no other is ready they stay")
  func leavingFlows() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.ports = [PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
      for number in 1...2 { cluster.place(number, on: number, ready: number == 1) }
      let overlays = try (1...2).map { try world.overlay($0) }
      func apply() async throws {
        #expect(try await cluster.apply(to: overlays) == [])
        for overlay in overlays { await overlay.flowsForgotten() }
      }
      try await apply()
      var servers: [Int32] = []
      for number in 1...2 {
        servers.append(try await world.open(SOCK_DGRAM, in: try await overlays[number - 1].attach(cluster.network(number)).path, port: 53))
      }
      let caller = try await overlays[1].attach(cluster.network(9)).path
      let flows = [
        try await world.open(SOCK_DGRAM, in: world.outside, connectedTo: "192.168.77.2", port: 5300),
        try await world.open(SOCK_DGRAM, in: caller, connectedTo: "10.77.0.2", port: 53),
      ]
      defer { for socket in servers + flows { close(socket) } }
      func heard(_ task: Int, _ what: String) {
        for flow in flows {
          send(flow, "ask", 3, 0)
          #expect(world.echo(servers[task - 1]) != nil, "\(what)")
        }
      }
      heard(1, "the first")
      cluster.place(1, on: 1, ready: false)
      try await apply()
      heard(1, "nobody else is ready")
      cluster.place(1, on: 1)
      try await apply()
      cluster.place(2, on: 2)
      cluster.place(1, on: 1, ready: false)
      try await apply()
      heard(2, "the first leaves")
    }
  }

  @Test("flows of datagrams leave a task that is gone also after somebody flushed the rules that had translated them", arguments: [false, true])
  func flushedFlows(isNewAgent: Bool) async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.ports = [PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
      cluster.place(1, on: 1)
      for number in 2...3 { cluster.place(number, on: 2, ready: false) }
      var overlays = try (1...2).map { try world.overlay($0) }
      func apply() async throws {
        try await cluster.apply(to: overlays)
        for overlay in overlays { await overlay.flowsForgotten() }
      }
      try await apply()
      var servers: [Int32] = []
      for number in 1...2 {
        servers.append(try await world.open(SOCK_DGRAM, in: try await overlays[number - 1].attach(cluster.network(number)).path, port: 53))
      }
      let client = try await overlays[1].attach(cluster.network(3)).path
      let flows = [
        try await world.open(SOCK_DGRAM, in: world.outside, connectedTo: "192.168.77.2", port: 5300),
        try await world.open(SOCK_DGRAM, in: client, connectedTo: "10.77.0.2", port: 53),
      ]
      defer { for socket in servers + flows { close(socket) } }
      func ask(_ server: Int) {
        for (number, flow) in flows.enumerated() {
          send(flow, "ask", 3, 0)
          #expect(world.echo(servers[server]) != nil, "flow \(number)")
          #expect(world.hear(flow) != nil, "flow \(number)")
        }
      }
      ask(0)
      for path in [world.host(2), client] { #expect(try await world.run(in: path, "nft", "flush", "ruleset").code == 0) }
      if isNewAgent {
        overlays[1] = try world.overlay(2)
        _ = try await overlays[1].recover([cluster.network(2), cluster.network(3)])
      } else {
        for _ in 1...100 where await overlays[1].repairs["container rules"] == nil {
          try await Task.sleep(for: .milliseconds(50))
          try await overlays[1].repair()
        }
      }
      try await apply()
      cluster.remove(1)
      cluster.place(2, on: 2)
      try await apply()
      ask(1)
    }
  }

  @Test("interfaces stay in the order of a task's networks, through a new agent and repairs")
  func order() async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 1)
      var overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      let networks = [[cluster.inside, cluster.web, cluster.ingress], [cluster.web, cluster.inside], [cluster.inside, cluster.web]]
      let tasks = networks.enumerated().map { cluster.network($0.offset + 1, $0.element) }
      var paths: [String] = []
      for task in tasks { paths.append(try await overlay.attach(task).path) }
      func addresses(_ number: Int) async throws -> [String] {
        let text = try await world.run(in: paths[number], "sh", "-c", "ip -o -4 address | grep -o 'eth.*inet [0-9.]*' | sed 's/ *inet / /' | sort")
          .output
        return text.split(separator: "\n").map(String.init)
      }
      let wanted = [
        ["eth0 10.78.0.11", "eth1 10.77.0.11", "eth2 10.255.0.11"], ["eth0 10.77.0.12", "eth1 10.78.0.12"], ["eth0 10.78.0.13", "eth1 10.77.0.13"],
      ]
      for restart in 0...1 {
        for (number, expected) in wanted.enumerated() {
          let seen = try await addresses(number)
          // Behind them a task's uplink.
          #expect(Array(seen.prefix(expected.count)) == expected && seen.count == 3, "restart \(restart): \(seen)")
        }
        overlay = try world.overlay(1)
        #expect(try await overlay.recover(tasks).count == 3)
        try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
        for task in tasks {
          #expect(try await world.run(in: world.host(1), "ip", "link", "del", InterfaceName.veth(task.task, 0)).code == 0)
        }
        try await overlay.repair()
      }
    }
  }

  /// A task on host 1 that calls, and one on host 2 that alone is ready, behind a virtual IP and port 8080.
  private func callerAndServer(
    _ world: NamespaceWorld
  ) async throws -> (cluster: Cluster, overlays: [OverlayNetwork], caller: String, server: String) {
    var cluster = Cluster(hosts: 2)
    cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
    for number in 1...2 { cluster.place(number, on: number, ready: number == 2) }
    let overlays = try (1...2).map { try world.overlay($0) }
    #expect(try await cluster.apply(to: overlays) == [])
    return (cluster, overlays, try await overlays[0].attach(cluster.network(1)).path, try await overlays[1].attach(cluster.network(2)).path)
  }

  @Test("a stream by virtual IP that conntrack has forgotten is ended by a reset, one by address goes on")
  func forgotten() async throws {
    try await NamespaceWorld.with(2) { world in
      let (_, overlays, client, server) = try await callerAndServer(world)
      let listener = try await world.open(SOCK_STREAM, in: server, port: 80)
      defer { close(listener) }
      let shorten = "echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established"
      #expect(try await world.run(in: client, "sh", "-c", shorten).code == 0)
      var streams: [(Int32, Int32)] = []
      defer { for (one, other) in streams { for descriptor in [one, other] { close(descriptor) } } }
      for target in ["10.77.0.2", "10.77.0.12"] {
        let stream = try await world.open(SOCK_STREAM, in: client, connectedTo: target, port: 80)
        streams.append((stream, accept(listener, nil, nil)))
      }
      var bytes = [UInt8](repeating: 0, count: 8)
      func flow(_ stream: (Int32, Int32)) -> Bool { send(stream.0, "more", 4, Int32(MSG_NOSIGNAL)) == 4 && recv(stream.1, &bytes, 8, 0) == 4 }
      #expect(flow(streams[0]) && flow(streams[1]))
      try await Task.sleep(for: .seconds(3))
      #expect(flow(streams[1]), "nothing of it is translated")
      _ = send(streams[0].0, "more", 4, Int32(MSG_NOSIGNAL))
      let count = recv(streams[0].0, &bytes, 8, 0)
      let error = errno
      #expect(count < 0 && error == ECONNRESET, "\(count) \(error)")
      for overlay in overlays { #expect(await overlay.repairs == [:]) }
    }
  }

  @Test("while no manager tells anything, an agent that begins anew disturbs no stream by virtual IP or port, nor does a task that ends")
  func alone() async throws {
    try await NamespaceWorld.with(2) { world in
      let (cluster, begun, client, server) = try await callerAndServer(world)
      var overlays = begun
      let listener = try await world.open(SOCK_STREAM, in: server, port: 80)
      defer { close(listener) }
      var streams: [(Int32, Int32)] = []
      defer { for (one, other) in streams { for descriptor in [one, other] { close(descriptor) } } }
      for (path, target, port) in [(client, "10.77.0.2", UInt16(80)), (world.outside, "192.168.77.1", 8080), (world.host(1), "192.168.77.2", 8080)] {
        let stream = try await world.open(SOCK_STREAM, in: path, connectedTo: target, port: port)
        streams.append((stream, accept(listener, nil, nil)))
      }
      func flow(_ when: String) {
        var bytes = [UInt8](repeating: 0, count: 8)
        for (index, (one, other)) in streams.enumerated() {
          for (from, to) in [(one, other), (other, one)] {
            send(from, "more", 4, Int32(MSG_NOSIGNAL))
            #expect(recv(to, &bytes, 8, 0) == 4, "stream \(index), \(when)")
          }
        }
      }
      flow("before")
      let counted = try await streamState(world)
      for (host, task) in [(0, cluster.network(1)), (1, cluster.network(2))] {
        overlays[host] = try world.overlay(host + 1)
        flow("agents end")
        #expect(try await overlays[host].recover([task]).count == 1)
        flow("found again")
        // What the agent kept of its assignments; then it compares, and compares again.
        try await overlays[host].apply(networks: cluster.networks(of: host + 1), services: cluster.services, endpoints: cluster.endpoints)
        flow("compared")
        try await overlays[host].repair()
        flow("compared again")
        #expect(await overlays[host].repairs == [:])
      }
      #expect(try await streamState(world) == counted)
    }
  }
  /// Links' numbers: what was made anew has another.
  private func streamState(_ world: NamespaceWorld) async throws -> [String] {
    var states: [String] = []
    for host in 1...2 { states.append(try await world.run(in: world.host(host), "sh", "-c", "ip -o link | cut -d: -f1,2").output) }
    return states
  }
}
