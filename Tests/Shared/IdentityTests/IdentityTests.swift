import Crypto
import FoundationEssentials
import Glibc
import Model
import Surroundings
import SwiftASN1
import Testing
import X509

@testable import Identity

let noon = Timestamp("2026-06-01T12:00:00Z")!

private func node(_ authority: CertificateAuthority, _ role: NodeRole, hosts: [String] = []) throws -> NodeIdentity {
  let key = NodeKey()
  let pem = try authority.issue(try key.signingRequest(), node: .random(), role: role, hosts: hosts, now: noon)
  return try NodeIdentity(certificatePEM: pem, key: key, authorityPEM: authority.certificatePEM)
}

@Suite("certificates") struct CertificateTests {
  let cluster = ClusterID.random()

  @Test("a node certificate names cluster, node and role, for 90 days from an hour ago")
  func subject() throws {
    let authority = try CertificateAuthority.make(cluster: cluster, now: noon)
    let (key, id) = (NodeKey(), NodeID.random())
    let pem = try authority.issue(try key.signingRequest(), node: id, role: .manager, hosts: ["192.0.2.7", "host-a"], now: noon)
    let identity = try NodeIdentity(certificatePEM: pem, key: key, authorityPEM: authority.certificatePEM)
    #expect(identity.peer == PeerIdentity(cluster: cluster, node: id, role: .manager))

    let certificate = try Certificate(pemEncoded: pem)
    #expect("\(certificate.subject)".contains("OU=orch-manager"))
    #expect(certificate.notValidBefore == Date(timeIntervalSince1970: Double(noon.nanoseconds) / 1e9 - 3600))
    #expect(certificate.notValidAfter == Date(timeIntervalSince1970: Double(noon.nanoseconds) / 1e9 + 90 * 86_400))
    let names = try #require(try certificate.extensions.subjectAlternativeNames)
    #expect(names.contains(.dnsName(id.description)))
    #expect(names.contains(.dnsName("localhost")))
    #expect(names.contains(.dnsName("host-a")))
    #expect(names.contains(.ipAddress(ASN1OctetString(contentBytes: [192, 0, 2, 7]))))
    #expect(try certificate.extensions.basicConstraints == .notCertificateAuthority)
  }

  @Test("a worker's certificate carries no host's name, whatever it asks for")
  func workerNames() throws {
    let authority = try CertificateAuthority.make(cluster: cluster, now: noon)
    let identity = try node(authority, .worker, hosts: ["manager-1", "192.0.2.1"])
    let names = try #require(try Certificate(pemEncoded: identity.certificatePEM).extensions.subjectAlternativeNames)
    #expect(Array(names).count == 3)
    #expect(identity.role == .worker)
  }

  @Test("the API takes certificates of users and managers, not of workers, strangers or the past")
  func apiClients() async throws {
    let authority = try CertificateAuthority.make(cluster: cluster, now: noon)
    let stranger = try CertificateAuthority.make(cluster: cluster, now: noon)
    let clients = try APIClients(authorityPEM: authority.certificatePEM)
    func admit(_ pem: String, _ clients: APIClients, at now: Timestamp = noon) async throws -> String {
      try await clients.admit([try PEMDocument(pemString: pem).derBytes], now: now)
    }
    func user(_ authority: CertificateAuthority, validity: Nanoseconds = UserCertificate.defaultValidity) throws -> String {
      try authority.issue(NodeKey().signingRequest(), user: "ann", validity: validity, now: noon)
    }
    #expect(try await admit(user(authority), clients) == "user ann")
    let manager = try node(authority, .manager)
    #expect(try await admit(manager.certificatePEM, clients) == "manager \(manager.node)")
    await #expect(throws: IdentityError.certificate("a worker's is no user's: `orch cert create NAME --out DIR` makes one")) {
      try await admit(try node(authority, .worker).certificatePEM, clients)
    }
    await #expect(throws: IdentityError.self) { try await admit(try user(stranger), clients) }
    await #expect(throws: IdentityError.self) { try await clients.admit([], now: noon) }
    let day = Nanoseconds.seconds(86_400)
    let short = try user(authority, validity: day)
    #expect(try await admit(short, clients, at: noon + Nanoseconds(day.rawValue - 1)) == "user ann")
    await #expect(throws: IdentityError.self) { try await admit(short, clients, at: noon + Nanoseconds(day.rawValue + 1_000_000_000)) }

