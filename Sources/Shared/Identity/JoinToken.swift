import Model
import Surroundings

/// `ORCHTKN-1-<CA digest>-<secret>`: what a new node must be given to join, Swarm's form with 50 and 25 base-36 digits.
/// The digest lets the joiner know the cluster before it tells the secret; which of the cluster's two secrets it is decides the role.
public struct JoinToken: Hashable, Sendable, LosslessStringConvertible {
  public static let prefix = "ORCHTKN"
  public let authority: CADigest
  /// 25 base-36 digits of 128 random bits.
  public let secret: String

  public init(authority: CADigest, secret: String) {
    self.authority = authority
    self.secret = secret
  }

  /// A token with a new secret.
  public static func make(for authority: CADigest) -> JoinToken {
    JoinToken(authority: authority, secret: Identifier<JoinToken>.random().description)
  }

  /// Says what is wrong with a text that is no token.
  public init(parsing text: String) throws(IdentityError) {
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.first.map(String.init) == Self.prefix else {
      if parts.first == "SWMTKN" { throw .token("this is a token of Docker Swarm; orch's begin with \(Self.prefix)-1-") }
      throw .token("does not begin with \(Self.prefix)-1-: copy the whole token that `orch-manager init` printed")
    }
    guard parts.count >= 2, parts[1] == "1" else { throw .token("its version is not 1: the cluster is newer than this program") }
    guard parts.count == 4 else { throw .token("has \(parts.count) parts instead of 4 separated by '-': it is cut or something was added") }
    guard parts[2].utf8.count == 50, let digest = Base36.decode(parts[2], bytes: 32) else {
      throw .token("the CA's digest (third part) is not 50 digits of 0-9 and a-z: copy the whole token")
    }
    guard parts[3].utf8.count == 25, Identifier<JoinToken>(String(parts[3])) != nil else {
      throw .token("the secret (fourth part) is not 25 digits of 0-9 and a-z: copy the whole token")
    }
    authority = CADigest(bytes: digest)
    secret = String(parts[3])
  }

  public init?(_ description: String) {
    guard let token = try? JoinToken(parsing: description) else { return nil }
    self = token
  }

  public var description: String { "\(Self.prefix)-1-\(authority)-\(secret)" }

  /// Constant time.
  public func hasSecret(_ other: String) -> Bool { constantTimeEquals(secret.utf8, other.utf8) }

  /// Which role a secret that a joiner sent stands for, by the cluster's two tokens; nil: neither.
  public static func role(ofSecret secret: String, worker: JoinToken, manager: JoinToken) -> NodeRole? {
    let (isWorker, isManager) = (worker.hasSecret(secret), manager.hasSecret(secret))
    return isManager ? .manager : isWorker ? .worker : nil
  }
}

/// Big-endian bytes as a number of fixed length in base 36, lower case.
enum Base36 {
  static func encode(_ bytes: [UInt8], digits count: Int) -> String {
    var digits = [UInt8](repeating: 0, count: count)
    for byte in bytes {
      var carry = Int(byte)
      for index in stride(from: count - 1, through: 0, by: -1) {
        carry += Int(digits[index]) << 8
        digits[index] = UInt8(carry % 36)
        carry /= 36
      }
      precondition(carry == 0, "\(bytes.count) bytes do not fit in \(count) digits")
    }
    return String(decoding: digits.map { $0 < 10 ? UInt8(ascii: "0") + $0 : UInt8(ascii: "a") + $0 - 10 }, as: UTF8.self)
  }

  /// nil: another character, or a number that does not fit.
  static func decode(_ text: some StringProtocol, bytes count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    for character in text.utf8 {
      var carry: Int
      switch character {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): carry = Int(character - UInt8(ascii: "0"))
      case UInt8(ascii: "a")...UInt8(ascii: "z"): carry = Int(character - UInt8(ascii: "a")) + 10
      default: return nil
      }
      for index in stride(from: count - 1, through: 0, by: -1) {
        carry += Int(bytes[index]) * 36
        bytes[index] = UInt8(truncatingIfNeeded: carry)
        carry >>= 8
      }
      if carry != 0 { return nil }
    }
    return bytes
  }
}
