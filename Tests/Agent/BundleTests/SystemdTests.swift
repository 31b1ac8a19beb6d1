import Cgroups
import Glibc
import LinuxSystem
import OCI
import Testing

@testable import Bundle

@Suite struct SystemdTests {
  private func scope(_ path: String?, _ annotations: [String: String] = [:]) throws -> SystemdScope {
    var config = Config.standard
    config.linux?.cgroupsPath = path
    config.annotations = annotations
    return try SystemdScope(config, "one")
  }

  @Test(
    "the scope is named as runc names it",
    arguments: [
      (nil, "orch-runtime-one.scope", "system.slice"), ("user.slice:libpod:abc", "libpod-abc.scope", "user.slice"),
      (":cri:x", "cri-x.scope", "system.slice"), ("a-b.slice::x", "x.scope", "a-b.slice"),
    ] as [(String?, String, String)])
  func names(path: String?, unit: String, slice: String) throws {
    let scope = try scope(path)
    #expect(scope.unit == unit && scope.slice == slice)
  }

  @Test("what names no scope is refused", arguments: ["/a/b", "a", "a:b", "a:b:", "a:b:c:d", "a:b:c.slice", "a.slice:b:c/d"])
  func refused(path: String) { #expect(throws: BundleError.self) { try scope(path) } }

  @Test(
    "annotations are the unit's properties, as its file has them",
    arguments: [
      ("SendSIGHUP", "true", "SendSIGHUP=true"), ("After", "'a.service'", "After=a.service"), ("KillSignal", "15", "KillSignal=15"),
      ("TimeoutStopUSec", "uint64 5000000", "TimeoutStopSec=5000000us"),
      ("TimeoutStopUSec", "uint64 18446744073709551615", "TimeoutStopSec=infinity"),
      ("After", " ['one', \"two\"]", "After=one two"), ("After", "[ ]", "After="), ("X", "int64 -5", "X=-5"), ("", "1", nil), ("A=B", "1", nil),
      ("X", "", nil), ("X", "text", nil), ("X", "'a", nil), ("X", "uint32 -1", nil), ("X", "int32 9999999999", nil), ("X", "['a', b]", nil),
      ("X", "['a b']", nil), ("X", "double 1", nil), ("X", "9999999999", nil), ("X", "'a\\'b'", nil),
    ] as [(String, String, String?)])
  func properties(name: String, value: String, property: String?) throws {
    #expect(SystemdScope.property(name, value) == property)
    guard let property else {
      #expect(throws: BundleError.self) { try scope(nil, ["org.systemd.property.\(name)": value]) }
      return
    }
    #expect(try scope(nil, ["org.systemd.property.\(name)": value, "org.systemd": "else"]).properties.last == property)
  }

  @Test("without cgroup v2 it says what to do instead", .enabled(if: !SystemdTests.isV2))
  func v1() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["true"]) { config in config.object("linux") { $0["cgroupsPath"] = "system.slice:orch:one" } }
    let result = try world.call(["--systemd-cgroup", "run", "--bundle", world.bundle, "one"])
    #expect(result.code != 0 && result.err.contains("--cgroup-manager cgroupfs"), "\(result)")
  }

  private static var isV2: Bool {
    if case .v2? = try? CgroupHost.detect().version { true } else { false }
  }

  @Test(
    "a container lives in a scope of systemd's, keeps its limits over a daemon-reload, and takes the scope along",
    .enabled(if: SystemdScope.isSupported, "systemd does not run here, or not with cgroup v2: scripts/test-vm.sh with ORCH_VM_SYSTEMD=1"))
  func lives() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"]) { config in
      config.object("linux") {
        $0["cgroupsPath"] = "orch-test.slice:orch:scoped"
        $0["resources"] = ["memory": ["limit": 64 << 20], "pids": ["limit": 50]]
      }
      config["annotations"] = ["org.systemd.property.TimeoutStopUSec": "uint64 5000000"]
    }
    // `call` gives --root first.
    let script = world.folder + "/systemctl"
    try Files.writeAtomically(script, "#!/bin/sh\nshift 2; exec systemctl \"$@\" 2>&1", mode: 0o755, durable: false)
    func systemctl(_ arguments: String...) throws -> String { try world.call(arguments, program: script).out }
    let folder = "/sys/fs/cgroup/orch.slice/orch-test.slice/orch-scoped.scope"
    for _ in 1...2 {
      let made = try world.call(["--systemd-cgroup", "run", "--detach", "--bundle", world.bundle, "one"])
      #expect(made.code == 0, "\(made.err)")
      #expect(try systemctl("show", "-P", "ActiveState", "orch-scoped.scope") == "active\n")
      #expect(try systemctl("show", "-P", "TimeoutStopUSec", "orch-scoped.scope") == "5s\n")
      #expect(try Files.text(folder + "/container/memory.max") == "\(64 << 20)\n")
      _ = try systemctl("daemon-reload")
      #expect(try Files.text(folder + "/container/memory.max") == "\(64 << 20)\n")
      #expect(try Files.text(folder + "/container/pids.max") == "50\n")
      #expect(!Files.exists(folder + "/holder"))
      let updated = try world.call(["--systemd-cgroup", "update", "--memory", "\(32 << 20)", "one"])
      #expect(try updated.code == 0 && Files.text(folder + "/container/memory.max") == "\(32 << 20)\n", "\(updated)")
      let ended = try world.call(["--systemd-cgroup", "delete", "--force", "one"])
      #expect(ended.code == 0, "\(ended.err)")
    }
    // A scope without processes is systemd's to remove, which it does when it hears of it.
    var left = 0
    while Files.exists(folder), left < 500 {
      usleep(20_000)
      left += 1
    }
    #expect(!Files.exists(folder))
  }
}
