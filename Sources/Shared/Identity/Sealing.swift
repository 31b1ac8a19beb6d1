import Crypto
import FoundationEssentials
import Model

/// The managers' key: opens what is sealed in the replicated state (the CA's key, later secrets). 32 bytes, AES-256-GCM.
public struct UnlockKey: Sendable {
  /// For the 0600 file and for a joining manager's own connection; never in a log.
  public let bytes: [UInt8]

  public init() { bytes = SymmetricKey(size: .bits256).withUnsafeBytes { Array($0) } }

  public init(bytes: [UInt8]) throws(IdentityError) {
    guard bytes.count == 32 else { throw .sealed("the unlock key has \(bytes.count) bytes instead of 32") }
    self.bytes = bytes
  }

  /// Nonce (12 random bytes), ciphertext, tag (16). `context` is not stored: it must be the same when opening, so that one
  /// sealed value cannot stand for another.
  public func seal(_ plaintext: [UInt8], context: String) throws(IdentityError) -> [UInt8] {
    do {
      let box = try AES.GCM.seal(plaintext, using: SymmetricKey(data: bytes), authenticating: Array(context.utf8))
      guard let combined = box.combined else { throw IdentityError.sealed("no nonce") }
      return Array(combined)
    } catch {
      throw .sealed("cannot seal \(context): \(error)")
    }
  }

  public func open(_ sealed: [UInt8], context: String) throws(IdentityError) -> [UInt8] {
    do {
      return Array(try AES.GCM.open(AES.GCM.SealedBox(combined: sealed), using: SymmetricKey(data: bytes), authenticating: Array(context.utf8)))
    } catch {
      throw .sealed("\(context) is not opened by this manager's unlock key: the key is another cluster's, or the data is damaged")
    }
  }

  /// Blocks. nil: no such file.
  public static func load(_ path: String) throws(IdentityError) -> UnlockKey? {
    guard let bytes = try SecretFile.read(path) else { return nil }
    return try UnlockKey(bytes: bytes)
  }

  public func save(_ path: String) throws(IdentityError) { try SecretFile.write(bytes, to: path) }
}
