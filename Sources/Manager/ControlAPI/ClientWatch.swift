import Hummingbird
import HummingbirdCore
import NIOCore

/// Hears that a connection's client is gone, or has closed its half, though nobody reads what it sent: NIO goes on to the end of a connection that the
/// kernel calls closed (EPOLLRDHUP), however much waits.
final class ClientWatch: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = Any
  private var closed: EventLoopPromise<Void>?

  func handlerAdded(context: ChannelHandlerContext) { closed = context.eventLoop.makePromise() }
  func handlerRemoved(context: ChannelHandlerContext) { closed?.succeed() }
  func channelInactive(context: ChannelHandlerContext) {
    closed?.succeed()
    context.fireChannelInactive()
  }
  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if event as? ChannelEvent == .inputClosed { closed?.succeed() }
    context.fireUserInboundEventTriggered(event)
  }

  /// A stream of nothing that ends with the client.
  static func closed(of channel: any Channel) async throws -> AsyncStream<Void> {
    let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
    try await channel.eventLoop.submit {
      let watch = try channel.pipeline.syncOperations.handler(type: ClientWatch.self)
      if let closed = watch.closed { closed.futureResult.whenComplete { _ in continuation.finish() } } else { continuation.finish() }
    }.get()
    return stream
  }
}

/// A request's connection, beside what hummingbird keeps.
struct ConnectionContext: RequestContext {
  var coreContext: CoreRequestContextStorage
  let channel: any Channel
  init(source: ApplicationRequestContextSource) {
    coreContext = .init(source: source)
    channel = source.channel
  }
}
