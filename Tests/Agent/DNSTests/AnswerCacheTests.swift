import Model
import Testing

@testable import DNS

@Suite("Answers of the host's resolvers, kept")
struct AnswerCacheTests {
  private func query(_ name: String, id: UInt16 = 1, type: UInt16 = 1) -> [UInt8] {
    var query = Message(id: id)
    query.recursionDesired = true
    query.questions = [.init(name: Name(name)!, type: type)]
    return query.encoded()
  }
  private func answer(_ query: [UInt8], ttls: [UInt32], code: Message.ResponseCode = .noError, truncated: Bool = false) -> [UInt8] {
    var answer = try! Message(query)
    answer.isResponse = true
    answer.code = code
    answer.truncated = truncated
    answer.answers = ttls.map { .init(name: answer.questions[0].name, type: 1, ttl: $0, data: [192, 0, 2, 1]) }
    return answer.encoded()
  }
  /// With an authority record: an SOA of that TTL and least time.
  private func nothing(_ query: [UInt8], code: Message.ResponseCode, ttl: UInt32, minimum: UInt32) -> [UInt8] {
    var bytes = answer(query, ttls: [], code: code)
    bytes[9] = 1
    func four(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * $0)) } }
    return bytes + [0xc0, 12, 0, 6, 0, 1] + four(ttl) + [0, 22, 0, 0] + four(1) + four(2) + four(3) + four(4) + four(minimum)
  }

  @Test("an answer comes again with the asker's id and spelling and with what is left of its time, and then no more")
  func positive() throws {
    var cache = AnswerCache()
    let first = query("www.Example.com")
    cache.keep(answer(first, ttls: [60, 10]), to: first, at: 1000)
    let again = query("WWW.example.COM", id: 77)
    let found = try Message(try #require(cache.answer(again, at: 5500)))
    #expect(found.id == 77 && found.questions[0].name.description == "WWW.example.COM")
    #expect(found.answers.map(\.ttl) == [56, 6])
    #expect(cache.answer(again, at: 10_999) != nil)
    #expect(cache.answer(again, at: 11_000) == nil)
    #expect(cache.answer(query("www.example.com", type: 28), at: 2000) == nil)
    // Who says what it takes (EDNS0) is answered otherwise.
    var larger = try Message(again)
    larger.udpPayloadSize = 4096
    #expect(cache.answer(larger.encoded(), at: 2000) == nil)
  }

  @Test("that there is nothing is kept as long as the zone's SOA says, five minutes at most, and not without one")
  func negative() {
    for (code, ttl, minimum, until) in [
      (Message.ResponseCode.nameError, UInt32(600), UInt32(20), Int64(20_000)), (.noError, 30, 900, 30_000), (.nameError, 90_000, 90_000, 300_000),
    ] {
      var cache = AnswerCache()
      let query = query("nobody.example")
      cache.keep(nothing(query, code: code, ttl: ttl, minimum: minimum), to: query, at: 0)
      #expect(cache.answer(query, at: until - 1) != nil)
      #expect(cache.answer(query, at: until) == nil)
    }
    var cache = AnswerCache()
    cache.keep(answer(query("a.b"), ttls: [], code: .nameError), to: query("a.b"), at: 0)
    #expect(cache.count == 0)
  }

  @Test("failures, cut answers, answers to other questions, time 0 and what is no message are not kept")
  func refused() {
    let asked = query("www.example.com")
    let good = answer(asked, ttls: [60])
    for bad in [
      answer(asked, ttls: [60], code: .serverFailure), answer(asked, ttls: [60], truncated: true), answer(query("www.example.org"), ttls: [60]),
      answer(query("www.example.com", type: 28), ttls: [60]), answer(asked, ttls: [60, 0]), answer(asked, ttls: [0x8000_0000]), asked, [],
      Array(good.dropLast()), Array(good.prefix(12)), good + [UInt8](repeating: 0, count: 5000),
    ] {
      var cache = AnswerCache()
      cache.keep(bad, to: asked, at: 0)
      #expect(cache.count == 0)
    }
    var cache = AnswerCache()
    cache.keep(good, to: [1, 2, 3], at: 0)
    #expect(cache.count == 0 && cache.answer([], at: 0) == nil)
  }

  @Test("it has a bound, and no bytes trap")
  func bounds() {
    var cache = AnswerCache()
    for number in 0..<3000 {
      let query = query("n\(number).example")
      cache.keep(answer(query, ttls: [60]), to: query, at: 0)
    }
    #expect(cache.count <= cache.answersMax && cache.count > 0)
    var random = SystemRandomNumberGenerator()
    let asked = query("www.example.com")
    for _ in 0..<20_000 {
      var (question, bytes) = (asked, nothing(asked, code: .nameError, ttl: 60, minimum: 60))
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
      }
      if Bool.random(using: &random) { bytes.removeLast(.random(in: 0..<bytes.count, using: &random)) }
      if Bool.random(using: &random) { question[.random(in: 0..<question.count, using: &random)] = .random(in: 0...255, using: &random) }
      cache.keep(bytes, to: question, at: 0)
      _ = cache.answer(question, at: 1000)
    }
  }
}
