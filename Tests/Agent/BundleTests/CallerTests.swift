import Foundation
import Glibc
import LinuxSystem
import Testing

/// What callers of runc and crun ask for, beside the specification.
@Suite(.enabled(if: isRoot), .serialized) struct CallerTests {
  @Test("checkpoint and restore are refused in words, whatever options they are given")
  func checkpoint() throws {
    let world = try BundleWorld()
    for command in ["checkpoint", "restore"] {
      let refused = try world.call([command, "--image-path", "/x", "--leave-running", "one"])
      #expect(refused.code == 1 && refused.err.contains("\(command): is not supported"), "\(refused.err)")
    }
  }

  @Test("without a process a container is made, and start says what is missing")
  func noProcess() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["true"]) { $0.removeValue(forKey: "process") }
    #expect(try world.call(["create", "--bundle", world.bundle, "one"]).code == 0)
    #expect(try world.state("one")["status"] as? String == "created")
    let started = try world.call(["start", "one"])
    #expect(started.code == 1 && started.err.contains("config.json has no \"process\""), "\(started.err)")
    #expect(try world.call(["delete", "one"]).code == 0)
  }

  @Test("update takes docker's file, where a zero is nothing asked for")
  func zeros() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let file = world.folder + "/resources.json"
    try Files.writeAtomically(
      file,
      """
      {"memory": {"limit": 67108864, "swap": 67108864, "reservation": 0, "kernel": 0, "kernelTCP": 0},
       "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""}, "blockIO": {"weight": 0}}
      """, durable: false)
    let updated = try world.call(["update", "--resources", file, "one"])
    #expect(updated.code == 0, "\(updated.err)")
    #expect(
      try world.call(["exec", "one", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"]).out
        == "67108864\n")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("an ordinary user is told what to do, and as root of a user namespace runs what spec --rootless writes")
  func ordinaryUser() throws {
    let world = try BundleWorld()
    for path in [world.folder, world.bundle] { chmod(path, 0o755) }
    // The programs, too, where that user reaches them.
    let own = world.program.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    for name in ["orch-runtime", "orch-init"] {
      try Files.writeAtomically("\(world.folder)/\(name)", try Files.read("\(own)/\(name)"), mode: 0o755, durable: false)
    }
    let script = world.folder + "/script"
    try Files.writeAtomically(
      script,
      """
      #!/bin/sh
      chown -R 1000:1000 \(world.bundle)
      mkdir \(world.folder)/state && chown 1000:1000 \(world.folder)/state
      cd \(world.bundle)
      call="\(world.folder)/orch-runtime --root \(world.folder)/state"
      as="setpriv --reuid 1000 --regid 1000 --clear-groups"
      $as $call spec --rootless
      sed -i 's/"terminal" : true/"terminal" : false/; s/^ *"sh" *$/"sh", "-c", "id -u; echo x > \\/dev\\/null \\&\\& echo fine; head -c 2 \\/dev\\/zero | wc -c"/' config.json
      $as $call run one
      echo $?
      $as unshare --user --map-root-user --mount $call run two
      echo $?
      $as unshare --user --map-root-user --mount $call --cgroup-manager disabled run three
      echo $?
      $as $call --rootless true list -q
      """, mode: 0o755, durable: false)
    let result = try world.call([], program: script)
    let inside = "0\nfine\n2\n"
    #expect(result.err.contains("needs root, on the host or in a user namespace"), "\(result.err)")
    #expect(result.out == "1\n\(inside)0\n\(inside)0\n", "\(result.out)\(result.err)")
  }

  @Test(
    "v1: a process that somebody froze in a group of theirs does not outlive delete --force", .enabled(if: Files.exists("/sys/fs/cgroup/freezer")))
  func foreignFreezer() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let pid = try #require(try world.state("one")["pid"] as? Int)
    let group = "/sys/fs/cgroup/freezer/orch-bundle-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    try Files.makeDirectories(group, mode: 0o755)
    defer { rmdir(group) }
    try Files.writeExisting(group + "/cgroup.procs", "\(pid)")
    try Files.writeExisting(group + "/freezer.state", "FROZEN")
    let deleted = try world.call(["delete", "-f", "one"])
    #expect(deleted.code == 0 && deleted.err.isEmpty, "\(deleted.err)")
    // Gone or a zombie, which is in no group.
    #expect(try Files.text(group + "/cgroup.procs").isEmpty)
  }

  @Test("v1: real-time shares are handed down to the container's group", .enabled(if: Files.exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")))
  func realtime() throws {
    let world = try BundleWorld()
    let parent = "orch-bundle-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    defer { for base in (try? Files.list("/sys/fs/cgroup")) ?? [] { rmdir("/sys/fs/cgroup/\(base)/\(parent)") } }
    let result = try world.run("cat /sys/fs/cgroup/cpu/cpu.rt_runtime_us") { config in
      config.object("linux") {
        $0["cgroupsPath"] = "/\(parent)/one"
        $0.object("resources") { $0["cpu"] = ["realtimeRuntime": 1000, "realtimePeriod": 100_000] }
      }
    }
    #expect(result.out == "1000\n", "\(result.err)")
    #expect(try Files.text("/sys/fs/cgroup/cpu/\(parent)/cpu.rt_runtime_us") == "10000\n")
  }
}
