/// What was answered already, by the bytes of the question behind its id, for as long as zone and client are the same: nothing is read, looked up or
/// written again. Answers whose addresses take turns are kept once for each turn. Bounds: 4,096 questions (a spelling is one), 4 MiB; then all go.
struct PreparedAnswers {
  static let questionsMax = 4096
  static let bytesMax = 4 << 20
  private var bytes = 0
  /// nil: that turn was not asked yet.
  private var prepared: [[UInt8]: [[UInt8]?]] = [:]
  private var version: UInt64 = 0

  /// - Parameter question: of a query, all behind the id.
  mutating func answer(_ question: [UInt8], turn: Int, version: UInt64) -> [UInt8]? {
    if version != self.version { (prepared, bytes, self.version) = ([:], 0, version) }
    guard let turns = prepared[question] else { return nil }
    return turns[turn % turns.count]
  }

  /// - Parameter turns: after how many answers the first comes again.
  mutating func keep(_ answer: [UInt8], to question: [UInt8], turn: Int, of turns: Int) {
    bytes += answer.count + question.count
    if prepared.count >= Self.questionsMax || bytes > Self.bytesMax { (prepared, bytes) = ([:], 0) }
    prepared[question, default: Array(repeating: nil, count: max(1, turns))][turn % max(1, turns)] = answer
  }
}
