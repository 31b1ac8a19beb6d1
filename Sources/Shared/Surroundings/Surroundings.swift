// Surroundings: the time of day, the system's randomness and the room on its disks, which no pure room may ask for: there, they are
// inputs. Whoever imports this room is a shell.
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

public enum FileSystem {
  /// Bytes that may still be written below `path` (statvfs(3): what is left for the unprivileged); nil when it cannot be asked.
  public static func room(at path: String) -> Int64? {
    var status = statvfs()
    guard statvfs(path, &status) == 0 else { return nil }
    return Int64(clamping: UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize)).partialValue)
  }
}
