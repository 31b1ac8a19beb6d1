import Model
import SwiftASN1
import X509

/// The subject of a certificate of this cluster: CN = node, OU = role, O = cluster (swarmkit ca/certificates.go).
struct Subject {
  var cluster: ClusterID
  var node: NodeID?
  var role: NodeRole?

  init(_ peer: PeerIdentity) {
    cluster = peer.cluster
    node = peer.node
    role = peer.role
  }

  init(_ certificate: Certificate) throws(IdentityError) {
    func value(_ type: Field) throws(IdentityError) -> String {
      var found: [String] = []
      for relative in certificate.subject {
        for attribute in relative where attribute.type == type.oid { found.append(String(attribute.value) ?? "") }
      }
      guard found.count == 1 else { throw .certificate("its subject has \(found.count) fields \(type.rawValue) instead of one") }
      return found[0]
    }
    guard let cluster = ClusterID(try value(.organization)) else { throw .certificate("its subject's O is not a cluster id") }
    self.cluster = cluster
    node = NodeID(try value(.commonName))
    role = (try? value(.organizationalUnit)).flatMap(Self.role)
  }

  enum Field: String {
    case organization = "O", commonName = "CN", organizationalUnit = "OU"
    var oid: ASN1ObjectIdentifier {
      switch self {
      case .organization: .RDNAttributeType.organizationName
      case .commonName: .RDNAttributeType.commonName
      case .organizationalUnit: .RDNAttributeType.organizationalUnitName
      }
    }
  }

  static func unit(_ role: NodeRole) -> String { "orch-\(role.rawValue)" }
  static func role(_ unit: String) -> NodeRole? { [NodeRole.manager, .worker].first { Self.unit($0) == unit } }

  func name() throws -> DistinguishedName {
    try DistinguishedName {
      OrganizationName(cluster.description)
      if let role { OrganizationalUnitName(Self.unit(role)) }
      if let node { CommonName(node.description) }
    }
  }
}

extension PeerIdentity {
  /// Of a certificate whose chain has been verified already.
  init(_ certificate: Certificate) throws(IdentityError) {
    let subject = try Subject(certificate)
    guard let node = subject.node else { throw .certificate("its subject's CN is not a node id") }
    guard let role = subject.role else { throw .certificate("its subject's OU is neither orch-manager nor orch-worker") }
    self.init(cluster: subject.cluster, node: node, role: role)
  }

  /// Of the DER form of a certificate whose chain has been verified already (by TLS).
  public init(verifiedDER der: [UInt8]) throws(IdentityError) {
    let certificate: Certificate
    do { certificate = try Certificate(derEncoded: der) } catch { throw .certificate("cannot be parsed: \(error)") }
    try self.init(certificate)
  }
}
