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
}
