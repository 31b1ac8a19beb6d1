import Identity
import Model
import Surroundings
import Transport

extension Session {
  /// Renews this node's certificate when half of its time is over, as long as the connection is there. What is open keeps the old one,
  /// which stays valid; the next session shows the new one.
  func keepRenewed(over connection: Connection) async {
    let half = Nanoseconds(-CertificateAuthority.nodeValidity.rawValue / 2)
    while !Task.isCancelled {
      let identity = credentials.identity
      let due = identity.notAfter + half - Timestamp.now
      do {
        if due.rawValue > 0 { try await Task.sleep(for: due.duration) }
        let renewed = try await JoinClient.renew(identity, over: connection)
        try membership.keep(renewed)
        try credentials.update(renewed)
        log.info("certificate renewed", metadata: ["until": "\(renewed.notAfter)"])
      } catch is CancellationError {
        return
      } catch {
        log.warning("the certificate was not renewed; trying again in a minute", metadata: ["error": "\(error)"])
        try? await Task.sleep(for: .seconds(60))
      }
    }
  }
}
