import Glibc
import LinuxSystem
import Telemetry
import Testing

@Suite struct MetricsTests {
  private func request(_ port: UInt16, _ text: String) async -> String {
    await withCheckedContinuation { continuation in
      startThread("test-metrics") {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        _ = withUnsafePointer(to: &address) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        send(descriptor, text, text.utf8.count, Int32(MSG_NOSIGNAL))
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while case let count = recv(descriptor, &buffer, buffer.count, 0), count > 0 { bytes += buffer[..<count] }
        continuation.resume(returning: String(decoding: bytes, as: UTF8.self))
      }
    }
  }

  @Test("what was collected is answered as Prometheus reads it, to GET /metrics alone")
  func serves() async throws {
    let server = try MetricsServer("127.0.0.1:0") {
      [
        Metric("orch_a_total", .counter, "Of a.", [.init(1, ["kind": "x\"y\\z", "other": "2"]), .init(UInt64.max)]),
        Metric("orch_b", .gauge, "Of b.", []),
        Metric("orch_c_seconds_total", .counter, "Of c.", [.init(.milliseconds(61_002)), .init(.zero)]),
      ]
    }
    let answer = await request(server.port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"))
    #expect(
      answer.hasSuffix(
        "\r\n\r\n# HELP orch_a_total Of a.\n# TYPE orch_a_total counter\norch_a_total{kind=\"x\\\"y\\\\z\",other=\"2\"} 1\n"
          + "orch_a_total 18446744073709551615\n# HELP orch_b Of b.\n# TYPE orch_b gauge\n"
          + "# HELP orch_c_seconds_total Of c.\n# TYPE orch_c_seconds_total counter\norch_c_seconds_total 61.002000\norch_c_seconds_total 0.000000\n")
    )
    for other in ["POST /metrics HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\r\n\r\n", "GET /metrics\u{0}\r\n\r\n"] {
      #expect(await request(server.port, other).hasPrefix("HTTP/1.1 404"))
    }
    #expect(throws: MetricsServer.BadAddress.self) { try MetricsServer("9323") { [] } }
    #expect(throws: SystemError.self) { try MetricsServer("127.0.0.1:\(server.port)") { [] } }
  }
}
