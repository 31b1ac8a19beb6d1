import Crypto
import FoundationEssentials
import Model
import SwiftASN1
import X509

/// The cluster's own certificate authority: a self-signed P-256 certificate, valid for 20 years, and its key. Held by managers only.
public struct CertificateAuthority: Sendable {
  /// 90 days as SwarmKit's default; both ends backdated by an hour, for hosts whose clocks differ.
  public static let nodeValidity = Nanoseconds.seconds(90 * 86_400)
  public static let backdate = Nanoseconds.seconds(3600)
  static let ownValidity = Nanoseconds.seconds(20 * 365 * 86_400)

  public let cluster: ClusterID
  public let certificatePEM: String
  public let digest: CADigest
  private let certificate: Certificate
  private let key: Certificate.PrivateKey

  /// A new authority for a new cluster.
  public static func make(cluster: ClusterID, now: Timestamp) throws(IdentityError) -> CertificateAuthority {
    let key = P256.Signing.PrivateKey()
    do {
      let name = try DistinguishedName {
        OrganizationName(cluster.description)
        CommonName("orch-ca")
      }
      let certificate = try Certificate(
        version: .v3, serialNumber: .init(), publicKey: .init(key.publicKey), notValidBefore: date(now, minus: backdate),
        notValidAfter: date(now + ownValidity), issuer: name, subject: name,
        extensions: Certificate.Extensions {
          Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
          Critical(KeyUsage(keyCertSign: true, cRLSign: true))
          SubjectKeyIdentifier(hash: Certificate.PublicKey(key.publicKey))
        },
        issuerPrivateKey: .init(key))
      return try CertificateAuthority(certificatePEM: certificate.serializeAsPEM().pemString, keyPEM: key.pemRepresentation)
    } catch let error as IdentityError {
      throw error
    } catch {
      throw .certificate("cannot make the cluster's authority: \(error)")
    }
  }

  /// From what `make` gave; refuses a key that does not belong to the certificate.
  public init(certificatePEM: String, keyPEM: String) throws(IdentityError) {
    do {
      certificate = try Certificate(pemEncoded: certificatePEM)
      key = try Certificate.PrivateKey(pemEncoded: keyPEM)
    } catch {
      throw .certificate("the cluster's authority cannot be read: \(error)")
    }
    guard key.publicKey == certificate.publicKey else { throw .certificate("the authority's key does not belong to its certificate") }
    self.certificatePEM = certificatePEM
    digest = try CADigest(pem: certificatePEM)
    cluster = try Subject(certificate).cluster
  }

  public var keyPEM: String {
    get throws(IdentityError) {
      do { return try key.serializeAsPEM().pemString } catch { throw .certificate("the authority's key cannot be written: \(error)") }
    }
  }

  /// Signs `signingRequest`'s key, and nothing else of the request, as `node` with `role`. PEM to PEM; about half a millisecond.
  /// `hosts` (names or addresses under which the API is reached) are for managers alone: a worker could otherwise
  /// hold a certificate in a manager's name.
  public func issue(_ signingRequest: String, node: NodeID, role: NodeRole, hosts: [String] = [], now: Timestamp) throws(IdentityError)
    -> String
  {
    let publicKey = try Self.publicKey(of: signingRequest)
    var names: [GeneralName] = [.dnsName(node.description), .dnsName("localhost"), generalName("127.0.0.1")]
    if role == .manager { for host in hosts.prefix(32) where !host.isEmpty && host.utf8.count < 254 { names.append(generalName(host)) } }
    do {
      let subject = try Subject(PeerIdentity(cluster: cluster, node: node, role: role)).name()
      let extensions = try Certificate.Extensions {
        try ExtendedKeyUsage([.serverAuth, .clientAuth])
        SubjectAlternativeNames(names)
      }
      return try sign(publicKey, subject, extensions, until: now + Self.nodeValidity, now: now)
    } catch {
      throw .certificate("cannot issue a certificate for node \(node): \(error)")
    }
  }

  /// The request's key, when whoever asks holds it.
  static func publicKey(of signingRequest: String) throws(IdentityError) -> Certificate.PublicKey {
    guard signingRequest.utf8.count <= 16 << 10 else { throw .signingRequest("longer than 16 KiB") }
    let request: CertificateSigningRequest
    do { request = try CertificateSigningRequest(pemEncoded: signingRequest) } catch { throw .signingRequest("not a PEM request: \(error)") }
    guard P256.Signing.PublicKey(request.publicKey) != nil else { throw .signingRequest("its key is not P-256") }
    guard request.publicKey.isValidSignature(request.signature, for: request) else {
      throw .signingRequest("its signature is not of its own key: the requester does not hold the key")
    }
    return request.publicKey
  }

  /// PEM of a leaf with what all leaves have, and `more`.
  func sign(
    _ publicKey: Certificate.PublicKey, _ subject: DistinguishedName, _ more: Certificate.Extensions, until: Timestamp, now: Timestamp
  ) throws -> String {
    var extensions = try Certificate.Extensions {
      Critical(BasicConstraints.notCertificateAuthority)
      Critical(KeyUsage(digitalSignature: true))
      SubjectKeyIdentifier(hash: publicKey)
      AuthorityKeyIdentifier(keyIdentifier: try certificate.extensions.subjectKeyIdentifier?.keyIdentifier)
    }
    for item in more { try extensions.append(item) }
    return try Certificate(
      version: .v3, serialNumber: .init(), publicKey: publicKey, notValidBefore: date(now, minus: Self.backdate), notValidAfter: date(until),
      issuer: certificate.subject, subject: subject,
      extensions: extensions, issuerPrivateKey: key
    ).serializeAsPEM().pemString
  }
}

/// SHA-256 of the CA certificate's DER form: what a join token promises.
public struct CADigest: Hashable, Sendable, CustomStringConvertible {
  /// 32 bytes.
  public let bytes: [UInt8]

  init(bytes: [UInt8]) { self.bytes = bytes }
  init(der: some Collection<UInt8>) { bytes = Array(SHA256.hash(data: Array(der))) }

  public init(pem: String) throws(IdentityError) {
    do { self.init(der: try PEMDocument(pemString: pem).derBytes) } catch { throw .certificate("not PEM: \(error)") }
  }

  public var description: String { Base36.encode(bytes, digits: 50) }
  public static func == (a: Self, b: Self) -> Bool { constantTimeEquals(a.bytes, b.bytes) }
}

func date(_ instant: Timestamp, minus span: Nanoseconds = 0) -> Date {
  Date(timeIntervalSince1970: Double(instant.nanoseconds - span.rawValue) / 1e9)
}

/// An IPv4 address in four bytes, or a name.
private func generalName(_ host: String) -> GeneralName {
  guard let address = IPv4Address(host) else { return .dnsName(host) }
  return .ipAddress(ASN1OctetString(contentBytes: [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: address.rawValue >> $0) }[...]))
}
