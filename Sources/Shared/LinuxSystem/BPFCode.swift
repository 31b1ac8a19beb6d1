/// Instructions of the kernel's virtual machine: `struct bpf_insn`, 8 bytes each (RFC 9669).
public struct BPFCode: Hashable, Sendable {
  public private(set) var instructions: [UInt64] = []
  /// Jumps whose distance is not known yet.
  private var leaving: [Int] = []
  public init() {}

  public mutating func add(_ code: UInt64, _ destination: UInt64, _ source: UInt64 = 0, offset: UInt64 = 0, immediate: UInt32 = 0) {
    instructions.append(code | destination << 8 | source << 12 | (offset & 0xffff) << 16 | UInt64(immediate) << 32)
  }

  /// A jump to where `land` is said; one instruction.
  public mutating func leave(_ code: UInt64, _ destination: UInt64, _ source: UInt64 = 0, immediate: UInt32 = 0) {
    leaving.append(instructions.count)
    add(code, destination, source, immediate: immediate)
  }
  public mutating func land() {
    for jump in leaving { instructions[jump] |= UInt64(instructions.count - jump - 1) << 16 }
    leaving = []
  }
}
