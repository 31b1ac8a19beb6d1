import CLinux
import Glibc
import LinuxSystem
import OwnProcess
import Testing

@testable import AgentNetwork

@Suite(.enabled(if: geteuid() == 0, "namespaces need root")) struct LowDescriptorsTests {
  @Test("rules are loaded and read by a process with more than a thousand open descriptors")
  func many() async throws {
    // In this process the other tests would find no low number.
    try await inOwnProcess("AgentNetworkTests.LowDescriptorsTests/many()") { try await Self.load() }
  }

  private static func load() async throws {
    LowDescriptors.hold()
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = min(limit.rlim_max, 65536)
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    try #require(limit.rlim_cur > 1200)
    var opened: [Int32] = []
    defer { for descriptor in opened { close(descriptor) } }
    while (opened.last ?? 0) < 1100 {
      opened.append(open("/dev/null", O_RDONLY | O_CLOEXEC))
      try #require(opened.last! >= 0)
    }
    let packets = try await onOwnThread("orch-test") {
      try check(clinux_new_network_namespace(), "make a namespace")
      // More than wait to be freed together.
      for number in 0..<100 {
        try Nftables.run("add table ip orch; add counter ip orch c\(number) { packets \(number) bytes 1; }", object: "test")
      }
      return Nftables.packets("c99")
    }
    try #require(packets == 99)
  }
}
