import Model

/// Answers of the host's resolvers, for as long as they may be kept (RFC 1035 7.4; what is not there: RFC 2308 5). A value; times are milliseconds.
/// Bounds: 1,024 answers (128 of a task's own servers) of at most 4,096 bytes; an hour, five minutes for what is not there. When it is full the expired go, or else all.
struct AnswerCache {
  let answersMax: Int
  static let bytesMax = 4096
  static let timeMax: Int64 = 3_600_000
  static let negativeTimeMax: Int64 = 300_000

  private struct Kept {
    var answer: [UInt8]
    var ttls: [Int]
    var since: Int64
    var until: Int64
  }
  private var kept: [[UInt8]: Kept] = [:]

  init(answersMax: Int = 1024) { self.answersMax = answersMax }
  var count: Int { kept.count }

  mutating func removeAll() { kept = [:] }

  /// The answer to these bytes of a query: its id, its spelling of the name, and what is left of each TTL.
  func answer(_ query: [UInt8], at now: Int64) -> [UInt8]? {
    guard let key = Self.key(query), let kept = kept[key], kept.until > now else { return nil }
    var answer = kept.answer
    let end = Self.questionEnd(query)!
    answer.replaceSubrange(0..<2, with: query[0..<2])
    answer.replaceSubrange(12..<end, with: query[12..<end])
    let passed = UInt32(clamping: (now - kept.since) / 1000)
    for offset in kept.ttls {
      let ttl = Self.uint32(answer, offset)
      let left = ttl > passed ? ttl - passed : 0
      for byte in 0..<4 { answer[offset + byte] = UInt8(truncatingIfNeeded: left >> UInt32(24 - 8 * byte)) }
    }
    return answer
  }

  /// Keeps what may be kept: a whole answer to this very question that says a name's data, that it has none of the kind, or that it is not there.
  mutating func keep(_ answer: [UInt8], to query: [UInt8], at now: Int64) {
    guard let key = Self.key(query), let end = Self.questionEnd(query), answer.count >= end, answer.count <= Self.bytesMax,
      answer[2] & 0xfa == 0x80 | query[2] & 0x78, answer[3] & 0x0f == 0 || answer[3] & 0x0f == 3,
      answer[4..<6] == [0, 1], answer[12..<end].map(Name.lower) == query[12..<end].map(Name.lower), let found = Self.scan(answer, end)
    else { return }
    let time = found.seconds * 1000
    guard time > 0 else { return }
    if kept.count >= answersMax {
      kept = kept.filter { $0.value.until > now }
      if kept.count >= answersMax { kept = [:] }
    }
    kept[key] = Kept(answer: answer, ttls: found.ttls, since: now, until: now + min(time, found.isNegative ? Self.negativeTimeMax : Self.timeMax))
  }

  /// All of a query but its id, the name without case: flags and EDNS change what is answered. nil: not one question.
  static func key(_ query: [UInt8]) -> [UInt8]? {
    guard let end = questionEnd(query) else { return nil }
    return query[2..<12] + query[12..<end - 4].map(Name.lower) + query[(end - 4)...]
  }

  /// Where the one question of a query ends; its name is not compressed.
  static func questionEnd(_ query: [UInt8]) -> Int? {
    guard query.count >= 17, query[2] & 0x80 == 0, query[4..<6] == [0, 1] else { return nil }
    var offset = 12
    while offset < query.count, query[offset] != 0 {
      guard query[offset] < 64 else { return nil }
      offset += Int(query[offset]) + 1
    }
    return offset + 5 <= query.count ? offset + 5 : nil
  }

  /// Where the TTLs are, and how long it may be kept; nil: not at all. `end`: of its question.
  private static func scan(_ answer: [UInt8], _ end: Int) -> (ttls: [Int], seconds: Int64, isNegative: Bool)? {
    var offset = end
    var ttls: [Int] = []
    var least = UInt32.max
    var authority: UInt32?
    let answers = uint16(answer, 6)
    let others = (uint16(answer, 8), uint16(answer, 10))
    for number in 0..<answers + others.0 + others.1 {
      while true {
        guard offset < answer.count else { return nil }
        let length = answer[offset]
        if length >= 0xc0 {
          offset += 2
          break
        }
        guard length < 64 else { return nil }
        offset += Int(length) + 1
        if length == 0 { break }
      }
      guard offset + 10 <= answer.count else { return nil }
      let (type, ttl, data) = (UInt16(uint16(answer, offset)), uint32(answer, offset + 4), uint16(answer, offset + 8))
      guard offset + 10 + data <= answer.count else { return nil }
      if type != RecordType.opt {
        ttls.append(offset + 4)
        // RFC 2181 8: the highest bit set is 0.
        least = min(least, ttl > Int32.max ? 0 : ttl)
      }
      offset += 10 + data
      // The last field of an SOA is how long one may say that there is nothing.
      if type == RecordType.soa, number >= answers, number < answers + others.0, data >= 22 { authority = min(ttl, uint32(answer, offset - 4)) }
    }
    let isNegative = answers == 0 || answer[3] & 0x0f == 3
    if isNegative { return authority.map { (ttls, Int64(min($0, least)), true) } }
    return (ttls, Int64(least), false)
  }

  private static func uint16(_ bytes: [UInt8], _ offset: Int) -> Int { Int(bytes[offset]) << 8 | Int(bytes[offset + 1]) }
  private static func uint32(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
    UInt32(uint16(bytes, offset)) << 16 | UInt32(uint16(bytes, offset + 2))
  }
}
