import AsyncHTTPClient
import Glibc
import Model
import Surroundings

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
  /// - Parameter retryAfter: the header, seconds or a date (RFC 9110 10.2.3); waited for when it is longer, at most `longestPause`.
  mutating func again(_ retryAfter: String? = nil) async throws -> Bool {
    failures += 1
    guard failures < attempts else { return false }
    let wanted = Duration.seconds(retryAfter.flatMap { Self.seconds($0, now: .now) } ?? 0)
    let jittered = pause + pause * Double.random(in: 0...0.25)
    try await Task.sleep(for: min(max(jittered, wanted), longest))
    pause *= 2
    return true
  }

  /// Of a Retry-After: at least 0 and at most a day; nil for what is neither a number nor a date.
  static func seconds(_ header: String, now: Timestamp) -> Int64? {
    if let seconds = Int64(header) { return max(0, min(seconds, 86_400)) }
    return time(header).map { max(0, min($0 - now.nanoseconds / 1_000_000_000, 86_400)) }
  }

  /// Of an HTTP date: seconds since 1970.
  static func time(_ header: String) -> Int64? {
    // The one form that is still sent (IMF-fixdate, RFC 9110 5.6.7): Sun, 06 Nov 1994 08:49:37 GMT.
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    let words = header.split(whereSeparator: { " :".contains($0) })
    guard words.count == 8, words[7] == "GMT", let month = months.firstIndex(of: String(words[2])) else { return nil }
    let numbers = [1, 3, 4, 5, 6].compactMap { Int32(words[$0]) }
    guard numbers.count == 5, (1970...9999).contains(numbers[1]) else { return nil }
    var parts = tm()
    (parts.tm_mday, parts.tm_mon, parts.tm_year) = (numbers[0], Int32(month), numbers[1] - 1900)
    (parts.tm_hour, parts.tm_min, parts.tm_sec) = (numbers[2], numbers[3], numbers[4])
    return Int64(timegm(&parts))
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
