import Foundation
import Glibc
import LinuxSystem
import Testing

/// A process in the foreground: its terminal and its signals.
@Suite(.enabled(if: isRoot), .serialized) struct ForegroundTests {
  @Test("a terminal is its user's, who opens it by name; its group stays tty")
  func owner() throws {
    let world = try BundleWorld()
    try world.specify()
    let script = "stat -c %u:%g:%a /dev/pts/0 /dev/console; echo again > /dev/stdout && echo too > /dev/console && echo fine"
    try world.configure(["sh", "-c", script]) { config in
      config.object("process") {
        $0["terminal"] = true
        $0["user"] = ["uid": 1000, "gid": 1000]
      }
    }
    let result = try world.call(["run", "--bundle", world.bundle, "one"])
    #expect(result.out == "1000:5:620\r\n1000:5:620\r\nagain\r\ntoo\r\nfine\r\n", "\(result)")
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "two"]).code == 0)
    let more = try world.call(["exec", "-t", "-u", "1000:1000", "two", "sh", "-c", "stat -c %u:%g $(tty); echo again > /dev/stdout && echo fine"])
    #expect(more.out == "1000:5\r\nagain\r\nfine\r\n", "\(more)")
    #expect(try world.call(["delete", "-f", "two"]).code == 0)
  }
}
