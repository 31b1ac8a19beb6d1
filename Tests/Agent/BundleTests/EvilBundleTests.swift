import Foundation
import Glibc
import LinuxSystem
import Testing

/// What broke other runtimes, tried on ours.
@Suite(.enabled(if: isRoot), .serialized) struct EvilBundleTests {
  @Test("the runtime's program inside a container is a sealed copy in memory (CVE-2019-5736)")
  func sealed() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["true"])
    #expect(try world.call(["create", "--bundle", world.bundle, "one"]).code == 0)
    let pid = try #require(try world.state("one")["pid"] as? Int)
    #expect(try Files.link("/proc/\(pid)/exe") == "/memfd:orch-init (deleted)")
    let program = try OwnedDescriptor.open("/proc/\(pid)/exe", O_RDONLY)
    // F_GET_SEALS; SEAL, SHRINK, GROW and WRITE.
    #expect(fcntl(program.rawValue, 1034) == 15)
    // Nor may its equal inside look into it before it has executed the program (PR_SET_DUMPABLE).
    #expect(try world.call(["exec", "one", "cat", "/proc/1/comm"]).code == 0)
    #expect(try world.call(["exec", "one", "readlink", "/proc/1/exe"]).out == "")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("no descriptor of the runtime is a way out by the working directory (CVE-2024-21626)")
  func workingDirectory() throws {
    let world = try BundleWorld()
    try world.specify()
    // Those too that the way to a folder that is missing is gone by.
    for number in 3...40 {
      try world.configure(["pwd"]) { $0.object("process") { $0["cwd"] = "/proc/self/fd/\(number)" } }
      let result = try world.call(["run", "--bundle", world.bundle, "one"])
      #expect(result.code != 0 && result.out == "", "\(number): \(result.out)")
    }
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    for number in 3...12 { #expect(try world.call(["exec", "--cwd", "/proc/self/fd/\(number)", "one", "pwd"]).out == "") }
  }

  @Test("sysctls are written to a procfs of our own, whatever is mounted over /proc/sys (CVE-2025-52881)")
  func sysctl() throws {
    let world = try BundleWorld()
    try Files.makeDirectories(world.folder + "/fake/net/ipv4", mode: 0o755)
    try Files.writeAtomically(world.folder + "/fake/net/ipv4/ip_forward", "fake", mode: 0o644, durable: false)
    let result = try world.run("cat /proc/sys/net/ipv4/ip_forward; grep Ip: /proc/net/snmp | cut -d' ' -f2") { config in
      config.append("mounts", ["destination": "/proc/sys", "source": world.folder + "/fake", "options": ["rbind"]])
      config.object("linux") { $0["sysctl"] = ["net.ipv4.ip_forward": "1"] }
    }
    // Forwarding is on (1, else 2), and the file in its place is as it was.
    #expect(result.out == "fakeForwarding\n1\n", "\(result.err)")
  }

  @Test("exec hands on no inheritable capability, nor more than the container's process has (CVE-2022-29162)")
  func exec() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let look = ["one", "grep", "-E", "^(Cap(Inh|Eff|Bnd|Amb)|NoNewPrivs)", "/proc/self/status"]
    let own = "0000000020000420"
    func wanted(_ sets: String) -> String {
      "CapInh:\t0000000000000000\nCapEff:\t\(sets)\nCapBnd:\t\(sets)\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"
    }
    #expect(try world.call(["exec"] + look).out == wanted(own))
    #expect(try world.call(["exec", "--cap", "CAP_CHOWN"] + look).out == wanted("0000000020000421"))
  }

  @Test("paths are masked by the host's /dev/null, whatever the container's is (CVE-2025-31133)")
  func mask() throws {
    let world = try BundleWorld()
    let result = try world.run("head -c 4 /dev/null | wc -c; head -c 4 /up/file | wc -c") { config in
      config.object("linux") {
        $0["devices"] = [["path": "/dev/null", "type": "c", "major": 1, "minor": 5]]
        $0["maskedPaths"] = ["/up/file"]
      }
    }
    #expect(result.out == "4\n0\n", "\(result.err)")
  }

  @Test("a terminal goes where the image's /dev/console leads inside of its root, and a link in place of a device is refused (CVE-2025-52565)")
  func console() throws {
    let world = try BundleWorld()
    let dev = world.bundle + "/rootfs/dev"
    try Files.makeDirectories(dev + "/pts", mode: 0o755)
    let outside = world.folder + "/outside"
    try Files.writeAtomically(outside, "host\n", mode: 0o644, durable: false)
    func run(_ script: String) throws -> BundleWorld.Result {
      try world.run(script) { config in
        config["mounts"] = [
          ["destination": "/proc", "type": "proc", "source": "proc"],
          ["destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]],
        ]
        config.object("process") { $0["terminal"] = true }
      }
    }
    symlink(outside, dev + "/console")
    let result = try run("stat -L -c %F /dev/console; stat -c %F \(outside)")
    #expect(result.out == "character special file\r\ncharacter special file\r\n", "\(result.out)\(result.err)")
    for name in try Files.list(dev) where name != "pts" { unlink("\(dev)/\(name)") }
    symlink(outside, dev + "/null")
    let refused = try run("true")
    #expect(refused.code == 1 && refused.err.contains("make device /dev/null: another file is in its place"), "\(refused.err)")
    #expect(try Files.text(outside) == "host\n")
  }

  @Test("a link of the image that turns to the host and back lets no mount point out (CVE-2021-30465)")
  func swapped() throws {
    let world = try BundleWorld()
    try world.specify()
    let (target, place) = (world.folder + "/target", world.bundle + "/rootfs/m")
    try Files.makeDirectories(target, mode: 0o755)
    try Files.makeDirectories(world.bundle + "/rootfs/inside", mode: 0o755)
    symlink("inside", place)
    let stop = Stop()
    let swapper = Thread {
      while !stop.isSet {
        for goal in [target, "inside"] {
          symlink(goal, place + ".next")
          rename(place + ".next", place)
        }
      }
      stop.ended()
    }
    swapper.start()
    try world.configure(["true"]) { config in
      for name in ["a", "b", "c", "d"] { config.append("mounts", ["destination": "/m/\(name)", "type": "tmpfs", "source": "tmpfs"]) }
    }
    for turn in 0..<8 { _ = try world.call(["run", "--bundle", world.bundle, "c\(turn)"]) }
    stop.set()
    stop.wait()
    #expect(try Files.list(target).isEmpty)
  }
}

private final class Stop: @unchecked Sendable {
  private let condition = NSCondition()
  private var (asked, done) = (false, false)
  var isSet: Bool { condition.withLock { asked } }
  func set() { condition.withLock { asked = true } }
  func ended() {
    condition.withLock { done = true }
    condition.broadcast()
  }
  func wait() { condition.withLock { while !done { condition.wait() } } }
}
