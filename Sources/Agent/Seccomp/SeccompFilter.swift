import CSeccomp
import Glibc
import LinuxSystem

/// A filter in libseccomp's own numbers: what a configuration says, whoever wrote it.
public struct SeccompFilter: Hashable, Sendable {
  public struct Condition: Hashable, Sendable {
    public var argument: UInt32
    /// SCMP_CMP_*.
    public var comparison: UInt32
    public var a: UInt64
    public var b: UInt64
    public init(argument: UInt32, comparison: UInt32, a: UInt64, b: UInt64) {
      (self.argument, self.comparison, self.a, self.b) = (argument, comparison, a, b)
    }
  }
  public struct Rule: Hashable, Sendable {
    public var names: [String]
    /// SCMP_ACT_*, with its errno.
    public var action: UInt32
    public var conditions: [Condition]
    public init(names: [String], action: UInt32, conditions: [Condition]) { (self.names, self.action, self.conditions) = (names, action, conditions) }
  }
  public var defaultAction: UInt32
  /// SCMP_ARCH_* beside this machine's own.
  public var architectures: [UInt32]
  public var rules: [Rule]
  public init(defaultAction: UInt32, architectures: [UInt32], rules: [Rule]) {
    (self.defaultAction, self.architectures, self.rules) = (defaultAction, architectures, rules)
  }
}

extension Seccomp {
  /// Whether this libseccomp has a system call of this name, on any architecture.
  public static func knows(_ name: String) -> Bool { seccomp_syscall_resolve_name(name) != -1 }

  /// Names that this libseccomp does not know are passed over, as runc and crun do; so are rules that only repeat the default.
  public static func compile(_ filter: SeccompFilter) throws(SystemError) -> SeccompProgram {
    try build(filter.defaultAction) { context throws(SystemError) in
      for architecture in filter.architectures {
        let result = seccomp_arch_add(context, architecture)
        // The machine's own is there already.
        if result != -EEXIST { try checkResult(result, "add seccomp architecture", "\(architecture)") }
      }
      for rule in filter.rules where rule.action != filter.defaultAction {
        for name in rule.names {
          let number = seccomp_syscall_resolve_name(name)
          if number == -1 { continue }
          // Two conditions on one argument are alternatives, which one rule cannot say.
          let repeated = Set(rule.conditions.map(\.argument)).count < rule.conditions.count
          let groups = repeated ? rule.conditions.map { [$0] } : [rule.conditions]
          for group in groups {
            let conditions = group.map { scmp_arg_cmp(arg: $0.argument, op: scmp_compare($0.comparison), datum_a: $0.a, datum_b: $0.b) }
            let result = conditions.withUnsafeBufferPointer { seccomp_rule_add_array(context, rule.action, number, UInt32($0.count), $0.baseAddress) }
            // The same once more is no mistake.
            if result != -EEXIST { try checkResult(result, "compile the seccomp rule for", name) }
          }
        }
      }
    }
  }
}
