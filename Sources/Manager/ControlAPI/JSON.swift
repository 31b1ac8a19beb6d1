import API
import Model
import NIOCore

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// JSON in and out; the one place that knows Foundation.
enum JSON {
  static func encode(_ value: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    // Sorted: what is shown twice looks the same twice.
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    do { return Array(try encoder.encode(value)) } catch { preconditionFailure("a shape of the API cannot be encoded: \(error)") }
  }

  static func decode<Value: Decodable>(_ type: Value.Type, from bytes: [UInt8]) throws -> Value {
    try JSONDecoder().decode(type, from: Data(bytes))
  }

  /// The body as `type`; 400 with the place of the mistake.
  static func body<Value: Decodable>(_ type: Value.Type, of request: APIRequest, limit: Int = bodyMax) async throws -> Value {
    try parse(type, try await bytes(of: request, limit: limit))
  }

  static func parse<Value: Decodable>(_ type: Value.Type, _ bytes: [UInt8]) throws -> Value {
    do { return try decode(type, from: bytes) } catch let error as DecodingError {
      throw APIError(400, "invalid JSON: \(explain(error))")
    }
  }

  static func bytes(of request: APIRequest, limit: Int = bodyMax) async throws -> [UInt8] {
    if let length = request.header("content-length").flatMap(Int.init), length > limit {
      throw APIError(413, "the request's body of \(length) bytes is over the limit of \(limit) bytes")
    }
    let buffer = try await request.body.collect(upTo: limit)
    guard buffer.readableBytes > 0 else { throw APIError(400, "invalid JSON: the request has no body") }
    return Array(buffer.readableBytesView)
  }

  /// Bytes of a JSON body; a stack's manifest is the largest thing that comes in one.
  static let bodyMax = 4 << 20

  private static func explain(_ error: DecodingError) -> String {
    func place(_ context: DecodingError.Context) -> String {
      let path = context.codingPath.map { $0.intValue.map { "[\($0)]" } ?? $0.stringValue }.joined(separator: ".")
      return path.isEmpty ? "" : " at \(path)"
    }
    switch error {
    case .keyNotFound(let key, let context): return "\(key.stringValue) is missing\(place(context))"
    case .typeMismatch(let type, let context): return "a value of another type than \(type)\(place(context))"
    case .valueNotFound(let type, let context): return "null instead of \(type)\(place(context))"
    case .dataCorrupted(let context): return context.debugDescription + place(context)
    @unknown default: return "\(error)"
    }
  }
}

extension APIResponse {
  static func json(_ value: some Encodable, status: Int = 200) -> APIResponse {
    APIResponse(status: status, headers: [APIHeader("Content-Type", "application/json")], body: APIBody(bytes: JSON.encode(value) + [10]))
  }
  static func error(_ status: Int, _ message: String) -> APIResponse { json(ErrorResponse(message: message), status: status) }
  static let noContent = APIResponse(status: 204)
}
