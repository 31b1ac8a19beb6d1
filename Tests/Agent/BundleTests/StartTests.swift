import Foundation
import Glibc
import LinuxSystem
import Testing

/// Between `create` and the program's first instruction.
@Suite(.enabled(if: isRoot), .serialized) struct StartTests {
  @Test("a created container is paused, which start says, and goes on as a created one")
  func paused() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["create", "--bundle", world.bundle, "one"]).code == 0)
    let paused = try world.call(["pause", "one"])
    #expect(paused.code == 0, "\(paused)")
    // Else start would wait for a process that does nothing.
    try #require(try world.state("one")["status"] as? String == "paused")
    for _ in 0..<2 {
      let refused = try world.call(["start", "one"])
      #expect(refused.code == 1 && refused.err.contains("cannot start a paused container"), "\(refused)")
    }
    #expect(try world.call(["exec", "one", "true"]).err.contains("paused"))
    let kept = try world.call(["delete", "one"])
    #expect(kept.code == 1 && kept.err.contains("is not stopped: paused"), "\(kept)")
    let resumed = try world.call(["resume", "one"])
    #expect(resumed.code == 0, "\(resumed)")
    #expect(try world.state("one")["status"] as? String == "created")
    #expect(try world.call(["start", "one"]).code == 0)
    #expect(try world.state("one")["status"] as? String == "running")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
    #expect(try world.call(["create", "--bundle", world.bundle, "two"]).code == 0)
    #expect(try world.call(["pause", "two"]).code == 0)
    #expect(try world.call(["delete", "-f", "two"]).code == 0)
    #expect(try Files.list(world.folder + "/root").filter { !$0.hasPrefix("@") }.isEmpty)
  }

  /// A program that whoever executes it waits for, as on a file server that hangs: till the lease on it is given up, or for 45 s (fcntl(2), "Leases").
  private final class Slow {
    private var lease: OwnedDescriptor?
    init(_ world: BundleWorld) throws {
      let path = world.bundle + "/rootfs/slow/sleep"
      try Files.makeDirectories(world.bundle + "/rootfs/slow", mode: 0o755)
      try Files.writeAtomically(path, try Files.read("/bin/busybox"), mode: 0o755, durable: false)
      // What the kernel sends the lease's holder would end it.
      signal(SIGIO, SIG_IGN)
      let file = try OwnedDescriptor.open(path, O_RDONLY)
      // F_SETLEASE, F_WRLCK.
      try #require(fcntl(file.rawValue, 1024, 1) == 0, "\(Errno.current)")
      lease = consume file
    }
    func release() { lease = nil }
    /// Somebody waits for it.
    func isAwaited(by pid: Int) -> Bool { (try? Files.text("/proc/\(pid)/wchan"))?.contains("break_lease") == true }
  }
  private final class Command: @unchecked Sendable {
    let result = Box()
    let done = DispatchSemaphore(value: 0)
    init(_ world: BundleWorld, _ arguments: [String]) {
      Thread { [result, done] in
        result.value = try? world.call(arguments)
        done.signal()
      }.start()
    }
    var isRunning: Bool {
      if done.wait(timeout: .now()) == .timedOut { return true }
      done.signal()
      return false
    }
    func end() throws -> BundleWorld.Result {
      try #require(done.wait(timeout: .now() + 60) == .success)
      return try #require(result.value)
    }
  }

  /// Container `one`, whose program is slow to execute.
  private func createdSlow() throws -> (BundleWorld, Slow, pid: Int) {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["/slow/sleep", "1000"])
    let slow = try Slow(world)
    try #require(try world.call(["create", "--bundle", world.bundle, "one"]).code == 0)
    return (world, slow, try #require(try world.state("one")["pid"] as? Int))
  }

  @Test("a start that hangs in exec holds up no other command, and none that ends its container", arguments: ["kill", "delete"])
  func hanging(_ end: String) throws {
    let (world, slow, pid) = try createdSlow()
    defer { slow.release() }
    let start = Command(world, ["start", "one"])
    for _ in 0..<6000 where !slow.isAwaited(by: pid) { usleep(10_000) }
    try #require(slow.isAwaited(by: pid))
    #expect(try world.state("one")["status"] as? String == "created")
    #expect(try world.call(["kill", "one", "0"]).code == 0)
    #expect(try world.call(["update", "--pids-limit", "50", "one"]).code == 0)
    let again = try world.call(["start", "one"])
    #expect(again.code == 1 && again.err.contains("that is being started"), "\(again)")
    #expect(start.isRunning && slow.isAwaited(by: pid), "a command waited for the start")
    if end == "kill" {
      #expect(try world.call(["kill", "one", "KILL"]).code == 0)
      _ = try start.end()
      #expect(try world.state("one")["status"] as? String == "stopped")
      #expect(try world.call(["delete", "one"]).code == 0)
    } else {
      let deleted = try world.call(["delete", "--force", "one"])
      #expect(deleted.code == 0, "\(deleted)")
      let started = try start.end()
      #expect(started.code == 1 && started.err.contains("deleted while it was being started"), "\(started)")
    }
    #expect(try Files.list(world.folder + "/root").filter { !$0.hasPrefix("@") }.isEmpty)
  }

  @Test("a start that is killed leaves no container that is said to be created for ever")
  func killedStart() throws {
    let (world, slow, pid) = try createdSlow()
    defer { slow.release() }
    let start = try ChildProcess.start(world.program, [world.program, "--root", world.folder + "/root", "start", "one"]) { _ in }
    for _ in 0..<6000 where !slow.isAwaited(by: pid) { usleep(10_000) }
    #expect(try world.state("one")["status"] as? String == "created")
    kill(start, SIGKILL)
    ChildProcess.reap(start)
    slow.release()
    #expect(try world.state("one")["status"] as? String == "running")
    #expect(try world.call(["delete", "--force", "one"]).code == 0)
  }

  @Test("an exec that hangs holds up no other command")
  func hangingExec() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let slow = try Slow(world)
    defer { slow.release() }
    let exec = Command(world, ["exec", "one", "/slow/sleep"])
    func processes() throws -> [Int] { try JSONDecoder().decode([Int].self, from: Data(world.call(["ps", "-f", "json", "one"]).out.utf8)) }
    // Well before the kernel breaks the lease.
    let end = ContinuousClock.now + .seconds(30)
    while try !processes().contains(where: slow.isAwaited) { try #require(.now < end) }
    #expect(try world.call(["kill", "one", "0"]).code == 0)
    #expect(try processes().contains(where: slow.isAwaited), "a command waited for the exec")
    #expect(try world.call(["delete", "--force", "one"]).code == 0)
    #expect(try exec.end().code != 0)
  }
}
