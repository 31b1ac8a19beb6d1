/// A container's question as another resolver is asked it. Who wants to have a forged answer believed has to guess what is drawn anew for each try: the
/// id, the port (the kernel's), and which letters of the name are capitals, which servers give back as they came (draft-vixie-dnsext-dns0x20; unbound's
/// use-caps-for-id). Containers choose none of it: what is kept of the answers is everybody's.
struct UpstreamQuestion: Sendable {
  let bytes: [UInt8]
  /// Where its one question ends.
  private let end: Int

  enum Verdict { case answer, otherSpelling, foreign }

  /// - Parameter isSpelt: with capitals drawn anew; otherwise as it is.
  /// nil: not one question whose name stands there as it is.
  init?(_ query: [UInt8], isSpelt: Bool) {
    guard let end = AnswerCache.questionEnd(query) else { return nil }
    self.end = end
    var bytes = query
    let id = UInt16.random(in: 0...UInt16.max)
    (bytes[0], bytes[1]) = (UInt8(id >> 8), UInt8(id & 0xff))
    if isSpelt {
      for position in 12..<end - 4 {
        let letter = Name.lower(bytes[position])
        // No length of a label is as large as a letter.
        if letter >= 97, letter <= 122 { bytes[position] = Bool.random() ? letter : letter - 32 }
      }
    }
    self.bytes = bytes
  }

  /// What came back: an answer, which may say that there is nothing, or that the server cannot or will not say (`isFailure`); one that may be one; or somebody's guess.
  func judge(_ answer: [UInt8]) -> Verdict {
    guard answer.count >= 12, answer[0..<2] == bytes[0..<2], answer[2] & 0xf8 == 0x80 | bytes[2] & 0x78 else { return .foreign }
    let code = answer[3] & 0x0f
    // Some do not say what they do not answer.
    if answer[4..<6] == [0, 0], code != 0 { return .answer }
    guard answer.count >= end, answer[4..<6] == [0, 1], answer[end - 4..<end] == bytes[end - 4..<end],
      answer[12..<end - 4].lazy.map(Name.lower).elementsEqual(bytes[12..<end - 4].lazy.map(Name.lower))
    else { return .foreign }
    return answer[12..<end - 4] == bytes[12..<end - 4] ? .answer : .otherSpelling
  }

  /// SERVFAIL, NOTIMP, REFUSED: the next server is asked then (as glibc's res_send and Docker's resolver do). Or not even what is not answered.
  static func isFailure(_ answer: [UInt8]) -> Bool { [2, 4, 5].contains(answer[3] & 0x0f) || answer[4..<6] == [0, 0] }

  /// An answer to an equal question, under the id and in the spelling of this one; nil: it does not say what it answers.
  static func address(_ answer: [UInt8], to query: [UInt8]) -> [UInt8]? {
    guard answer.count >= 12, answer[4..<6] == [0, 1], let end = AnswerCache.questionEnd(query), answer.count >= end else { return nil }
    var answer = answer
    answer.replaceSubrange(0..<2, with: query[0..<2])
    answer.replaceSubrange(12..<end, with: query[12..<end])
    return answer
  }
}
