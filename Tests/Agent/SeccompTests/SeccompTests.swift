import CSeccomp
import LinuxSystem
import Testing

@testable import Seccomp

@Suite struct SeccompTests {
  static let none = CapabilitySet(rawValue: 0)

  @Test("the default profile compiles to whole instructions and is kept")
  func compile() throws {
    let program = try Seccomp.standard(for: Self.none)
    #expect(program.bytes.count % 8 == 0)
    #expect(program.bytes.count > 800 && program.bytes.count / 8 < 4096)
    let clock = ContinuousClock()
    let spans = (0..<10).map { _ in clock.measure { #expect((try? Seccomp.standard(for: Self.none)) == program) } }
    #expect(spans.min()! < .milliseconds(5))
  }

  @Test("no name is listed twice; clone3 is absent where clone is looked at")
  func names() {
    #expect(Set(SeccompProfile.base).count == SeccompProfile.base.count)
    // So that no change of the list happens unseen.
    #expect(SeccompProfile.base.count == 372)
    #expect(SeccompProfile.standard(for: Self.none).absent == ["clone3"])
    #expect(SeccompProfile.standard(for: CapabilitySet(name: "SYS_ADMIN")!).absent.isEmpty)
  }

  /// SECCOMP_RET_… with what is in its low half.
  static let verdicts: [String: UInt32] = ["allow": 0x7fff_0000, "EPERM": 0x0005_0001, "ENOSYS": 0x0005_0026, "kill": 0]

  /// Docker's answers (moby/profiles seccomp/default.json): the verdict, the calls that have it, each with its first argument in
  /// hexadecimal when that matters, and after "with" the one capability that the container has.
  static let table = """
    EPERM   io_uring_setup io_uring_enter userfaultfd keyctl add_key kexec_load swapon pivot_root nfsservctl
    EPERM   mount umount2 unshare setns bpf perf_event_open syslog chroot reboot open_by_handle_at kcmp lsm_get_self_attr
    EPERM   io_uring_setup reboot with SYS_ADMIN
    EPERM   perf_event_open mount with BPF
    allow   read execve fchmodat2 landlock_restrict_self ptrace process_vm_readv mknod arch_prctl modify_ldt memfd_secret
    allow   mount umount2 unshare setns bpf perf_event_open syslog lsm_get_self_attr with SYS_ADMIN
    allow   bpf with BPF
    allow   perf_event_open with PERFMON
    allow   syslog with SYSLOG
    allow   chroot with SYS_CHROOT
    allow   reboot with SYS_BOOT
    allow   open_by_handle_at with DAC_READ_SEARCH
    allow   init_module with SYS_MODULE
    allow   kcmp pidfd_getfd process_madvise with SYS_PTRACE
    allow   iopl ioperm with SYS_RAWIO
    allow   settimeofday clock_settime with SYS_TIME
    allow   mbind set_mempolicy with SYS_NICE
    allow   vhangup with SYS_TTY_CONFIG
    allow   acct with SYS_PACCT
    allow   clone:11 clone:3d0f00
    EPERM   clone:20000 clone:2000000 clone:4000000 clone:8000000 clone:10000000 clone:20000000 clone:40000000 clone:7e020011
    allow   clone:7e020011 clone3 with SYS_ADMIN
    ENOSYS  clone3
    allow   socket:1 socket:2 socket:10 socket:25 socket:27 socket:29
    EPERM   socket:26 socket:28
    EPERM   socket:26 socket:28 with SYS_ADMIN
    allow   personality:0 personality:8 personality:20000 personality:20008 personality:ffffffff
    EPERM   personality:40000 personality:40008
    """.split(separator: "\n").map(String.init)

  #if arch(x86_64)
    @Test("what a container may call, as the kernel reads the filter", arguments: table)
    func verdicts(_ line: String) throws {
      var words = line.split(separator: " ").map(String.init)
      let verdict = try #require(Self.verdicts[words.removeFirst()])
      var capabilities = Self.none
      if words.dropLast().last == "with" {
        capabilities = try #require(CapabilitySet(name: words.removeLast()))
        words.removeLast()
      }
      let machine = FilterMachine(try Seccomp.standard(for: capabilities))
      for word in words {
        let parts = word.split(separator: ":")
        let number = seccomp_syscall_resolve_name(String(parts[0]))
        // An old libseccomp lacks the newest names; the default answers for those.
        guard number >= 0 else { continue }
        let arguments = try parts.dropFirst().map { try #require(UInt64($0, radix: 16)) }
        #expect(machine.verdict(number, 0xc000_003e, arguments) == verdict, "\(word)")
      }
    }

    @Test("the 32-bit ABI has the same rules, but for socketcall, whose arguments no filter sees; x32 has none at all")
    func otherABIs() throws {
      let machine = FilterMachine(try Seccomp.standard(for: Self.none))
      let i386: UInt32 = 0x4000_0003
      func verdict(_ name: String, _ arguments: [UInt64]) -> UInt32? {
        machine.verdict(seccomp_syscall_resolve_name_arch(i386, name), i386, arguments)
      }
      #expect(verdict("mount", []) == Self.verdicts["EPERM"])
      #expect(verdict("read", []) == Self.verdicts["allow"])
      #expect(verdict("clone", [0x1000_0000]) == Self.verdicts["EPERM"])
      let socketcall: Int32 = 102
      #expect(machine.verdict(socketcall, i386, [1]) == Self.verdicts["allow"], "as under Docker's profile; see SeccompProfile.standard")
      #expect(verdict("socket", [38]) == Self.verdicts["EPERM"])
      #expect(machine.verdict(0x4000_0000, 0xc000_003e, []) == Self.verdicts["kill"])
    }
  #endif
}
