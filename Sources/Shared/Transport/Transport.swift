// Transport: everything that daemons say to each other. Length-prefixed protobuf frames (Wire/Protos/frame.proto) over
// TLS 1.3 on swift-nio; one connection carries any number of numbered streams, which both ends may open.
//
// Why not gRPC: measured on two cores with mutual TLS, a message to and fro on a gRPC stream takes 0.7-1 ms and 0.1 ms as frames
// on NIO; a commit waits for one such round trip beside an fsync of 0.135 ms. One stack for everything is simpler than two.
//
// Invariants
// - Every stream is checked against the role in the peer's certificate before its handler runs (Router).
// - Every queue is bounded: `Limits`. A sender without credit waits; a peer that sends without credit is disconnected.
// - A frame that is malformed, too large or out of order closes the connection, with the reason in the log; nothing else happens.
// - A silent peer is noticed within about 3 s; every stream of a lost connection ends with an error that says so.
//
// Refuses to know: what is said (payloads are bytes; handlers belong to other rooms), who leads, where peers live.

import Model

/// What a stream is about.
public struct Method: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  /// At most 64 bytes.
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }
  public var description: String { rawValue }

  /// Raft messages, manager to manager; one stream each way for as long as the connection lives.
  public static let raft = Method(rawValue: "raft")
  public static let raftSnapshot = Method(rawValue: "raft.snapshot")
  /// Proposals and reads that a follower hands to the leader.
  public static let propose = Method(rawValue: "propose")
  public static let readIndex = Method(rawValue: "read-index")
  /// A whole request of the public API that a follower hands to the leader.
  public static let forwardAPI = Method(rawValue: "api")
  public static let joinIssueCertificate = Method(rawValue: "join.certificate")
  public static let joinMember = Method(rawValue: "join.member")
  public static let renewCertificate = Method(rawValue: "certificate.renew")
  /// An agent's session with the leader.
  public static let session = Method(rawValue: "session")
  /// Opened by managers on the connection an agent dialled.
  public static let exec = Method(rawValue: "exec")
  public static let logs = Method(rawValue: "logs")
  public static let imageLoad = Method(rawValue: "image.load")
  public static let imageCommand = Method(rawValue: "image.command")
  public static let imageList = Method(rawValue: "image.list")
  public static let portCheck = Method(rawValue: "port.check")
  public static let volumeRemove = Method(rawValue: "volume.remove")
  /// A request of the public API that concerns one host, as a manager was asked it.
  public static let hostAPI = Method(rawValue: "host.api")
}

/// The bounds of every queue.
public struct Limits: Sendable {
  /// Bytes of one frame, without its length.
  public var frame = 4 << 20
  /// Bytes of a stream that may be sent ahead of their reader, each way; one message may exceed it by its own size.
  public var window = 256 << 10
  /// Streams that the other side may have open.
  public var streams = 1024
  /// Connections of one server.
  public var connections = 4096

  /// For a peer of the cluster.
  public static let member = Limits()
  /// For a joiner, who has shown no certificate.
  public static let stranger: Limits = {
    var limits = Limits()
    limits.frame = 64 << 10
    limits.window = 64 << 10
    limits.streams = 4
    return limits
  }()
  /// Bytes of one message: a frame less its other fields.
  public static let message = (4 << 20) - 1024
  /// What a message costs of its stream's window beside its bytes, so that empty ones are bounded too.
  static let messageOverhead = 64

  /// Every second a ping; this many seconds of silence end the connection.
  static let silentSeconds = 3
  /// A connection that is not a conversation after this long is closed.
  static let handshakeSeconds: Int64 = 10
}
