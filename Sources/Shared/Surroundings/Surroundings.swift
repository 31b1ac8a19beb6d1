// Surroundings: the time of day and the system's randomness, which no pure room may ask for: there, both are inputs. Whoever imports
// this room is a shell.
import Model

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

extension Timestamp {
  /// The wall clock (clock_gettime(2), CLOCK_REALTIME).
  public static var now: Timestamp { read(CLOCK_REALTIME) }
  /// Since some point in the past, never set back (CLOCK_MONOTONIC).
  public static var steady: Timestamp { read(CLOCK_MONOTONIC) }

  private static func read(_ clock: clockid_t) -> Timestamp {
    var time = timespec()
    clock_gettime(clock, &time)
    return Timestamp(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }
}

extension Identifier {
  /// 128 bits of the system's generator.
  public static func random() -> Self {
    var generator = SystemRandomNumberGenerator()
    return random(using: &generator)
  }
}
