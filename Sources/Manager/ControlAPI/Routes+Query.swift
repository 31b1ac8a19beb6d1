import API

extension ControlAPI {
  /// Seconds that a statement may take when the request names none.
  private static let queryTimeout = 10.0

  func query(_ request: APIRequest) async throws -> APIResponse {
    let body = try await JSON.body(QueryRequest.self, of: request, limit: 2 << 20)
    let timeout = body.timeout ?? Self.queryTimeout
    guard timeout > 0, timeout <= 600 else { throw APIError(400, "invalid Timeout \(timeout): a statement may take up to 600 s") }
    let lines = try await backend.query(body.query, limit: .seconds(timeout), stale: body.stale ?? false)
    return APIResponse(status: 200, headers: [APIHeader("Content-Type", "application/x-ndjson")], body: lines, hasReadRequest: true)
  }
}
