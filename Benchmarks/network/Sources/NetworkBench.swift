import AgentNetwork
import DNS
import Foundation
import Glibc
import Logging
import Model

/// What agents of two hosts do to the kernel and answer in DNS, without managers and processes: `AgentNetwork` and `DNS` as orch-agent assembles
/// them, with as many services as the benchmark asks for. Commands come by stdin, one a line; each is answered by one line of JSON.
///
/// usage: network-bench FOLDER HOST1-NAMESPACE HOST2-NAMESPACE
@main
struct NetworkBench {
  static func main() async throws {
    let arguments = CommandLine.arguments
    guard arguments.count == 4 else {
      print("usage: network-bench FOLDER HOST1-NAMESPACE HOST2-NAMESPACE (bench.py starts it)")
      exit(2)
    }
    var hosts = try Hosts(folder: arguments[1], namespaces: Array(arguments[2...]))
    try await hosts.begin()
    while let line = readLine() {
      let words = line.split(separator: " ").map(String.init)
      guard let command = words.first else { continue }
      let answer = try await hosts.carryOut(command, words.dropFirst().compactMap(Int.init))
      print(String(decoding: try JSONSerialization.data(withJSONObject: answer), as: UTF8.self))
      fflush(nil)
    }
    try await hosts.end()
  }
}

struct Hosts {
  private let folder: String
  private let namespaces: [String]
  private var overlays: [OverlayNetwork] = []
  private let names: NameServer
  private var world = World()
  private var containers: [TaskNetwork] = []

  init(folder: String, namespaces: [String]) throws {
    (self.folder, self.namespaces) = (folder, namespaces)
    names = try NameServer(upstreams: ResolvConf(), log: Logger(label: "bench"))
    overlays = try [1, 2].map { try Self.overlay($0, folder, namespaces) }
  }

  private static func overlay(_ number: Int, _ folder: String, _ namespaces: [String]) throws -> OverlayNetwork {
    try OverlayNetwork(
      configuration: .init(
        underlayAddress: World.underlay(number), runDirectory: "\(folder)/run\(number)", hostNamespace: namespaces[number - 1]),
      log: Logger(label: "bench"))
  }

  /// A caller on host 1 and a server on host 2.
  mutating func begin() async throws {
    world.make(services: 1, backends: 1)
    for number in [1, 2] { _ = try await apply(number) }
    let caller = world.container(0), server = world.container(1)
    let namespaces = [try await overlays[0].attach(caller), try await overlays[1].attach(server)]
    containers = [caller]
    print(
      String(
        decoding: try JSONSerialization.data(withJSONObject: [
          "caller": namespaces[0].path, "server": namespaces[1].path, "direct": "\(world.server)", "virtual": "\(world.virtual(0))",
          "published": Int(World.port),
        ]), as: UTF8.self))
    fflush(nil)
  }

  mutating func end() async throws { for overlay in overlays { try await overlay.removeAll() } }

  private func apply(_ number: Int) async throws -> Double {
    let (networks, services, endpoints) = (world.networks(of: number), world.services, world.endpoints)
    return try await milliseconds { try await overlays[number - 1].apply(networks: networks, services: services, endpoints: endpoints) }
  }

  mutating func carryOut(_ command: String, _ numbers: [Int]) async throws -> [String: Any] {
    switch (command, numbers.count) {
    case ("services", 2):
      // SERVICES BACKENDS-EACH
      let before = Set(world.records(of: 1).map(\.key))
      world.make(services: numbers[0], backends: numbers[1])
      let records = world.records(of: 1)
      names.update(records, removing: Array(before.subtracting(records.map(\.key))))
      return ["apply": [try await apply(1), try await apply(2)]]
    case ("containers", 1):
      // As many more on host 1, or none.
      for container in containers.dropFirst() { try await overlays[0].detach(container.task) }
      containers.removeSubrange(1...)
      for number in 0..<numbers[0] {
        containers.append(world.container(100 + number))
        _ = try await overlays[0].attach(containers.last!)
      }
      return [:]
    case ("change", 1):
      // One endpoint goes and comes, so many times: each change applied on host 1 as it would be in the agent.
      var times: [Double] = [], zones: [Double] = []
      for turn in 0..<numbers[0] {
        world.toggle(ready: turn % 2 == 1)
        let changed = world.toggled
        zones.append(await milliseconds { names.update([.endpoint(changed)]) })
        times.append(try await apply(1))
      }
      world.toggle(ready: true)
      _ = try await apply(1)
      return ["apply": times, "zone": zones]
    case ("restart", 0):
      overlays[0] = try Self.overlay(1, folder, namespaces)
      let alive = containers
      let overlay = overlays[0]
      let recovered = try await milliseconds { _ = try await overlay.recover(alive) }
      return ["recover": recovered, "apply": try await apply(1)]
    case ("names", 0):
      let (records, other) = (world.records(of: 1), try NameServer(upstreams: ResolvConf(), log: Logger(label: "bench")))
      let time = await milliseconds { other.update(records) }
      try await names.serve(
        containers[0].task, namespace: "\(folder)/run1/netns/\(containers[0].task)", client: DNSClient(networks: [World.web], forwards: false))
      return ["zone": time]
    case ("cpu", 0):
      var usage = rusage()
      getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
      func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
      return ["seconds": seconds(usage.ru_utime) + seconds(usage.ru_stime)]
    default: return ["error": "no such command: \(command)"]
    }
  }

  private func milliseconds<T>(_ body: () async throws -> T) async rethrows -> Double {
    let begin = ContinuousClock.now
    _ = try await body()
    return (ContinuousClock.now - begin) / .milliseconds(1)
  }
}
