import Foundation
import Identity
import Logging
import Model
import Transport
import Wire

/// This host's place in its cluster: its identity and where the managers are, on disk.
struct Membership: Sendable {
  let folder: String
  let managerFolder: String
  private var managersFile: String { "\(folder)/managers" }

  func identity() throws -> NodeIdentity {
    guard let identity = try NodeIdentity.load(folder: folder) else {
      throw AgentError("this host has joined no cluster: `orch-agent join --token TOKEN MANAGER:2377` (the token: `orch join-token worker`)")
    }
    return identity
  }

  /// Asks a manager for a certificate. A host that has a manager asks as that node, so that both daemons are one node.
  func join(token: JoinToken, manager: String) async throws {
    if let identity = try NodeIdentity.load(folder: folder) {
      guard try CADigest(pem: identity.authorityPEM) == token.authority else {
        throw AgentError("this host belongs to another cluster already: remove \(folder) to leave it, then join again")
      }
      throw AgentError("this host has joined already as node \(identity.node): `orch-agent run` starts it")
    }
    let address = try Self.address(manager)
    let joined = try await JoinClient.requestCertificate(
      token: token, role: .worker, address: address, hostname: HostFacts.description().hostname,
      sameNodeAs: try NodeIdentity.load(folder: managerFolder), log: Logger(label: "join"))
    try remember(joined.managers.isEmpty ? [manager] : joined.managers)
    try joined.identity.save(folder: folder)
  }

  func keep(_ renewed: NodeIdentity) throws { try renewed.save(folder: folder) }

  var managers: [String] {
    get throws {
      guard let text = try SecretFile.read(managersFile) else { throw AgentError("\(managersFile) is missing: join again") }
      return String(decoding: text, as: UTF8.self).split(separator: "\n").map(String.init)
    }
  }

  func remember(_ managers: [String]) throws {
    guard !managers.isEmpty, managers != (try? self.managers) else { return }
    try SecretFile.makeFolder(folder)
    try SecretFile.write(Array(managers.joined(separator: "\n").utf8), to: managersFile)
  }

  /// Of a manager; the port may be missing.
  static func address(_ text: String) throws -> HostPort {
    guard let address = HostPort(text, defaultPort: HostPort.defaultPort), address.port > 0 else {
      throw AgentError("a manager's address is HOST:PORT, not '\(text)'")
    }
    return address
  }
}
