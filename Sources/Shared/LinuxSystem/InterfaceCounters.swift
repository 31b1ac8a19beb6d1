/// What one network interface received and sent since it was made (proc_pid_net(5), `dev`).
public struct InterfaceCounters: Hashable, Sendable {
  public struct Direction: Hashable, Sendable {
    public var bytes: UInt64 = 0
    public var packets: UInt64 = 0
    public var errors: UInt64 = 0
    public var dropped: UInt64 = 0
  }
  public var name: String
  public var received = Direction()
  public var sent = Direction()

  /// Those of the network namespace that `process` is in, loopback too; throws when it is gone.
  public static func of(process: Int32) throws(SystemError) -> [InterfaceCounters] { parse(try Files.text("/proc/\(process)/net/dev")) }

  /// The same, without loopback; empty when it has ended, or is in our own network namespace: those are the host's.
  public static func own(of process: Int32) -> [InterfaceCounters] {
    guard let namespace = try? Files.link("/proc/\(process)/ns/net"), namespace != (try? Files.link("/proc/self/ns/net")) else { return [] }
    return ((try? of(process: process)) ?? []).filter { $0.name != "lo" }
  }

  /// Two lines of headings, then "name: 8 numbers received, 8 sent".
  static func parse(_ text: String) -> [InterfaceCounters] {
    text.split(separator: "\n").dropFirst(2).compactMap { line in
      guard let colon = line.lastIndex(of: ":") else { return nil }
      let numbers = line[line.index(after: colon)...].split(separator: " ").compactMap { UInt64($0) }
      guard numbers.count >= 12 else { return nil }
      func direction(_ first: Int) -> Direction {
        Direction(bytes: numbers[first], packets: numbers[first + 1], errors: numbers[first + 2], dropped: numbers[first + 3])
      }
      return InterfaceCounters(name: String(line[..<colon].drop { $0 == " " }), received: direction(0), sent: direction(8))
    }
  }
}
