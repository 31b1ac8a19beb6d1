import LinuxSystem

/// Which device nodes processes of a group may make and open: a BPF program that the kernel asks (bpf(2), linux/bpf.h
/// `bpf_cgroup_dev_ctx`). What no rule names is denied; of several the last decides, as v1's devices.allow and devices.deny do.
public struct DeviceProgram: Hashable, Sendable {
  public struct Rule: Hashable, Sendable {
    public var allow: Bool
    /// nil: block and character devices.
    public var isBlock: Bool?
    /// nil: any.
    public var major: UInt32?
    public var minor: UInt32?
    public var read: Bool
    public var write: Bool
    public var makeNode: Bool
    public init(
      allow: Bool, isBlock: Bool? = nil, major: UInt32? = nil, minor: UInt32? = nil, read: Bool = true, write: Bool = true, makeNode: Bool = true
    ) {
      (self.allow, self.isBlock, self.major, self.minor) = (allow, isBlock, major, minor)
      (self.read, self.write, self.makeNode) = (read, write, makeNode)
    }
    /// BPF_DEVCG_ACC_*.
    var access: UInt32 { (makeNode ? 1 : 0) | (read ? 2 : 0) | (write ? 4 : 0) }
    /// As devices.allow and devices.deny read it (v1, devices.rst).
    var text: String {
      if decidesAll { return "a" }
      func number(_ value: UInt32?) -> String { value.map { "\($0)" } ?? "*" }
      let kinds = isBlock.map { [$0 ? "b" : "c"] } ?? ["c", "b"]
      let access = (read ? "r" : "") + (write ? "w" : "") + (makeNode ? "m" : "")
      return kinds.map { "\($0) \(number(major)):\(number(minor)) \(access)" }.joined(separator: "\n")
    }
    var decidesAll: Bool { isBlock == nil && major == nil && minor == nil && access == 7 }
  }
  private var code = BPFCode()
  public var instructions: [UInt64] { code.instructions }

  public init(_ rules: [Rule]) {
    // r2 type, r3 access, r4 major, r5 minor.
    load(2, 0)
    code.add(0xbf, 3, 2)
    code.add(0x57, 2, immediate: 0xffff)
    code.add(0x77, 3, immediate: 16)
    load(4, 4)
    load(5, 8)
    for rule in rules.reversed() {
      if rule.decidesAll {
        answer(rule.allow)
        return
      }
      add(rule)
    }
    answer(false)
  }

  private mutating func add(_ rule: Rule) {
    // The tests, each with a jump over the answer.
    var tests: [(register: UInt64, value: UInt32)] = []
    if let isBlock = rule.isBlock { tests.append((2, isBlock ? 1 : 2)) }
    if let major = rule.major { tests.append((4, major)) }
    if let minor = rule.minor { tests.append((5, minor)) }
    if rule.access != 7 {
      // An allowance covers all that is asked; a denial any of it.
      code.add(0xbf, 6, 3)
      code.add(0x57, 6, immediate: rule.allow ? ~rule.access : rule.access)
      code.leave(rule.allow ? 0x55 : 0x15, 6, immediate: 0)
    }
    for test in tests { code.leave(0x55, test.register, immediate: test.value) }
    answer(rule.allow)
    code.land()
  }
  private mutating func answer(_ allow: Bool) {
    code.add(0xb7, 0, immediate: allow ? 1 : 0)
    code.add(0x95, 0)
  }
  /// r[to] = *(u32 *)(context + offset)
  private mutating func load(_ to: UInt64, _ offset: UInt64) { code.add(0x61, to, 1, offset: offset) }
}
