// Identity: who a daemon is. One certificate authority per cluster, one certificate per node, and the join tokens
// with which a node that has none yet gets one.
//
// Invariants
// - A certificate names cluster (O), node (CN) and role (OU), in the form of SwarmKit's (swarmkit ca/certificates.go);
//   nothing that a peer says about itself outside its certificate is believed.
// - The role is decided by the token that was shown, the node id by the issuer; a signing request brings a key and nothing else.
// - A joiner knows the digest of the CA before it sends its secret: it speaks to nobody else.
// - Secrets are compared in constant time; private keys leave this room only as PEM for a 0600 file or for TLS.
//
// Refuses to know: sockets, frames, what a role may do (Transport's router decides that), where the state is kept.

import Model

/// Who the other end of a verified connection is.
public struct PeerIdentity: Hashable, Sendable, CustomStringConvertible {
  public var cluster: ClusterID
  public var node: NodeID
  public var role: NodeRole

  public init(cluster: ClusterID, node: NodeID, role: NodeRole) {
    self.cluster = cluster
    self.node = node
    self.role = role
  }

  public var description: String { "\(role.rawValue) \(node)" }
}

/// What can be wrong with certificates, tokens, keys and their files; each says what to do where the user can do something.
public enum IdentityError: Error, Hashable, Sendable, CustomStringConvertible {
  case token(String)
  case certificate(String)
  case signingRequest(String)
  /// Sealed bytes that this key does not open: another key, or not what was sealed.
  case sealed(String)
  case file(operation: String, path: String, cause: String)

  public var description: String {
    switch self {
    case .token(let reason): "join token: \(reason)"
    case .certificate(let reason): "certificate: \(reason)"
    case .signingRequest(let reason): "certificate signing request: \(reason)"
    case .sealed(let reason): "sealed data: \(reason)"
    case .file(let operation, let path, let cause): "\(operation) \(path): \(cause)"
    }
  }
}

/// Time depends on the lengths alone. For secrets and digests.
public func constantTimeEquals(_ a: some Collection<UInt8>, _ b: some Collection<UInt8>) -> Bool {
  guard a.count == b.count else { return false }
  var difference: UInt8 = 0
  for (left, right) in zip(a, b) { difference |= left ^ right }
  return difference == 0
}
