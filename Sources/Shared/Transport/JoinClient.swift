import Identity
import Logging
import Model
import SwiftProtobuf
import Wire

/// The joiner's side of joining, for managers and agents alike: token and a manager's address in, identity out.
public enum JoinClient {
  public struct Joined: Sendable {
    public var identity: NodeIdentity
    /// "HOST:PORT" of every manager known to the one that answered.
    public var managers: [String]
    /// The joiner's own address on the way to that manager.
    public var localHost: String
  }

  /// Makes a key, has it signed by the manager at `address`. `role`: what the joiner is; the other role's token is refused. `hosts`: names for a manager's API. Waits through elections for up to `patience`.
  /// `own`: the identity of the other daemon on this host; the joiner becomes the same node.
  /// Throws what a user can read: another cluster's token, a secret that is not valid, nobody there.
  public static func requestCertificate(
    token: JoinToken, role: NodeRole, address: HostPort, hostname: String, hosts: [String] = [], sameNodeAs own: NodeIdentity? = nil,
    patience: Duration = .seconds(15), log: Logger
  ) async throws -> Joined {
    let key = NodeKey()
    var request = WireIssueCertificateRequest()
    request.secret = token.secret
    request.signingRequest = try key.signingRequest()
    request.hostname = hostname
    request.role = role.rawValue
    request.hosts = hosts
    request.sameNode = own != nil
    if let own, try CADigest(pem: own.authorityPEM) != token.authority {
      throw IdentityError.token("belongs to another cluster than the other daemon of this host (node \(own.node))")
    }
    let credentials = try JoinCredentials(token: token)
    let ownCredentials = try own.map { try Credentials($0) }
    var address = address
    let deadline = ContinuousClock.now + patience
    while true {
      let connection: Connection
      if let ownCredentials {
        connection = try await TransportClient.connect(host: address.host, port: address.port, credentials: ownCredentials, log: log)
      } else {
        connection = try await TransportClient.join(host: address.host, port: address.port, credentials: credentials, log: log)
      }
      defer { connection.close() }
      do {
        let response: WireIssueCertificateResponse = try await connection.call(.joinIssueCertificate, request)
        guard try CADigest(pem: response.authority) == token.authority else {
          throw IdentityError.token("belongs to another cluster: the manager answered with another certificate authority")
        }
        let identity = try NodeIdentity(certificatePEM: response.certificate, key: key, authorityPEM: response.authority)
        guard identity.role == role else { throw IdentityError.certificate("the manager issued it for a \(identity.role.rawValue)") }
        return Joined(identity: identity, managers: response.managers, localHost: connection.localHost)
      } catch let error as StreamError where [.unavailable, .notLeader].contains(error.code) && ContinuousClock.now < deadline {
        if error.code == .notLeader, let leader = HostPort(error.detail), leader != address {
          address = leader
          continue
        }
        log.info("the cluster has no leader now; trying again", metadata: ["manager": "\(address)", "reason": "\(error)"])
        try await Task.sleep(for: .milliseconds(300))
      }
    }
  }

  /// A new certificate for the same node and role, over its own authenticated connection.
  public static func renew(_ identity: NodeIdentity, over connection: Connection, hosts: [String] = []) async throws -> NodeIdentity {
    // The same key: the certificate's file alone changes, so that a crash in between leaves a pair that fits.
    let key = identity.key
    var request = WireRenewCertificateRequest()
    request.signingRequest = try key.signingRequest()
    request.hosts = hosts
    let response: WireIssueCertificateResponse = try await connection.call(.renewCertificate, request)
    let renewed = try NodeIdentity(certificatePEM: response.certificate, key: key, authorityPEM: identity.authorityPEM)
    guard renewed.peer == identity.peer else { throw IdentityError.certificate("the renewed one names \(renewed.peer), not \(identity.peer)") }
    return renewed
  }
}
