import DequeModule

/// What the entries of the log weigh, to know where a log of so many bytes begins.
struct LogSizes {
  private var sizes: Deque<UInt32> = []
  private var first: UInt64
  private(set) var bytes = 0

  init(after index: UInt64) { first = index + 1 }

  /// The first that is kept when at most so many bytes of the last ones are.
  func first(within bytesMax: Int) -> UInt64 {
    var rest = bytesMax
    var index = first + UInt64(sizes.count)
    for size in sizes.reversed() {
      rest -= Int(size)
      if rest < 0 { break }
      index -= 1
    }
    return index
  }

  /// In place of whatever was at its index and after it.
  mutating func append(_ entry: StoredEntry) {
    while first + UInt64(sizes.count) > entry.index, let last = sizes.popLast() { bytes -= Int(last) }
    let size = UInt32(clamping: entry.data.count + 24)
    sizes.append(size)
    bytes += Int(size)
  }

  mutating func forget(upTo index: UInt64) {
    while first <= index, let size = sizes.popFirst() {
      bytes -= Int(size)
      first += 1
    }
    first = max(first, index + 1)
  }

  mutating func restart(after index: UInt64) { self = LogSizes(after: index) }
}
