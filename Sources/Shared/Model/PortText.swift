/// Ports as text, as Compose and docker's `-p` write them.
public enum PortText {
  /// `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]`. An IPv6 address stands in brackets, so that its colons are none of the text's (`[::1]:8080:80`). Ranges that
  /// are equally long are as many ports (`3000-3005:4000-4005`); a range for one port of the container is one of it, which the managers choose
  /// (`8000-8010:80`; docker's nat.ParsePortSpec). PUBLISHED that is empty or 0 is any.
  public static func ports(_ text: Substring) throws(PortTextError) -> [PortConfig] {
    let halves = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    let kind = halves.count > 1 ? String(halves[1]) : "tcp"
    guard let `protocol` = PortConfig.PortProtocol(rawValue: kind.lowercased()) else { throw .kind(kind) }
    let (place, numbers) = try split(halves[0])
    let address = try place.map { text throws(PortTextError) in
      guard let address = IPAddress(text) else { throw .address(text) }
      return address
    }
    let target = try range(numbers[numbers.count - 1])
    func port(_ target: UInt16, _ published: UInt16?) -> PortConfig {
      var port = PortConfig(targetPort: target, publishedPort: published, protocol: `protocol`)
      port.hostIP = address
      return port
    }
    if numbers.count == 1 || numbers[0].isEmpty || numbers[0] == "0" { return target.map { port($0, nil) } }
    let published = try range(numbers[0])
    if target.count == 1, published.count > 1 {
      var one = port(target.lowerBound, nil)
      one.publishedRange = published
      return [one]
    }
    guard published.count == target.count else { throw .lengths(published: published.count, target: target.count) }
    return zip(published, target).map { port($1, $0) }
  }

  /// `80` or `80-82`, digits alone.
  public static func range(_ text: Substring) throws(PortTextError) -> ClosedRange<UInt16> {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false)
    guard ends.count <= 2, ends.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { (48...57).contains($0) } }) else { throw .form }
    let numbers = ends.compactMap { UInt16($0) }
    guard numbers.count == ends.count, numbers.allSatisfy({ $0 > 0 }) else { throw .number(String(text)) }
    guard numbers[0] <= numbers[numbers.count - 1] else { throw .backwards(String(text)) }
    return numbers[0]...numbers[numbers.count - 1]
  }

  /// One or two numbers or ranges, not read yet.
  private static func split(_ text: Substring) throws(PortTextError) -> (address: String?, numbers: [Substring]) {
    var (address, rest): (String?, Substring) = (nil, text)
    if text.first == "[" {
      guard let end = text.firstIndex(of: "]"), case let colon = text.index(after: end), colon < text.endIndex, text[colon] == ":" else {
        throw .form
      }
      address = String(text[text.index(after: text.startIndex)..<end])
      rest = text[text.index(after: colon)...]
    }
    var numbers = rest.split(separator: ":", omittingEmptySubsequences: false)
    if address == nil, numbers.count == 3 { address = String(numbers.removeFirst()) }
    guard (1...2).contains(numbers.count) else { throw .form }
    return (address, numbers)
  }
}

/// Why a text is no port: what is wrong with it, and what to write.
public enum PortTextError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Another form than the one above.
  case form
  case kind(String)
  case address(String)
  case number(String)
  case backwards(String)
  case lengths(published: Int, target: Int)

  public var description: String {
    switch self {
    case .form: "expected PUBLISHED:TARGET such as 8080:80"
    case .kind(let text): "expected one of 'tcp', 'udp', 'sctp' after '/', found '\(text)'"
    case .address(let text): "expected an address of a host before the published port, found '\(text)'"
    case .number(let text): "a port is a number from 1 to 65535, found '\(text)'"
    case .backwards(let text): "the range '\(text)' runs backwards"
    case .lengths(let published, let target): "\(published) published ports for \(target) of the container"
    }
  }
  /// Empty when that says it.
  public var advice: String {
    switch self {
    case .form, .kind, .number: ""
    case .address: "write it as 127.0.0.1:8080:80 or '[::1]:8080:80'"
    case .backwards: "write the lower port first"
    case .lengths: "make both ranges equally long, or name one port of the container for one of the range"
    }
  }
}

extension PortConfig {
  /// Whose addresses it answers at.
  public var families: [IPFamily] { hostIP.map { [$0.family] } ?? IPFamily.allCases }
}
