import AgentImage
import LinuxSystem
import Model
import Surroundings
import Synchronization

/// What steps made, by the key of what decided them. Layers in it stay in the store though no image has them; the least recently used
/// go first when there are too many. Losing the file costs time only.
final class BuildCache: Sendable {
  struct Entry: Hashable {
    /// nil: the step changed no file.
    var layer: Digest?
    var created: Timestamp
    var used: Timestamp
  }
  private let entries = Mutex<[String: Entry]>([:])
  private let file: String
  private let store: ImageStore
  static let entriesMax = 4000
  /// Of all its layers together, packed and unpacked.
  static let bytesMax: Int64 = 20 << 30

  /// Blocking.
  init(file: String, store: ImageStore) {
    self.file = file
    self.store = store
    var found: [String: Entry] = [:]
    for line in ((try? Files.text(file)) ?? "").split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard fields.count == 4, Digest(hex: String(fields[0])) != nil, let created = Int64(fields[2]), let used = Int64(fields[3]) else { continue }
      let layer = Digest(hex: String(fields[1]))
      guard fields[1] == "-" || layer.flatMap(store.layer) != nil else { continue }
      found[String(fields[0])] = Entry(layer: layer, created: Timestamp(nanoseconds: created), used: Timestamp(nanoseconds: used))
    }
    let initial = found
    entries.withLock { $0 = initial }
    store.retain(layers)
  }

  private var layers: Set<Digest> { Set(entries.withLock { $0.values.compactMap(\.layer) }) }

  func entry(_ key: Digest, now: Timestamp) -> Entry? {
    entries.withLock { entries in
      guard let entry = entries[key.hex] else { return nil }
      if let layer = entry.layer, store.layer(layer) == nil {
        entries[key.hex] = nil
        return nil
      }
      entries[key.hex]?.used = now
      return entry
    }
  }

  func put(_ key: Digest, layer: Digest?, now: Timestamp) {
    entries.withLock { $0[key.hex] = Entry(layer: layer, created: now, used: now) }
    store.retain(layers)
  }

  /// Drops all: how many, and bytes of layers that no image has either. Blocking.
  func clear() throws -> (steps: Int, bytes: Int64) {
    let (steps, layers) = (entries.withLock { $0.count }, layers)
    let kept = store.imageLayers
    let bytes = layers.subtracting(kept).compactMap(store.layer).reduce(0) { $0 + $1.size + $1.unpackedSize }
    entries.withLock { $0 = [:] }
    try save()
    try store.collect()
    return (steps, bytes)
  }

  /// Drops what is over the bounds and writes the rest. Blocking.
  func save() throws {
    let text = entries.withLock { entries in
      var kept: [String: Entry] = [:]
      var counted: Set<Digest> = []
      var bytes: Int64 = 0
      for (key, entry) in entries.sorted(by: { ($0.value.used, $0.key) > ($1.value.used, $1.key) }) {
        if let layer = entry.layer, counted.insert(layer).inserted, let stored = store.layer(layer) { bytes += stored.size + stored.unpackedSize }
        guard kept.count < Self.entriesMax, bytes <= Self.bytesMax else { break }
        kept[key] = entry
      }
      entries = kept
      return kept.sorted { $0.key < $1.key }.map { key, entry in
        "\(key) \(entry.layer?.hex ?? "-") \(entry.created.nanoseconds) \(entry.used.nanoseconds)\n"
      }.joined()
    }
    store.retain(layers)
    try Files.writeAtomically(file, text, durable: false)
  }
}
