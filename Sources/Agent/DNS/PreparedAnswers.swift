/// What was answered already, by the bytes of the question behind its id, for as long as zone and client are the same: nothing is read, looked up or
/// written again. Answers whose addresses take turns are kept once for each turn; each question has turns of its own, from any one on: a client asks for
/// A and AAAA by turns, and many clients ask once. Bounds: 4,096 questions (a spelling is one), 4 MiB; then all go.
struct PreparedAnswers {
  static let questionsMax = 4096
  static let bytesMax = 4 << 20
  private struct Entry {
    /// nil: that turn was not asked yet.
    var answers: [[UInt8]?]
    var turn: Int
  }
  private var bytes = 0
  private var prepared: [[UInt8]: Entry] = [:]
  private var version: UInt64 = 0

  /// The turn that it is, and its answer if that was kept.
  /// - Parameter question: of a query, all behind the id.
  mutating func next(_ question: [UInt8], version: UInt64) -> (turn: Int, answer: [UInt8]?) {
    if version != self.version { (prepared, bytes, self.version) = ([:], 0, version) }
    guard let index = prepared.index(forKey: question) else { return (.random(in: 0...0xffff), nil) }
    prepared.values[index].turn = (prepared.values[index].turn + 1) & 0xff_ffff
    let entry = prepared.values[index]
    return (entry.turn, entry.answers[entry.turn % entry.answers.count])
  }

  /// - Parameter turns: after how many answers the first comes again.
  mutating func keep(_ answer: [UInt8], to question: [UInt8], turn: Int, of turns: Int) {
    bytes += answer.count + question.count
    if prepared.count >= Self.questionsMax || bytes > Self.bytesMax { (prepared, bytes) = ([:], 0) }
    prepared[question, default: Entry(answers: Array(repeating: nil, count: max(1, turns)), turn: turn)].answers[turn % max(1, turns)] = answer
  }
}
