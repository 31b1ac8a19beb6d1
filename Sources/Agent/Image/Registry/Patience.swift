import AsyncHTTPClient

/// How often and after which pauses something is tried again.
struct Patience {
  private let attempts: Int
  private let longest: Duration
  private var pause: Duration
  private var failures = 0

  init(_ configuration: ImageStoreConfiguration) {
    attempts = max(1, configuration.attempts)
    longest = configuration.longestPause
    pause = configuration.firstPause
  }

  /// Something was achieved since the last failure: count from the beginning.
  mutating func renew(_ configuration: ImageStoreConfiguration) { self = Patience(configuration) }

  /// Waits and says true while there are attempts left. The pause doubles and is up to a quarter longer, so that many clients do not come back at once.
  /// - Parameter retryAfter: the header, in seconds (RFC 9110 10.2.3; dates are not read); waited for when it is longer, at most `longestPause`.
  mutating func again(_ retryAfter: String? = nil) async throws -> Bool {
    failures += 1
    guard failures < attempts else { return false }
    let wanted = retryAfter.flatMap { Int64($0) }.map { Duration.seconds(max(0, min($0, 86_400))) } ?? .zero
    let jittered = pause + pause * Double.random(in: 0...0.25)
    try await Task.sleep(for: min(max(jittered, wanted), longest))
    pause *= 2
    return true
  }

  /// After an error of the connection. Who does not even take a connection is asked twice only: each time takes the whole of its limit.
  mutating func again(_ error: any Error) async throws -> Bool {
    if error is CancellationError || Task.isCancelled { return false }
    if error as? HTTPClientError == .connectTimeout, failures > 0 { return false }
    // A certificate does not become another by asking again.
    if "\(error)".contains("CERTIFICATE") || "\(error)".contains("SSLError") || "\(error)".contains("unableToValidateCertificate") { return false }
    return try await again()
  }
}
