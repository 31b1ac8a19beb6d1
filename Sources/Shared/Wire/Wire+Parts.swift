import Model
import SwiftProtobuf

// What may be larger than a frame travels in several.

extension WireAssignments {
  /// Of one part, about; a single item may exceed it.
  public static let partBytes = 1 << 20

  /// In its own order, each part at most about `bytes` long or a single item; all but the last say that they go on. An item whose weight
  /// exceeds `itemMax` (bytes) is left out and told.
  public func parts(bytes: Int = partBytes, itemMax: Int = .max, leftOut: (_ weight: Int) -> Void = { _ in }) throws -> [WireAssignments] {
    var part = self
    (part.updates, part.removals, part.continues) = ([], [], true)
    var parts = [part]
    var size = 0
    func room(for weight: Int) {
      if size > 0, size + weight > bytes {
        parts.append(part)
        size = 0
      }
      size += weight
    }
    for item in updates {
      let weight = try item.weight()
      guard weight <= itemMax else {
        leftOut(weight)
        continue
      }
      room(for: weight)
      parts[parts.count - 1].updates.append(item)
    }
    for key in removals {
      room(for: WireItem.smallWeight)
      parts[parts.count - 1].removals.append(key)
    }
    parts[parts.count - 1].continues = false
    return parts
  }
}

extension WireItem {
  /// More than a message of ids and numbers takes.
  static let smallWeight = 160

  /// At least its bytes within a message.
  func weight() throws -> Int {
    switch kind {
    case .revision(let json), .network(let json), .service(let json): json.count + Self.smallWeight
    // Much the most numerous, and ids and numbers but for the name.
    case .endpoint(let endpoint): endpoint.hostname.utf8.count + Self.smallWeight
    case nil: Self.smallWeight
    case .task, .file: try (serializedBytes() as [UInt8]).count + Self.smallWeight
    }
  }
}

/// Puts together what `WireAssignments.parts` took apart; of one session.
public struct AssignmentsAssembly: Sendable {
  private var begun: WireAssignments?

  public init() {}

  /// nil until the last part is there.
  public mutating func add(_ part: WireAssignments) throws -> AssignmentsMessage? {
    var whole = begun ?? part
    if begun != nil {
      begun = nil
      guard (whole.complete, whole.appliesTo, whole.resultsIn) == (part.complete, part.appliesTo, part.resultsIn) else {
        throw WireError("assignments to number \(whole.resultsIn) were cut off by others to number \(part.resultsIn)")
      }
      whole.updates += part.updates
      whole.removals += part.removals
    }
    if !part.continues { return try whole.model() }
    begun = whole
    return nil
  }
}

extension WireReports {
  /// Takes the first of `waiting`: at most `count`, and about `bytes` unless the first alone is larger.
  public static func take(from waiting: inout [TaskReport], count: Int = 1000, bytes: Int = 1 << 20) throws -> WireReports {
    var taken = WireReports()
    var size = 0
    for report in waiting.prefix(count) {
      let wire = WireTaskReport(report)
      size += try (wire.serializedBytes() as [UInt8]).count + 8
      if size > bytes, !taken.reports.isEmpty { break }
      taken.reports.append(wire)
    }
    waiting.removeFirst(taken.reports.count)
    return taken
  }
}
