/// A container's state as `state` prints it and hooks read it (runtime-spec, runtime.md), with the fields that runc and crun add.
public struct State: Codable, Hashable, Sendable {
  public enum Status: String, Codable, Hashable, Sendable { case creating, created, running, stopped, paused }
  public var ociVersion: String
  public var id: String
  /// Of the first process, as the host counts; 0 when stopped.
  public var pid: Int32
  public var status: Status
  public var bundle: String
  public var rootfs: String?
  /// RFC 3339.
  public var created: String?
  public var owner: String?
  public var annotations: [String: String]?
  public init(id: String, pid: Int32, status: Status, bundle: String, annotations: [String: String]? = nil) {
    ociVersion = OCI.version
    (self.id, self.pid, self.status, self.bundle, self.annotations) = (id, pid, status, bundle, annotations)
  }
}

public enum OCI {
  /// Of the specification that is implemented.
  public static let version = "1.2.0"
}
