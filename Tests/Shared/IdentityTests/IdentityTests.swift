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

@Suite("join tokens") struct JoinTokenTests {
  @Test("a token is read back as it was printed")
  func roundTrip() throws {
    let authority = try CertificateAuthority.make(cluster: .random(), now: noon)
    let token = JoinToken.make(for: authority.digest)
    #expect(token.description.hasPrefix("ORCHTKN-1-"))
    #expect(token.description.utf8.count == 10 + 50 + 1 + 25)
    let read = try JoinToken(parsing: token.description)
    #expect(read == token)
    #expect(read.authority == authority.digest)
    #expect(JoinToken.make(for: authority.digest) != token)
  }

  static let digest = String(repeating: "0", count: 49) + "1"
  static let secret = String(repeating: "0", count: 24) + "1"

  @Test(
    "a text that is no token is told what is wrong with it",
    arguments: [
      ("", "does not begin with ORCHTKN-1-"),
      ("hello", "does not begin with ORCHTKN-1-"),
      ("SWMTKN-1-\(digest)-\(secret)", "Docker Swarm"),
      ("ORCHTKN-2-\(digest)-\(secret)", "version is not 1"),
      ("ORCHTKN-1-\(digest)", "3 parts instead of 4"),
      ("ORCHTKN-1-\(digest)-\(secret)-x", "5 parts instead of 4"),
      ("ORCHTKN-1-\(digest.dropLast())-\(secret)", "third part"),
      ("ORCHTKN-1-\(digest.dropLast())Z-\(secret)", "third part"),
      ("ORCHTKN-1-\(String(repeating: "z", count: 50))-\(secret)", "third part"),
      ("ORCHTKN-1-\(digest)-\(secret.dropLast())", "fourth part"),
      ("ORCHTKN-1-\(digest)-\(String(repeating: "z", count: 25))", "fourth part"),
    ])
  func errors(text: String, reason: String) {
    #expect { try JoinToken(parsing: text) } throws: { "\($0)".contains(reason) }
    #expect(JoinToken(text) == nil)
  }

  @Test("the secret decides the role")
  func roles() throws {
    let authority = try CertificateAuthority.make(cluster: .random(), now: noon)
    let (worker, manager) = (JoinToken.make(for: authority.digest), JoinToken.make(for: authority.digest))
    #expect(JoinToken.role(ofSecret: worker.secret, worker: worker, manager: manager) == .worker)
    #expect(JoinToken.role(ofSecret: manager.secret, worker: worker, manager: manager) == .manager)
    #expect(JoinToken.role(ofSecret: "", worker: worker, manager: manager) == nil)
    #expect(JoinToken.role(ofSecret: worker.secret + "0", worker: worker, manager: manager) == nil)
  }

  @Test("base 36 of known numbers")
  func base36() {
    #expect(Base36.encode([0x01, 0x00], digits: 3) == "074")
    #expect(Base36.decode("074", bytes: 2) == [1, 0])
    #expect(Base36.encode([UInt8](repeating: 0xff, count: 32), digits: 50) == "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof")
    #expect(Base36.decode("6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtog", bytes: 32) == nil)
  }

  @Test("a joiner accepts only a chain of the token's authority")
  func chain() async throws {
    let now = Timestamp(nanoseconds: Int64(Date().timeIntervalSince1970 * 1e9))
    let (authority, other) = (
      try CertificateAuthority.make(cluster: .random(), now: now), try CertificateAuthority.make(cluster: .random(), now: now)
    )
    func der(_ pem: String) throws -> [UInt8] { try PEMDocument(pemString: pem).derBytes }
    func leaf(_ issuer: CertificateAuthority, at time: Timestamp = now) throws -> [UInt8] {
      try der(try issuer.issue(try NodeKey().signingRequest(), node: .random(), role: .manager, now: time))
    }
    let token = JoinToken.make(for: authority.digest)
    let root = try der(authority.certificatePEM)
    #expect(try await JoinCredentials.verify([leaf(authority), root], token).role == .manager)
    await #expect { try await JoinCredentials.verify([leaf(other), der(other.certificatePEM)], token) } throws: {
      "\($0)".contains("another cluster")
    }
    // The right root beside a leaf that it did not sign.
    await #expect(throws: IdentityError.self) { try await JoinCredentials.verify([leaf(other), root], token) }
    await #expect(throws: IdentityError.self) {
      try await JoinCredentials.verify([leaf(authority, at: noon + .seconds(-400 * 86_400)), root], token)
    }
    await #expect(throws: IdentityError.self) { try await JoinCredentials.verify([root], token) }
    await #expect(throws: IdentityError.self) { try await JoinCredentials.verify([], token) }
  }
}

@Suite("secrets and files") struct SecretTests {
  @Test("what is sealed opens with the same key and context only")
  func sealing() throws {
    let key = UnlockKey()
    let sealed = try key.seal(Array("the key".utf8), context: "ca")
    #expect(!sealed.contains(subsequence: Array("the key".utf8)))
    #expect(try key.open(sealed, context: "ca") == Array("the key".utf8))
    #expect(throws: IdentityError.self) { try key.open(sealed, context: "other") }
    #expect(throws: IdentityError.self) { try UnlockKey().open(sealed, context: "ca") }
    var damaged = sealed
    damaged[damaged.count / 2] ^= 1
    #expect(throws: IdentityError.self) { try key.open(damaged, context: "ca") }
    #expect(throws: IdentityError.self) { try key.open([], context: "ca") }
    #expect(try key.seal([], context: "ca") != key.seal([], context: "ca"))
    #expect(throws: IdentityError.self) { try UnlockKey(bytes: [1]) }
  }

  @Test("comparison in constant time compares")
  func equality() {
    #expect(constantTimeEquals([1, 2], [1, 2]))
    #expect(!constantTimeEquals([1, 2], [1, 3]))
    #expect(!constantTimeEquals([1, 2], [1]))
    #expect(constantTimeEquals([], []))
  }

  @Test("an identity is kept in a folder that only its owner may enter")
  func files() throws {
    let base = "/tmp/orch-identity-\(NodeID.random())"
    let folder = base + "/a/b"
    defer { try? FileManager.default.removeItem(atPath: base) }
    #expect(try NodeIdentity.load(folder: folder) == nil)
    let authority = try CertificateAuthority.make(cluster: .random(), now: noon)
    let identity = try node(authority, .manager)
    try identity.save(folder: folder)
    let loaded = try #require(try NodeIdentity.load(folder: folder))
    #expect(loaded.peer == identity.peer)
    #expect(loaded.key.pem == identity.key.pem)
    func mode(_ path: String) -> UInt32 {
      var status = stat()
      return lstat(path, &status) == 0 ? status.st_mode & 0o777 : 0
    }
    #expect(mode(folder) == 0o700)
    for file in ["node.pem", "node.key", "ca.pem"] { #expect(mode("\(folder)/\(file)") == 0o600) }

    unlink("\(folder)/node.key")
    #expect { try NodeIdentity.load(folder: folder) } throws: { "\($0)".contains("join again") }
  }
}

extension Array where Element: Equatable {
  func contains(subsequence other: [Element]) -> Bool {
    guard count >= other.count else { return false }
    return (0...(count - other.count)).contains { Array(self[$0..<($0 + other.count)]) == other }
  }
}
