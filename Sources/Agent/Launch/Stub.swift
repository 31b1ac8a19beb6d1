import CLinux
import Glibc
import LinuxSystem

/// A process that has the namespaces, the cgroup and some mounts of a container to come, and its orch-init: it waits for one plan, becomes that
/// container and is nothing else ever. Without the agent, whose end closes `report`, it ends.
package struct Stub: Sendable {
  /// orch-init.
  package let monitor: Int32
  let report: SharedDescriptor
}

extension Launcher {
  /// Blocks until it is ready. `plan` begins with STUB and ends with AWAIT.
  package func prepare(_ plan: PlanWriter, name: String) throws -> Stub {
    let (monitor, report) = try begin(plan, name: name, stdio: (nil, nil, nil), fifth: nil, kept: [])
    guard try follow(plan, monitor, report.rawValue).isReady else { throw Self.silence(monitor) }
    return Stub(monitor: monitor, report: report)
  }

  /// As `launch`, without its parts of namespaces and cgroup. nil: the stub was gone before it knew of the plan, nothing of it has been done.
  package func launch(_ plan: PlanWriter, in stub: Stub, name: String) throws -> Launched? {
    let file = try plan.file(for: name)
    // Whether it was read is what its answer says.
    _ = clinux_send_fd(stub.report.rawValue, "p", 1, file.rawValue)
    let followed = try follow(plan, stub.monitor, stub.report.rawValue)
    if let launched = followed.launched { return launched }
    let failure = Self.silence(stub.monitor)
    if followed.isTaken { throw failure }
    return nil
  }
}
