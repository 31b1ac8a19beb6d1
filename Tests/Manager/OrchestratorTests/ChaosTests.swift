import Model
import Testing

@testable import Orchestrator

@Suite struct ChaosTests {
  @Test("whatever happens in whatever order, it converges, and no address is given twice", arguments: 1...30)
  func random(_ seed: UInt64) throws {
    var world = World(nodes: 4, subnetLength: 26)
    world.generator = SplitMix64(seed: seed)
    var dice = SplitMix64(seed: seed &* 77)
    for name in ["net1", "net2"] { _ = try world.network(name) }
    var services: [ServiceID] = []
    for step in 0..<120 {
      let service = services.randomElement(using: &dice).flatMap { world.state.services[$0]?.pendingDelete == false ? $0 : nil }
      switch Int.random(in: 0..<12, using: &dice) {
      case 0 where services.count < 5:
        let order: UpdateConfig.Order = Bool.random(using: &dice) ? .startFirst : .stopFirst
        let isGlobal = Int.random(in: 0..<4, using: &dice) == 0
        services.append(
          try world.create("s\(step)", replicas: .random(in: 0...5, using: &dice)) {
            $0.taskTemplate.networks = [NetworkAttachmentConfig(target: "net1"), NetworkAttachmentConfig(target: "net2")]
            $0.updateConfig = UpdateConfig()
            $0.updateConfig?.order = order
            if isGlobal { $0.mode = .globalMode }
            $0.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: nil)])
          })
      case 1:
        if let service, world.state.spec(of: world.state.services[service]!)!.isGlobal == false {
          try world.scale(service, .random(in: 0...6, using: &dice))
        }
      case 2: if let service { try world.update(service) { $0.taskTemplate.forceUpdate = UInt64(step) } }
      case 3: if let service, dice.next() % 4 == 0 { world.apply(try ServiceEdits.remove(service, state: world.state)) }
      case 4: world.setNode(.random(in: 1...4, using: &dice), .down)
      case 5, 6: world.setNode(.random(in: 1...4, using: &dice), .ready)
      case 7: if let task = world.state.tasks.values.filter(\.isServing).min(by: { $0.id < $1.id }) { world.fail(task) }
      case 8:
        let availability = [NodeAvailability.active, .drain, .pause].randomElement(using: &dice)!
        world.editNode(.random(in: 1...4, using: &dice)) { $0.availability = availability }
      case 9: world.reconciler.reset(world.state)
      default: world.now = world.now + .milliseconds(.random(in: 0...3000, using: &dice))
      }
      for _ in 0..<Int.random(in: 0...4, using: &dice) {
        _ = world.decide()
        if Bool.random(using: &dice) { _ = world.agents() }
        world.now.nanoseconds += 1_000
      }
    }
    for number in 1...4 {
      world.setNode(number, .ready)
      world.editNode(number) { $0.availability = .active }
    }
    world.run(for: .seconds(300))
    #expect(world.violations == [])
    for service in world.state.services.values {
      #expect(!service.pendingDelete)
      let spec = world.state.spec(of: service)!
      let running = world.running(service.id)
      // An update that was paused by a failure may leave old tasks; nothing may leave too few or too many.
      #expect(running.count == (spec.isGlobal ? 4 : Int(spec.replicas!)), "service \(service.name) \(world.status(service.id))")
      #expect(Set(running.map { "\($0.slot) \(spec.isGlobal ? $0.node!.description : "")" }).count == running.count)
    }
    let acted = world.decide()
    #expect(!acted)
  }
}
