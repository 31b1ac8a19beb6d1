import Consensus
import Identity
import Model

/// Seals and opens secrets with the cluster's data key, which the Cluster row holds sealed by the managers' unlock key. One mechanism
/// for both (AES-256-GCM, Identity): what is sealed can be opened under its own id only.
struct FileVault: Sendable {
  let consensus: Consensus
  let unlock: UnlockKey

  private func key() throws -> UnlockKey {
    guard let cluster = consensus.snapshot.cluster else {
      throw IdentityError.sealed("this manager does not have the cluster's state yet; try again")
    }
    guard let sealed = cluster.sealedDataKey else {
      throw IdentityError.sealed("this cluster was made by a version of orch without secrets: make a new one")
    }
    return try UnlockKey(bytes: unlock.open(sealed, context: ClusterSecrets.dataKey(cluster.id)))
  }

  func seal(_ content: [UInt8], as id: FileID) throws -> [UInt8] { try key().seal(content, context: ClusterSecrets.secret(id)) }

  /// The content of either kind.
  func content(of file: StoredFile) throws -> [UInt8] {
    file.kind == .secret ? try key().open(file.data, context: ClusterSecrets.secret(file.id)) : file.data
  }
}
