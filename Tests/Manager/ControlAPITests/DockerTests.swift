import Foundation
import Testing

/// The stock CLI, wherever it is installed; empty when it is not.
let dockerPath =
  (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/local/bin:/usr/bin").split(separator: ":").map { "\($0)/docker" }
  .first { FileManager.default.isExecutableFile(atPath: $0) } ?? ""

/// Runs the stock docker CLI against a socket; its stdout and stderr, and its exit code.
func docker(_ socket: String, _ arguments: [String]) async throws -> (code: Int32, text: String) {
  try await execute(dockerPath, arguments, ["DOCKER_HOST": "unix://\(socket)", "HOME": "/nonexistent", "PATH": "/usr/bin:/bin"])
}

func execute(_ path: String, _ arguments: [String], _ environment: [String: String]) async throws -> (code: Int32, text: String) {
  try await withCheckedThrowingContinuation { continuation in
    DispatchQueue.global().async {
      let process = Process()
      process.executableURL = URL(fileURLWithPath: path)
      process.arguments = arguments
      process.environment = environment
      process.standardInput = FileHandle.nullDevice
      let output = Foundation.Pipe()
      process.standardOutput = output
      process.standardError = output
      do { try process.run() } catch { return continuation.resume(throwing: error) }
      // FileHandle's own reading ends the process when a signal interrupts it.
      var (data, chunk) = ([UInt8](), [UInt8](repeating: 0, count: 65536))
      while true {
        let count = read(output.fileHandleForReading.fileDescriptor, &chunk, chunk.count)
        if count > 0 { data += chunk[..<count] } else if count == 0 || errno != EINTR { break }
      }
      process.waitUntilExit()
      continuation.resume(returning: (process.terminationStatus, String(decoding: data, as: UTF8.self)))
    }
  }
}

@Suite(.enabled(if: !dockerPath.isEmpty)) struct DockerTests {
  @Test("the stock docker CLI lists, creates, scales, updates, rolls back, inspects and removes")
  func session() async throws {
    try await withServer { _, socket in
      func run(_ line: String, expect wanted: [String], code: Int32 = 0) async throws {
        let result = try await docker(socket, line.split(separator: " ").map(String.init))
        #expect(result.code == code, "docker \(line): \(result.text)")
        for text in wanted { #expect(result.text.contains(text), "docker \(line) lacks \(text): \(result.text)") }
      }
      try await run("version", expect: ["API version:      1.45"])
      try await run("info", expect: ["Swarm: active", "Is Manager: true", "Nodes: 3"])
      try await run("node ls", expect: ["h1", "h2", "h3", "Leader", "Ready", "Active"])
      try await run("node inspect h2 --pretty", expect: ["Hostname:", "h2"])
      try await run("swarm join-token -q worker", expect: ["ORCHTKN-1-abc-worker"])
      try await run("network create -d overlay back", expect: [])
      try await run("network ls", expect: ["back", "overlay", "swarm"])
      try await run("service create --name web --replicas 2 --network back -p 8080:80 web:1", expect: ["Service", "converged"])
      try await run("service ls", expect: ["web", "replicated", "2/2", "web:1"])
      try await run("service ps web", expect: ["web.1", "web.2", "Running", "h2", "h3"])
      try await run("service inspect web", expect: ["\"Name\": \"web\"", "\"Image\": \"web:1\""])
      try await run("service inspect --pretty web", expect: ["Service Mode:", "Replicated", "Replicas:"])
      try await run("service scale web=3", expect: ["web scaled to 3", "converged"])
      try await run("service update --image web:2 web", expect: ["converged"])
      try await run("service ps web", expect: ["web:2", "web:1", "Shutdown"])
      try await run("service rollback web", expect: ["converged"])
      try await run("node update --availability drain h2", expect: ["h2"])
      try await run("node ls", expect: ["Drain"])
      try await run("node ps h3", expect: ["web.2"])
      try await run("service logs web", expect: [])
      try await run("service ps nothing", expect: ["no such service: nothing"], code: 1)
      try await run("service rm web", expect: ["web"])
      try await run("network rm back", expect: ["back"])
      try await run("volume create data", expect: ["data"])
      try await run("volume ls", expect: ["data"])
      try await run("volume rm data", expect: ["data"])
    }
  }
}
