import Glibc

/// The kernel, or the way to it, said no.
public struct NetlinkError: Error, Hashable, Sendable, CustomStringConvertible {
  public var operation: String
  public var object: String
  public var errno: Int32
  /// The kernel's extended acknowledgement, if it sent one.
  public var detail: String

  public init(operation: String, object: String, errno: Int32, detail: String = "") {
    self.operation = operation
    self.object = object
    self.errno = errno
    self.detail = detail
  }
  public var description: String {
    "\(operation) \(object): \(String(cString: strerror(errno)))\(detail.isEmpty ? "" : " (\(detail))")"
  }
}

/// A NETLINK_ROUTE (or other) socket of the network namespace that the opening thread was in; it stays with that namespace whoever uses it.
/// Blocking: use it on a thread of your own. Not safe for two threads at once.
public final class NetlinkSocket {
  private let descriptor: Int32
  private var sequence: UInt32 = 1
  private var buffer = [UInt8](repeating: 0, count: 1 << 16)

  public convenience init() throws(NetlinkError) { try self.init(family: 0) }

  /// `family` is netlink(7)'s.
  init(family: Int32) throws(NetlinkError) {
    descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), family)
    guard descriptor >= 0 else { throw NetlinkError(operation: "open", object: "netlink socket", errno: Glibc.errno) }
    // nl_pid 0: the kernel chooses; getpid() would let one socket per process bind.
    var address: [UInt8] = nativeBytes(UInt16(AF_NETLINK)) + [UInt8](repeating: 0, count: 10)
    let bound = address.withUnsafeMutableBytes {
      bind(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), 12)
    }
    guard bound == 0 else {
      let error = Glibc.errno
      close(descriptor)
      throw NetlinkError(operation: "bind", object: "netlink socket", errno: error)
    }
    var on: Int32 = 1
    let size = socklen_t(MemoryLayout<Int32>.size)
    setsockopt(descriptor, 270, 11, &on, size)  // NETLINK_EXT_ACK
    setsockopt(descriptor, 270, 10, &on, size)  // NETLINK_CAP_ACK: errors do not repeat the request
    setsockopt(descriptor, 270, 12, &on, size)  // NETLINK_GET_STRICT_CHK: dumps honour their filters
    var room: Int32 = 4 << 20
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &room, size)
  }
  deinit { close(descriptor) }

  /// Sends all messages, many in one datagram, and waits for every answer. All are tried; the first refusal that its message does
  /// not tolerate is thrown.
  public func perform(_ messages: [NetlinkMessage]) throws(NetlinkError) {
    if let first = try refusals(of: messages).min(by: { $0.key < $1.key }) { throw first.value }
  }

  /// The same; returns what was refused, by the message's number in the list.
  public func refusals(of messages: [NetlinkMessage]) throws(NetlinkError) -> [Int: NetlinkError] {
    var refused: [Int: NetlinkError] = [:]
    // The kernel stops at no refusal: each message of a datagram gets its own answer. 64 answers fit any receive buffer.
    var rest = messages[...]
    while !rest.isEmpty {
      let batch = rest.prefix(64)
      rest = rest.dropFirst(batch.count)
      var bytes: [UInt8] = []
      var waiting: [UInt32: Int] = [:]
      for (index, message) in zip(batch.indices, batch) {
        var stamped = message
        let number = next()
        stamped.stamp(sequence: number)
        stamped.wantAcknowledgement()
        bytes += stamped.bytes
        waiting[number] = index
      }
      try transmit(bytes, for: batch.first!)
      while !waiting.isEmpty {
        for reply in try receive(for: batch.first!) where reply.type == 2 {
          guard let index = waiting.removeValue(forKey: reply.sequence) else { continue }
          let message = messages[index]
          if let error = Self.refusal(reply, of: message), !message.tolerated.contains(error.errno) { refused[index] = error }
        }
      }
    }
    return refused
  }

  /// Every message of a dump. Restarted up to five times when the kernel says that it changed meanwhile.
  public func dump(_ request: NetlinkMessage) throws(NetlinkError) -> [NetlinkReply] {
    for attempt in 1...5 {
      var stamped = request
      let number = next()
      stamped.stamp(sequence: number)
      try transmit(stamped.bytes, for: request)
      var result: [NetlinkReply] = []
      var interrupted = false
      reading: while true {
        for reply in try receive(for: request) where reply.sequence == number {
          if reply.flags & 0x10 != 0 { interrupted = true }  // NLM_F_DUMP_INTR
          switch reply.type {
          case 2: if let error = Self.refusal(reply, of: request) { throw error } else { break reading }
          case 3: break reading
          default: result.append(reply)
          }
        }
      }
      if !interrupted || attempt == 5 { return result }
    }
    return []
  }

  private func next() -> UInt32 {
    sequence = sequence == .max ? 1 : sequence + 1
    return sequence
  }

  private func transmit(_ bytes: [UInt8], for message: NetlinkMessage) throws(NetlinkError) {
    while send(descriptor, bytes, bytes.count, 0) < 0 {
      guard Glibc.errno == EINTR else { throw NetlinkError(operation: message.operation, object: message.object, errno: Glibc.errno) }
    }
  }

  private func receive(for message: NetlinkMessage) throws(NetlinkError) -> [NetlinkReply] {
    while true {
      // MSG_TRUNC: the real length, so that a cut datagram is noticed.
      let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_TRUNC))
      if count < 0, Glibc.errno == EINTR { continue }
      guard count >= 0 else { throw NetlinkError(operation: message.operation, object: message.object, errno: Glibc.errno) }
      guard count <= buffer.count, let replies = NetlinkReply.split(Array(buffer[..<count])) else {
        throw NetlinkError(operation: message.operation, object: message.object, errno: EMSGSIZE, detail: "malformed answer of the kernel")
      }
      return replies
    }
  }

  /// nil for an acknowledgement. NLMSG_ERROR: errno, the request's header, then (NLM_F_ACK_TLVS) attributes; 1 is the text.
  static func refusal(_ reply: NetlinkReply, of message: NetlinkMessage) -> NetlinkError? {
    let code = reply.payload.read(Int32.self, at: 0)
    guard code != 0 else { return nil }
    var detail = ""
    if reply.flags & 0x200 != 0 {
      let capped = reply.flags & 0x100 != 0
      let skip = capped ? 20 : 4 + Int(reply.payload.read(UInt32.self, at: 4))
      if let text = reply.attributes(after: (skip + 3) & ~3)[1] { detail = String(decoding: text.prefix { $0 != 0 }, as: UTF8.self) }
    }
    return NetlinkError(operation: message.operation, object: message.object, errno: 0 &- code, detail: detail)
  }
}
