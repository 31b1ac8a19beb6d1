import Glibc
import LinuxSystem
import Model
import Surroundings

/// What a removal did: names that are gone, and images of which nothing is left.
public struct ImageRemoval: Hashable, Sendable {
  public var untagged: [String] = []
  public var deleted: [Digest] = []
  /// Bytes of the images' files, those of shared layers included.
  public var bytes: Int64 = 0
  public init() {}
}

extension ImageStore {
  // MARK: - Users

  /// Says that container `id` is made of the image: from now on nothing collects it, across restarts too. Throws when it is not here any more.
  public func use(_ record: ImageRecord, by id: String, now: Timestamp = .now) async throws {
    try await onOwnThread("orch-image") { [self] in
      try claim(record, by: id)
      try Files.writeAtomically("\(directory)/uses/\(id)", record.digest.description)
      // By the day: a start need not write the index.
      let seconds = now.nanoseconds / 1_000_000_000
      let stale = state.withLock { $0.entries(of: record.digest).values.contains { ($0.used ?? 0) < seconds - 86_400 } }
      guard stale else { return }
      try change { state in
        for (name, entry) in state.entries(of: record.digest) { state.index.images[name] = entry.used(at: seconds) }
      }
    }
  }

  /// The container is gone. Harmless when it used nothing.
  public func release(_ id: String) async {
    guard state.withLock({ $0.uses.removeValue(forKey: id) }) != nil else { return }
    _ = try? await onOwnThread("orch-image") { [directory] in unlink("\(directory)/uses/\(id)") }
  }

  /// At start: forgets the users that are not among these, and takes what a crash left.
  public func recover(users: Set<String>) async {
    for id in state.withLock({ Array($0.uses.keys) }) where !users.contains(id) { await release(id) }
    try? await onOwnThread("orch-image") { [self] in try sweep() }
  }

  // MARK: - Names

  /// A second name for an image; it is taken from another image that had it.
  public func tag(_ reference: String, as name: String) async throws {
    let target = try nameToGive(name)
    guard let record = try resolve(reference, digits: 1) else { throw missing("tag", reference) }
    try await onOwnThread("orch-image") { [self] in
      try change { state in
        // Removed since it was looked up: the name would lead to nothing.
        guard state.images[record.digest] != nil else { throw missing("tag", reference) }
        let entry = state.entries(of: record.digest).values.first
        state.name(target.description, .init(manifest: record.digest.description, requested: nil, pulled: nil, used: entry?.used))
        // It has a name now.
        state.index.images[record.digest.description] = nil
      }
    }
  }

  /// Takes the name away, and with the last one the image and the layers that no other image has. An id takes all names away, when there
  /// is one, or with `force`. An image that a container uses keeps its layers: `force` takes its names, otherwise it is refused.
  @discardableResult
  public func remove(_ reference: String, force: Bool = false) async throws -> ImageRemoval {
    guard let record = try find(reference, digits: 1) else { throw missing("remove", reference) }
    return try await onOwnThread("orch-image") { [self] in
      var result = ImageRemoval()
      try change { state in
        let names = state.names(of: record.digest)
        let given = Digest(reference) == nil ? (try? ImageReference(reference)) : nil
        let gone = given.flatMap { names.contains($0.description) ? [$0.description] : nil } ?? names
        if given == nil || !names.contains(given!.description), names.count > 1, !force {
          throw ImageError(.inUse, "remove", reference, "it has \(names.count) names; give one of them, or force it")
        }
        let user = state.uses.first { $0.value == record.digest }?.key
        if gone.count == names.count, let user, !force {
          throw ImageError(
            .inUse, "remove", reference, "container \(user.prefix(12)) is made of it; remove that first, or force it to take the name alone")
        }
        result = state.remove(gone, of: record.digest, keeping: user != nil)
      }
      try sweep()
      return result
    }
  }

  /// Images that no container uses: those without a name, or with `all` those with one, too. `before`: only what came or was used earlier.
  public func prune(all: Bool = false, before: Timestamp? = nil) async throws -> ImageRemoval {
    try await onOwnThread("orch-image") { [self] in
      var result = ImageRemoval()
      try change { state in
        let used = Set(state.uses.values)
        for (digest, known) in state.images where !used.contains(digest) {
          let names = state.names(of: digest)
          if !all, !names.isEmpty { continue }
          if let before, let last = state.entries(of: digest).values.compactMap(\.used).max(), last >= before.nanoseconds / 1_000_000_000 { continue }
          let removal = state.remove(names, of: digest, keeping: false)
          result.untagged += removal.untagged
          result.deleted += removal.deleted
          result.bytes += known.size
        }
      }
      try sweep()
      return result
    }
  }

  func missing(_ operation: String, _ reference: String) -> ImageError {
    ImageError(.notFound, operation, reference, "no such image on this host; 'orch image ls' shows what there is")
  }
}

extension ImageStore.State {
  /// Takes names away; with the last one the image, or, when `keeping`, all but its digest.
  fileprivate mutating func remove(_ names: [String], of digest: Digest, keeping: Bool) -> ImageRemoval {
    var result = ImageRemoval()
    for name in names {
      if let entry = index.images.removeValue(forKey: name) {
        result.untagged.append((try? ImageReference(name))?.familiar ?? name)
        if keeping, !isNamed(digest) {
          index.images[digest.description] = .init(manifest: digest.description, pulled: entry.pulled, used: entry.used)
        }
      }
    }
    needsSweep = true
    if keeping || !self.names(of: digest).isEmpty { return result }
    index.images[digest.description] = nil
    if let known = images.removeValue(forKey: digest) {
      result.deleted = [known.id]
      result.bytes = known.size
    }
    return result
  }
}

extension IndexDocument.Entry {
  fileprivate func used(at seconds: Int64) -> Self {
    var copy = self
    copy.used = seconds
    return copy
  }
}
