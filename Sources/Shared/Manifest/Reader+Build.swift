import Model

/// How a service's image is made: Compose's `build` (compose-spec, build.md).
public struct StackBuild: Hashable, Sendable {
  /// In full.
  public var service: String
  /// The service's `image`; without one `<stack>-<service>`, as docker compose has it.
  public var image: String
  /// The manifest does not name it: no registry has it.
  public var isUnnamed: Bool
  /// A folder; relative to the manifest's.
  public var context: String
  /// Relative to the context; nil: Dockerfile.
  public var dockerfile: String?
  public var target: String?
  public var arguments: [String: String]
  public var labels: [String: String]
  public var network: String?
  public var noCache: Bool
  public var pull: Bool
  /// Names beside the image's.
  public var tags: [String]
}

extension Reader {
  /// nil when there is nothing to build, or what there is was refused (told).
  func build(_ value: Value, service: String, image: String, isUnnamed: Bool) -> StackBuild? {
    var build = StackBuild(
      service: service, image: image, isUnnamed: isUnnamed, context: ".", arguments: [:], labels: [:], noCache: false, pull: false, tags: [])
    if case .scalar = value.kind {
      guard let path = nonEmpty(value, "the folder to build"), let context = context(path, value) else { return nil }
      build.context = context
      return build
    }
    guard var fields = Fields(value, self) else { return nil }
    let folder = fields.take("context")
    let context = folder.map { value in nonEmpty(value, "the folder to build").flatMap { self.context($0, value) } } ?? resolve(".", value)
    build.context = context ?? "."
    build.dockerfile = fields.take("dockerfile").flatMap { nonEmpty($0, "a Dockerfile's path") }
    build.target = fields.take("target").flatMap { nonEmpty($0, "a stage") }
    if let value = fields.take("args") {
      for pair in pairs(value) {
        // One without a value is the environment's, and no argument when that has none.
        if let text = pair.text ?? environment[pair.key] { build.arguments[pair.key] = text }
      }
    }
    build.labels = fields.take("labels").map { dictionary($0) } ?? [:]
    build.network = fields.take("network").flatMap { nonEmpty($0, "host or none") }
    build.noCache = fields.take("no_cache").flatMap { bool($0) } ?? false
    build.pull = fields.take("pull").flatMap { bool($0) } ?? false
    build.tags = fields.take("tags").flatMap { texts($0) } ?? []
    fields.finish(KeyRules.build)
    return context == nil ? nil : build
  }

  private func context(_ path: String, _ value: Value) -> String? {
    if path.contains("://") || path.hasPrefix("git@") {
      error(value, "the context '\(path)' is an address", "clone it, and name the folder")
      return nil
    }
    return resolve(path, value)
  }
}
