import ArgumentParser
import Model
import RegistryLogin

/// What this machine's config.json has for an image's registry (`docker login`), as docker's X-Registry-Auth header.
enum RegistryAuth {
  /// nil: nothing. Blocks while a credential helper runs.
  static func header(for image: ImageReference) throws -> String? {
    guard let file = CredentialsFile.path(environment: Terminal.environment) else { return nil }
    return try CredentialsFile.credentials(for: image.registry, path: image.path, in: file)?.header(for: image.registry)
  }
}

struct RegistryAuthOption: ParsableArguments {
  @Flag(help: "Keep this machine's registry credentials (docker login) with the service, sealed, so that every host can pull its image.")
  var withRegistryAuth = false

  /// Of the image's registry; without any, docker's word for nobody, which takes away what the service had.
  func header(for image: String) throws -> String? {
    guard withRegistryAuth else { return nil }
    return try RegistryAuth.header(for: ImageReference(image)) ?? "e30="
  }
}
