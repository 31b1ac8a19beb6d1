// Room: DNS. Answers names inside containers, asked at 127.0.0.11:53 of each: services, tasks and aliases of the networks that the asking
// container is attached to; all other names go to the host's own resolvers.
// Invariants: no bytes from outside trap; an answer is a function of the zone, the client and the question. Refuses to know how names
// came to be (the manager's records say) and how packets travel.

/// A DNS message as far as we read and write it (RFC 1035 4). Records keep their data as bytes; only names in them are understood
/// where we make them.
public struct Message: Hashable, Sendable {
  public var id: UInt16
  public var isResponse = false
  public var opcode: UInt8 = 0
  public var authoritative = false
  public var truncated = false
  public var recursionDesired = false
  public var recursionAvailable = false
  public var code: ResponseCode = .noError
  public var questions: [Question] = []
  public var answers: [Record] = []
  /// EDNS0 (RFC 6891): the largest UDP answer that the asker takes; nil when it said nothing.
  public var udpPayloadSize: UInt16?
  /// Of EDNS; 0 is the only one there is.
  public var ednsVersion: UInt8 = 0
  /// The upper eight bits of the response code, which EDNS carries: 1 is BADVERS (RFC 6891 6.1.3).
  public var extendedCode: UInt8 = 0

  public init(id: UInt16) { self.id = id }

  public enum ResponseCode: UInt8, Sendable { case noError = 0, formatError, serverFailure, nameError, notImplemented, refused }

  public struct Question: Hashable, Sendable {
    public var name: Name
    public var type: UInt16
    public var recordClass: UInt16
    public init(name: Name, type: UInt16, recordClass: UInt16 = 1) {
      self.name = name
      self.type = type
      self.recordClass = recordClass
    }
  }
  public struct Record: Hashable, Sendable {
    public var name: Name
    public var type: UInt16
    public var recordClass: UInt16 = 1
    public var ttl: UInt32
    public var data: [UInt8]
    public init(name: Name, type: UInt16, ttl: UInt32, data: [UInt8]) {
      self.name = name
      self.type = type
      self.ttl = ttl
      self.data = data
    }
  }
}

public enum RecordType {
  public static let a: UInt16 = 1
  static let ns: UInt16 = 2
  static let soa: UInt16 = 6
  public static let ptr: UInt16 = 12
  public static let aaaa: UInt16 = 28
  public static let srv: UInt16 = 33
  static let opt: UInt16 = 41
  static let ds: UInt16 = 43
  static let dnskey: UInt16 = 48
  public static let any: UInt16 = 255
}

/// A domain name; letters compare without case (RFC 4343), and the spelling of the asker is kept for the answer.
public struct Name: Sendable, CustomStringConvertible {
  public let labels: [[UInt8]]
  /// nil when a label is empty or over 63 bytes, or the whole over 255 on the wire. A dot at the end is accepted.
  public init?(_ text: some StringProtocol) {
    var parts = Array(text.utf8).split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).map { Array($0) }
    if parts.last == [] { parts.removeLast() }
    self.init(labels: parts)
  }
  init?(labels: [[UInt8]]) {
    guard labels.allSatisfy({ (1...63).contains($0.count) }), labels.reduce(1, { $0 + $1.count + 1 }) <= 255 else { return nil }
    self.labels = labels
  }
  public var description: String { labels.map { String(decoding: $0, as: UTF8.self) }.joined(separator: ".") }
  /// Uncompressed (RFC 1035 3.1).
  var wire: [UInt8] {
    var bytes: [UInt8] = []
    for label in labels {
      bytes.append(UInt8(label.count))
      bytes += label
    }
    bytes.append(0)
    return bytes
  }
  /// The text by which it is found in a zone.
  public var key: String { String(decoding: labels.joined(separator: [UInt8(ascii: ".")]).map(Self.lower), as: UTF8.self) }
  static func lower(_ byte: UInt8) -> UInt8 { byte >= 65 && byte <= 90 ? byte + 32 : byte }
}

extension Name: Hashable {
  public static func == (a: Self, b: Self) -> Bool { a.labels.count == b.labels.count && a.key == b.key }
  public func hash(into hasher: inout Hasher) { hasher.combine(key) }
}
