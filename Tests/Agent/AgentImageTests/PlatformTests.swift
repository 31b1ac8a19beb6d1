import Glibc
import LinuxSystem
import Model
import Testing

@testable import AgentImage

@Suite struct PlatformTests {
  private static let all = [
    "linux/amd64", "linux/amd64/v3", "linux/arm64/v8", "linux/arm/v5", "linux/arm/v7", "linux/riscv64", "windows/amd64", "unknown/unknown",
  ]

  /// Digests are told apart by their first hexadecimal digits.
  private func index(_ platforms: [String]) throws -> ManifestDocument {
    let entries = platforms.enumerated().map { number, text in
      let parts = text.split(separator: "/")
      let variant = parts.count > 2 ? ",\"variant\":\"\(parts[2])\"" : ""
      let digits = String(number, radix: 16)
      return """
        {"mediaType":"\(MediaType.ociManifest)","size":1,"digest":"sha256:\(digits + String(repeating: "0", count: 64 - digits.count))",
        "platform":{"os":"\(parts[0])","architecture":"\(parts[1])"\(variant)}}
        """
    }
    return try ManifestDocument(Array("{\"schemaVersion\":2,\"manifests\":[\(entries.joined(separator: ","))]}".utf8), "test")
  }

  @Test(
    "of an index the best that the platform runs is taken",
    arguments: [
      ("linux/amd64", all, "linux/amd64"), ("linux/amd64/v1", all, "linux/amd64"), ("linux/amd64/v2", all, "linux/amd64"),
      ("linux/amd64/v3", all, "linux/amd64/v3"), ("linux/amd64/v4", all, "linux/amd64/v3"), ("linux/arm64", all, "linux/arm64/v8"),
      ("linux/arm64/v8", all, "linux/arm64/v8"), ("linux/arm64", ["linux/arm64"], "linux/arm64"), ("linux/arm64/v8", ["linux/arm64"], "linux/arm64"),
      ("linux/arm", all, "linux/arm/v7"), ("linux/arm/v7", all, "linux/arm/v7"), ("linux/arm/v6", all, "linux/arm/v5"),
      ("linux/arm/v6", ["linux/arm/v7"], nil), ("linux/arm/v7", ["linux/arm"], "linux/arm"), ("linux/riscv64", all, "linux/riscv64"),
      ("linux/s390x", all, nil), ("linux/amd64", ["windows/amd64", "linux/amd64/v3"], nil), ("linux/arm64", ["unknown/unknown"], nil),
    ] as [(String, [String], String?)])
  func choice(_ wanted: String, _ offered: [String], _ taken: String?) throws {
    let document = try index(offered)
    var platform = try ImagePlatform(wanted)
    // Without a variant this machine's own processor decides: its least is asked for.
    if platform.architecture == hostArchitecture, platform.variant == nil, hostArchitecture == "amd64" {
      platform = try ImagePlatform(wanted + "/v1")
    }
    guard let taken else {
      let error = #expect(throws: ImageError.self) { try document.choose("web:1", platform) }
      #expect(error?.kind == .notFound && "\(error!)".contains("it has no image for \(platform), only for"), "\(String(describing: error))")
      return
    }
    #expect(offered[Int(try document.choose("web:1", platform).digest.dropFirst(7).prefix(1), radix: 16)!] == taken)
  }

  @Test("this machine's own variants: the best that its processor runs, and an index without variants")
  func own() throws {
    #expect(hostVariants.contains("") && ImagePlatform.host.variants == hostVariants)
    let levels = hostVariants.filter { !$0.isEmpty }.map { "linux/\(hostArchitecture)/\($0)" }
    let document = try index(["linux/\(hostArchitecture)"] + levels)
    #expect(try document.choose("x").platform?.variant ?? "" == hostVariants[0])
  }

