import API
import Cgroups
import Foundation
import LinuxSystem
import Model
import Runtime
import Transport

extension HostAPI {
  /// `GET /stats?task=ID…&stream=1`: a line a second of what these tasks' containers use, of all without `task`; one line without `stream`.
  /// The first comes after a second: CPU is a share of time.
  func stats(_ request: HostRequest, _ stream: TransportStream) async throws {
    let wanted = Set(request.query.filter { $0.name == "task" }.map(\.value))
    let isStream = request.query.contains { $0.name == "stream" && HostRequest.flag($0.value) }
    try await stream.answer(200, type: "application/x-ndjson")
    let host = HostFacts.description()
    var (last, since) = (await agent.statistics(of: wanted), ContinuousClock.now)
    while true {
      try await Task.sleep(for: .seconds(1))
      let (now, at) = (await agent.statistics(of: wanted), ContinuousClock.now)
      let before = Dictionary(last.map { ($0.id, $0.stats.usage.cpu) }, uniquingKeysWith: { a, _ in a })
      let tasks = now.map { TaskStatistics($0, since: before[$0.id], in: at - since, memory: host.resources.memoryBytes) }
      (last, since) = (now, at)
      let line = HostStatistics(nodeID: "\(rooms.node)", host: host.hostname, tasks: tasks)
      try await stream.send(data: try JSONEncoder().encode(line) + [10])
      if !isStream { return }
    }
  }
}

extension TaskStatistics {
  /// - Parameter last: CPU that it had used before `time`.
  fileprivate init(_ task: TaskSample, since last: Duration?, in time: Duration, memory: Int64) {
    let usage = task.stats.usage
    let used = usage.cpu - (last ?? usage.cpu)
    let pressure = usage.pressures.map { ($0.resource, Pressure(some10: $0.pressure.some.average10, full10: $0.pressure.full.average10)) }
    self.init(
      id: "\(task.id)", name: task.name, service: task.service, cpuPercent: max(0, 100 * (used / time)), cpuNanoseconds: usage.cpu.nanoseconds,
      memory: usage.memory, memoryLimit: usage.memoryLimit.map { memory > 0 ? min($0, memory) : $0 } ?? memory, oomKills: usage.oomKills,
      pids: usage.pids, pidsLimit: usage.pidsLimit, readBytes: usage.readBytes, writtenBytes: usage.writeBytes,
      receivedBytes: task.stats.receivedBytes, sentBytes: task.stats.sentBytes, pressure: Dictionary(pressure, uniquingKeysWith: { a, _ in a }))
  }
}
