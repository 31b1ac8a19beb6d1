/// A source of bytes, read by a thread that may block.
protocol ByteSource: AnyObject {
  /// Fills from the start and returns how many; 0 at the end.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int
}

extension ByteSource {
  /// Fills all of it, less only where the source ends; how many.
  func fill(_ bytes: inout [UInt8]) throws -> Int {
    try bytes.withUnsafeMutableBytes { buffer in
      var done = 0
      while done < buffer.count {
        let count = try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[done...]))
        if count == 0 { break }
        done += count
      }
      return done
    }
  }
}

/// One member of an archive. Names are bytes, as the kernel's are.
struct TarEntry {
  enum Kind: Equatable { case file, hardLink, symbolicLink, characterDevice, blockDevice, directory, fifo }
  var kind: Kind
  var name: [UInt8]
  var linkName: [UInt8]
  var size: Int64
  var mode: UInt32
  var uid: UInt32
  var gid: UInt32
  /// Seconds and nanoseconds since 1970.
  var modified: (seconds: Int, nanoseconds: Int)
  /// Where the data of a sparse file lies, in order, the rest being holes; nil: all of `size` is data.
  var segments: [Range<Int64>]?
  /// `security.capability` and the like, from `SCHILY.xattr.` records.
  var attributes: [(name: String, value: [UInt8])]
}

/// A streaming reader of POSIX ustar and pax archives with GNU long names (tar(5); POSIX pax). Reads forward only, keeps one block.
/// Sparse files of GNU tar are read in all their forms. Refuses: wrong checksums, truncation, records over 1 MiB, sizes below zero.
final class TarReader {
  private let source: any ByteSource
  private var remaining: Int64 = 0
  private var padding: Int64 = 0
  /// Bytes taken from the source so far.
  private(set) var position: Int64 = 0
  private var finished = false

  init(_ source: any ByteSource) { self.source = source }

  /// The next member, its predecessor's data skipped; nil at the end.
  func next() throws -> TarEntry? {
    guard !finished else { return nil }
    try skip()
    var long = Extensions()
    while true {
      guard let block = try header() else {
        finished = true
        return nil
      }
      let type = block[156]
      let size = try number(block, 124, 12, "size")
      switch type {
      case UInt8(ascii: "x"): try long.merge(try record(size))
      case UInt8(ascii: "g"): _ = try record(size)
      case UInt8(ascii: "L"): long.path = cString(try record(size))
      case UInt8(ascii: "K"): long.link = cString(try record(size))
      default: return try entry(block, type, size, long)
      }
    }
  }

