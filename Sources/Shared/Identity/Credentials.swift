import FoundationEssentials
import Model
import NIOCore
import NIOSSL
import SwiftASN1
import Synchronization
import X509

/// A member's TLS: 1.3 alone, both ends with certificates of the cluster's CA. Replaceable while in use: connections made
/// after `update` use the renewed certificate; those that are open keep theirs.
///
/// Host names are not compared: a node is its id and its role, whatever address it is reached at.
public final class Credentials: Sendable {
  private struct Current {
    var identity: NodeIdentity
    var client: NIOSSLContext
    var server: NIOSSLContext
  }
  private let current: Mutex<Current>

  public init(_ identity: NodeIdentity) throws { current = try Mutex(Self.contexts(identity)) }

  public var identity: NodeIdentity { current.withLock { $0.identity } }
  /// Shows the node's certificate, accepts a server's of the same CA.
  public var client: NIOSSLContext { current.withLock { $0.client } }
  /// Accepts a client with a certificate of the same CA, or with none at all: such a one may only join (the router's matter).
  public var server: NIOSSLContext { current.withLock { $0.server } }

  public func update(_ identity: NodeIdentity) throws {
    let next = try Self.contexts(identity)
    current.withLock { $0 = next }
  }

  private static func contexts(_ identity: NodeIdentity) throws -> Current {
    let chain = try [identity.certificatePEM, identity.authorityPEM].map { try NIOSSLCertificate(bytes: Array($0.utf8), format: .pem) }
    let key = try NIOSSLPrivateKey(bytes: Array(identity.key.pem.utf8), format: .pem)

    var server = TLSConfiguration.makeServerConfiguration(certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
    server.minimumTLSVersion = .tlsv13
    server.trustRoots = .certificates([chain[1]])
    server.certificateVerification = .optionalVerification

    var client = TLSConfiguration.makeClientConfiguration()
    client.minimumTLSVersion = .tlsv13
    client.trustRoots = .certificates([chain[1]])
    client.certificateVerification = .noHostnameVerification
    client.certificateChain = chain.map { .certificate($0) }
    client.privateKey = .privateKey(key)

    return Current(identity: identity, client: try NIOSSLContext(configuration: client), server: try NIOSSLContext(configuration: server))
  }
}

/// TLS of a joiner that has no certificate: accepts exactly a manager whose chain ends in the CA that the token promises.
/// Nothing is sent before that.
public final class JoinCredentials: Sendable {
  public let token: JoinToken
  public let client: NIOSSLContext

  public init(token: JoinToken) throws {
    self.token = token
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.minimumTLSVersion = .tlsv13
    configuration.certificateVerification = .noHostnameVerification
    client = try NIOSSLContext(configuration: configuration)
  }

  /// For NIOSSLClientHandler's `customVerificationCallback`; `refused` hears the reason.
  public func verifier(refused: @escaping @Sendable (IdentityError) -> Void) -> NIOSSLCustomVerificationCallback {
    { [token] chain, promise in
      let ders = chain.prefix(4).map { (try? $0.toDERBytes()) ?? [] }
      promise.completeWithTask {
        do throws(IdentityError) {
          let peer = try await Self.verify(ders, token)
          guard peer.role == .manager else { throw .certificate("the other side is a worker, not a manager") }
          return .certificateVerified
        } catch {
          refused(error)
          return .failed
        }
      }
    }
  }

  /// RFC 5280 path validation from the leaf to the one certificate with the token's digest.
  static func verify(_ chain: [[UInt8]], _ token: JoinToken) async throws(IdentityError) -> PeerIdentity {
    guard let root = chain.first(where: { CADigest(der: $0) == token.authority }) else {
      throw .token("belongs to another cluster: the manager at this address has another certificate authority")
    }
    do {
      let (leaf, authority) = (try Certificate(derEncoded: chain[0]), try Certificate(derEncoded: root))
      var verifier = Verifier(rootCertificates: CertificateStore([authority])) { RFC5280Policy() }
      switch await verifier.validate(leaf: leaf, intermediates: CertificateStore([])) {
      case .validCertificate: return try PeerIdentity(leaf)
      case .couldNotValidate(let failures):
        throw IdentityError.certificate(
          "the manager's is not valid: \(failures.first.map { "\($0.policyFailureReason)" } ?? "not signed by its authority")")
      }
    } catch let error as IdentityError {
      throw error
    } catch {
      throw .certificate("the manager's cannot be parsed: \(error)")
    }
  }
}
