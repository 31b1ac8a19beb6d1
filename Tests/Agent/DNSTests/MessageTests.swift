import Testing

@testable import DNS

private func bytes(_ annotated: String) -> [UInt8] {
  annotated.split(separator: "\n").flatMap { line in line.prefix { $0 != "|" }.split(separator: " ").map { UInt8($0, radix: 16)! } }
}

@Suite("DNS messages")
struct MessageTests {
  @Test("a query with EDNS0 is read, and an answer to it is written with compressed names")
  func queryAndAnswer() throws {
    let query = try Message(
      bytes(
        """
        12 34 01 00 00 01 00 00 00 00 00 01 | id, RD, one question, one additional
        03 57 65 62 04 74 65 73 74 00       | Web.test
        00 01 00 01                         | A IN
        00 00 29 04 d0 00 00 00 00 00 00    | OPT, 1232 bytes
        """))
    #expect(query.id == 0x1234 && query.recursionDesired && !query.isResponse)
    #expect(query.questions == [.init(name: Name("web.TEST")!, type: 1)])
    #expect(query.udpPayloadSize == 1232)
    var answer = Message(id: query.id)
    answer.isResponse = true
    answer.authoritative = true
    answer.questions = query.questions
    answer.answers = [.init(name: query.questions[0].name, type: 1, ttl: 1, data: [10, 0, 0, 2])]
    #expect(
      answer.encoded()
        == bytes(
          """
          12 34 84 00 00 01 00 01 00 00 00 00
          03 57 65 62 04 74 65 73 74 00 00 01 00 01
          c0 0c 00 01 00 01 00 00 00 01 00 04 0a 00 00 02
          """))
  }

  @Test("what does not fit is left out, and the asker is told")
  func truncation() throws {
    var answer = Message(id: 1)
    answer.isResponse = true
    answer.questions = [.init(name: Name("many.test")!, type: 1)]
    answer.answers = (0..<100).map { .init(name: Name("many.test")!, type: 1, ttl: 1, data: [10, 0, 0, UInt8($0)]) }
    let short = answer.encoded(limit: 512)
    #expect(short.count <= 512)
    let read = try Message(short)
    #expect(read.truncated && read.answers.count == 30)
    #expect(try Message(answer.encoded()).answers.count == 100)
  }

  @Test(
    "impossible names are refused",
    arguments: [
      "c0 0c 00 01 00 01",  // points at itself
      "c0 ff 00 01 00 01",  // points forward
      "01 61 c0 0c 00 01 00 01",  // a circle
      "40 61 00 00 01 00 01",  // a label type that is not defined
      "3f 61 00 01",  // ends within a label
    ])
  func badNames(_ tail: String) {
    #expect(throws: MessageError.self) { try Message(bytes("00 01 01 00 00 01 00 00 00 00 00 00") + bytes(tail)) }
  }

  @Test("names have bounds")
  func names() {
    #expect(Name(String(repeating: "a", count: 64)) == nil)
    #expect(Name(String(repeating: "a", count: 63)) != nil)
    #expect(Name(Array(repeating: "abcdefg", count: 32).joined(separator: ".")) == nil)
    #expect(Name("a..b") == nil)
    #expect(Name("a.b.") == Name("A.B"))
  }

  @Test("no bytes trap, and what was read can be written and read again")
  func fuzz() throws {
    var generator = SystemRandomNumberGenerator()
    var seeds: [[UInt8]] = []
    for name in ["web", "tasks.web", "a.b.c.example"] {
      var message = Message(id: 7)
      message.questions = [.init(name: Name(name)!, type: 1)]
      message.answers = [.init(name: Name(name)!, type: 1, ttl: 1, data: [1, 2, 3, 4])]
      message.udpPayloadSize = 1232
      seeds.append(message.encoded())
    }
    for round in 0..<100_000 {
      var input = round % 4 == 0 ? (0..<Int.random(in: 0...80)).map { _ in UInt8.random(in: 0...255, using: &generator) } : seeds.randomElement()!
      if !input.isEmpty {
        for _ in 0..<Int.random(in: 0...4) { input[Int.random(in: 0..<input.count)] = UInt8.random(in: 0...255, using: &generator) }
        if round % 3 == 0 { input.removeLast(Int.random(in: 0..<input.count)) }
      }
      guard let message = try? Message(input) else { continue }
      let again = try Message(message.encoded())
      #expect(again.questions == message.questions)
      if !again.truncated { #expect(again.answers == message.answers) }
      _ = Zone().resolve(message, from: DNSClient(networks: [], forwards: false), turn: round)
    }
  }
}
