@testable import Seccomp

/// The kernel's reading of a filter: classic BPF as far as seccomp(2) allows it. What a profile means is asked of the program
/// that is loaded, not of the list that it was made from.
struct FilterMachine {
  struct Instruction {
    var code: UInt16
    var jumpTrue: UInt8
    var jumpFalse: UInt8
    var k: UInt32
  }
  let program: [Instruction]

  init(_ compiled: SeccompProgram) {
    let bytes = compiled.bytes
    var program: [Instruction] = []
    for at in stride(from: 0, to: bytes.count, by: 8) {
      let code = UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8
      var k: UInt32 = 0
      for byte in bytes[(at + 4)..<(at + 8)].reversed() { k = k << 8 | UInt32(byte) }
      program.append(Instruction(code: code, jumpTrue: bytes[at + 2], jumpFalse: bytes[at + 3], k: k))
    }
    self.program = program
  }

  /// The verdict (SECCOMP_RET_…) for `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
  func verdict(_ number: Int32, _ architecture: UInt32, _ arguments: [UInt64]) -> UInt32? {
    var data: [UInt32] = [UInt32(bitPattern: number), architecture, 0, 0]
    for index in 0..<6 {
      let value = index < arguments.count ? arguments[index] : 0
      data += [UInt32(truncatingIfNeeded: value), UInt32(truncatingIfNeeded: value >> 32)]
    }
    var (accumulator, index, at) = (UInt32(0), UInt32(0), 0)
    var memory = [UInt32](repeating: 0, count: 16)
    while at < program.count {
      let step = program[at]
      at += 1
      switch step.code {
      case 0x20: accumulator = data[Int(step.k / 4)]
      case 0x00: accumulator = step.k
      case 0x01: index = step.k
      case 0x02: memory[Int(step.k)] = accumulator
      case 0x60: accumulator = memory[Int(step.k)]
      case 0x54: accumulator &= step.k
      case 0x07: index = accumulator
      case 0x87: accumulator = index
      case 0x05: at += Int(step.k)
      case 0x15: at += Int(accumulator == step.k ? step.jumpTrue : step.jumpFalse)
      case 0x25: at += Int(accumulator > step.k ? step.jumpTrue : step.jumpFalse)
      case 0x35: at += Int(accumulator >= step.k ? step.jumpTrue : step.jumpFalse)
      case 0x45: at += Int(accumulator & step.k != 0 ? step.jumpTrue : step.jumpFalse)
      case 0x06: return step.k
      default: return nil
      }
    }
    return nil
  }
}
