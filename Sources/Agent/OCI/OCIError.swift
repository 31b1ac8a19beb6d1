import FoundationEssentials

/// What is wrong with a document: where, and why.
public struct OCIError: Error, Hashable, Sendable, CustomStringConvertible {
  /// "process.rlimits[2].type"; empty: the document.
  public var path: String
  public var cause: String
  public init(_ path: String, _ cause: String) {
    self.path = path
    self.cause = cause
  }
  public var description: String { path.isEmpty ? cause : "\(path): \(cause)" }

  init(_ error: DecodingError) {
    func path(_ keys: [any CodingKey]) -> String {
      keys.reduce("") { text, key in
        if let index = key.intValue { return "\(text)[\(index)]" }
        return text.isEmpty ? key.stringValue : "\(text).\(key.stringValue)"
      }
    }
    switch error {
    case .keyNotFound(let key, let context): self.init(path(context.codingPath + [key]), "is required")
    case .typeMismatch(let type, let context): self.init(path(context.codingPath), "is not \(Self.name(type))")
    case .valueNotFound(let type, let context): self.init(path(context.codingPath), "is null where \(Self.name(type)) is required")
    case .dataCorrupted(let context):
      let place = path(context.codingPath)
      self.init(
        place, place.isEmpty ? "is not JSON: \(context.underlyingError.map { "\($0)" } ?? context.debugDescription)" : context.debugDescription)
    @unknown default: self.init("", "\(error)")
    }
  }

  private static func name(_ type: any Any.Type) -> String {
    switch type {
    case is String.Type: "a string"
    case is Bool.Type: "true or false"
    case is any FixedWidthInteger.Type: "an integer from \(bounds(type))"
    case is [String: any Sendable].Type: "an object"
    default: "\(type)".hasPrefix("Array") ? "an array" : "an object"
    }
  }
  private static func bounds(_ type: any Any.Type) -> String {
    guard let integer = type as? any FixedWidthInteger.Type else { return "" }
    return "\(integer.min) to \(integer.max)"
  }
}

/// JSON to values and back, for this room's documents.
public enum Document {
  public static func read<Value: Decodable>(_ type: Value.Type, _ bytes: [UInt8]) throws(OCIError) -> Value {
    if holdsNUL(bytes) { throw OCIError("", "holds a NUL character (\\u0000), at which the kernel would cut a name off") }
    do { return try JSONDecoder().decode(type, from: Data(bytes)) } catch let error as DecodingError { throw OCIError(error) } catch {
      throw OCIError("", "is not JSON: \(error)")
    }
  }
  /// As JSON must write it: an escape, after an even number of backslashes.
  private static func holdsNUL(_ bytes: [UInt8]) -> Bool {
    let escape = Array("u0000".utf8)
    var index = 0
    while index < bytes.count {
      if bytes[index] == 0x5c {
        if bytes[(index + 1)...].starts(with: escape) { return true }
        index += 1
      }
      index += 1
    }
    return false
  }
  /// With sorted keys; `pretty`: indented, with a newline at the end.
  public static func write(_ value: some Encodable, pretty: Bool = false) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = pretty ? [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes] : [.sortedKeys, .withoutEscapingSlashes]
    // The values of this room hold nothing that JSON cannot say.
    return Array((try? encoder.encode(value)) ?? Data()) + (pretty ? [10] : [])
  }
}
