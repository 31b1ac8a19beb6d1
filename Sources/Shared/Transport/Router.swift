import Identity
import Logging
import Model
import SwiftProtobuf
import Synchronization

/// Which handler answers a method, and who may call it: the one place where roles are checked, for every stream.
public final class Router: Sendable {
  /// `peer` is nil for a joiner without certificate only. What it throws ends the stream as a `StreamError`; when it returns, the
  /// stream ends. Its task is cancelled when the stream is lost.
  public typealias Handler = @Sendable (_ peer: PeerIdentity?, _ stream: TransportStream) async throws -> Void

  public struct Callers: OptionSet, Sendable {
    public let rawValue: Int
    public init(rawValue: Int) { self.rawValue = rawValue }
    public static let manager = Callers(rawValue: 1)
    public static let worker = Callers(rawValue: 2)
    /// Without a certificate.
    public static let stranger = Callers(rawValue: 4)
    public static let anyone: Callers = [.manager, .worker, .stranger]
  }

  struct Entry {
    var callers: Callers
    var onEventLoop: Bool
    var handler: Handler
  }
  private struct State {
    var entries: [Method: Entry] = [:]
    var admission: (@Sendable (PeerIdentity, Method) -> StreamError?)?
  }
  private let state = Mutex(State())

  public init() {}

  /// Replaces an earlier handler of the method. `onEventLoop`: it runs on its connection's event loop instead of the pool, which saves two
  /// changes of threads for each message; for handlers that neither block nor compute, since everything else on the loop waits.
  public func on(_ method: Method, allow callers: Callers, onEventLoop: Bool = false, _ handler: @escaping Handler) {
    precondition(method.rawValue.utf8.count <= 64)
    state.withLock { $0.entries[method] = Entry(callers: callers, onEventLoop: onEventLoop, handler: handler) }
  }

  /// One request, one response.
  public func unary<Request: Message & Sendable, Response: Message & Sendable>(
    _ method: Method, allow callers: Callers,
    _ handler: @escaping @Sendable (_ peer: PeerIdentity?, _ request: Request) async throws -> Response
  ) {
    on(method, allow: callers) { peer, stream in
      guard let request = try await stream.receive(Request.self) else { throw StreamError(.invalidArgument, "\(method): no request") }
      try await stream.send(handler(peer, request), end: true)
    }
  }

  /// Asked for every stream of a peer with a certificate: a node that has been removed is refused at once, whatever its certificate says.
  public func admit(_ decide: @escaping @Sendable (PeerIdentity, Method) -> StreamError?) { state.withLock { $0.admission = decide } }

  func handler(for method: Method, peer: PeerIdentity?) -> Result<Entry, StreamError> {
    let (entry, admission) = state.withLock { ($0.entries[method], $0.admission) }
    guard let entry else { return .failure(StreamError(.unimplemented, "this daemon does not answer \(method)")) }
    let caller: Callers =
      switch peer?.role {
      case .manager: .manager
      case .worker: .worker
      case nil: .stranger
      }
    guard entry.callers.contains(caller) else {
      let who = peer.map { "a \($0.role.rawValue)'s certificate (node \($0.node))" } ?? "a connection without a certificate"
      return .failure(StreamError(.permissionDenied, "\(method) is not allowed with \(who)"))
    }
    if let peer, let refusal = admission?(peer, method) { return .failure(refusal) }
    return .success(entry)
  }
}
