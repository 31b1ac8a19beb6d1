import NIOSSL

/// Where the manager is: ORCH_HOST.
public enum Endpoint: Hashable, Sendable, CustomStringConvertible {
  case unix(path: String)
  case http(host: String, port: Int)
  case https(host: String, port: Int, certificates: String)

  public static let defaultSocket = "/run/orch/orch.sock"

  /// - Parameters:
  ///   - text: `unix:///path`, `http://host:port`, `https://host:port`, `tcp://host:port` (https when there are certificates); nil
  ///     or empty: the default socket.
  ///   - certificates: folder with ca.pem, cert.pem, key.pem (ORCH_CERT_PATH).
  public init(_ text: String?, certificates: String?) throws(ClientError) {
    guard let text, !text.isEmpty else {
      self = .unix(path: Self.defaultSocket)
      return
    }
    let usage = "ORCH_HOST is '\(text)': give unix:///path/to/orch.sock, http://host:port or https://host:port"
    guard let separator = text.range(of: "://") else {
      guard text.first == "/" else { throw .usage(usage) }
      self = .unix(path: text)
      return
    }
    let scheme = text[..<separator.lowerBound]
    var rest = text[separator.upperBound...]
    while rest.count > 1, rest.last == "/" { rest.removeLast() }
    switch scheme {
    case "unix":
      guard rest.first == "/" else { throw .usage(usage) }
      self = .unix(path: String(rest))
    case "http", "https", "tcp":
      let secure = scheme == "https" || (scheme == "tcp" && certificates != nil)
      let colon = rest.last == "]" ? nil : rest.lastIndex(of: ":")
      let host = String(colon.map { rest[..<$0] } ?? rest)
      guard !host.isEmpty, let port = colon.map({ Int(rest[rest.index(after: $0)...]) }) ?? (secure ? 2376 : 2375), (1...65535).contains(port) else {
        throw .usage(usage)
      }
      if secure {
        guard let certificates else { throw .usage("ORCH_HOST is \(text): set ORCH_CERT_PATH to the folder with ca.pem, cert.pem and key.pem") }
        self = .https(host: host, port: port, certificates: certificates)
      } else {
        self = .http(host: host, port: port)
      }
    default: throw .usage(usage)
    }
  }

  public var description: String {
    switch self {
    case .unix(let path): "unix://\(path)"
    case .http(let host, let port): "http://\(host):\(port)"
    case .https(let host, let port, _): "https://\(host):\(port)"
    }
  }

  /// The scheme and authority for a URL; a socket's path is the host, percent-encoded.
  var base: String {
    switch self {
    case .unix(let path): "http+unix://" + percentEncoded(path)
    case .http, .https: description
    }
  }

  func tls() throws -> TLSConfiguration? {
    guard case .https(_, _, let folder) = self else { return nil }
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.trustRoots = .file(folder + "/ca.pem")
    configuration.certificateChain = try NIOSSLCertificate.fromPEMFile(folder + "/cert.pem").map { .certificate($0) }
    configuration.privateKey = .privateKey(try NIOSSLPrivateKey(file: folder + "/key.pem", format: .pem))
    configuration.minimumTLSVersion = .tlsv12
    return configuration
  }
}

extension String {
  fileprivate func range(of needle: String) -> Range<Index>? {
    var index = startIndex
    while index < endIndex {
      if self[index...].hasPrefix(needle) { return index..<self.index(index, offsetBy: needle.count) }
      index = self.index(after: index)
    }
    return nil
  }
}

/// RFC 3986: all but the unreserved characters.
public func percentEncoded(_ text: String) -> String {
  var result = ""
  for byte in text.utf8 {
    switch byte {
    case 48...57, 65...90, 97...122, 45, 46, 95, 126: result.unicodeScalars.append(Unicode.Scalar(byte))
    default:
      let digits = Array("0123456789ABCDEF")
      result += "%\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])"
    }
  }
  return result
}
