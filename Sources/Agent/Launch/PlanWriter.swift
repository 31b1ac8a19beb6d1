import CLinux
import LinuxSystem

/// Writes the flat plan that CLinux carries out (clinux_plan.h), and keeps for each operation what it is in words.
package struct PlanWriter {
  package private(set) var bytes: [UInt8] = []
  /// By the operation's index: what a failure of it is called.
  package private(set) var names: [String] = []

  /// What the parent makes of this plan so far: operations after the last one name it by this number.
  package private(set) var trees: UInt64 = 0
  /// What was left out of it, for the user.
  package var warnings: [String] = []

  package enum Value: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral {
    case text(String)
    case number(UInt64)
    case bytes([UInt8])
    package init(stringLiteral value: String) { self = .text(value) }
    package init(integerLiteral value: UInt64) { self = .number(value) }
  }

  package init() { append(CLINUX_PLAN_MAGIC) }

  package mutating func add(_ code: clinux_op, _ name: String, _ values: [Value] = []) {
    names.append(name)
    if code == CLINUX_OP_TREE_BIND || code == CLINUX_OP_TREE_NODE || code == CLINUX_OP_TREE_FOLDER { trees += 1 }
    append(UInt32(code.rawValue))
    let lengthAt = bytes.count
    append(UInt32(0))
    for value in values {
      switch value {
      case .number(let number): append(number)
      case .text(let text): append(block: Array(text.utf8))
      case .bytes(let block): append(block: block)
      }
    }
    let length = UInt32(bytes.count - lengthAt - 4)
    for offset in 0..<4 { bytes[lengthAt + offset] = UInt8(truncatingIfNeeded: length >> (8 * UInt32(offset))) }
  }

  /// In memory, sealed: what is carried out is what was written.
  func file(for name: String) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(owning: try checkResult(clinux_memfd("plan", bytes, bytes.count), "write the plan of", name))
  }

  private mutating func append(block: [UInt8]) {
    append(UInt64(block.count))
    bytes.append(contentsOf: block)
    // A NUL, then up to a multiple of eight.
    bytes.append(contentsOf: repeatElement(0, count: 8 - block.count % 8))
  }
  private mutating func append<I: FixedWidthInteger>(_ value: I) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }
}
