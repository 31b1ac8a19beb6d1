/// `[[ADDRESS:]PUBLISHED:]TARGET` as Compose and docker's `-p` write it, taken apart and not read yet: an IPv6 address stands in brackets, so that
/// its colons are none of the text's (`[::1]:8080:80`).
public struct PortText: Hashable, Sendable {
  public var address: String?
  /// One or two, any of them may be empty.
  public var ports: [Substring]

  /// nil: it has another form.
  public init?(_ text: Substring) {
    var rest = text
    if text.first == "[" {
      guard let end = text.firstIndex(of: "]"), case let colon = text.index(after: end), colon < text.endIndex, text[colon] == ":" else { return nil }
      address = String(text[text.index(after: text.startIndex)..<end])
      rest = text[text.index(after: colon)...]
    }
    ports = rest.split(separator: ":", omittingEmptySubsequences: false)
    if address == nil, ports.count == 3 { address = String(ports.removeFirst()) }
    guard (1...2).contains(ports.count) else { return nil }
  }
}

extension PortConfig {
  /// Whose addresses it answers at.
  public var families: [IPFamily] { hostIP.map { [$0.family] } ?? IPFamily.allCases }
}