  /// Data of the current member; 0 at its end.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    let wanted = Int(min(Int64(buffer.count), remaining))
    guard wanted > 0 else { return 0 }
    let count = try source.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted]))
    guard count > 0 else { throw truncated }
    position += Int64(count)
    remaining -= Int64(count)
    return count
  }

  /// The rest of the source, whatever it is: a digest covers it too.
  func drain() throws {
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while try chunk.withUnsafeMutableBytes({ try source.read(into: $0) }) > 0 {}
  }

  // MARK: - Blocks

  private var truncated: ImageError { ImageError(.corrupt, "read", "the archive", "it ends in the middle of a member") }

  private func skip() throws {
    var left = remaining + padding
    let optional = padding
    remaining = 0
    padding = 0
    guard left > 0 else { return }
    if let file = source as? FileSource, try file.skip(left) {
      position += left
      return
    }
    var chunk = [UInt8](repeating: 0, count: Int(min(left, 65_536)))
    while left > 0 {
      let count = try chunk.withUnsafeMutableBytes {
        try source.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[..<Int(min(left, Int64($0.count)))]))
      }
      if count == 0 {
        // The data is whole: umoci 0.4.7 leaves the last padding out, and Go's reader takes it.
        if left <= optional { return }
        throw truncated
      }
      position += Int64(count)
      left -= Int64(count)
    }
  }

  private func fill(_ bytes: inout [UInt8]) throws -> Int {
    let count = try source.fill(&bytes)
    position += Int64(count)
    return count
  }

  /// nil at two zero blocks, or where the source ends between members (some writers leave the end out).
  private func header() throws -> [UInt8]? {
    var block = [UInt8](repeating: 0, count: 512)
    let count = try fill(&block)
    if count == 0 { return nil }
    guard count == 512 else { throw position < 512 ? noArchive("it is no tar file") : truncated }
    if block.allSatisfy({ $0 == 0 }) { return nil }
    var (unsigned, signed) = (0, 0)
    for (index, byte) in block.enumerated() {
      let value = (148..<156).contains(index) ? 32 : byte
      unsigned += Int(value)
      signed += Int(Int8(bitPattern: value))
    }
    // Of the first block a wrong checksum says that this never was a tar file.
    let isFirst = position == Int64(block.count)
    let stated = isFirst ? try? number(block, 148, 8, "checksum") : try number(block, 148, 8, "checksum")
    guard stated == Int64(unsigned) || stated == Int64(signed) else {
      throw isFirst ? noArchive("it is no tar file") : ImageError(.corrupt, "read", "the archive", "a header's checksum is wrong: it is damaged")
    }
    return block
  }

  private func record(_ size: Int64) throws -> [UInt8] {
    guard size <= 1 << 20 else { throw ImageError(.hostile, "read", "the archive", "a name or attribute record has \(size) bytes") }
    var bytes = [UInt8](repeating: 0, count: Int(size))
    guard try fill(&bytes) == bytes.count else { throw truncated }
    padding = (512 - size % 512) % 512
    try skip()
    return bytes
  }

  private func entry(_ block: [UInt8], _ type: UInt8, _ headerSize: Int64, _ long: Extensions) throws -> TarEntry {
    var name = cString(Array(block[0..<100]))
    let isUstar = block[257..<262].elementsEqual("ustar".utf8)
    if isUstar, block[263] == 48, block[345] != 0 { name = cString(Array(block[345..<500])) + [47] + name }
    if let path = long.path { name = path }
    let endsInSlash = name.last == 47
    let kind: TarEntry.Kind
    switch type {
    case 0, UInt8(ascii: "0"), UInt8(ascii: "7"): kind = endsInSlash ? .directory : .file
    case UInt8(ascii: "S"): kind = .file
    case UInt8(ascii: "1"): kind = .hardLink
    case UInt8(ascii: "2"): kind = .symbolicLink
    case UInt8(ascii: "3"): kind = .characterDevice
    case UInt8(ascii: "4"): kind = .blockDevice
    case UInt8(ascii: "5"): kind = .directory
    case UInt8(ascii: "6"): kind = .fifo
    default: throw ImageError(.unsupported, "read", "the archive", "member type '\(UnicodeScalar(type))' of '\(text(name))' is not supported")
    }
    if let real = long.sparse.name { name = real }
    let size = long.size ?? headerSize
    guard size >= 0 else { throw ImageError(.corrupt, "read", "the archive", "'\(text(name))' has a size below zero") }
    // Only files carry data; some writers state a size for hard links that is not followed by any.
    remaining = kind == .file ? size : 0
    padding = (512 - remaining % 512) % 512
    if remaining > Int64.max - 1024 { throw ImageError(.corrupt, "read", "the archive", "'\(text(name))' has an impossible size") }
    // The map may stand before the data, in which case less than `size` is left.
    var sparse = long.sparse
    if type == UInt8(ascii: "S") { try readOldMap(block, &sparse) }
    if sparse.isVersion1 { try readMap(&sparse) }
    let segments = kind == .file ? try sparse.segments(stored: remaining, name) : nil
    return TarEntry(
      kind: kind, name: name, linkName: long.link ?? cString(Array(block[157..<257])),
      size: kind == .file ? (segments == nil ? size : sparse.size ?? 0) : 0,
      mode: UInt32(truncatingIfNeeded: try number(block, 100, 8, "mode")) & 0o7777,
      uid: try owner(long.uid ?? number(block, 108, 8, "uid"), "uid", name), gid: try owner(long.gid ?? number(block, 116, 8, "gid"), "gid", name),
      modified: try long.modified ?? (Int(number(block, 136, 12, "mtime")), 0), segments: segments, attributes: long.attributes)
  }

  // MARK: - Sparse files (GNU tar manual, "Storing Sparse Files")

  /// The old form: pairs in the header, and in blocks between it and the data.
  private func readOldMap(_ header: [UInt8], _ sparse: inout SparseMap) throws {
    func pairs(_ block: [UInt8], _ start: Int, _ count: Int) throws {
      for index in 0..<count where block[start + index * 24 + 12] != 0 {
        try sparse.add(number(block, start + index * 24, 12, "offset"), number(block, start + index * 24 + 12, 12, "length"))
      }
    }
    try pairs(header, 386, 4)
    sparse.size = try number(header, 483, 12, "size")
    var isExtended = header[482] != 0
    while isExtended {
      var block = [UInt8](repeating: 0, count: 512)
      guard try fill(&block) == 512 else { throw truncated }
      try pairs(block, 0, 21)
      isExtended = block[504] != 0
    }
  }

  /// Version 1.0: decimal lines at the beginning of the data, filled up to a block.
  private func readMap(_ sparse: inout SparseMap) throws {
    var line: [UInt8] = []
    var numbers: [Int64] = []
    var wanted: Int64 = 1
    while Int64(numbers.count) < wanted {
      var block = [UInt8](repeating: 0, count: 512)
      guard remaining >= 512, try fill(&block) == 512 else { throw truncated }
      remaining -= 512
      for byte in block {
        guard Int64(numbers.count) < wanted else { break }
        guard byte == 10 else {
          line.append(byte)
          if line.count > 20 { throw SparseMap.damaged }
          continue
        }
        guard let number = Int64(String(decoding: line, as: UTF8.self)), number >= 0 else { throw SparseMap.damaged }
        if numbers.isEmpty {
          guard number <= SparseMap.maximum else { throw SparseMap.damaged }
          wanted = 1 + 2 * number
        }
        numbers.append(number)
        line = []
      }
    }
    for index in stride(from: 1, to: numbers.count, by: 2) { try sparse.add(numbers[index], numbers[index + 1]) }
  }

  /// Octal text, or base 256 when the first bit is set (GNU).
  private func number(_ block: [UInt8], _ offset: Int, _ count: Int, _ what: String) throws -> Int64 {
    let field = block[offset..<offset + count]
    if block[offset] & 0x80 != 0 {
      var value: Int64 = block[offset] & 0x40 != 0 ? -1 : 0
      for (index, byte) in field.enumerated() {
        let digit = index == 0 ? Int64(byte & 0x7f) - (value < 0 ? 128 : 0) : Int64(byte)
        if index == 0 { value = value < 0 ? Int64(Int8(bitPattern: byte)) : digit; continue }
        let (shifted, overflow) = value.multipliedReportingOverflow(by: 256)
        guard !overflow else { throw ImageError(.corrupt, "read", "the archive", "a header's \(what) is too large") }
        value = shifted + Int64(byte)
      }
      return value
    }
    var value: Int64 = 0
    for byte in field.drop(while: { $0 == 32 }) {
      if byte == 0 || byte == 32 { break }
      guard (48...55).contains(byte) else { throw ImageError(.corrupt, "read", "the archive", "a header's \(what) is not a number") }
      value = value << 3 | Int64(byte - 48)
    }
    return value
  }

  /// 2^32 would be root, and 2^32 - 1 tells chown(2) to leave root as it is.
  private func owner(_ number: Int64, _ what: String, _ name: [UInt8]) throws -> UInt32 {
    guard (0..<Int64(UInt32.max)).contains(number) else {
      throw ImageError(.hostile, "read", "the archive", "'\(text(name))' has the \(what) \(number), which is nobody's")
    }
    return UInt32(number)
  }

  private func cString(_ bytes: [UInt8]) -> [UInt8] { Array(bytes.prefix { $0 != 0 }) }
}

