import API
import APIClient
import Model
import NIOCore
import Testing

@testable import ControlAPI

@Suite("POST /build")
struct BuildRouteTests {
  @Test("the host that is named builds, else that of the manager that was asked, else the first that is ready")
  func hosts() async throws {
    let backend = MemoryBackend()
    let api = ControlAPI(backend: backend)
    func ask(_ query: String, asked: NodeID? = nil) async throws -> String {
      var headers: [APIHeader] = []
      if let asked { headers.append(APIHeader(ControlAPI.askedHeader, "\(asked)")) }
      let response = await api.respond(to: APIRequest(method: "POST", uri: "/v1.45/build?\(query)", headers: headers, body: APIBody(string: "12345")))
      return "\(response.status) " + String(buffer: try await response.body.collect(upTo: 1 << 20))
    }
    #expect(try await ask("t=a", asked: backend.nodes[2]) == "200 POST /v1.45/build?t=a on 3: 5 bytes")
    #expect(try await ask("node=h2", asked: backend.nodes[2]) == "200 POST /v1.45/build?node=h2 on 2: 5 bytes")
    #expect(try await ask("node=nowhere").hasPrefix("404 "))
    #expect(try await ask("t=a", asked: NodeID(value: 77)) == "200 POST /v1.45/build?t=a on 1: 5 bytes")
  }
  @Test("a built image goes as one archive from the host that has it to every other that is ready")
  func distribution() async throws {
    let backend = MemoryBackend()
    let api = ControlAPI(backend: backend)
    func ask(_ query: String) async -> APIResponse {
      await api.respond(to: APIRequest(method: "POST", uri: "/orch/v1/images/distribute?\(query)", body: .empty))
    }
    let response = await ask("name=web:1&from=h1")
    let lines = try String(buffer: try await response.body.collect(upTo: 1 << 20)).split(separator: "\n").map {
      try JSONText.decode(ImageLoadResult.self, Array($0.utf8))
    }
    #expect(response.status == 200 && lines.map(\.host) == ["h2", "h3"])
    #expect(lines.map { $0.images ?? [] } == [["web:1"], []] && lines[1].error == "no space left on device")
    #expect(backend.world.withLock { $0.imageHosts } == [backend.nodes[0]])
    // All that was saved, in the form that keeps layers as they are.
    #expect(backend.world.withLock { $0.loaded } == [backend.nodes[1]: #"["web:1"] true!"#.utf8.count])
    #expect(await ask("name=web:1").status == 400)
    #expect(await ask("name=web:1&from=nowhere").status == 404)
  }
}
