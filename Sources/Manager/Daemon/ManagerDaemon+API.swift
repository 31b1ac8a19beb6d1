import Consensus
import ControlAPI
import FoundationEssentials
import Glibc
import Identity
import Logging
import Model
import NIOSSL
import Surroundings
import Transport

extension Settings {
  /// PEM of `--api-client-ca`; empty when there is none.
  func otherAuthorities() throws -> String {
    guard let path = apiClientAuthority else { return "" }
    guard let bytes = try SecretFile.read(path) else { throw UserError("read --api-client-ca \(path): there is no such file") }
    let text = String(decoding: bytes, as: UTF8.self)
    guard text.contains("BEGIN CERTIFICATE") else { throw UserError("read --api-client-ca \(path): it holds no certificate in PEM") }
    return text
  }
}

/// Where the public API is served, and who is let in.
extension ManagerDaemon {
  func apiEndpoints(_ consensus: Consensus) throws -> [ControlServer.Endpoint] {
    let parent = settings.socket.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }
    do { if !parent.isEmpty { try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true) } } catch {
      throw UserError("make folder \(parent) for the API's socket: \(error)")
    }
    var endpoints: [ControlServer.Endpoint] = [.unix(path: settings.socket)]
    if let text = settings.api {
      guard let address = HostPort(text) else { throw UserError("--api-addr \(text): not HOST:PORT") }
      endpoints.append(.tcp(host: address.host, port: address.port, tls: try apiTLS(consensus)))
    }
    return endpoints
  }

  /// The clients are users, not nodes: of the cluster's own certificates those of workers are refused.
  private func apiTLS(_ consensus: Consensus) throws -> ControlServer.TLS {
    let others = try settings.otherAuthorities()
    let clients = try APIClients(authorityPEM: credentials.identity.authorityPEM, others: others)
    let (chain, key) = try Self.certificate(credentials.identity)
    var tls = TLSConfiguration.makeServerConfiguration(certificateChain: chain, privateKey: key)
    tls.minimumTLSVersion = .tlsv13
    // Named to the client, so that it chooses the certificate that fits; what decides is `clients`.
    tls.trustRoots = .certificates(
      try [credentials.identity.authorityPEM, others].flatMap { $0.isEmpty ? [] : try NIOSSLCertificate.fromPEMBytes(Array($0.utf8)) })
    tls.certificateVerification = .noHostnameVerification
    // A renewed certificate is shown from the next connection on.
    tls.sslContextCallback = { [credentials] _, promise in
      promise.completeWith(
        Result {
          var renewed = NIOSSLContextConfigurationOverride()
          (renewed.certificateChain, renewed.privateKey) = try Self.certificate(credentials.identity)
          return renewed
        })
    }
    let log = Logger(label: "api")
    return ControlServer.TLS(tls) { chain in
      do throws(IdentityError) {
        let client = try await clients.admit(chain, now: .now) { node in
          guard let cluster = consensus.snapshot.nodes[node] else { return false }
          return cluster.spec.role == .manager || cluster.manager != nil
        }
        log.debug("connected", metadata: ["client": "\(client)"])
        return true
      } catch {
        log.notice("connection refused", metadata: ["reason": "\(error)"])
        return false
      }
    }
  }

  private static func certificate(_ identity: NodeIdentity) throws -> ([NIOSSLCertificateSource], NIOSSLPrivateKeySource) {
    let chain = try [identity.certificatePEM, identity.authorityPEM].map {
      NIOSSLCertificateSource.certificate(try NIOSSLCertificate(bytes: Array($0.utf8), format: .pem))
    }
    return (chain, .privateKey(try NIOSSLPrivateKey(bytes: Array(identity.key.pem.utf8), format: .pem)))
  }
}
