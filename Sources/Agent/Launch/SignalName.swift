/// Signals by their names (signal(7)).
package enum SignalName {
  /// "TERM", "SIGTERM", "RTMIN+1" or "15"; nil: no such signal.
  package static func number(_ name: String) -> Int32? {
    if let number = Int32(name) { return (1...64).contains(number) ? number : nil }
    var short = name.uppercased()
    if short.hasPrefix("SIG") { short.removeFirst(3) }
    let names: [String: Int32] = [
      "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13,
      "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24,
      "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31, "RTMIN": 34, "RTMAX": 64,
    ]
    if let number = names[short] { return number }
    if short.hasPrefix("RTMIN+"), let more = Int32(short.dropFirst(6)), more >= 0, more <= 30 { return 34 + more }
    if short.hasPrefix("RTMAX-"), let less = Int32(short.dropFirst(6)), less >= 0, less <= 30 { return 64 - less }
    return nil
  }
}
