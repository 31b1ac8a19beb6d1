import LinuxSystem
import Model

/// Whose programs an image has: `linux/ARCHITECTURE[/VARIANT]` (OCI image specification, image-index.md), words as Go has them.
public struct ImagePlatform: Hashable, Sendable, CustomStringConvertible {
  public let architecture: String
  /// nil: the best that there is, for this machine the best that it runs.
  public let variant: String?
  public static let host = ImagePlatform(architecture: hostArchitecture)

  private init(architecture: String) { (self.architecture, variant) = (architecture, nil) }

  public init(_ text: String) throws {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    guard (2...3).contains(parts.count), parts[0] == "linux", !parts.contains(where: \.isEmpty) else {
      throw ImageError(.unsupported, "pull for", "'\(text)'", "a platform is linux/ARCHITECTURE or linux/ARCHITECTURE/VARIANT")
    }
    (architecture, variant) = (parts[1], parts.count == 3 ? parts[2] : nil)
  }

  public var description: String { "linux/\(architecture)" + (variant.map { "/\($0)" } ?? "") }

  /// One that does not say is taken for any.
  public func isArchitecture(of image: ImageRecord) -> Bool { image.architecture.isEmpty || image.architecture == architecture }

  /// What is taken of an index, best first; empty text: an entry that names none. One that is asked for stands for those that it runs, too
  /// (containerd's platforms package): 32-bit ARM's v7 runs v6 and v5, amd64's levels those below.
  var variants: [String] {
    if architecture == hostArchitecture, variant == nil { return hostVariants }
    let all: [String]
    switch architecture {
    case "arm": all = ["v8", "v7", "", "v6", "v5"]
    case "arm64": all = ["v8", ""]
    case "amd64": all = ["v4", "v3", "v2", "", "v1"]
    default: return [variant, ""].compactMap { $0 }
    }
    // Without a word: what every machine of it runs.
    guard let variant else { return architecture == "amd64" ? ["", "v1"] : architecture == "arm" ? Array(all.dropFirst()) : all }
    guard let place = all.firstIndex(of: variant == "v1" && architecture == "amd64" ? "" : variant) else { return [variant] }
    return Array(all[place...])
  }
}

#if arch(x86_64)
  let hostArchitecture = "amd64"
#elseif arch(arm64)
  let hostArchitecture = "arm64"
#else
  let hostArchitecture = "unknown"
#endif

/// Best first. amd64's are the x86-64 psABI's levels, told by one flag of each that the levels below lack; an index without them means v1, as
/// one without a variant of arm64 means v8.
let hostVariants: [String] = {
  guard hostArchitecture == "amd64" else { return hostArchitecture == "arm64" ? ["v8", ""] : [""] }
  let text = (try? Files.text("/proc/cpuinfo")) ?? ""
  let flags = Set(text.split(separator: "\n").first { $0.hasPrefix("flags") }?.split(separator: " ").map(String.init) ?? [])
  var variants = ["", "v1"]
  for (variant, needed) in [
    ("v2", ["cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"]), ("v3", ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"]),
    ("v4", ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]),
  ] {
    guard flags.isSuperset(of: needed) else { break }
    variants.insert(variant, at: 0)
  }
  return variants
}()

extension ImageRecord {
  /// Throws when this machine cannot run it: another architecture's, and no interpreter of its programs is registered so that it works inside a
  /// container, too (binfmt_misc with the flag F: opened once, on the host; docs.kernel.org/admin-guide/binfmt-misc.html). Blocking.
  public func checkRuns(binfmt folder: String = "/proc/sys/fs/binfmt_misc") throws {
    guard !architecture.isEmpty, architecture != hostArchitecture else { return }
    let names = (try? Files.list(folder)) ?? []
    if names.contains(where: { Self.runs(architecture, (try? Files.text("\(folder)/\($0)")) ?? "") }) { return }
    let name = (try? ImageReference(reference).familiar) ?? reference
    throw ImageError(
      .unsupported, "run", "image \(name)",
      "it is for linux/\(architecture) and this host is linux/\(hostArchitecture): pull the host's own ('orch image pull \(name)'), or register an interpreter for \(architecture) with the flag F (Debian: qemu-user-static)"
    )
  }

  /// Whether a registration takes ELF files of the architecture.
  static func runs(_ architecture: String, _ registration: String) -> Bool {
    // e_machine (elf.h), 64 bits or 32, little-endian or big.
    let kinds: [String: (machine: UInt8, bits: UInt8, order: UInt8)] = [
      "amd64": (62, 2, 1), "386": (3, 1, 1), "arm64": (183, 2, 1), "arm": (40, 1, 1), "riscv64": (243, 2, 1), "ppc64le": (21, 2, 1),
      "s390x": (22, 2, 2),
    ]
    guard let kind = kinds[architecture] else { return false }
    let lines = registration.split(separator: "\n").map(String.init)
    func value(_ key: String) -> String? { lines.first { $0.hasPrefix(key + " ") }.map { String($0.dropFirst(key.count + 1)) } }
    func bytes(_ text: String) -> [UInt8] {
      stride(from: 0, to: text.utf8.count - 1, by: 2).map { UInt8(text.dropFirst($0).prefix(2), radix: 16) ?? 0 }
    }
    guard lines.first == "enabled", lines.contains(where: { $0.hasPrefix("flags:") && $0.contains("F") }), let magic = value("magic").map(bytes),
      !magic.isEmpty, value("offset") ?? "0" == "0"
    else { return false }
    var head: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, kind.bits, kind.order, 1] + [UInt8](repeating: 0, count: 9)
    head += kind.order == 1 ? [2, 0, kind.machine, 0] : [0, 2, 0, kind.machine]
    let mask = value("mask").map(bytes) ?? magic.map { _ in 0xff }
    guard magic.count <= head.count, mask.count >= magic.count else { return false }
    return magic.indices.allSatisfy { (head[$0] ^ magic[$0]) & mask[$0] == 0 }
  }
}
