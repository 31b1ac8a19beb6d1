import Model
import Testing

@testable import Orchestrator

@Suite struct ServiceEditsTests {
  @Test(
    "what is wrong with a spec is said",
    arguments: [
      ("-web", "service name '-web' is not valid"), ("image", "no image is given"),
      ("reference", "'Bad Image!!' is not an image's name"), ("replicas", "more than the 10000"),
      ("constraint", "neither == nor !="), ("network", "network nowhere not found"), ("ratio", "must be between 0 and 1"),
      ("host and port", "on the host's network it listens on the host's own ports, so it publishes none"),
      ("none and port", "without a network it can publish no port"), ("host and more", "network host cannot be combined with others"),
      ("memory", "below the 4 MiB"), ("dnsrr", "need endpoint mode vip"), ("twice", "port 80/tcp is published twice"),
      ("host range", "a range of ports (8000-8010) is not supported in host mode"), ("range and port", "goes with no published port beside it"),
      ("swap", "swap is given on top of a memory limit"), ("cpuset", "cpuset '1-0' is no list of CPUs"),
      ("label", "orch.traffic-distribution is PreferSameNode or absent, not 'local'"),
      ("log", "the logging driver 'fluentd' is not supported"), ("log option", "the logging option 'tag' is not supported"),
      ("nfs", "mount /v: local volumes have no driver options"), ("driver", "mount /v: the volume driver rexray is not supported"),
      ("propagation", "mount /b: propagation rshared is not supported"), ("mounts", "mount /a/: another mount has this target"),
      ("tmpfs", "mount /t: a tmpfs has the options exec and noexec, not 'uid=5'"),
    ])
  func refusals(_ what: String, _ expected: String) throws {
    var world = World(nodes: 1)
    let error = #expect(throws: EditError.self) {
      try world.create(what == "-web" ? what : "web") { spec in
        switch what {
        case "image": spec.taskTemplate.containerSpec.image = ""
        case "reference": spec.taskTemplate.containerSpec.image = "Bad Image!!"
        case "replicas": spec.mode = .replicated(1_000_000_000)
        case "constraint":
          spec.taskTemplate.placement = Placement()
          spec.taskTemplate.placement?.constraints = ["node.role is manager"]
        case "network": spec.taskTemplate.networks = [NetworkAttachmentConfig(target: "nowhere")]
        case "host and port", "none and port":
          spec.taskTemplate.networks = [NetworkAttachmentConfig(target: String(what.prefix(4)))]
          spec.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: 80)])
        case "host and more": spec.taskTemplate.networks = [NetworkAttachmentConfig(target: "host"), NetworkAttachmentConfig(target: "nowhere")]
        case "ratio":
          spec.updateConfig = UpdateConfig()
          spec.updateConfig?.maxFailureRatio = 2
        case "memory":
          var limits = ResourceRequirements.Limit()
          limits.memoryBytes = 1024
          spec.taskTemplate.resources = ResourceRequirements(limits: limits)
        case "swap":
          spec.taskTemplate.resources = ResourceRequirements()
          spec.taskTemplate.resources?.swapBytes = 1
        case "cpuset":
          var limits = ResourceRequirements.Limit()
          limits.cpuset = "1-0"
          spec.taskTemplate.resources = ResourceRequirements(limits: limits)
        case "dnsrr": spec.endpointSpec = EndpointSpec(mode: .dnsrr, ports: [PortConfig(targetPort: 80, publishedPort: 80)])
        case "tmpfs":
          var mount = Mount(type: .tmpfs, source: nil, target: "/t")
          mount.tmpfsOptions = Mount.TmpfsOptions()
          mount.tmpfsOptions?.options = [["noexec"], ["uid", "5"]]
          spec.taskTemplate.containerSpec.mounts = [mount]
        case "log": spec.taskTemplate.logDriver = Driver(name: "fluentd")
        case "log option": spec.taskTemplate.logDriver = Driver(name: "json-file", options: ["tag": "x"])
        case "nfs", "driver":
          var mount = Mount(type: .volume, source: "v", target: "/v")
          mount.volumeOptions = Mount.VolumeOptions()
          mount.volumeOptions?.driverConfig =
            what == "nfs" ? Driver(name: "local", options: ["type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"]) : Driver(name: "rexray")
          spec.taskTemplate.containerSpec.mounts = [mount]
        case "propagation":
          var mount = Mount(type: .bind, source: "/a", target: "/b")
          mount.bindOptions = Mount.BindOptions()
          mount.bindOptions?.propagation = "rshared"
          spec.taskTemplate.containerSpec.mounts = [mount]
        case "mounts":
          spec.taskTemplate.containerSpec.mounts = ["/a", "/a/b", "/a/"].map { Mount(type: .tmpfs, source: nil, target: $0) }
        case "label": spec.labels = [TrafficDistribution.label: "local"]
        case "twice":
          spec.endpointSpec = EndpointSpec(
            ports: [PortConfig(targetPort: 80, publishedPort: 80), PortConfig(targetPort: 81, publishedPort: 80)])
        case "host range", "range and port":
          var port = PortConfig(targetPort: 80, publishedPort: what == "host range" ? 0 : 80, publishMode: what == "host range" ? .host : .ingress)
          port.publishedRange = 8000...8010
          spec.endpointSpec = EndpointSpec(ports: [port])
        default: break
        }
      }
    }
    #expect(error?.description.contains(expected) == true, "\(String(describing: error))")
    #expect(world.state.services.isEmpty)
  }

  @Test("bridge is docker's name for a way out without a network, and what a service has that names none; it goes with ports and with no other")
  func bridged() throws {
    var world = World(nodes: 1)
    for (name, targets) in [("web", ["bridge"]), ("plain", [])] {
      let id = try world.create(name) { spec in
        spec.taskTemplate.networks = targets.map { NetworkAttachmentConfig(target: $0) }
        spec.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: name == "web" ? 80 : 81)])
      }
      #expect(world.state.spec(of: world.state.services[id]!)?.isBridged == true)
    }
    let none = try world.create("none") { $0.taskTemplate.networks = [NetworkAttachmentConfig(target: "none")] }
    #expect(world.state.spec(of: world.state.services[none]!)?.isBridged == false)
    let mixed = #expect(throws: EditError.self) {
      try world.create("two") { $0.taskTemplate.networks = ["bridge", "none"].map { NetworkAttachmentConfig(target: $0) } }
    }
    #expect(mixed?.description.contains("cannot be combined with others") == true)
    let taken = #expect(throws: EditError.self) {
      try ServiceEdits.createNetwork(NetworkSpec(name: "bridge"), state: world.state, now: world.now, generator: &world.generator)
    }
    #expect(taken?.description.contains("the name is taken, as bridge, host, none are") == true, "\(String(describing: taken))")
  }

  @Test("services publish one number at different addresses of hosts; one that overlaps another's is refused, and the other is named")
  func portAddresses() throws {
    var world = World(nodes: 1)
    func port(_ address: String?, _ mode: PortConfig.PublishMode = .ingress) -> PortConfig {
      var port = PortConfig(targetPort: 80, publishedPort: 8080, publishMode: mode)
      port.hostIP = address.flatMap { IPAddress($0) }
      return port
    }
    func publish(_ name: String, _ ports: PortConfig...) throws { _ = try world.create(name) { $0.endpointSpec = EndpointSpec(ports: ports) } }
    try publish("web", port("127.0.0.1"), port("192.0.2.5", .host))
    try publish("two", port("192.0.2.6"), port("::1"))
    for (ports, claim, holder) in [
      ([port(nil)], "8080/tcp", ["web", "two"]), ([port("0.0.0.0")], "0.0.0.0:8080/tcp", ["web", "two"]),
      ([port("127.0.0.1")], "127.0.0.1:8080/tcp", ["web"]), ([port("192.0.2.7"), port("192.0.2.5")], "192.0.2.5:8080/tcp", ["web"]),
      ([port("192.0.2.6", .host)], "192.0.2.6:8080/tcp", ["two"]), ([port("::")], "[::]:8080/tcp", ["two"]),
    ] {
      let error = #expect(throws: EditError.self) { _ = try world.create("three") { $0.endpointSpec = EndpointSpec(ports: ports) } }
      // Of the service's own port, or of the other's.
      let text = error?.description ?? ""
      #expect(text.contains("8080/tcp is already in use by service") && holder.contains { text.contains("service \($0):") }, "\(claim): \(text)")
    }
    #expect(throws: EditError.invalid("service three: port 127.0.0.1:8080/tcp is published twice")) {
      _ = try world.create("three") { $0.endpointSpec = EndpointSpec(ports: [port("0.0.0.0"), port("127.0.0.1")]) }
    }
    // In host mode on different hosts.
    try publish("three", port("192.0.2.5", .host), port("192.0.2.7"))
  }

  @Test("what is wrong with a network is said, and what is right is made")
  func networks() throws {
    var world = World(nodes: 2)
    let node = world.state.nodes.values.min { $0.hostname < $1.hostname }!
    var description = node.description!
    description.underlayMTU = 1400
    description.routes = [.init(destination: IPv4Prefix("172.16.0.0/12")!, device: "vpn0")]
    world.apply([.nodeDescription(node.id, description)])
    func refusal(_ change: (inout NetworkSpec) -> Void) -> String {
      var spec = NetworkSpec(name: "net")
      change(&spec)
      do throws(EditError) {
        _ = try ServiceEdits.createNetwork(spec, state: world.state, now: world.now, generator: &world.generator)
        return ""
      } catch { return error.description }
    }
    let mtu = "com.docker.network.driver.mtu"
    #expect(refusal { $0.options = ["encrypted": ""] }.contains("orch does not encrypt networks yet: leave out the option encrypted"))
    #expect(refusal { $0.options = ["mtu": "1"] }.contains("the option mtu is not known"))
    #expect(refusal { $0.options = [mtu: "lots"] }.contains("is 576 to 65485 bytes, not 'lots'"))
    #expect(
      refusal { $0.options = [mtu: "1351"] }.contains(
        "packets of 1351 bytes do not fit: the link of host \(node.hostname) takes 1400, and VXLAN adds 50"))
    #expect(refusal { $0.options = [mtu: "1350"] } == "")
    #expect(refusal { $0.enableIPv6 = true } == "")
    for (subnets, reason) in [
      (["fd00:1::/64"], "say that the network has IPv6"), (["fd00:1::/64", "fd00:2::/64"], "more than one IPv6 subnet"),
      (["fe80:1::/64"], "neither link-local nor multicast"), (["172.30.0.0/16", "fd00:1::/116"], "fewer addresses than the IPv4 one"),
    ] {
      let text = refusal {
        $0.ipam = .init(config: subnets.map { .init(subnet: $0) })
        $0.enableIPv6 = subnets == ["fd00:1::/64"] ? nil : true
      }
      #expect(text.contains(reason), "\(subnets): \(text)")
    }
    #expect(
      refusal {
        $0.enableIPv6 = true
        $0.options = [mtu: "1200"]
      }.contains("IPv6 needs packets of 1280 bytes"))
    #expect(refusal { $0.name = "host" }.contains("the name is taken"))
    #expect(
      refusal { $0.ipam = .init(config: [.init(subnet: "172.20.0.0/16")]) }.contains(
        "subnet 172.20.0.0/16 overlaps the route 172.16.0.0/12 dev vpn0 of host \(node.hostname)"))
    _ = try world.create("web") { $0.taskTemplate.networks = [NetworkAttachmentConfig(target: "host")] }
    world.settle()
    #expect(world.state.tasks.values.allSatisfy { $0.node != nil && $0.attachments.isEmpty })
  }

  @Test("what docker adds or leaves out when it sends a spec back replaces no task; what is another wish does")
  func roundTripOfDocker() throws {
    var world = World(nodes: 1)
    let id = try world.create("web") { spec in
      spec.taskTemplate.containerSpec.env = []
      spec.taskTemplate.containerSpec.readOnly = false
      spec.taskTemplate.containerSpec.command = []
      spec.taskTemplate.containerSpec.mounts = [Mount(type: .volume, source: "v", target: "/v")]
    }
    func template(_ change: (inout ServiceSpec) -> Void) throws -> UInt64 {
      let service = world.state.services[id]!
      var spec = world.state.spec(of: service)!
      change(&spec)
      spec.mode = .replicated((spec.replicas ?? 0) + 1)
      _ = try world.state.apply(ServiceEdits.update(id, to: spec, state: world.state, now: world.now), at: world.state.index + 1).get()
      return world.state.revision(id, world.state.services[id]!.current)!.template
    }
    let first = try template { _ in }
    let returned = try template { spec in
      spec.taskTemplate.forceUpdate = 0
      spec.taskTemplate.runtime = "container"
      spec.taskTemplate.resources = ResourceRequirements(limits: .init(), reservations: .init())
      spec.taskTemplate.placement = Placement()
      spec.taskTemplate.containerSpec.env = nil
      spec.taskTemplate.containerSpec.readOnly = nil
      spec.taskTemplate.containerSpec.dnsConfig = .init()
      spec.taskTemplate.containerSpec.isolation = "default"
      spec.taskTemplate.logDriver = Driver(name: "", options: [:])
      spec.taskTemplate.containerSpec.mounts?[0].readOnly = nil
    }
    #expect(returned == first)
    #expect(try template { $0.taskTemplate.forceUpdate = 1 } != first)
    #expect(try template { $0.taskTemplate.containerSpec.command = nil } != first)
  }

  @Test("a stale version and a taken name are refused")
  func stale() throws {
    var world = World(nodes: 1)
    let id = try world.create("web")
    let version = world.state.services[id]!.version
    let spec = world.state.spec(of: world.state.services[id]!)!
    try world.scale(id, 2)
    #expect(throws: EditError.outOfSequence) { try ServiceEdits.update(id, to: spec, version: version, state: world.state, now: world.now) }
    #expect(throws: EditError.self) { try world.create("web") }
    // Two edits of one state: the second one's condition does not hold any more.
    let first = try ServiceEdits.scale([(id, 3)], state: world.state, now: world.now)
    let second = try ServiceEdits.scale([(id, 4)], state: world.state, now: world.now)
    world.apply(first)
    var state = world.state
    #expect(throws: Refusal.outOfSequence) { try state.apply(second, at: state.index + 1).get() }
  }

  @Test("subnets are honoured; one that overlaps is refused with a reason")
  func subnets() throws {
    var world = World(nodes: 1)
    var spec = NetworkSpec(name: "a")
    spec.ipam = NetworkSpec.IPAM(config: [.init(subnet: "10.0.1.0/24", gateway: "10.0.1.2")])
    world.apply(try ServiceEdits.createNetwork(spec, state: world.state, now: world.now, generator: &world.generator).command)
    _ = try world.network("b")
    world.settle()
    #expect(world.state.network(named: "ingress")?.subnet == IPv4Prefix("10.0.0.0/24"))
    #expect(world.state.network(named: "a")?.subnet == IPv4Prefix("10.0.1.0/24"))
    #expect(world.state.network(named: "b")?.subnet == IPv4Prefix("10.0.2.0/24"))
    #expect(world.state.networks.values.compactMap(\.vni).sorted() == [4096, 4097, 4098])
    spec.name = "c"
    spec.ipam = NetworkSpec.IPAM(config: [.init(subnet: "10.0.0.0/16")])
    let error = #expect(throws: EditError.self) {
      try ServiceEdits.createNetwork(spec, state: world.state, now: world.now, generator: &world.generator)
    }
    #expect(error?.description.contains("overlaps") == true)
    let id = try world.create("web") { $0.taskTemplate.networks = [NetworkAttachmentConfig(target: "a")] }
    world.settle()
    // .1 stays unused, .2 is the declared gateway.
    #expect(world.state.services[id]?.endpoint.virtualIPs.map(\.address) == [IPv4Address("10.0.1.3")!])
  }

  @Test("a stack is deployed as one command; again changes nothing, a change only what differs, removal leaves nothing")
  func stack() throws {
    var world = World(nodes: 2)
    func service(_ name: String, _ image: String = "app:1", port: UInt16? = nil) -> ServiceSpec {
      var spec = ServiceSpec(name: "shop_\(name)", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: image)), mode: .replicated(2))
      spec.taskTemplate.networks = [NetworkAttachmentConfig(target: "shop_default", aliases: [name])]
      if let port { spec.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: port)]) }
      return spec
    }
    func deploy(_ services: [ServiceSpec], networks: [String] = ["shop_default"], text: String) throws -> [String] {
      let result = try ServiceEdits.deploy(
        .init(
          name: "shop", manifest: text, services: services, networks: networks.map { NetworkSpec(name: $0) },
          volumes: [Volume(name: "shop_data", createdAt: world.now)]), state: world.state, now: world.now, generator: &world.generator)
      world.apply(result.command)
      world.run(for: .seconds(20))
      return result.services.map { "\($0.name) \($0.change)" }
    }
    #expect(
      try deploy([service("web", port: 80), service("db")], networks: ["shop_default", "shop_extra"], text: "1") == [
        "shop_web created", "shop_db created",
      ])
    #expect(world.state.tasks.values.count { $0.isServing } == 4)
    #expect(world.state.network(named: "shop_extra") != nil)
    let version = world.state.index
    #expect(
      try deploy([service("web", port: 80), service("db")], networks: ["shop_default", "shop_extra"], text: "1") == [
        "shop_web unchanged", "shop_db unchanged",
      ])
    #expect(world.state.stacks["shop"]?.revision == 1)
    #expect(world.state.tasks.values.allSatisfy { $0.version <= version })
    // The port moves from one service to another in one deploy, and a network is dropped.
    #expect(
      try deploy([service("api", port: 80), service("db", "app:2")], text: "2") == ["shop_api created", "shop_db updated", "shop_web removed"])
    #expect(world.state.services.values.map(\.name).sorted() == ["shop_api", "shop_db"])
    #expect(world.images(world.state.service(named: "shop_db")!.id) == ["app:2", "app:2"])
    #expect(world.state.network(named: "shop_extra") == nil)
    world.apply(try ServiceEdits.removeStack("shop", volumes: true, state: world.state, now: world.now))
    #expect(throws: EditError.self) { try deploy([service("web")], text: "3") }
    world.settle()
    #expect(world.state.services.isEmpty && world.state.tasks.isEmpty && world.state.stacks.isEmpty && world.state.volumes.isEmpty)
    #expect(world.state.networks.values.map(\.name) == ["ingress"])
    #expect(world.nodes.allSatisfy { world.state.nodes[$0]!.attachments.count == 1 })
    #expect(world.violations == [])
  }
}
