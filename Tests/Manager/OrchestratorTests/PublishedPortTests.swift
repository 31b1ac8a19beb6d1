import Model
import Testing

@testable import Orchestrator

@Suite("Published ports, from what is declared to what is given") struct PublishedPortTests {
  private func port(_ number: UInt16?, _ mode: PortConfig.PublishMode = .ingress) -> PortConfig {
    PortConfig(targetPort: 80, publishedPort: number, publishMode: mode)
  }
  private func port(of range: ClosedRange<UInt16>) -> PortConfig {
    var config = port(nil)
    config.publishedRange = range
    return config
  }
  private func deploy(_ services: KeyValuePairs<String, [PortConfig]>, _ world: inout World) throws {
    let specs = services.map { name, ports in
      var spec = ServiceSpec(name: name, taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app:1")), mode: .replicated(1))
      spec.endpointSpec = EndpointSpec(ports: ports)
      return spec
    }
    let wanted = ServiceEdits.Deployment(name: "shop", manifest: "\(services)", services: specs)
    world.apply(try ServiceEdits.deploy(wanted, state: world.state, now: world.now, generator: &world.generator).command)
    world.run(for: .seconds(30))
    #expect(world.violations == [])
  }
  private func numbers(_ name: String, _ world: World) -> [UInt16?]? { world.state.service(named: name)?.endpoint.ports.map(\.publishedPort) }
  private func serves(_ name: String, _ world: World) -> Bool { world.state.service(named: name).map { world.running($0.id).count == 1 } ?? false }

  // Which of two is looked at first hangs on ids, which are drawn.
  @Test("of two services that come together the one that fixes a number has it, and another is chosen", arguments: 0..<8)
  func together(seed: UInt64) throws {
    for mode in [PortConfig.PublishMode.ingress, .host] {
      var world = World(nodes: 2)
      world.generator = SplitMix64(seed: seed)
      try deploy(["a": [port(of: 8000...8002)], "b": [port(8000, mode)], "c": [port(nil)], "d": [port(30_000, mode)]], &world)
      #expect(numbers("a", world) == [8001] && numbers("b", world) == [8000])
      #expect(numbers("c", world) == [30_001] && numbers("d", world) == [30_000])
      #expect(["a", "b", "c", "d"].allSatisfy { serves($0, world) })
    }
  }

  @Test("a number that was chosen for a service stays: who fixes it later is refused before anything starts, and the service is named")
  func chosenBefore() throws {
    var world = World(nodes: 2)
    let before: KeyValuePairs = ["a": [port(of: 8000...8002)], "c": [port(nil)]]
    try deploy(before, &world)
    #expect(numbers("a", world) == [8000] && numbers("c", world) == [30_000])
    let index = world.state.index
    for (fixed, holder, claim) in [(port(8000), "a", 8000), (port(8000, .host), "a", 8000), (port(30_000), "c", 30_000)] {
      let error = #expect(throws: EditError.self) { try deploy(["a": [port(of: 8000...8002)], "c": [port(nil)], "b": [fixed]], &world) }
      #expect(
        error
          == .conflict(
            "port \(claim)/tcp is already in use by service \(holder), for which it was chosen: publish another port in b, or change that service"))
    }
    #expect(world.state.index == index)
    // Not where its service gives it up in the same deployment.
    try deploy(["a": [port(of: 8001...8002)], "c": [port(nil)], "b": [port(8000)]], &world)
    #expect(numbers("a", world) == [8001] && numbers("b", world) == [8000] && numbers("c", world) == [30_000])
    #expect(["a", "b", "c"].allSatisfy { serves($0, world) })
  }

  @Test("services exchange their numbers in one deployment", arguments: 0..<4)
  func exchange(seed: UInt64) throws {
    var world = World(nodes: 2)
    world.generator = SplitMix64(seed: seed)
    try deploy(["a": [port(8000)], "b": [port(8001)], "c": [port(8002, .host)], "d": [port(8003)]], &world)
    try deploy(["a": [port(8001)], "b": [port(8000)], "c": [port(8003, .host)], "d": [port(8002)]], &world)
    #expect(numbers("a", world) == [8001] && numbers("b", world) == [8000] && numbers("c", world) == [8003] && numbers("d", world) == [8002])
    #expect(["a", "b", "c", "d"].allSatisfy { serves($0, world) })
  }

  @Test("a range in which nothing is free is refused with who has it; one that becomes free with the same deployment is given", arguments: 0..<4)
  func fullRange(seed: UInt64) throws {
    var world = World(nodes: 2)
    world.generator = SplitMix64(seed: seed)
    try deploy(["a": [port(8000)], "b": [port(8001, .host)]], &world)
    let error = #expect(throws: EditError.self) { try deploy(["a": [port(8000)], "b": [port(8001, .host)], "c": [port(of: 8000...8001)]], &world) }
    #expect(error == .conflict("service c: no port of 8000-8001 is free, they are in use by service a, b: publish a wider range"))
    #expect(throws: EditError.conflict("service d: no port of 8000-8001 is free, they are in use by service a, b: publish a wider range")) {
      try world.create("d") { $0.endpointSpec = EndpointSpec(ports: [port(of: 8000...8001)]) }
    }
    try deploy(["a": [port(9000)], "b": [port(8001, .host)], "c": [port(of: 8000...8001)]], &world)
    #expect(numbers("c", world) == [8000] && serves("c", world))
  }

  @Test("what was accepted at the same moment as another: the second one waits, says why, and has the number when the other gives it up")
  func race() throws {
    for (first, second) in [(port(8000), port(8000, .host)), (port(8000, .host), port(8000)), (port(of: 8000...8000), port(8000, .host))] {
      var world = World(nodes: 2)
      let state = world.state
      func make(_ name: String, _ port: PortConfig, in state: ClusterState) throws -> Command {
        var spec = ServiceSpec(name: name, taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app:1")), mode: .replicated(1))
        spec.endpointSpec = EndpointSpec(ports: [port])
        return try ServiceEdits.create(spec, state: state, now: world.now, generator: &world.generator).command
      }
      let late = try make("b", second, in: state)
      world.apply(try make("a", first, in: state))
      world.settle()
      world.apply(late)
      world.settle()
      let (a, b) = (try #require(world.state.service(named: "a")), try #require(world.state.service(named: "b")))
      #expect(numbers("a", world) == [8000] && world.running(b.id).isEmpty)
      #expect(
        world.live(b.id).map(\.status.error) == ["port 8000/tcp is already in use by service a: publish another port or change that service"])
      try world.update(a.id) { $0.endpointSpec = EndpointSpec(ports: [port(8001)]) }
      world.run(for: .seconds(30))
      #expect(numbers("b", world) == [8000] && serves("b", world) && serves("a", world))
      #expect(world.violations == [])
    }
  }

  @Test("a leader's allocator goes around what hosts said that their processes have, after a decision was begun anew, too")
  func processes() throws {
    var world = World(nodes: 2)
    world.reconciler.learn(asked: [PortClaim(8000, .tcp), PortClaim(30_000, .tcp)], taken: [PortClaim(8000, .tcp), PortClaim(30_000, .tcp)])
    world.reconciler.reset(world.state)
    try deploy(["a": [port(of: 8000...8002)], "c": [port(nil)]], &world)
    #expect(numbers("a", world) == [8001] && numbers("c", world) == [30_001])
  }
}
