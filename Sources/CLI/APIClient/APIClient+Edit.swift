import API
import Model

/// What is changed by writing all of its spec, with the version that it was read at.
public protocol Editable: Decodable, Sendable {
  associatedtype Spec: Encodable & Equatable & Sendable
  var id: String { get }
  var version: ObjectVersion { get }
  var spec: Spec { get }
  /// Of the API: "/services".
  static var path: String { get }
}
extension ServiceInspect: Editable { public static var path: String { "/services" } }
extension NodeInspect: Editable { public static var path: String { "/nodes" } }

extension APIClient {
  /// Reads, changes and writes; anew when somebody else changed it meanwhile.
  /// - Parameters:
  ///   - name: or an id.
  ///   - attempts: at most; then "update out of sequence" is thrown.
  ///   - isWritten: of what was read and what it is to be.
  ///   - headers: of the request, for what it is to be.
  public func edit<Object: Editable>(
    _ name: String, as type: Object.Type = Object.self, attempts: Int = 5, if isWritten: (Object.Spec, Object.Spec) -> Bool = { _, _ in true },
    headers: (Object.Spec) throws -> [(name: String, value: String)] = { _ in [] }, _ change: (inout Object.Spec) throws -> Void
  ) async throws -> (old: Object, spec: Object.Spec) {
    var left = attempts
    while true {
      left -= 1
      let old = try await get("\(Object.path)/\(percentEncoded(name))", as: Object.self)
      var spec = old.spec
      try change(&spec)
      guard isWritten(old.spec, spec) else { return (old, spec) }
      do {
        try await call(
          "POST", "\(Object.path)/\(old.id)/update", [("version", String(old.version.index))], JSONText.encode(spec), headers: headers(spec))
        return (old, spec)
      } catch let error as ClientError where error.isOutOfSequence && left > 0 {}
    }
  }
}
