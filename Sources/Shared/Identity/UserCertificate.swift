import Crypto
import Model
import SwiftASN1
@_spi(FixedExpiryValidationTime) import X509

/// Certificates of the API's users: of the cluster's authority, CN = the user's name, OU = `orch-user`, O = cluster. A daemon takes
/// none for a peer's, since its role is neither manager nor worker; the API over TCP takes no worker's.
public enum UserCertificate {
  /// 90 days unless asked otherwise, as a node's; nobody renews a user's. Nothing takes one back before its end.
  public static let defaultValidity = CertificateAuthority.nodeValidity
  public static let longestValidity = Nanoseconds.seconds(825 * 86_400)
  static let unit = "orch-user"

  /// 1 to 64 of letters, digits and `.-_@`.
  public static func isName(_ text: String) -> Bool {
    (1...64).contains(text.utf8.count)
      && text.utf8.allSatisfy { byte in
        (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || ".-_@".utf8.contains(byte)
      }
  }
}

extension CertificateAuthority {
  /// Signs `signingRequest`'s key, and nothing else of the request, as the user's. PEM to PEM.
  public func issue(_ signingRequest: String, user: String, validity: Nanoseconds = UserCertificate.defaultValidity, now: Timestamp)
    throws(IdentityError) -> String
  {
    guard UserCertificate.isName(user) else {
      throw .certificate("'\(user)' is no user's name: 1 to 64 letters, digits, '.', '-', '_' or '@'")
    }
    guard (1...UserCertificate.longestValidity.rawValue).contains(validity.rawValue) else {
      throw .certificate("a user's is valid for 1 to \(UserCertificate.longestValidity.rawValue / 86_400_000_000_000) days")
    }
    let publicKey = try Self.publicKey(of: signingRequest)
    do {
      let subject = try DistinguishedName {
        OrganizationName(cluster.description)
        OrganizationalUnitName(UserCertificate.unit)
        CommonName(user)
      }
      return try sign(
        publicKey, subject, Certificate.Extensions { try ExtendedKeyUsage([.clientAuth]) }, until: now + validity, now: now)
    } catch {
      throw .certificate("cannot issue a certificate for user \(user): \(error)")
    }
  }
}

/// Who may use the public API over TCP: users and managers of the cluster, and whoever another authority vouches for that the
/// administrator named (`--api-client-ca`).
public struct APIClients: Sendable {
  private let authority: Certificate
  private let others: [Certificate]

  /// - Parameter others: PEM of further authorities, one or several; the cluster's own among them changes nothing.
  public init(authorityPEM: String, others: String = "") throws(IdentityError) {
    do {
      authority = try Certificate(pemEncoded: authorityPEM)
      self.others = try PEMDocument.parseMultiple(pemString: others).map { try Certificate(pemDocument: $0) }
    } catch {
      throw .certificate("an authority of the API's clients cannot be read: \(error)")
    }
  }

  /// The client's name for a log line; throws why it may not. `chain`: DER, the client's own first. RFC 5280 path validation.
  /// `isManager`: whether a node (still) is one.
  public func admit(_ chain: [[UInt8]], now: Timestamp, isManager: (NodeID) -> Bool = { _ in true }) async throws(IdentityError) -> String {
    guard let first = chain.first else { throw .certificate("the client shows none") }
    do {
      let leaf = try Certificate(derEncoded: first)
      let between = try chain.dropFirst().prefix(4).map { try Certificate(derEncoded: $0) }
      if try await isValid(leaf, between, [authority], now) { return try member(leaf, isManager) }
      if try await isValid(leaf, between, others.filter { $0 != authority }, now) { return "\(leaf.subject)" }
    } catch let error as IdentityError {
      throw error
    } catch {
      throw .certificate("the client's cannot be parsed: \(error)")
    }
    throw .certificate("the client's is of another authority, or its time is over")
  }

  private func isValid(_ leaf: Certificate, _ between: [Certificate], _ roots: [Certificate], _ now: Timestamp) async throws -> Bool {
    guard !roots.isEmpty else { return false }
    var verifier = Verifier(rootCertificates: CertificateStore(roots)) { RFC5280Policy(fixedExpiryValidationTime: date(now)) }
    if case .validCertificate = await verifier.validate(leaf: leaf, intermediates: CertificateStore(between)) { return true }
    return false
  }

  private func member(_ leaf: Certificate, _ isManager: (NodeID) -> Bool) throws(IdentityError) -> String {
    let units = leaf.subject.flatMap { $0.filter { $0.type == .RDNAttributeType.organizationalUnitName }.map { String($0.value) ?? "" } }
    let names = leaf.subject.flatMap { $0.filter { $0.type == .RDNAttributeType.commonName }.map { String($0.value) ?? "" } }
    guard units.count == 1, names.count == 1 else { throw .certificate("its subject has not one CN and one OU") }
    switch units[0] {
    case UserCertificate.unit: return "user \(names[0])"
    case Subject.unit(.manager):
      guard let node = NodeID(names[0]), isManager(node) else { throw .certificate("node \(names[0]) is no manager of the cluster any more") }
      return "manager \(names[0])"
    case Subject.unit(.worker): throw .certificate("a worker's is no user's: `orch cert create NAME --out DIR` makes one")
    default: throw .certificate("its OU \(units[0]) is neither a user's nor a manager's")
    }
  }
}
