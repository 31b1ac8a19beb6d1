import Foundation
import Glibc
import LinuxSystem
import Testing

@testable import Bundle

private let apparmorParser = (getenv("PATH").map { String(cString: $0) } ?? "").split(separator: ":").map { "\($0)/apparmor_parser" }
  .first { Files.exists($0) }

/// Where the kernel has AppArmor and its parser is at hand: Debian's own, as in `make test-vm`.
@Suite(.enabled(if: isRoot && Labels.hasAppArmor && apparmorParser != nil, "no AppArmor here: scripts/test-vm.sh"), .serialized)
struct AppArmorTests {
  /// A profile of our own in the kernel as long as this lives: all is allowed, but one file of the image.
  private final class Profile {
    let name = "orch-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    private let world: BundleWorld
    private let file: String
    init(_ world: BundleWorld) throws {
      self.world = world
      file = world.folder + "/profile"
      let text = """
        profile \(name) flags=(attach_disconnected,mediate_deleted) {
          file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, dbus,
          deny /up/file rwklx,
        }
        """
      try Files.writeAtomically(file, text.replacing(", ", with: ",\n"), durable: false)
      try parse("--replace")
    }
    deinit { try? parse("--remove") }
    private func parse(_ what: String) throws {
      // `call` gives --root first.
      let script = world.folder + "/parser"
      try Files.writeAtomically(script, "#!/bin/sh\nexec \(apparmorParser!) \(what) --skip-cache \(file)", mode: 0o755, durable: false)
      let result = try world.call([], program: script)
      try #require(result.code == 0, "\(result)")
    }
  }
  /// As the host sees it.
  private func label(of pid: Int) throws -> String { try Files.text("/proc/\(pid)/attr/apparmor/current") }

  @Test("a container and what exec adds to it have the profile of the configuration, which holds")
  func profile() throws {
    let world = try BundleWorld()
    try world.specify()
    let profile = try Profile(world)
    for confined in [true, false] {
      try world.configure(["sleep", "1000"]) { config in
        config.object("process") {
          $0["apparmorProfile"] = profile.name
          $0["noNewPrivileges"] = confined
        }
      }
      let made = try world.call(["run", "-d", "--bundle", world.bundle, "one"])
      try #require(made.code == 0, "\(made)")
      let pid = try #require(try world.state("one")["pid"] as? Int)
      #expect(try label(of: pid) == "\(profile.name) (enforce)\n")
      let inside = try world.call(["exec", "one", "sh", "-c", "cat /proc/self/attr/apparmor/current /up/below/deep /up/file"])
      #expect(inside.out == "\(profile.name) (enforce)\ndeep\n" && inside.err.contains("'/up/file': Permission denied"), "\(inside)")
      let other = try world.call(["exec", "--apparmor", "unconfined", "one", "cat", "/proc/self/attr/apparmor/current"])
      #expect(other.out == "unconfined\n", "\(other)")
      #expect(try world.call(["delete", "-f", "one"]).code == 0)
    }
    let missing = try world.run("true") { config in config.object("process") { $0["apparmorProfile"] = "no-such-profile" } }
    #expect(missing.code == 1 && missing.err.contains("process.apparmorProfile no-such-profile: no such file or directory"), "\(missing)")
    let exec = try world.run("cat /proc/self/attr/apparmor/current")
    #expect(exec.out == "unconfined\n", "\(exec)")
  }

  @Test("whatever a container mounts over its /proc, the profile is set, or the container is not made (CVE-2019-16884, CVE-2025-52881)")
  func mountedOver() throws {
    let world = try BundleWorld()
    try world.specify()
    let profile = try Profile(world)
    // A tree that takes the label and does nothing with it.
    let fake = world.folder + "/fake"
    for name in ["self/attr/apparmor", "thread-self/attr/apparmor", "1/attr/apparmor", "sys"] {
      try Files.makeDirectories("\(fake)/\(name)", mode: 0o755)
      for file in name == "sys" ? [] : ["exec", "current", "../exec", "../current"] {
        try Files.writeAtomically("\(fake)/\(name)/\(file)", "", mode: 0o666, durable: false)
      }
    }
    let over: [[String: Any]] = [
      ["destination": "/proc/self/attr", "type": "tmpfs", "source": "tmpfs"],
      ["destination": "/proc/thread-self/attr", "type": "bind", "source": fake + "/self/attr", "options": ["rbind"]],
      ["destination": "/proc", "type": "bind", "source": fake, "options": ["rbind"]],
      ["destination": "/proc", "type": "tmpfs", "source": "tmpfs"],
    ]
    var made = 0
    for mount in over {
      try world.configure(["sleep", "1000"]) { config in
        config.object("process") { $0["apparmorProfile"] = profile.name }
        config.append("mounts", mount)
        config.object("linux") { for key in ["maskedPaths", "readonlyPaths"] { $0.removeValue(forKey: key) } }
      }
      let started = try world.call(["run", "-d", "--bundle", world.bundle, "one"])
      guard started.code == 0 else { continue }
      made += 1
      let pid = try #require(try world.state("one")["pid"] as? Int)
      #expect(try label(of: pid) == "\(profile.name) (enforce)\n", "\(mount)")
      let file = world.folder + "/exec.pid"
      let exec = try world.call(["exec", "--detach", "--pid-file", file, "one", "sleep", "1000"])
      #expect(exec.code == 0, "\(mount): \(exec)")
      #expect(try label(of: try #require(Int(try Files.text(file)))) == "\(profile.name) (enforce)\n", "\(mount)")
      #expect(try world.call(["delete", "-f", "one"]).code == 0)
    }
    // Over all of /proc it can be made: else nothing was seen here.
    #expect(made > 0)
  }
}
