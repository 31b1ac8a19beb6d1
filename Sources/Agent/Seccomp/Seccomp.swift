// Seccomp: a profile becomes a BPF program. Compiling costs about 10 ms, so a program is made once per capability set and kept.
// It refuses to know containers; loading the program is CLinux's.
import CSeccomp
import Glibc
import LinuxSystem
import Synchronization

/// A compiled filter: an array of `struct sock_filter`, 8 bytes each.
public struct SeccompProgram: Hashable, Sendable {
  public var bytes: [UInt8]
}

public enum Seccomp {
  private static let cache = Mutex<[UInt64: SeccompProgram]>([:])

  /// The default profile for a process whose bounding set is `capabilities`; from memory after the first time.
  public static func standard(for capabilities: CapabilitySet) throws(SystemError) -> SeccompProgram {
    // Only these widen the list.
    let relevant = capabilities.intersection(SeccompProfile.relevantCapabilities)
    if let program = cache.withLock({ $0[relevant.rawValue] }) { return program }
    let program = try compile(SeccompProfile.standard(for: relevant))
    cache.withLock { $0[relevant.rawValue] = program }
    return program
  }

  /// Names that this libseccomp does not know are passed over: the default answer covers them.
  public static func compile(_ profile: SeccompProfile) throws(SystemError) -> SeccompProgram {
    // SCMP_ACT_ERRNO(x): macros Swift does not see.
    func answer(_ errno: Int32) -> UInt32 { 0x0005_0000 | UInt32(errno) }
    let allow: UInt32 = 0x7fff_0000
    func must(_ result: Int32, _ what: String) throws(SystemError) { try checkResult(result, "compile seccomp profile", what) }
    return try build(answer(EPERM)) { filter throws(SystemError) in
      // The 32-bit ABI of this machine (AUDIT_ARCH_I386, AUDIT_ARCH_ARM), as Docker's profile has it.
      #if arch(x86_64)
        try must(seccomp_arch_add(filter, 0x4000_0003), "x86")
      #elseif arch(arm64)
        try must(seccomp_arch_add(filter, 0x4000_0028), "arm")
      #endif
      for name in profile.allowed {
        let number = seccomp_syscall_resolve_name(name)
        if number == -1 { continue }
        try must(seccomp_rule_add_array(filter, allow, number, 0, nil), name)
      }
      for rule in profile.conditional {
        let number = seccomp_syscall_resolve_name(rule.name)
        if number == -1 { continue }
        let comparison = scmp_arg_cmp(arg: rule.argument, op: rule.comparison, datum_a: rule.a, datum_b: rule.b)
        try withUnsafePointer(to: comparison) { pointer throws(SystemError) in
          try must(seccomp_rule_add_array(filter, allow, number, 1, pointer), rule.name)
        }
      }
      for name in profile.absent {
        let number = seccomp_syscall_resolve_name(name)
        if number == -1 { continue }
        try must(seccomp_rule_add_array(filter, answer(ENOSYS), number, 0, nil), name)
      }
    }
  }

  static func build(_ defaultAction: UInt32, _ rules: (UnsafeMutableRawPointer) throws(SystemError) -> Void) throws(SystemError) -> SeccompProgram {
    func must(_ result: Int32, _ what: String) throws(SystemError) { try checkResult(result, "compile seccomp profile", what) }
    guard let filter = seccomp_init(defaultAction) else { throw SystemError("make a seccomp filter", "", .invalid) }
    defer { seccomp_release(filter) }
    // A binary tree instead of a list of comparisons: loads and runs faster.
    try must(seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2), "optimize")
    try rules(filter)
    let descriptor = try OwnedDescriptor.memoryFile("seccomp")
    try must(seccomp_export_bpf(filter, descriptor.rawValue), "export")
    lseek(descriptor.rawValue, 0, SEEK_SET)
    return SeccompProgram(bytes: try Files.read(descriptor: descriptor.rawValue, name: "seccomp"))
  }
}
