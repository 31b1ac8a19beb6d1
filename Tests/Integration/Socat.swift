import Foundation
import Testing

/// Numbers that go out by one socket of socat's, and the lines that come back by it. It ends with this object.
final class Socat: CustomStringConvertible {
  private let (place, file): (String, String)
  private let pid: Int32

  /// - Parameters:
  ///   - host: or `LocalCluster.outside`.
  ///   - enter: a command in front, with a space at its end; or nothing.
  ///   - address: as socat takes it.
  ///   - pause: between two numbers, as sleep(1) takes it.
  init(_ cluster: LocalCluster, on host: String, _ enter: String, _ address: String, pause: String = "0.1") throws {
    place = "\(host) \(address)"
    file = "\(NSTemporaryDirectory())orch-socat-\(UUID())"
    let numbers = "(i=0; while echo $i; do i=$((i+1)); sleep \(pause); done) 2>/dev/null < /dev/null"
    pid = try cluster.start(on: host, "\(numbers) | \(enter)socat -d - \(address) > \(file) 2> \(file).errors")
  }
  deinit {
    kill(pid, SIGKILL)
    for suffix in ["", ".errors"] { try? FileManager.default.removeItem(atPath: file + suffix) }
  }

  private func read(_ suffix: String = "") -> String {
    String(decoding: FileManager.default.contents(atPath: file + suffix) ?? Data(), as: UTF8.self)
  }
  /// Those that are whole; the last one may be on its way.
  var lines: [String] { read().split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init) }
  var count: Int { lines.count }
  var errors: String { read(".errors") }
  var ended: Bool { kill(pid, 0) != 0 }
  /// Every number came back once and in order.
  var isWhole: Bool { lines.enumerated().allSatisfy { $1 == "\($0)" } }
  var description: String {
    let lines = lines
    return "\(place): \(lines.count) lines, \(lines.first ?? "-") to \(lines.last ?? "-")\(ended ? ", ended" : "") \(errors)"
  }
}

extension [Socat] {
  /// Five numbers more come back by each, none lost, and none has ended.
  func goOn(_ when: String, within seconds: Double = 45) async throws {
    let before = map(\.count)
    try await eventually("every stream goes on \(when)", seconds: seconds) {
      (zip(self, before).allSatisfy { $0.count >= $1 + 5 || $0.ended }, "\(self)")
    }
    for stream in self { try #require(!stream.ended && stream.isWhole, "\(when): \(stream)") }
  }
}