func text(_ name: [UInt8]) -> String { String(decoding: name.prefix(200), as: UTF8.self) }

/// What pax and GNU records say about the next member.
private struct Extensions {
  var path: [UInt8]?
  var link: [UInt8]?
  var size: Int64?
  var uid: Int64?
  var gid: Int64?
  var modified: (seconds: Int, nanoseconds: Int)?
  var attributes: [(name: String, value: [UInt8])] = []
  var attributeBytes = 0
  var sparse = SparseMap()

  /// Records are "LENGTH KEY=VALUE\n" (POSIX pax, "pax Extended Header").
  mutating func merge(_ bytes: [UInt8]) throws {
    let damaged = ImageError(.corrupt, "read", "the archive", "a pax record is damaged")
    var rest = bytes[...]
    while !rest.isEmpty {
      if rest.allSatisfy({ $0 == 0 }) { return }
      guard let space = rest.firstIndex(of: 32), let length = Int(String(decoding: rest[..<space], as: UTF8.self)),
        length > space - rest.startIndex + 1,
        length <= rest.count, rest[rest.startIndex + length - 1] == 10
      else { throw damaged }
      let body = rest[(space + 1)..<(rest.startIndex + length - 1)]
      rest = rest[(rest.startIndex + length)...]
      guard let equals = body.firstIndex(of: 61) else { throw damaged }
      let key = String(decoding: body[..<equals], as: UTF8.self)
      let value = Array(body[(equals + 1)...])
      let word = String(decoding: value, as: UTF8.self)
      switch key {
      case "path", "linkpath":
        guard !value.contains(0) else { throw damaged }
        if key == "path" { path = value } else { link = value }
      case "size":
        guard let number = Int64(word), number >= 0 else { throw damaged }
        size = number
      case "uid":
        guard let number = Int64(word) else { throw damaged }
        uid = number
      case "gid":
        guard let number = Int64(word) else { throw damaged }
        gid = number
      case "mtime": modified = Self.instant(word)
      default:
        if key.hasPrefix("SCHILY.xattr.") {
          // Records may come one after the other, each within its own bound.
          attributeBytes += value.count
          guard attributeBytes <= 1 << 20, attributes.count < 1000 else {
            throw ImageError(.hostile, "read", "the archive", "a member has more than 1 MiB or 1000 extended attributes")
          }
          attributes.append((String(key.dropFirst(13)), value))
        }
        if key.hasPrefix("GNU.sparse.") { try sparse.record(String(key.dropFirst(11)), word, value) }
      }
    }
  }

