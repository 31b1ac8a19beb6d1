extension ConfigProcess {
  /// sched_setattr(2)'s, in the specification's words.
  public struct Scheduler: Codable, Hashable, Sendable {
    /// SCHED_OTHER, SCHED_FIFO and so on.
    public var policy: String
    /// -20 to 19, for SCHED_OTHER and SCHED_BATCH.
    public var nice: Int32?
    /// 1 to 99, for SCHED_FIFO and SCHED_RR.
    public var priority: Int32?
    public var flags: [String]?
    /// Nanoseconds, for SCHED_DEADLINE.
    public var runtime: UInt64?
    public var deadline: UInt64?
    public var period: UInt64?

    /// linux/sched.h. ISO is none of Linux's.
    static let policies: [String: UInt64] = [
      "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
    ]
    static let flagNames: [String: UInt64] = [
      "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4, "SCHED_FLAG_KEEP_POLICY": 8, "SCHED_FLAG_KEEP_PARAMS": 16,
      "SCHED_FLAG_UTIL_CLAMP_MIN": 32, "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
    ]
    public var policyNumber: UInt64 { Self.policies[policy] ?? 0 }
    public var flagBits: UInt64 { (flags ?? []).reduce(0) { $0 | (Self.flagNames[$1] ?? 0) } }

    func check(_ path: String) throws(OCIError) {
      guard Self.policies[policy] != nil else {
        throw OCIError(path + ".policy", "\"\(policy)\" is none of \(Self.policies.keys.sorted().joined(separator: ", "))")
      }
      for (index, flag) in (flags ?? []).enumerated() where Self.flagNames[flag] == nil {
        throw OCIError("\(path).flags[\(index)]", "\"\(flag)\" is no flag of sched_setattr(2)")
      }
      if let nice, !(-20...19).contains(nice) { throw OCIError(path + ".nice", "is not from -20 to 19") }
      if let priority, !(0...99).contains(priority) { throw OCIError(path + ".priority", "is not from 0 to 99") }
      guard policy == "SCHED_DEADLINE" else { return }
      // In crun's words. The bounds are the kernel's (kernel/sched/deadline.c, __checkparam_dl).
      func refuse(_ key: String, _ cause: String) -> OCIError { OCIError(path + "." + key, "sched_setattr: `SCHED_DEADLINE` \(cause)") }
      guard let runtime else { throw refuse("runtime", "requires `runtime`") }
      guard let deadline else { throw refuse("deadline", "requires `deadline`") }
      if runtime == 0 { throw refuse("runtime", "runtime must be greater than 0") }
      guard (1024..<1 << 63).contains(runtime) else { throw refuse("runtime", "runtime (\(runtime)) must be between 1024 and 2^63 - 1") }
      guard deadline >= runtime else { throw refuse("deadline", "runtime (\(runtime)) must be <= deadline (\(deadline))") }
      guard deadline < 1 << 63 else { throw refuse("deadline", "deadline (\(deadline)) must be between 1024 and 2^63 - 1") }
      if let period, period != 0, period < deadline { throw refuse("period", "deadline (\(deadline)) must be <= period (\(period))") }
    }
  }

  /// ioprio_set(2)'s.
  public struct IOPriority: Codable, Hashable, Sendable {
    public var `class`: String
    /// 0 (highest) to 7.
    public var priority: Int32?

    static let classes: [String: UInt64] = ["IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3]
    public var value: UInt64 { (Self.classes[`class`] ?? 0) << 13 | UInt64(priority ?? 0) }

    func check(_ path: String) throws(OCIError) {
      guard Self.classes[`class`] != nil else {
        throw OCIError(path + ".class", "\"\(`class`)\" is none of \(Self.classes.keys.sorted().joined(separator: ", "))")
      }
      if let priority, !(0...7).contains(priority) { throw OCIError(path + ".priority", "is not from 0 to 7") }
    }
  }
}
