import Crypto
import Model
import X509

/// What a node that has joined holds: its certificate and key, and the cluster's CA certificate.
public struct NodeIdentity: Sendable {
  public let peer: PeerIdentity
  public let certificatePEM: String
  public let authorityPEM: String
  public let key: NodeKey
  /// When the certificate ends; renewal is due well before (SwarmKit: after half to 80% of the validity).
  public let notAfter: Timestamp

  public var cluster: ClusterID { peer.cluster }
  public var node: NodeID { peer.node }
  public var role: NodeRole { peer.role }

  /// Refuses a certificate that is not of this key, not of this authority, or not of a node. Time is TLS's to check.
  public init(certificatePEM: String, key: NodeKey, authorityPEM: String) throws(IdentityError) {
    let certificate: Certificate
    let authority: Certificate
    do {
      certificate = try Certificate(pemEncoded: certificatePEM)
      authority = try Certificate(pemEncoded: authorityPEM)
    } catch {
      throw .certificate("cannot be parsed: \(error)")
    }
    guard certificate.publicKey == Certificate.PublicKey(key.key.publicKey) else {
      throw .certificate("does not belong to this node's key")
    }
    guard authority.publicKey.isValidSignature(certificate.signature, for: certificate) else {
      throw .certificate("is not signed by this cluster's authority")
    }
    peer = try PeerIdentity(certificate)
    guard try Subject(authority).cluster == peer.cluster else { throw .certificate("names another cluster than its authority") }
    notAfter = Timestamp(nanoseconds: Int64(certificate.notValidAfter.timeIntervalSince1970 * 1e9))
    self.certificatePEM = certificatePEM
    self.authorityPEM = authorityPEM
    self.key = key
  }
}
