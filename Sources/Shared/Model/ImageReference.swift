/// An image's name as Docker reads it (distribution/reference): `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.
/// Without a host it is docker.io's, without a folder there `library/`; without tag and digest it is `latest`.
/// The one grammar of names: the manifest, the manager and the agents refuse the same ones.
public struct ImageReference: Hashable, Sendable, CustomStringConvertible {
  public var registry: String
  public var path: String
  /// nil only when there is a digest.
  public var tag: String?
  public var digest: Digest?

  public init(_ text: String) throws(ReferenceError) {
    func refuse(_ why: String) -> ReferenceError { ReferenceError(text: text, reason: why) }
    guard !text.isEmpty, text.utf8.count <= 512 else { throw refuse("a name has 1 to 512 characters") }
    var rest = text[...]
    if let at = rest.lastIndex(of: "@") {
      guard let digest = Digest(String(rest[rest.index(after: at)...])) else { throw refuse("after '@' stands sha256: and 64 hexadecimal digits") }
      self.digest = digest
      rest = rest[..<at]
    }
    let lastPart = rest.lastIndex(of: "/").map { rest.index(after: $0) } ?? rest.startIndex
    if let colon = rest[lastPart...].lastIndex(of: ":") {
      let tag = rest[rest.index(after: colon)...].utf8
      let word = { (byte: UInt8) in isLower(byte) || (65...90).contains(byte) || byte == 95 }
      guard let first = tag.first, word(first), tag.count <= 128, tag.allSatisfy({ word($0) || $0 == 45 || $0 == 46 }) else {
        throw refuse("a tag has 1 to 128 letters, digits, '_', '.' and '-'")
      }
      self.tag = String(decoding: tag, as: UTF8.self)
      rest = rest[..<colon]
    }
    var parts = rest.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    if parts.count > 1, let host = parts.first, host == "localhost" || host.contains(".") || host.contains(":") || host.contains(where: \.isUppercase)
    {
      registry = host == "index.docker.io" ? "docker.io" : host
      let letter = { (byte: UInt8) in isLower(byte) || (65...90).contains(byte) }
      guard let first = host.utf8.first, letter(first) || first == 91, let last = host.utf8.last, letter(last) || last == 93,
        !host.contains(".."), host.utf8.allSatisfy({ letter($0) || [45, 46, 58, 91, 93].contains($0) })
      else { throw refuse("'\(host)' is not a host") }
      parts.removeFirst()
    } else {
      registry = "docker.io"
    }
    if registry == "docker.io", parts.count == 1 { parts.insert("library", at: 0) }
    for part in parts where !Self.isComponent(part) {
      throw refuse(
        Self.isComponent(part.lowercased())
          ? "names are lower-case" : "'\(part)' is not lower-case letters and digits with '.', '_' or '-' between them")
    }
    path = parts.joined(separator: "/")
    if tag == nil, digest == nil { tag = "latest" }
  }

  /// Lower-case letters and digits, with '.', '_', '__' or dashes between them.
  private static func isComponent(_ text: String) -> Bool {
    let bytes = Array(text.utf8)
    guard let first = bytes.first, let last = bytes.last, isLower(first), isLower(last) else { return false }
    var index = 0
    while index < bytes.count {
      guard !isLower(bytes[index]) else {
        index += 1
        continue
      }
      let end = bytes[index...].firstIndex(where: isLower) ?? bytes.count
      let separator = bytes[index..<end]
      guard separator.elementsEqual([46]) || separator.elementsEqual([95]) || separator.elementsEqual([95, 95]) || separator.allSatisfy({ $0 == 45 })
      else { return false }
      index = end
    }
    return true
  }

  /// `docker.io/library/web`.
  public var repository: String { registry + "/" + path }
  /// In full: `docker.io/library/web:1`.
  public var description: String { repository + (tag.map { ":" + $0 } ?? "") + (digest.map { "@\($0)" } ?? "") }
  /// As people write it: `web:1`.
  public var familiar: String {
    var name = description
    if name.hasPrefix("docker.io/library/") { name.removeFirst(18) } else if name.hasPrefix("docker.io/") { name.removeFirst(10) }
    return name
  }
}

/// A text that names no image, and why. What to write instead is the same everywhere: ``advice``.
public struct ReferenceError: Error, Hashable, Sendable, CustomStringConvertible {
  public var text: String
  public var reason: String
  public static let advice = "write NAME:TAG, HOST/NAME:TAG or NAME@sha256:DIGEST"
  public init(text: String, reason: String) {
    self.text = text
    self.reason = reason
  }
  public var description: String { "'\(text)' is not an image's name (\(reason)): \(Self.advice)" }
}

private func isLower(_ byte: UInt8) -> Bool { (97...122).contains(byte) || (48...57).contains(byte) }

/// `sha256:` and 64 lower-case hexadecimal digits; no other algorithm is accepted.
public struct Digest: Hashable, Sendable, Comparable, CustomStringConvertible {
  public let hex: String
  public init?(_ text: String) {
    guard text.hasPrefix("sha256:") else { return nil }
    self.init(hex: String(text.dropFirst(7)))
  }
  public init?(hex: String) {
    guard hex.utf8.count == 64, hex.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) }) else { return nil }
    self.hex = hex
  }
  public var description: String { "sha256:" + hex }
  public static func < (a: Self, b: Self) -> Bool { a.hex < b.hex }
}
