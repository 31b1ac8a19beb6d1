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

  static func value<T: Decodable>(_ text: String, as type: T.Type = T.self) throws -> T {
    try ModelJSON.decode(from: Data(text.utf8))
  }
}