  private static func instant(_ word: String) -> (seconds: Int, nanoseconds: Int)? {
    let parts = word.split(separator: ".", maxSplits: 1)
    guard let first = parts.first, let seconds = Int(first) else { return nil }
    guard parts.count == 2 else { return (seconds, 0) }
    let digits = parts[1].prefix(9)
    guard let fraction = Int(digits) else { return (seconds, 0) }
    var nanoseconds = fraction
    for _ in digits.count..<9 { nanoseconds *= 10 }
    return word.hasPrefix("-") && nanoseconds > 0 ? (seconds - 1, 1_000_000_000 - nanoseconds) : (seconds, nanoseconds)
  }
}

/// Which parts of a file an archive has.
struct SparseMap {
  /// Pairs of one file.
  static let maximum: Int64 = 1 << 20
  static var damaged: ImageError { ImageError(.corrupt, "read", "the archive", "the map of a sparse file is damaged") }

  /// Of the whole file, holes included.
  var size: Int64?
  var name: [UInt8]?
  private var parts: [(offset: Int64, length: Int64)] = []
  private var pending: Int64?
  private var isSparse = false
  private(set) var isVersion1 = false

  mutating func add(_ offset: Int64, _ length: Int64) throws {
    isSparse = true
    let (end, overflow) = offset.addingReportingOverflow(length)
    let last = parts.last.map { $0.offset + $0.length } ?? 0
    guard offset >= last, length >= 0, !overflow, end >= 0, Int64(parts.count) < Self.maximum else { throw Self.damaged }
    parts.append((offset, length))
  }

  /// One record of a pax header, without "GNU.sparse.": versions 0.0, 0.1 and 1.0.
  mutating func record(_ key: String, _ word: String, _ value: [UInt8]) throws {
    isSparse = true
    switch key {
    case "name":
      guard !value.contains(0) else { throw Self.damaged }
      name = value
    case "size", "realsize":
      guard let number = Int64(word), number >= 0 else { throw Self.damaged }
      size = number
    case "major": isVersion1 = word == "1"
    case "offset": pending = Int64(word)
    case "numbytes":
      guard let offset = pending, let length = Int64(word) else { throw Self.damaged }
      pending = nil
      try add(offset, length)
    case "map":
      let numbers = word.split(separator: ",", omittingEmptySubsequences: false).map { Int64($0) }
      guard numbers.count % 2 == 0 else { throw Self.damaged }
      for index in stride(from: 0, to: numbers.count, by: 2) {
        guard let offset = numbers[index], let length = numbers[index + 1] else { throw Self.damaged }
        try add(offset, length)
      }
    default: break
    }
  }

  /// nil: no sparse file. `stored`: bytes that follow.
  func segments(stored: Int64, _ name: [UInt8]) throws -> [Range<Int64>]? {
    guard isSparse else { return nil }
    guard let size, parts.allSatisfy({ $0.offset + $0.length <= size }) else { throw Self.damaged }
    // Each is within `size`, one after the other: no sum can overflow.
    guard parts.reduce(0, { $0 + $1.length }) == stored else { throw Self.damaged }
    return parts.filter { $0.length > 0 }.map { $0.offset..<($0.offset + $0.length) }
  }
}

/// What was given is something else than an archive; says how to make one.
func noArchive(_ why: String) -> ImageError {
  ImageError(
    .unsupported, "read", "the archive",
    "\(why); `docker save IMAGE -o FILE` or `skopeo copy` make one for `orch image load`, `tar -C ROOT -cf FILE .` one for `orch image import`")
}
