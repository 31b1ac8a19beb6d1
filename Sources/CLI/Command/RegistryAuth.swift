import ArgumentParser
import Model
import RegistryLogin

/// What this machine has for an image's registry (`docker login`, `podman login`), as docker's X-Registry-Auth header.
enum RegistryAuth {
  /// nil: nothing. Blocks while a credential helper runs.
  static func header(for image: ImageReference) throws -> String? {
    let files = CredentialsFile.paths(environment: Terminal.environment)
    return try CredentialsFile.credentials(for: image.registry, path: image.path, in: files)?.header(for: image.registry)
  }
}

struct RegistryAuthOption: ParsableArguments {
  @Flag(
    help: "Keep this machine's registry credentials (docker login, podman login) with the service, sealed, so that every host can pull its image.")
  var withRegistryAuth = false

  /// Of the image's registry; without any, docker's word for nobody, which takes away what the service had.
  func header(for image: String) throws -> String? {
    guard withRegistryAuth else { return nil }
    return try RegistryAuth.header(for: ImageReference(image)) ?? "e30="
  }
}
