import Glibc
import LinuxSystem
import Model

@testable import AgentImage

extension Evil {
  /// 32 MiB of zeros in a file, four times what the store takes.
  private static func large() -> [UInt8] {
    var tar = TarWriter()
    tar.add("zeros", [UInt8](repeating: 0, count: 32 << 20))
    return tar.finished()
  }
  private static func bomb(_ name: String, _ plain: [UInt8], _ packed: [UInt8], _ reason: String) -> Evil {
    let id = Digest(of: plain).description
    return Evil(name: name, outcome: .refused(reason)) { _ in savedImage(layers: [packed], name: "evil:1", diffIDs: [id]) }
  }
  static let bombs: [Evil] = {
    let plain = large()
    var small = TarWriter()
    small.add("x", "x")
    let tail = small.finished() + [UInt8](repeating: 0, count: 64 << 20)
    var many = TarWriter()
    for index in 0..<2100 { many.add("f\(index)", "") }
    return [
      bomb("a gzip bomb", plain, gzip(plain), "more than"), bomb("a zstd bomb", plain, zstd(plain), "more than"),
      bomb("a bomb behind the end of the archive", tail, gzip(tail), "more than"),
      bomb("2100 members where 2000 are taken", many.finished(), many.finished(), "2000 members"),
      bomb("gzip in gzip", small.finished(), gzip(gzip(small.finished())), "no tar file"),
      bomb("zstd in gzip", small.finished(), gzip(zstd(small.finished())), "no tar file"),
      bomb("a gzip stream that ends too early", small.finished(), Array(gzip(small.finished()).dropLast(12)), "too early"),
      // Magic, no content size, a window of 2^30; then a raw block.
      bomb(
        "a zstd frame that wants a window of 1 GiB", small.finished(),
        [0x28, 0xb5, 0x2f, 0xfd, 0, 0xa0, UInt8((small.finished().count << 3) & 0xff) | 1, UInt8((small.finished().count << 3) >> 8), 0]
          + small.finished(), "zstd stream is damaged"),
      bomb("xz", small.finished(), [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 0], "xz"),
      Evil(name: "the whole archive is a bomb", outcome: .refused("grows beyond")) { _ in gzip(savedImage(layers: [plain], name: "evil:1")) },
    ]
  }()

  // MARK: - Documents

