import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Bundle

/// A context of scripts/test-vm.cil.
private func context(_ type: String, _ level: String = "s0") -> String { "orch_u:orch_r:orch_\(type)_t:\(level)" }

/// Where the kernel has loaded that policy, and no host's own: the tests switch between permissive and enforcing.
private let hasPolicy = Labels.hasSELinux && (try? Files.writeExisting("/sys/fs/selinux/context", context("container"))) != nil

@Suite(.enabled(if: isRoot && hasPolicy, "no SELinux with scripts/test-vm.cil here: ORCH_VM_SELINUX=1 scripts/test-vm.sh SELinuxTests"), .serialized)
struct SELinuxTests {
  private static let label = context("container", "s0:c0,c1")

  /// The kernel ends it with a zero.
  private func current(_ pid: Int) throws -> String { try String(Files.text("/proc/\(pid)/attr/current").prefix { $0 != "\0" }) }
  private func enforcing<Value>(_ body: () throws -> Value) throws -> Value {
    try Files.writeExisting("/sys/fs/selinux/enforce", "1")
    defer { try? Files.writeExisting("/sys/fs/selinux/enforce", "0") }
    return try body()
  }

  @Test("a container and what exec adds to it have the label of the configuration, enforced or not", arguments: [false, true])
  func label(isEnforced: Bool) throws {
    let world = try BundleWorld()
    try world.specify()
    for confined in [true, false] {
      try world.configure(["sleep", "1000"]) { config in
        config.object("process") {
          $0["selinuxLabel"] = Self.label
          $0["noNewPrivileges"] = confined
        }
      }
      func check() throws {
        let made = try world.call(["run", "-d", "--bundle", world.bundle, "one"])
        try #require(made.code == 0, "\(made)")
        #expect(try current(try #require(try world.state("one")["pid"] as? Int)) == Self.label)
        let inside = try world.call(["exec", "one", "cat", "/proc/self/attr/current"])
        #expect(inside.out == Self.label + "\0", "\(inside)")
        let other = try world.call(["exec", "--process-label", context("container"), "one", "cat", "/proc/self/attr/current"])
        #expect(other.out == context("container") + "\0", "\(other)")
        #expect(try world.call(["delete", "-f", "one"]).code == 0)
      }
      if isEnforced { try enforcing(check) } else { try check() }
    }
    let plain = try world.run("cat /proc/self/attr/current")
    let own = try current(Int(getpid()))
    #expect(plain.code == 0 && plain.out == own + "\0", "\(plain)")
  }

  @Test("a label that the policy does not know, or that it lets no container have, is no container, nor an exec")
  func refused() throws {
    let world = try BundleWorld()
    func run(_ label: String) throws -> BundleWorld.Result {
      try world.run("true") { config in config.object("process") { $0["selinuxLabel"] = label } }
    }
    for unknown in [context("no_such"), "nonsense", context("container", "s0:c7")] {
      let result = try run(unknown)
      #expect(result.code == 1 && result.err.contains("set process.selinuxLabel \(unknown): invalid argument"), "\(result)")
    }
    #expect(try run(context("refused")).code == 0, "permissive: the kernel notes it, and lets it be")
    try enforcing {
      let denied = try run(context("refused"))
      #expect(denied.code != 0 && denied.err.contains("permission denied"), "\(denied)")
      try world.configure(["sleep", "1000"]) { config in config.object("process") { $0["selinuxLabel"] = Self.label } }
      #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
      for label in [context("refused"), context("no_such")] {
        let exec = try world.call(["exec", "--process-label", label, "one", "true"])
        #expect(exec.code != 0 && !exec.err.isEmpty, "\(exec)")
      }
      #expect(try world.call(["delete", "-f", "one"]).code == 0)
    }
    #expect(try world.call(["list", "-q"]).out == "")
  }

  @Test("what a container mounts has the mount label, but what takes none")
  func mounts() throws {
    let world = try BundleWorld()
    let result = try world.run("cat /proc/self/mounts") { config in config.object("linux") { $0["mountLabel"] = context("file", "s0:c0,c1") } }
    #expect(result.code == 0, "\(result)")
    let lines = result.out.split(separator: "\n").map { $0.split(separator: " ") }.filter { $0.count > 3 }
    for (target, isLabelled) in [("/dev", true), ("/dev/shm", true), ("/dev/pts", true), ("/proc", false), ("/sys", false)] {
      let options = try #require(lines.last(where: { $0[1] == target }), "\(target): \(result.out)")[3]
      #expect(options.contains("context=\"\(context("file", "s0:c0,c1"))\"") == isLabelled, "\(target): \(options)")
    }
    // The IPC namespace's, which takes no context when it is mounted.
    try world.configure(["sleep", "1000"]) { config in config.object("linux") { $0["mountLabel"] = context("file", "s0:c0,c1") } }
    try #require(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let pid = try #require(try world.state("one")["pid"] as? Int)
    var value = [UInt8](repeating: 0, count: 200)
    let length = clinux_lgetxattr("/proc/\(pid)/root/dev/mqueue", "security.selinux", &value, value.count)
    #expect(length > 1 && String(decoding: value.prefix(max(0, length - 1)), as: UTF8.self) == context("file", "s0:c0,c1"))
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
    let wrong = try world.run("true") { config in config.object("linux") { $0["mountLabel"] = context("no_such") } }
    #expect(wrong.code == 1 && wrong.err.contains("mount tmpfs"), "\(wrong)")
  }
}
