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
    var last = await sample(wanted)
    while true {
      try await Task.sleep(for: .seconds(1))
      let now = await sample(wanted)
      let tasks = now.tasks.map { task in
        TaskStatistics(task, since: last.tasks.first { $0.id == task.id }, in: now.time - last.time, memory: host.resources.memoryBytes)
      }
      last = now
      let line = HostStatistics(nodeID: "\(rooms.node)", host: host.hostname, tasks: tasks)
      try await stream.send(data: try JSONEncoder().encode(line) + [10])
      if !isStream { return }
    }
  }

  fileprivate struct Sample {
    var id: TaskID
    var name: String
    var service: String
    var stats: ContainerStats
  }

  private func sample(_ wanted: Set<String>) async -> (time: ContinuousClock.Instant, tasks: [Sample]) {
    let tasks = await agent.liveTasks.filter { wanted.isEmpty || wanted.contains($0.id.description) }
    let stats = await rooms.runtime.stats(of: tasks.map(\.id.description))
    return (
      .now,
      tasks.compactMap { task in
        stats[task.id.description].map { Sample(id: task.id, name: "\(task.name).\(task.id)", service: task.service, stats: $0) }
      }.sorted { ($0.name, $0.id) < ($1.name, $1.id) }
    )
  }
}

extension TaskStatistics {
  fileprivate init(_ task: HostAPI.Sample, since last: HostAPI.Sample?, in time: Duration, memory: Int64) {
    let (usage, interfaces) = (task.stats.usage, task.stats.interfaces)
    let used = usage.cpu - (last?.stats.usage.cpu ?? usage.cpu)
    var pressure: [String: Pressure] = [:]
    for (name, value) in [("cpu", usage.cpuPressure), ("memory", usage.memoryPressure), ("io", usage.ioPressure)] {
      pressure[name] = value.map { Pressure(some10: $0.some.average10, full10: $0.full.average10) }
    }
    self.init(
      id: "\(task.id)", name: task.name, service: task.service, cpuPercent: max(0, 100 * (used / time)), cpuNanoseconds: usage.cpu.nanoseconds,
      memory: usage.memory, memoryLimit: usage.memoryLimit.map { memory > 0 ? min($0, memory) : $0 } ?? memory, oomKills: usage.oomKills,
      pids: usage.pids, pidsLimit: usage.pidsLimit, readBytes: usage.readBytes, writtenBytes: usage.writeBytes,
      receivedBytes: interfaces.reduce(0) { $0 &+ $1.received.bytes }, sentBytes: interfaces.reduce(0) { $0 &+ $1.sent.bytes }, pressure: pressure)
  }
}