  @Test("what is no platform", arguments: ["", "linux", "linux/", "windows/amd64", "linux/arm/v7/x", "/arm64"])
  func wrong(_ text: String) { #expect(throws: ImageError.self) { try ImagePlatform(text) } }

  @Test("an interpreter counts when it is on, works in containers, and takes the architecture's programs")
  func interpreters() {
    let magic = "7f454c460201010000000000000000000200b700"
    let registration =
      "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\nmagic \(magic)\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
    #expect(ImageRecord.runs("arm64", registration))
    for architecture in ["arm", "riscv64", "s390x", "other"] { #expect(!ImageRecord.runs(architecture, registration), "\(architecture)") }
    for (old, new) in [("enabled", "disabled"), ("POCF", "POC"), ("offset 0", "offset 4"), ("b700", "f300"), (magic, "")] {
      #expect(!ImageRecord.runs("arm64", registration.replacing(old, with: new)), "\(new)")
    }
  }
}

@Suite(.serialized, .enabled(if: geteuid() == 0 && installed("docker-registry") && installed("skopeo"))) struct ForeignImages {
  private let folder = Folder()
  private func open(_ name: String = "images") throws -> ImageStore { try ImageStore(directory: folder.path + "/" + name) }

  @Test("an index of several platforms: the own by default, another when it is asked for; that one is kept, sent and not run")
  func foreign() async throws {
    let registry = try Registry()
    let other = hostArchitecture == "arm64" ? "amd64" : "arm64"
    var entries: [String] = []
    let configuration = ImageStoreConfiguration()
    for architecture in [hostArchitecture, other] {
      let archive = try folder.write(
        architecture,
        savedImage(
          layers: [Stores.layer([("of", architecture)])], name: "web:1", config: "{\"Cmd\":[\"\(architecture)\"]}", architecture: architecture))
      let pushed = registry.push(archive, "web:\(architecture)")
      #expect(pushed.code == 0, "\(pushed.output)")
    }
    let name = try ImageReference("\(registry.host)/web:1")
    let host = try #require(try RegistryHost.candidates(name, configuration).last)
    let client = RegistryClient(name, nil, host, configuration, pushes: true)
    for architecture in [hostArchitecture, other] {
      let (bytes, digest) = try await client.manifest(architecture)
      entries.append(
        "{\"mediaType\":\"\(MediaType.dockerManifest)\",\"size\":\(bytes.count),\"digest\":\"\(digest)\",\"platform\":{\"os\":\"linux\",\"architecture\":\"\(architecture)\"}}"
      )
    }
    let index = "{\"schemaVersion\":2,\"mediaType\":\"\(MediaType.dockerList)\",\"manifests\":[\(entries.joined(separator: ","))]}"
    try await client.put(manifest: Array(index.utf8), MediaType.dockerList, "1")

    let store = try open()
    let own = try await store.pull(name.description)
    #expect(own.config.cmd == [hostArchitecture] && own.architecture == hostArchitecture)
    try own.checkRuns(binfmt: folder.path)
    let asked = try await store.pull(name.description, platform: ImagePlatform("linux/\(other)"), always: true)
    #expect(asked.config.cmd == [other] && asked.architecture == other && asked.digest != own.digest)
    #expect(try Files.text(asked.layerPaths[0] + "/of") == other)
    let refused = #expect(throws: ImageError.self) { try asked.checkRuns(binfmt: folder.path) }
    #expect("\(refused!)".contains("it is for linux/\(other) and this host is linux/\(hostArchitecture)"), "\(refused!)")
    // It is there after a start, and goes on to others as it came.
    let again = try open()
    #expect(try again.resolve(name.description)?.architecture == other)
    let copy = "\(registry.host)/copy:1"
    try await again.tag(name.description, as: copy)
    _ = try await again.push(copy)
    #expect(try await open("third").pull(copy, platform: ImagePlatform("linux/\(other)")).id == asked.id)
    let wrong = await #expect(throws: ImageError.self) { try await open("fourth").pull(copy) }
    #expect("\(wrong!)".contains("it is for \(other), this host is \(hostArchitecture)"), "\(wrong!)")
    let none = await #expect(throws: ImageError.self) { try await store.pull(name.description, platform: ImagePlatform("linux/s390x"), always: true) }
    #expect("\(none!)".contains("it has no image for linux/s390x, only for"), "\(none!)")
    // The own comes back by asking for it.
    #expect(try await store.pull(name.description, always: true).id == own.id)
  }
}
