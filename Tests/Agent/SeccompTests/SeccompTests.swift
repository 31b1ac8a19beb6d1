import LinuxSystem
import Testing

@testable import Seccomp

@Suite struct SeccompTests {
  @Test("the default profile compiles to whole instructions and is kept")
  func compile() throws {
    let none = CapabilitySet(rawValue: 0)
    let program = try Seccomp.standard(for: none)
    #expect(program.bytes.count % 8 == 0)
    #expect(program.bytes.count > 800 && program.bytes.count / 8 < 4096)
    let clock = ContinuousClock()
    let begun = clock.now
    #expect(try Seccomp.standard(for: none) == program)
    #expect(clock.now - begun < .milliseconds(5))
  }

  @Test("a capability opens its calls and no others")
  func capabilities() {
    let none = SeccompProfile.standard(for: CapabilitySet(rawValue: 0))
    #expect(none.absent == ["clone3"])
    #expect(!none.allowed.contains("mount") && !none.allowed.contains("unshare") && !none.allowed.contains("io_uring_setup"))
    let admin = SeccompProfile.standard(for: CapabilitySet(name: "SYS_ADMIN")!)
    #expect(admin.allowed.contains("mount") && admin.absent.isEmpty)
    #expect(!admin.allowed.contains("reboot"))
  }
}
