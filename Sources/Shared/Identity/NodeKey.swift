import Crypto
import Model
import X509

/// A node's or a user's own P-256 key, made where it is used; only its signing request leaves that place.
public struct NodeKey: Sendable {
  let key: P256.Signing.PrivateKey

  public init() { key = P256.Signing.PrivateKey() }

  public init(pem: String) throws(IdentityError) {
    do { key = try P256.Signing.PrivateKey(pemRepresentation: pem) } catch { throw .certificate("the node's key cannot be read: \(error)") }
  }

  /// PKCS #8 PEM.
  public var pem: String { key.pemRepresentation }

  /// PEM of a request (RFC 2986) whose signature proves possession of the key; the issuer chooses everything else.
  public func signingRequest() throws(IdentityError) -> String {
    do {
      return try CertificateSigningRequest(
        version: .v1, subject: DistinguishedName { CommonName("joining") }, privateKey: .init(key), attributes: .init([]),
        signatureAlgorithm: .ecdsaWithSHA256
      ).serializeAsPEM().pemString
    } catch {
      throw .signingRequest("cannot be made: \(error)")
    }
  }
}
