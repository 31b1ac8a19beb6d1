import Foundation
import Glibc
import LinuxSystem
import Testing

/// Beside runc, on the same bundle; crun of Debian 12 makes no containers on hosts with both cgroup versions.
@Suite(.enabled(if: isRoot && runc != nil), .serialized) struct ComparisonTests {
  @Test("state, answers and exit codes are runc's")
  func runcs() throws {
    var seen: [String: [String]] = [:]
    for program in [nil, runc] {
      let world = try BundleWorld(program: program)
      try world.specify()
      var lines: [String] = []
      func note(_ what: String, _ arguments: [String], sentence: String = "") throws {
        let result = try world.call(arguments)
        lines.append("\(what): \(result.code) \(sentence.isEmpty || result.err.contains(sentence) ? "" : result.err)")
      }
      func noteState() throws {
        let state = try world.state("one")
        lines.append("\(state["status"] ?? "") \(state["id"] ?? "") \(state["annotations"] ?? "") \((state["pid"] as? Int ?? 0) > 0)")
        lines.append("\((state["bundle"] as? String) == world.bundle) \((state["rootfs"] as? String) == world.bundle + "/rootfs")")
        lines.append((state["created"] as? String)?.hasSuffix("Z") == true ? "created" : "\(state)")
      }
      try world.configure(["sleep", "1000"]) { config in
        config["ociVersion"] = "1.0.2"
        config["annotations"] = ["a": "b"]
        // runc 1.1 mounts a named hierarchy that not every host has.
        config["mounts"] = (config["mounts"] as? [[String: Any]])?.filter { $0["type"] as? String != "cgroup" }
      }
      try note("no container", ["state", "one"], sentence: "does not exist")
      try note("delete nothing", ["delete", "one"], sentence: "does not exist")
      try note("force delete nothing", ["delete", "--force", "one"])
      try note("create", ["create", "--bundle", world.bundle, "one"])
      try noteState()
      try note("create again", ["create", "--bundle", world.bundle, "one"], sentence: "container with given ID already exists")
      try note("start", ["start", "one"])
      try noteState()
      try note("start again", ["start", "one"], sentence: "cannot start an already running container")
      try note("delete running", ["delete", "one"], sentence: "that is not stopped: running")
      try note("exec", ["exec", "one", "sh", "-c", "exit 9"])
      try note("pause", ["pause", "one"])
      try noteState()
      try note("resume", ["resume", "one"])
      try note("unknown signal", ["kill", "one", "FOO"])
      try note("kill", ["kill", "one", "KILL"])
      while try world.state("one")["status"] as? String != "stopped" { usleep(2000) }
      try noteState()
      try note("kill stopped", ["kill", "one", "KILL"], sentence: "container not running")
      try note("exec stopped", ["exec", "one", "true"], sentence: "cannot exec in a stopped container")
      try note("delete", ["delete", "one"])
      try note("bundle that is not there", ["create", "--bundle", "/nowhere", "one"], sentence: "no such file or directory")
      seen[program ?? "ours"] = lines
    }
    #expect(seen["ours"] == seen[runc!])
  }
}
