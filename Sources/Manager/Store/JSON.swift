import Foundation
import Model
import Wire

/// Structures in Docker's spelling, as JSON text, for columns that people and `json_extract` read.
enum JSON {
  static func text(_ value: some Encodable) -> Value {
    // Model's types hold only strings, integers, finite numbers and collections of them.
    guard let data = try? ModelJSON.encode(value) else { preconditionFailure("\(type(of: value)) cannot be written as JSON") }
    return .text(String(decoding: data, as: UTF8.self))
  }

  /// As `ModelJSON` writes it, ten times faster: labels are in rows that change often.
  static func text(_ map: [String: String]) -> Value {
    if map.isEmpty { return .text("{}") }
    var bytes = [UInt8(ascii: "{")]
    for (key, value) in map.sorted(by: { $0.key < $1.key }) {
      if bytes.count > 1 { bytes.append(UInt8(ascii: ",")) }
      append(key, to: &bytes)
      bytes.append(UInt8(ascii: ":"))
      append(value, to: &bytes)
    }
    bytes.append(UInt8(ascii: "}"))
    return .text(String(decoding: bytes, as: UTF8.self))
  }

  /// RFC 8259 section 7.
  private static func append(_ text: String, to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "\""))
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes += [UInt8(ascii: "\\"), byte]
      case 8: bytes += Array("\\b".utf8)
      case 9: bytes += Array("\\t".utf8)
      case 10: bytes += Array("\\n".utf8)
      case 12: bytes += Array("\\f".utf8)
      case 13: bytes += Array("\\r".utf8)
      case 0..<32: bytes += Array("\\u00\(byte < 16 ? "0" : "")\(String(byte, radix: 16))".utf8)
      default: bytes.append(byte)
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }

  static func value<T: Decodable>(_ text: String, as type: T.Type = T.self) throws -> T {
    try ModelJSON.decode(from: Data(text.utf8))
  }
}
