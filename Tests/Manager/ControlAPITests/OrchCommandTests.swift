import Foundation
import Testing

/// The built `orch`, beside this test's own executable.
let orchPath =
  ((try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "").split(separator: "/").dropLast()
  .map { "/" + $0 }.joined() + "/orch"

@Suite(.enabled(if: FileManager.default.isExecutableFile(atPath: orchPath))) struct OrchCommandTests {
  private let manifest = """
    services:
      web:
        image: web:1
        ports: ["8080:80"]
        volumes: ["data:/data"]
        deploy: {replicas: 2}
      visitor:
        image: visitor:1
    volumes:
      data:
    """

  @Test("orch deploys, lists, scales, updates, runs commands, inspects and removes over the same API")
  func session() async throws {
    try await withServer { backend, socket in
      var description = try #require(try await backend.state().nodes[backend.nodes[1]]?.description)
      description.networkRepairs = ["rules": 3]
      backend.apply([.nodeDescription(backend.nodes[1], description)])
      let file = socket + ".shop.yaml"
      try manifest.write(toFile: file, atomically: true, encoding: .utf8)
      defer { try? FileManager.default.removeItem(atPath: file) }
      @discardableResult
      func run(_ arguments: [String], expect wanted: [String] = [], code: Int32 = 0, lacks unwanted: [String] = []) async throws -> String {
        let result = try await execute(orchPath, arguments, ["ORCH_HOST": "unix://\(socket)", "COLUMNS": "200", "PATH": "/usr/bin:/bin"])
        #expect(result.code == code, "orch \(arguments): \(result.text)")
        for text in wanted { #expect(result.text.contains(text), "orch \(arguments) lacks \(text): \(result.text)") }
        for text in unwanted { #expect(!result.text.contains(text), "orch \(arguments) has \(text): \(result.text)") }
        return result.text
      }
      func line(_ text: String, expect wanted: [String] = [], code: Int32 = 0) async throws {
        try await run(text.split(separator: " ").map(String.init), expect: wanted, code: code)
      }
      try await line("--help", expect: ["STACKS AND SERVICES", "deploy", "Begin with"])
      try await line("scale --help", expect: ["Example: orch scale web=3 api=0"])
      try await line("nonsense", code: 2)
      try await line("version", expect: ["Server:", "1.45"])
      try await line("nodes", expect: ["HOSTNAME", "h1", "Leader", "10.9.0.2"])
      try await line("nodes --format json", expect: [#""Hostname":"h1""#, #""ManagerStatus":"Leader""#, #""Self":true"#])
      try await run(
        ["deploy", "--name", "shop", file], expect: ["created    service shop_web", "created    volume shop_data", "2 services converged"])
      try await run(["deploy", "--name", "shop", file], expect: ["unchanged  service shop_web"])
      try await line("services", expect: ["shop_web", "2/2", "web:1", "*:8080->80/tcp"])
      try await line("services --format json", expect: [#""Name":"shop_web""#, #""Replicas":"2/2""#])
      try await line("stacks", expect: ["shop"])
      try await line("ps web", expect: ["shop_web.1", "shop_web.2", "Running", "h2", "h3"])
      let used = "150.50%   3MiB / 6MiB         50.00%   1.5kB / 2B   4kB / 0B    7"
      try await line(
        "stats --no-stream", expect: ["MEM USAGE / LIMIT", used, "orch: h3: this host does not serve GET /stats: upgrade its agent"], code: 1)
      try await line("stats --no-stream web", expect: ["/stats?task=", "h2"], code: 1)
      try await line(
        "stats --no-stream --format json visitor",
        expect: [#""CPUPerc":"150.50%""#, #""MemPerc":"50.00%""#, #""NetIO":"1.5kB / 2B""#, #""OOMKills":"1""#, #""Pressure":"io=1.00%/0.50%""#])
      try await line("stats nothing", expect: ["no service and no task is called nothing"], code: 1)
      try await line("scale web=3 visitor=0", expect: ["shop_web scaled to 3 from 2", "shop_visitor scaled to 0 from 1", "2 services converged"])
      try await line("scale web=-1", expect: ["cannot have -1 replicas", "0 to 10000"], code: 1)
      try await line("scale web=1000000000", expect: ["cannot have 1000000000 replicas"], code: 1)
      try await line("scale nothing=1", expect: ["service nothing not found"], code: 1)
      try await line("update web --image web:2 --env-add A=b", expect: ["shop_web updated", "converged"])
      try await line("inspect web", expect: [#""Image": "web:2""#, #""A=b""#])
      try await line("inspect h2", expect: [#""Hostname": "h2""#])
      try await line("inspect nothing", expect: ["no service, task, node"], code: 1)
      try await line("node inspect h2 h1", expect: ["[\n    {", #""Hostname": "h2""#, #""Hostname": "h1""#, #""NetworkRepairs": {"#, #""rules": 3"#])
      try await line("node inspect --format json h2", expect: [#""NetworkRepairs":{"rules":3}"#])
      try await line("node inspect shop_web h2", expect: ["no node is called shop_web", #""Hostname": "h2""#], code: 1)
      try await line("node inspect --help", expect: ["NetworkRepairs", "Example: orch node inspect h2"])
      try await line("network inspect shop_default nothing", expect: [#""Name": "shop_default""#, "no network is called nothing"], code: 1)
      try await line("rollback web --timeout 20", expect: ["converged"])
      try await line("ps web", expect: ["Shutdown", "web:2", " \\_ shop_web.1"])
      try await line("exec web.1 sh -c ls -x", expect: ["sh -c ls -x ready"], code: 7)
      try await line("exec web.9 ls", expect: ["task web.9 not found"], code: 1)
      try await line("logs web")
      try await line("logs web --since 1h --until 1h")
      try await line("logs -f web --until 1000000000.5")
      try await line("logs web --until tomorrow", expect: ["--until tomorrow: give a time like"], code: 2)
      try await line("run --detach --name bound -p 127.0.0.1:8081:81 -p [::1]:8081:81 -p 0.0.0.0:8082:82/udp -p 8083:83 web:1")
      try await line("services", expect: ["127.0.0.1:8081->81/tcp", "[::1]:8081->81/tcp", "0.0.0.0:8082->82/udp", "*:8083->83/tcp"])
      try await line("run --detach -p nowhere:8081:81 web:1", expect: ["write it as 127.0.0.1:8080:80"], code: 2)
      try await line("run --detach -p +80:80 web:1", expect: ["expected PUBLISHED:TARGET"], code: 2)
      try await line("run --detach --name any -p 9000-9009:80 -p 127.0.0.1::81 -p 0:82 web:1")
      try await line(
        "inspect any", expect: [#""OrchPublishedRange": ["#, #""TargetPort": 81"#, #""TargetPort": 82"#])
      try await line("node drain h2", expect: ["h2"])
      try await line("node ls", expect: ["Drain"])
      try await line("node activate h2")
      try await line("networks", expect: ["shop_default", "overlay"])
      try await line("volumes", expect: ["shop_data"])
      try await line("managers", expect: ["10.9.0.1:7946", "yes", "reachable"])
      try await line("join-token worker", expect: ["orch-agent join --token ORCHTKN-1-abc-worker 10.9.0.1:7946"])
      try await line("join-token -q manager", expect: ["ORCHTKN-1-abc-manager"])
      try await run(["image", "import", "busy:1", file], expect: ["h1: busy:1", "h3: no space left on device"], code: 1)
      try await line("image ls", expect: ["web", "0123456789ab", "1.24MB", "h1,h2,h3"])
      try await line("completion bash", expect: ["_orch", "--until", "_orch_node_inspect"])
      try await line("down shop --volumes", expect: ["removing   service shop_web", "is gone"])
      try await line("services -q")
      try await line("down nothing", expect: ["stack nothing not found"], code: 1)
      try await run(["nodes", "--host", "unix:///nowhere.sock"], expect: ["cannot connect", "ORCH_HOST"], code: 1)
      try "services:\n  web:\n    image: web:1\n    replica: 2\n".write(toFile: file, atomically: true, encoding: .utf8)
      try await run(["deploy", file], expect: [":4:5: error:", "replica", "was not deployed"], code: 1)
    }
  }
}
