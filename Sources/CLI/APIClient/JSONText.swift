#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// JSON for the CLI; the one place that knows Foundation.
public enum JSONText {
  public static func encode(_ value: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do { return Array(try encoder.encode(value)) } catch { preconditionFailure("a shape of the API cannot be encoded: \(error)") }
  }

  public static func line(_ value: some Encodable) -> String { String(decoding: encode(value), as: UTF8.self) }

  public static func decode<Value: Decodable>(_ type: Value.Type, _ bytes: [UInt8]) throws -> Value {
    try JSONDecoder().decode(type, from: Data(bytes))
  }

  /// The same JSON, indented as `docker inspect` does; keys keep their order.
  public static func indented(_ bytes: [UInt8], by width: Int = 4, level start: Int = 0) -> String {
    var result: [UInt8] = []
    var level = start
    var inString = false
    var escaped = false
    func newline() -> [UInt8] { [10] + [UInt8](repeating: 32, count: level * width) }
    let source = bytes.last == 10 ? Array(bytes.dropLast()) : bytes
    for (index, byte) in source.enumerated() {
      if inString {
        result.append(byte)
        if escaped { escaped = false } else if byte == UInt8(ascii: "\\") { escaped = true } else if byte == UInt8(ascii: "\"") { inString = false }
        continue
      }
      switch byte {
      case UInt8(ascii: "\""):
        inString = true
        result.append(byte)
      case UInt8(ascii: "{"), UInt8(ascii: "["):
        result.append(byte)
        level += 1
        if index + 1 < source.count, source[index + 1] != byte + 2 { result += newline() }
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        level -= 1
        if index > 0, source[index - 1] != byte - 2 { result += newline() }
        result.append(byte)
      case UInt8(ascii: ","):
        result.append(byte)
        result += newline()
      case UInt8(ascii: ":"): result += [byte, 32]
      case 32, 10, 13, 9: break
      default: result.append(byte)
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}
