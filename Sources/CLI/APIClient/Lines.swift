/// Lines of an answer that comes in pieces, without their ends.
public struct Lines {
  private var partial: [UInt8] = []
  public init() {}

  /// Those that end with this piece; what follows the last end waits for the next.
  public mutating func add(_ bytes: some Sequence<UInt8>) -> [ArraySlice<UInt8>] {
    partial += bytes
    guard let end = partial.lastIndex(of: 10) else { return [] }
    let lines = partial[..<end].split(separator: 10, omittingEmptySubsequences: false)
    partial = Array(partial[(end + 1)...])
    return lines
  }
}
