import Testing

@testable import DNS

@Suite("A question as another resolver is asked it")
struct UpstreamQuestionTests {
  private func query(_ name: String, type: UInt16 = 1) -> [UInt8] {
    var query = Message(id: 0x1234)
    query.recursionDesired = true
    query.udpPayloadSize = 1232
    query.questions = [.init(name: Name(name)!, type: type)]
    return query.encoded()
  }
  private let asked = UpstreamQuestion(
    {
      var query = Message(id: 1)
      query.questions = [.init(name: Name("www.example.com")!, type: 1)]
      return query.encoded()
    }(), isSpelt: true)!
  private func answer(_ change: (inout [UInt8]) -> Void) -> [UInt8] {
    var answer = asked.bytes
    answer[2] |= 0x80
    change(&answer)
    return answer
  }

  @Test("its id and capitals are drawn; all else is as it was asked")
  func drawn() throws {
    let query = query("www.1-2_3.example")
    var (ids, spellings) = (Set<UInt16>(), Set<String>())
    for _ in 1...50 {
      let sent = try Message(try #require(UpstreamQuestion(query, isSpelt: true)).bytes)
      ids.insert(sent.id)
      spellings.insert(sent.questions[0].name.description)
      var same = sent
      same.id = 0x1234
      // Names compare without case.
      #expect(try same == Message(query))
    }
    #expect(ids.count > 45 && spellings.count > 30)
    #expect(UpstreamQuestion(query, isSpelt: false)?.bytes.dropFirst(2) == query.dropFirst(2))
    #expect(UpstreamQuestion([0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1], isSpelt: true) == nil)
    #expect(UpstreamQuestion([], isSpelt: true) == nil)
  }

  @Test("an answer gives back id, kind, name, spelling, type and class; what says that it cannot is a failure")
  func judged() {
    #expect(asked.judge(answer { _ in }) == .answer)
    #expect(asked.judge(answer { $0[3] = 3 }) == .answer)
    #expect(asked.judge(answer { $0[3] = 1 }) == .answer)
    for code in [2, 4, 5] as [UInt8] {
      let failed = answer { $0[3] = code }
      #expect(asked.judge(failed) == .answer && UpstreamQuestion.isFailure(failed))
    }
    let short = Array(answer { ($0[3], $0[5]) = (5, 0) }[..<12])
    #expect(asked.judge(short) == .answer && UpstreamQuestion.isFailure(short))
    for code in [0, 1, 3] as [UInt8] { #expect(!UpstreamQuestion.isFailure(answer { $0[3] = code })) }
    #expect(asked.judge(Array(answer { $0[5] = 0 }[..<12])) == .foreign)
    #expect(asked.judge(answer { $0[13] ^= 0x20 }) == .otherSpelling)
    for position in [0, 1, 12, 13, 16, asked.bytes.count - 1, asked.bytes.count - 3] {
      #expect(asked.judge(answer { $0[position] ^= 1 }) == .foreign, "\(position)")
    }
    #expect(asked.judge(asked.bytes) == .foreign, "a query")
    #expect(asked.judge(answer { $0[2] |= 0x08 }) == .foreign, "another opcode")
    for count in 0..<asked.bytes.count { #expect(asked.judge(Array(answer { _ in }[..<count])) == .foreign) }
  }

  @Test("an answer is given back under the asker's id and in its spelling")
  func addressed() throws {
    let query = query("wWw.Example.com")
    let answer = answer { $0[3] = 3 }
    let given = try #require(UpstreamQuestion.address(answer, to: query))
    let end = try #require(AnswerCache.questionEnd(query))
    #expect(given[..<2] == query[..<2] && given[12..<end] == query[12..<end] && given[3] == 3)
    #expect(UpstreamQuestion.address(Array(answer[..<12]), to: query) == nil)
  }
}
