/// Why bytes are no message.
public enum MessageError: Error, Hashable, Sendable {
  /// Ends before it is complete.
  case short
  /// A name that is too long, points forward or in a circle, or uses a label type that is not defined.
  case badName
  /// Two EDNS records.
  case twoOptions
}

extension Message {
  /// Reads header, questions, answers and the EDNS0 option; authority and other additional records are passed over.
  public init(_ bytes: [UInt8]) throws(MessageError) {
    var reader = Reader(bytes: bytes)
    id = try reader.uint16()
    let flags = try reader.uint16()
    isResponse = flags & 0x8000 != 0
    opcode = UInt8(flags >> 11 & 0xf)
    authoritative = flags & 0x0400 != 0
    truncated = flags & 0x0200 != 0
    recursionDesired = flags & 0x0100 != 0
    recursionAvailable = flags & 0x0080 != 0
    code = ResponseCode(rawValue: UInt8(flags & 0xf)) ?? .serverFailure
    let counts = (try reader.uint16(), try reader.uint16(), try reader.uint16(), try reader.uint16())
    for _ in 0..<counts.0 { questions.append(Question(name: try reader.name(), type: try reader.uint16(), recordClass: try reader.uint16())) }
    for _ in 0..<counts.1 { answers.append(try reader.record()) }
    for _ in 0..<counts.2 { _ = try reader.record() }
    for _ in 0..<counts.3 {
      let record = try reader.record()
      guard record.type == RecordType.opt else { continue }
      // RFC 6891 6.1.1: one at most.
      if udpPayloadSize != nil { throw .twoOptions }
      udpPayloadSize = record.recordClass
      (extendedCode, ednsVersion) = (UInt8(record.ttl >> 24), UInt8(record.ttl >> 16 & 0xff))
    }
  }

  /// At most `limit` bytes: answers that do not fit are left out and TC is set. Questions that do not fit are left out, all of them.
  public func encoded(limit: Int = 65_535) -> [UInt8] {
    var writer = Writer()
    writer.uint16(id)
    writer.uint16(0)
    writer.uint16(UInt16(clamping: questions.count))
    writer.uint16(0)
    writer.uint16(0)
    writer.uint16(udpPayloadSize == nil ? 0 : 1)
    let reserved = udpPayloadSize == nil ? 0 : 11
    var cut = truncated
    let header = writer
    for question in questions {
      writer.name(question.name)
      writer.uint16(question.type)
      writer.uint16(question.recordClass)
    }
    // Names that are short by compression grow when they are written: a hundred times as much as came.
    if writer.bytes.count + reserved > limit {
      writer = header
      writer.bytes.replaceSubrange(4..<6, with: [0, 0])
      cut = true
    }
    var written = 0
    for answer in answers {
      let start = writer.bytes.count
      writer.record(answer)
      if writer.bytes.count + reserved > limit {
        writer.bytes.removeSubrange(start...)
        cut = true
        break
      }
      written += 1
    }
    if udpPayloadSize != nil {
      // Root name, OPT, our own size, extended code, version, no options.
      writer.bytes += [0, 0, 41, 0x10, 0, extendedCode, ednsVersion, 0, 0, 0, 0]
    }
    var flags: UInt16 = UInt16(opcode & 0xf) << 11 | UInt16(code.rawValue)
    if isResponse { flags |= 0x8000 }
    if authoritative { flags |= 0x0400 }
    if cut { flags |= 0x0200 }
    if recursionDesired { flags |= 0x0100 }
    if recursionAvailable { flags |= 0x0080 }
    writer.bytes.replaceSubrange(2..<4, with: [UInt8(flags >> 8), UInt8(flags & 0xff)])
    writer.bytes.replaceSubrange(6..<8, with: [UInt8(written >> 8 & 0xff), UInt8(written & 0xff)])
    return writer.bytes
  }

  private struct Reader {
    let bytes: [UInt8]
    var offset = 0

    mutating func uint8() throws(MessageError) -> UInt8 {
      guard offset < bytes.count else { throw .short }
      defer { offset += 1 }
      return bytes[offset]
    }
    mutating func uint16() throws(MessageError) -> UInt16 { UInt16(try uint8()) << 8 | UInt16(try uint8()) }
    mutating func uint32() throws(MessageError) -> UInt32 { UInt32(try uint16()) << 16 | UInt32(try uint16()) }
    mutating func take(_ count: Int) throws(MessageError) -> [UInt8] {
      guard offset + count <= bytes.count else { throw .short }
      defer { offset += count }
      return Array(bytes[offset..<offset + count])
    }

    /// RFC 1035 4.1.4. A pointer must point before the name it is in, so the walk always ends.
    mutating func name() throws(MessageError) -> Name {
      var labels: [[UInt8]] = []
      var after: Int?
      var floor = offset
      var size = 1
      while true {
        let length = try uint8()
        switch length >> 6 {
        case 0 where length == 0:
          if let after { offset = after }
          guard let name = Name(labels: labels) else { throw .badName }
          return name
        case 0:
          size += Int(length) + 1
          guard size <= 255 else { throw .badName }
          labels.append(try take(Int(length)))
        case 3:
          let target = Int(length & 0x3f) << 8 | Int(try uint8())
          guard target < floor else { throw .badName }
          after = after ?? offset
          floor = target
          offset = target
        default: throw .badName
        }
      }
    }

    mutating func record() throws(MessageError) -> Record {
      let name = try name()
      let type = try uint16()
      let recordClass = try uint16()
      let ttl = try uint32()
      let length = Int(try uint16())
      var record = Record(name: name, type: type, ttl: ttl, data: try take(length))
      record.recordClass = recordClass
      return record
    }
  }

  private struct Writer {
    var bytes: [UInt8] = []
    /// Where a name was written, by its exact bytes.
    private var places: [[UInt8]: Int] = [:]

    mutating func uint16(_ value: UInt16) { bytes += [UInt8(value >> 8), UInt8(value & 0xff)] }
    mutating func name(_ name: Name) {
      let plain = name.wire
      if name.labels.isEmpty {
        bytes.append(0)
      } else if let place = places[plain] {
        uint16(0xc000 | UInt16(place))
      } else {
        if bytes.count < 0x3fff { places[plain] = bytes.count }
        bytes += plain
      }
    }
    mutating func record(_ record: Record) {
      name(record.name)
      uint16(record.type)
      uint16(record.recordClass)
      uint16(UInt16(record.ttl >> 16))
      uint16(UInt16(record.ttl & 0xffff))
      uint16(UInt16(clamping: record.data.count))
      bytes += record.data.prefix(65_535)
    }
  }
}
