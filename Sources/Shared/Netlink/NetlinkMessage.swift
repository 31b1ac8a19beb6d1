// Room: Netlink. Speaks netlink with the kernel: links, addresses, neighbours, forwarding entries, routes; flows to be forgotten.
// Invariants: messages are built by appending, lengths are patched once; every reply is matched by sequence number;
// every refusal carries operation, object, errno and the kernel's own words. Refuses to know what an overlay is.

/// One netlink message, built by appending (RFC 3549; linux/netlink.h). Host byte order unless said otherwise.
public struct NetlinkMessage: Sendable, Equatable {
  /// With the 16-byte header; the length field is kept right after each append. Sequence and port stay zero until sent.
  public private(set) var bytes: [UInt8]
  /// What it does and to whom, for errors.
  public let operation: String
  public let object: String
  /// A refusal with one of these errnos is no error: the state already is as asked.
  public var tolerated: Set<Int32> = []

  public init(type: UInt16, flags: UInt16, operation: String, object: String) {
    bytes = []
    bytes.reserveCapacity(160)
    self.operation = operation
    self.object = object
    bytes.append(native: UInt32(16))
    bytes.append(native: type)
    bytes.append(native: flags | NetlinkFlag.request)
    bytes.append(native: UInt32(0))
    bytes.append(native: UInt32(0))
  }

  /// The fixed part that follows the header, as `ifinfomsg`.
  public mutating func append(_ fixed: [UInt8]) {
    bytes += fixed
    pad()
  }

  public mutating func attribute(_ type: UInt16, _ payload: [UInt8]) {
    bytes.append(native: UInt16(4 + payload.count))
    bytes.append(native: type)
    append(payload)
  }
  public mutating func attribute(_ type: UInt16, _ value: UInt8) { attribute(type, [value]) }
  public mutating func attribute(_ type: UInt16, _ value: UInt16) { attribute(type, nativeBytes(value)) }
  public mutating func attribute(_ type: UInt16, _ value: UInt32) { attribute(type, nativeBytes(value)) }
  /// NUL-terminated.
  public mutating func attribute(_ type: UInt16, _ text: String) { attribute(type, Array(text.utf8) + [0]) }

  /// An attribute that holds attributes.
  public mutating func nested(_ type: UInt16, _ body: (inout NetlinkMessage) -> Void) {
    let start = bytes.count
    bytes.append(native: UInt16(0))
    bytes.append(native: type)
    body(&self)
    bytes.patch(native: UInt16(bytes.count - start), at: start)
    pad()
  }

  mutating func stamp(sequence: UInt32) { bytes.patch(native: sequence, at: 8) }
  mutating func wantAcknowledgement() { bytes.patch(native: bytes.read(UInt16.self, at: 6) | NetlinkFlag.ack, at: 6) }

  private mutating func pad() {
    while bytes.count % 4 != 0 { bytes.append(0) }
    bytes.patch(native: UInt32(bytes.count), at: 0)
  }
}

enum NetlinkFlag {
  static let request: UInt16 = 1
  static let ack: UInt16 = 4
  static let dump: UInt16 = 0x300
  static let replace: UInt16 = 0x100
  static let exclusive: UInt16 = 0x200
  static let create: UInt16 = 0x400
}

public func nativeBytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }
public func networkBytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] { nativeBytes(value.bigEndian) }

extension [UInt8] {
  mutating func append<T: FixedWidthInteger>(native value: T) { Swift.withUnsafeBytes(of: value) { append(contentsOf: $0) } }
  mutating func patch<T: FixedWidthInteger>(native value: T, at offset: Int) {
    Swift.withUnsafeBytes(of: value) { for (index, byte) in $0.enumerated() { self[offset + index] = byte } }
  }
  /// Zero when it does not fit: a short message from the kernel is not a reason to trap.
  func read<T: FixedWidthInteger>(_ type: T.Type, at offset: Int) -> T {
    guard offset >= 0, offset + MemoryLayout<T>.size <= count else { return 0 }
    return self.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: T.self) }
  }
}

/// One message of a reply, with its attributes split.
public struct NetlinkReply: Sendable {
  public var type: UInt16
  public var flags: UInt16
  public var sequence: UInt32
  /// Without the 16-byte header.
  public var payload: [UInt8]

  /// Attributes that follow a fixed part of `offset` bytes; of equal types the last wins. Stops at the first that is cut.
  public func attributes(after offset: Int) -> [UInt16: [UInt8]] { splitAttributes(payload[...].dropFirst(offset)) }

  /// Splits one datagram; nil when a length is impossible.
  public static func split(_ datagram: [UInt8]) -> [NetlinkReply]? {
    var replies: [NetlinkReply] = []
    var offset = 0
    while offset + 16 <= datagram.count {
      let length = Int(datagram.read(UInt32.self, at: offset))
      guard length >= 16, offset + length <= datagram.count else { return nil }
      replies.append(
        NetlinkReply(
          type: datagram.read(UInt16.self, at: offset + 4), flags: datagram.read(UInt16.self, at: offset + 6),
          sequence: datagram.read(UInt32.self, at: offset + 8), payload: Array(datagram[offset + 16..<offset + length])))
      offset += (length + 3) & ~3
    }
    return replies
  }
}

/// The type's upper two bits (nested, network byte order) are cut off.
public func splitAttributes(_ bytes: ArraySlice<UInt8>) -> [UInt16: [UInt8]] {
  let bytes = Array(bytes)
  var result: [UInt16: [UInt8]] = [:]
  var offset = 0
  while offset + 4 <= bytes.count {
    let length = Int(bytes.read(UInt16.self, at: offset))
    guard length >= 4, offset + length <= bytes.count else { break }
    result[bytes.read(UInt16.self, at: offset + 2) & 0x3fff] = Array(bytes[offset + 4..<offset + length])
    offset += (length + 3) & ~3
  }
  return result
}
