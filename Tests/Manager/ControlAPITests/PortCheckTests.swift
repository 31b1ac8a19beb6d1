import API
import APIClient
import ControlAPI
import Model
import Testing

@Suite("Ports that processes of hosts have") struct PortCheckTests {
  let caller = Caller()

  private func create(_ mode: String, global: Bool = false, constraints: String = "") async throws -> (status: Int, text: String) {
    let placement = constraints.isEmpty ? "" : #","Placement":{"Constraints":["\#(constraints)"]}"#
    let body = #"""
      {"Name":"web","Mode":{\#(global ? #""Global":{}"# : #""Replicated":{"Replicas":1}"#)},"TaskTemplate":{"ContainerSpec":{"Image":"i"}\#(placement)},
      "EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":8080,"PublishMode":"\#(mode)"}]}}
      """#
    let answer = try await caller.send("POST", "/services/create", body)
    if answer.status == 201 { #expect(try await caller.send("DELETE", "/services/web").status == 200) }
    return (answer.status, answer.text)
  }
  private func take(_ hosts: [Int]) {
    let conflict = NodeDescription.PortConflict(port: 8080, protocol: .tcp, holder: .init(command: "nginx", pid: 7))
    caller.backend.world.withLock { world in world.taken = Dictionary(uniqueKeysWithValues: hosts.map { (caller.backend.nodes[$0 - 1], [conflict]) })
    }
  }

  @Test("one through ingress is refused when any host's is taken; one in host mode when no host is left for it, or a global service lacks one")
  func modes() async throws {
    take([2])
    let refused = try await create("ingress")
    #expect(refused.status == 409 && refused.text.contains("8080/tcp by nginx") && refused.text.contains("on h2"), "\(refused.text)")
    #expect(try await create("host").status == 201)
    let global = try await create("host", global: true)
    #expect(global.status == 409 && global.text.contains("on h2"), "\(global.text)")
    #expect(try await create("host", global: true, constraints: "node.hostname != h2").status == 201)
    let only = try await create("host", constraints: "node.hostname == h2")
    #expect(only.status == 409 && only.text.contains("8080/tcp by nginx") && !only.text.contains("h1"), "\(only.text)")
    take([1, 2, 3])
    let all = try await create("host")
    #expect(all.status == 409 && all.text.contains("on h1") && all.text.contains("on h3"), "\(all.text)")
    take([])
    for mode in ["ingress", "host"] { #expect(try await create(mode, global: true).status == 201) }
  }

  @Test("a process at one address is in the way of that address and of all, and of no other")
  func addresses() async throws {
    let conflict = NodeDescription.PortConflict(port: 8080, protocol: .tcp, address: IPAddress("192.0.2.5"), holder: .init(command: "nginx", pid: 7))
    caller.backend.world.withLock { $0.taken = [caller.backend.nodes[0]: [conflict]] }
    func create(_ address: String) async throws -> (status: Int, text: String) {
      let body = #"""
        {"Name":"web","Mode":{"Global":{}},"TaskTemplate":{"ContainerSpec":{"Image":"i"}},
        "EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":8080,"HostIP":"\#(address)"}]}}
        """#
      let answer = try await caller.send("POST", "/services/create", body)
      return (answer.status, answer.text)
    }
    for address in ["192.0.2.5", "0.0.0.0"] {
      let refused = try await create(address)
      #expect(refused.status == 409 && refused.text.contains("192.0.2.5:8080/tcp by nginx (pid 7) on h1"), "\(refused.text)")
    }
    #expect(try await create("127.0.0.1").status == 201)
  }

  @Test("hosts are asked about the numbers that may be chosen, and the allocator is told; a range that processes have is refused with them")
  func chosen() async throws {
    func create(_ port: String) async throws -> (status: Int, text: String) {
      let body = #"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"i"}},"EndpointSpec":{"Ports":[{"TargetPort":80,\#(port)}]}}"#
      let answer = try await caller.send("POST", "/services/create", body)
      if answer.status == 201 { #expect(try await caller.send("DELETE", "/services/web").status == 200) }
      return (answer.status, answer.text)
    }
    func range(_ last: Int) -> String { #""OrchPublishedRange":[8080,\#(last)]"# }
    take([2, 3])
    #expect(try await create(range(8082)).status == 201)
    var learned = caller.backend.world.withLock { $0.learned.last }
    #expect(Set(learned?.asked ?? []) == Set((8080...8082).map { PortClaim($0, .tcp) }))
    #expect(Set(learned?.taken ?? []) == [PortClaim(8080, .tcp)])
    #expect(try await create(#""PublishedPort":0"#).status == 201)
    learned = caller.backend.world.withLock { $0.learned.last }
    #expect(learned?.asked.contains(PortClaim(30_000, .tcp)) == true && learned?.taken == [])
    caller.backend.world.withLock { world in
      for host in caller.backend.nodes {
        world.taken[host] = [
          .init(port: 8080, protocol: .tcp, holder: .init(command: "nginx", pid: 7)), .init(port: 8081, protocol: .tcp, holder: nil),
        ]
      }
    }
    let refused = try await create(range(8081))
    #expect(
      refused.status == 409 && refused.text.contains("service web: no port of 8080-8081 is free: 8080/tcp by nginx (pid 7) on h1"), "\(refused.text)")
    #expect(try await create(range(8082)).status == 201)
  }
}
