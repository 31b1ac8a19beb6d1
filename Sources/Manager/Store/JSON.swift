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
      JSONLine.string(key, into: &bytes)
      bytes.append(UInt8(ascii: ":"))
      JSONLine.string(value, into: &bytes)
    }
    bytes.append(UInt8(ascii: "}"))
    return .text(String(decoding: bytes, as: UTF8.self))
  }

  static func value<T: Decodable>(_ text: String, as type: T.Type = T.self) throws -> T {
    try ModelJSON.decode(from: Data(text.utf8))
  }
}
