/// What is one text in JSON: its description.
public protocol TextCodable: LosslessStringConvertible, Codable {
  /// What a text that is none of it is not, in an error: "an IPv4 address".
  static var kindOfText: String { get }
}

extension TextCodable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let text = try container.decode(String.self)
    guard let value = Self(text) else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "\(text) is not \(Self.kindOfText)")
    }
    self = value
  }
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
