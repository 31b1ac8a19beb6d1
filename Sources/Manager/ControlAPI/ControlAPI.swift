// The public API: Docker Engine API paths and behaviour for what Docker has, /orch/v1 for the rest.
//
// Two layers. `ControlAPI.respond(to:)` handles a request that is already parsed values, on the leader; it is used by the server
// shell here and by the daemon's handler of forwarded requests. `ControlServer` is the shell: Hummingbird on a unix socket and,
// if asked for, TCP with mutual TLS.
//
// Invariants: a body over its limit is refused before it is parsed; every error is {"message": …} as application/json; a request
// that changes something is one proposal. It refuses to know: Raft, the store, agents, how a follower reaches its leader.
import Model
import NIOCore

public struct ControlAPI: Sendable {
  let backend: any ControlBackend
  public init(backend: any ControlBackend) { self.backend = backend }
  public func respond(to request: APIRequest) async -> APIResponse { APIResponse(status: 501) }
}
