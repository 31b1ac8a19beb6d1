/// What a service's images are pulled with: the value of docker's X-Registry-Auth header, sealed under its own id like a secret
/// (`--with-registry-auth`). It is kept with the spec and shown in no answer; only agents that run the service get it open, over their own
/// TLS, and keep it in memory.
public struct SealedLogin: Codable, Hashable, Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  public var id: FileID
  public var data: [UInt8]
  public init(id: FileID, data: [UInt8]) {
    self.id = id
    self.data = data
  }
  /// As what seals and opens secrets wants it.
  public var file: StoredFile { StoredFile(kind: .secret, id: id, name: "registry login", data: data, createdAt: .zero) }

  public var description: String { "registry login" }
  public var debugDescription: String { description }
  public var customMirror: Mirror { Mirror(self, children: [:]) }
}

extension ServiceSpec {
  /// As it may be shown and kept where nothing is sealed.
  public var withoutLogin: ServiceSpec {
    var spec = self
    spec.registryLogin = nil
    return spec
  }
}