  /// An OCI archive of these blobs and this index.
  private static func oci(_ blobs: [[UInt8]], index: String, wrong: [(Digest, [UInt8])] = []) -> [UInt8] {
    var tar = TarWriter()
    tar.add("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}")
    for blob in blobs { tar.add("blobs/sha256/\(Digest(of: blob).hex)", blob) }
    for (digest, bytes) in wrong { tar.add("blobs/sha256/\(digest.hex)", bytes) }
    tar.add("index.json", index)
    return tar.finished()
  }
  private static func descriptor(_ bytes: [UInt8], _ type: String, digest: String? = nil, size: String? = nil) -> String {
    "{\"mediaType\":\"\(type)\",\"digest\":\"\(digest ?? Digest(of: bytes).description)\",\"size\":\(size ?? String(bytes.count))}"
  }
  private static func index(_ descriptors: String...) -> String { "{\"schemaVersion\":2,\"manifests\":[\(descriptors.joined(separator: ","))]}" }
  private static let tar: [UInt8] = {
    var tar = TarWriter()
    tar.add("x", "x")
    return tar.finished()
  }()
  private static func config(_ diffIDs: [String] = [Digest(of: tar).description], arch: String = hostArchitecture, os: String = "linux") -> [UInt8] {
    Array(
      "{\"architecture\":\"\(arch)\",\"os\":\"\(os)\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\(diffIDs.map { "\"\($0)\"" }.joined(separator: ","))]}}"
        .utf8)
  }
  private static func image(
    _ name: String, _ reason: String, config: [UInt8] = config(), layer: String? = nil, layers: Int = 1, configDescriptor: String? = nil,
    extra: String = "", wrong: [(Digest, [UInt8])] = [], kind: String = MediaType.ociManifest, version: Int = 2
  ) -> Evil {
    Evil(name: name, outcome: .refused(reason)) { _ in
      let layerText = layer ?? descriptor(tar, MediaType.ociLayer)
      let manifest = Array(
        "{\"schemaVersion\":\(version),\"mediaType\":\"\(kind)\",\"config\":\(configDescriptor ?? descriptor(config, MediaType.ociConfig)),\"layers\":[\(Array(repeating: layerText, count: layers).joined(separator: ","))]\(extra)}"
          .utf8)
      return oci([tar, config, manifest], index: index(descriptor(manifest, MediaType.ociManifest)), wrong: wrong)
    }
  }
  private static let zeros = "sha256:" + String(repeating: "0", count: 64)

  static let documents: [Evil] = [
    Evil(name: "a wrong diff id", outcome: .refused("digest")) { _ in savedImage(layers: [tar], name: "evil:1", diffIDs: [zeros]) },
    Evil(name: "a name that leads out", outcome: .refused("is not an image's name")) { _ in savedImage(layers: [tar], name: "../../evil:1") },
    Evil(name: "a tag that leads out", outcome: .refused("is not an image's name")) { _ in savedImage(layers: [tar], name: "evil:../../x") },
    image(
      "a layer with another's digest", "its bytes have the digest", layer: descriptor(tar, MediaType.ociLayer, digest: zeros),
      wrong: [(Digest(zeros)!, tar)]),
    image(
      "a configuration with another's digest", "its bytes have the digest",
      configDescriptor: descriptor(config(), MediaType.ociConfig, digest: zeros), wrong: [(Digest(zeros)!, config())]),
    image("a configuration of another size", "descriptor says", configDescriptor: descriptor(config(), MediaType.ociConfig, size: "3")),
    image("a configuration of a size below zero", "descriptor says", configDescriptor: descriptor(config(), MediaType.ociConfig, size: "-1")),
    image("a size beyond 64 bits", "JSON", configDescriptor: descriptor(config(), MediaType.ociConfig, size: "99999999999999999999999")),
    image("more layers than diff ids", "diff ids", layers: 3),
    image("no layers, but diff ids", "diff ids", layers: 0),
    image("a layer of an unknown kind", "media type", layer: descriptor(tar, "application/x-msdownload")),
    image("a layer without a kind", "", layer: "{\"digest\":\"\(Digest(of: tar))\",\"size\":1}"),
    image(
      "a digest that is a path", "is not a sha256 digest", layer: descriptor(tar, MediaType.ociLayer, digest: "sha256:../../../../outside/secret")),
    image(
      "a digest of another kind", "is not a sha256 digest", layer: descriptor(tar, MediaType.ociLayer, digest: "md5:d41d8cd98f00b204e9800998ecf8427e")
    ),
    image("a diff id that is a path", "is not a sha256 digest", config: config(["sha256:../../../outside"])),
    image("another architecture", "it is for", config: config(arch: "s390x")), image("another system", "it is for", config: config(os: "windows")),
    image("a manifest that calls itself something else", "is no image", kind: "application/vnd.unknown.artifact.v1+json"),
    image("a manifest of schema 1", "schema version 1", version: 1), image("manifest and index at once", "at once", extra: ",\"manifests\":[]"),
    image("a configuration that is a list", "JSON", config: Array("[]".utf8)),
    image("a configuration of 100,000 brackets", "JSON", config: [UInt8](repeating: 91, count: 100_000)),
    image("a configuration of 5 MiB", "bytes", config: config() + [UInt8](repeating: 32, count: 5 << 20)),
    Evil(name: "indexes in indexes", outcome: .refused("nested")) { _ in
      var blobs = [Array("{}".utf8)]
      for _ in 0..<6 { blobs.append(Array(index(descriptor(blobs.last!, MediaType.ociIndex)).utf8)) }
      return oci(blobs, index: index(descriptor(blobs.last!, MediaType.ociIndex)))
    },
    Evil(name: "a manifest that is a link to the host", outcome: .refused("neither manifest.json nor index.json")) { world in
      var archive = TarWriter()
      archive.pax([("linkpath", Array((world.outside + "/secret").utf8))])
      archive.add("manifest.json", type: "2", link: "x")
      return archive.finished()
    },
    Evil(name: "a configuration outside of the archive", outcome: .refused("is missing")) { world in
      var archive = TarWriter()
      archive.add("manifest.json", "[{\"Config\":\"\(world.outside)/secret\",\"RepoTags\":[\"evil:1\"],\"Layers\":[]}]")
      return archive.finished()
    },
    Evil(name: "a manifest of 5 MiB", outcome: .refused("at most")) { _ in
      var archive = TarWriter()
      archive.add("manifest.json", [UInt8](repeating: 32, count: 5 << 20))
      return archive.finished()
    },
  ]
}