    // Another authority that was named vouches for all of its own; the cluster's stays strict although it is named too.
    let both = try APIClients(authorityPEM: authority.certificatePEM, others: stranger.certificatePEM + "\n" + authority.certificatePEM)
    #expect(try await admit(try user(stranger), both).contains("ann"))
    await #expect(throws: IdentityError.self) { try await admit(try node(authority, .worker).certificatePEM, both) }
  }

  @Test("a user's certificate is no node's, and names and times that are none are refused")
  func userCertificates() throws {
    let authority = try CertificateAuthority.make(cluster: cluster, now: noon)
    let key = NodeKey()
    let pem = try authority.issue(try key.signingRequest(), user: "ann@example.org", now: noon)
    #expect(throws: IdentityError.self) { try PeerIdentity(verifiedDER: try PEMDocument(pemString: pem).derBytes) }
    #expect(throws: IdentityError.self) { try NodeIdentity(certificatePEM: pem, key: key, authorityPEM: authority.certificatePEM) }
    #expect(try Certificate(pemEncoded: pem).notValidAfter == Date(timeIntervalSince1970: Double(noon.nanoseconds) / 1e9 + 90 * 86_400))
    for name in ["", "a b", "a,OU=orch-manager", String(repeating: "x", count: 65)] {
      #expect(throws: IdentityError.self) { try authority.issue(try key.signingRequest(), user: name, now: noon) }
    }
    for days in [0.0, -1, 826] {
      #expect(throws: IdentityError.self) {
        try authority.issue(try key.signingRequest(), user: "ann", validity: .seconds(days * 86_400), now: noon)
      }
    }
  }

  @Test("a request whose key its sender does not hold is refused")
  func possession() throws {
    let authority = try CertificateAuthority.make(cluster: cluster, now: noon)
    let mine = P256.Signing.PrivateKey()
    let victim = P256.Signing.PrivateKey()
    let honest = try CertificateSigningRequest(
      version: .v1, subject: DistinguishedName { CommonName("x") }, privateKey: .init(mine), attributes: .init([]),
      signatureAlgorithm: .ecdsaWithSHA256)
    let forged = CertificateSigningRequest.self
    let request = try forged.init(
      version: .v1, subject: DistinguishedName { CommonName("x") }, publicKey: .init(victim.publicKey), attributes: .init([]),
      signatureAlgorithm: .ecdsaWithSHA256, signature: honest.signature)
    #expect {
      try authority.issue(try request.serializeAsPEM().pemString, node: .random(), role: .worker, now: noon)
    } throws: { "\($0)".contains("does not hold the key") }
    #expect(throws: IdentityError.self) { try authority.issue("no request", node: .random(), role: .worker, now: noon) }
    #expect(throws: IdentityError.self) {
      try authority.issue(String(repeating: "x", count: 20_000), node: .random(), role: .worker, now: noon)
    }
  }

  @Test("an authority is read back from PEM, and refuses another's key")
  func roundTrip() throws {
    let authority = try CertificateAuthority.make(cluster: cluster, now: noon)
    let again = try CertificateAuthority(certificatePEM: authority.certificatePEM, keyPEM: try authority.keyPEM)
    #expect(again.cluster == cluster)
    #expect(again.digest == authority.digest)
    _ = try node(again, .worker)
    let other = try CertificateAuthority.make(cluster: cluster, now: noon)
    #expect(throws: IdentityError.self) {
      try CertificateAuthority(certificatePEM: authority.certificatePEM, keyPEM: try other.keyPEM)
    }
    let certificate = try Certificate(pemEncoded: authority.certificatePEM)
    #expect(certificate.notValidAfter.timeIntervalSince1970 - certificate.notValidBefore.timeIntervalSince1970 > 19.9 * 365 * 86_400)
  }

  @Test("an identity refuses a certificate of another key or another authority")
  func mismatch() throws {
    let authority = try CertificateAuthority.make(cluster: cluster, now: noon)
    let other = try CertificateAuthority.make(cluster: .random(), now: noon)
    let identity = try node(authority, .worker)
    #expect { try NodeIdentity(certificatePEM: identity.certificatePEM, key: NodeKey(), authorityPEM: authority.certificatePEM) } throws: {
      "\($0)".contains("does not belong to this node's key")
    }
    #expect { try NodeIdentity(certificatePEM: identity.certificatePEM, key: identity.key, authorityPEM: other.certificatePEM) } throws: {
      "\($0)".contains("not signed by this cluster's authority")
    }
  }
}
