import Cgroups
import LinuxSystem
import Runtime
import Telemetry

extension Agent {
  /// What each running container uses (docs/runtime.md). A series is a task's, named as docker names its container, and goes with it.
  func taskMetrics() async -> [Metric] {
    let shown = await statistics()
    func each(_ name: String, _ kind: Metric.Kind, _ help: String, _ value: (ContainerStats) -> UInt64?) -> Metric {
      Metric(name, kind, help, shown.compactMap { task in value(task.stats).map { .init($0, ["task": task.name, "service": task.service]) } })
    }
    func time(_ name: String, _ help: String, _ value: (CgroupUsage) -> Duration) -> Metric {
      Metric(name, .counter, help, shown.map { .init(value($0.stats.usage), ["task": $0.name, "service": $0.service]) })
    }
    return [
      time("orch_task_cpu_seconds_total", "CPU time used.", \.cpu),
      time("orch_task_cpu_throttled_seconds_total", "Time that the CPU limit made it wait.", \.throttling.time),
      each("orch_task_memory_bytes", .gauge, "Memory that counts against the limit, without inactive file cache.") {
        UInt64(clamping: $0.usage.memory)
      },
      each("orch_task_memory_limit_bytes", .gauge, "Of tasks that have one.") { $0.usage.memoryLimit.map { UInt64(clamping: $0) } },
      each("orch_task_oom_kills_total", .counter, "Processes killed since the memory limit was reached.") { UInt64(clamping: $0.usage.oomKills) },
      each("orch_task_processes", .gauge, "Processes and threads.") { UInt64(clamping: $0.usage.pids) },
      each("orch_task_io_read_bytes_total", .counter, "Read from block devices.") { UInt64(clamping: $0.usage.readBytes) },
      each("orch_task_io_written_bytes_total", .counter, "Written to block devices.") { UInt64(clamping: $0.usage.writeBytes) },
      each("orch_task_network_received_bytes_total", .counter, "By its own interfaces, loopback not counted.") { $0.receivedBytes },
      each("orch_task_network_sent_bytes_total", .counter, "By its own interfaces, loopback not counted.") { $0.sentBytes },
      Metric(
        "orch_task_pressure_seconds_total", .counter, "Time in which some of its processes, or all that were not idle, waited for a resource.",
        shown.flatMap { task in
          task.stats.usage.pressures.flatMap { resource, pressure in
            [("some", pressure.some), ("full", pressure.full)].map { share, stall in
              .init(stall.total, ["task": task.name, "service": task.service, "resource": resource, "share": share])
            }
          }
        }),
    ]
  }
}
