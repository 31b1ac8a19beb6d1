import Model
import Testing

@Suite struct LogLimitsTests {
  @Test(
    "a log's size and number of files are read; what would be lost is refused by name",
    arguments: [
      (nil, [:], nil, nil, nil), ("", [:], nil, nil, nil), ("json-file", ["max-size": "10m", "max-file": "5"], 10_000_000, 5, nil),
      ("local", ["max-size": "1.5k"], 1500, nil, nil), ("", ["max-size": "2 GiB"], 2_000_000_000, nil, nil),
      ("json-file", ["max-size": "-1"], 0, nil, nil),
      ("syslog", [:], nil, nil, "the logging driver 'syslog' is not supported"),
      ("none", [:], nil, nil, "the logging driver 'none' is not supported"),
      ("json-file", ["max-size": "0"], nil, nil, "max-size '0' is no size"),
      ("json-file", ["max-size": "much"], nil, nil, "max-size 'much' is no size"),
      ("json-file", ["max-file": "0"], nil, nil, "max-file '0'"), ("json-file", ["max-file": "1001"], nil, nil, "max-file '1001'"),
      ("json-file", ["labels": "a", "max-size": "1m"], nil, nil, "the logging option 'labels' is not supported"),
    ] as [(String?, [String: String], Int64?, Int?, String?)])
  func read(_ name: String?, _ options: [String: String], _ size: Int64?, _ files: Int?, _ refusal: String?) throws {
    do throws(LogLimits.Refusal) {
      let limits = try LogLimits(Driver(name: name, options: options))
      #expect(refusal == nil && limits.maxSize == size && limits.maxFiles == files, "\(limits)")
    } catch {
      #expect(refusal.map { error.reason.contains($0) } == true, "\(error)")
    }
  }
}
