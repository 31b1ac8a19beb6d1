extension ImageStore {
  /// From a registry (OCI distribution specification), unless it is here already (`always` asks the registry nevertheless).
  public func pull(
    _ reference: String, credentials: RegistryCredentials? = nil, always: Bool = false, progress: @escaping @Sendable (PullProgress) -> Void = { _ in }
  ) async throws -> ImageRecord {
    if !always, let record = try resolve(reference) { return record }
    throw ImageError(.unsupported, "pull", reference, "pulling comes with the next commit; load the image instead")
  }
}
