import LinuxSystem
import Testing

@testable import AgentImage

@Suite struct Tars {
  private func members(_ bytes: [UInt8], piece: Int = .max) throws -> [String] {
    let tar = TarReader(MemorySource(bytes, piece: piece))
    var result: [String] = []
    while let entry = try tar.next() {
      var data = [UInt8](repeating: 0, count: Int(entry.size))
      var done = 0
      while done < data.count { done += try data.withUnsafeMutableBytes { try tar.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[done...])) } }
      result.append(
        "\(entry.kind) \(String(decoding: entry.name, as: UTF8.self)) \(entry.linkName.isEmpty ? "" : "-> \(text(entry.linkName)) ")\(String(decoding: data, as: UTF8.self))"
      )
    }
    return result
  }

  @Test("members are read whatever the size of the pieces", arguments: [1, 7, 512, Int.max])
  func pieces(_ piece: Int) throws {
    var tar = TarWriter()
    tar.folder("a/")
    tar.add("a/b", "hello")
    tar.add("a/c", type: "2", link: "b")
    tar.add("a/d", type: "1", link: "a/b")
    tar.pax([("path", Array(("long/" + String(repeating: "x", count: 200)).utf8)), ("mtime", Array("12.5".utf8))])
    tar.add("short", "data")
    tar.add("././@LongLink", type: "L", Array(("gnu/" + String(repeating: "y", count: 150)).utf8) + [0])
    tar.add("cut", "z")
    #expect(
      try members(tar.finished(), piece: piece) == [
        "directory a/ ", "file a/b hello", "symbolicLink a/c -> b ", "hardLink a/d -> a/b ", "file long/\(String(repeating: "x", count: 200)) data",
        "file gnu/\(String(repeating: "y", count: 150)) z",
      ])
  }

  @Test("an archive without its end, or its last padding, is taken; one that is cut is not")
  func ends() throws {
    var tar = TarWriter()
    tar.add("a", "hello")
    #expect(try members(tar.bytes) == ["file a hello"])
    // 512 of header, then 5 of data. umoci 0.4.7 writes no padding after the last member.
    for cut in [517, 600] { #expect(try members(Array(tar.bytes[..<cut])) == ["file a hello"]) }
    for cut in [1, 511, 513, 516] { #expect(throws: ImageError.self) { try members(Array(tar.bytes[..<cut])) } }
  }

  @Test("damage is told, never a crash: every byte of a header turned", arguments: 0..<512)
  func damage(_ position: Int) {
    var tar = TarWriter()
    tar.pax([("path", Array("p".utf8))])
    tar.add("a", "hello")
    var bytes = tar.finished()
    for value: UInt8 in [0, 0x20, 0x80, 0xff] {
      bytes[position] = value
      _ = try? members(bytes)
      bytes[position + 1024] = value
      _ = try? members(bytes)
    }
  }

  @Test("bad pax records, sizes and maps of sparse files are refused")
  func refusals() {
    for record in ["5 a=b\n", "x a=b\n", "99 a=b\n", "7 path=\n", "3 \n", "-5 a=b\n", "16 size=-12345\n\n"] {
      var tar = TarWriter()
      tar.add("pax", type: "x", Array(record.utf8))
      tar.add("a", "b")
      if record.hasPrefix("7 path") { continue }
      #expect(throws: ImageError.self, "\(record)") { try members(tar.finished()) }
    }
    for map in ["5,3,1,1", "0,99999", "-1,1", "0", "0,x", "0,9223372036854775807,9223372036854775807,1"] {
      var sparse = TarWriter()
      sparse.pax([("GNU.sparse.map", Array(map.utf8)), ("GNU.sparse.size", Array("100".utf8))])
      sparse.add("a", "b")
      #expect(throws: ImageError.self, "\(map)") { try members(sparse.finished()) }
    }
    var huge = TarWriter()
    huge.add("pax", type: "x", [], size: 0o77777777777)
    #expect(throws: ImageError.self) { try members(huge.finished()) }
  }

  @Test("an archive of more members than are looked at is refused, links and folders counted")
  func archiveMembers() throws {
    var tar = TarWriter()
    for number in 0..<8 { tar.add("f\(number)", "x") }
    tar.add("l", type: "2", link: "f0")
    tar.folder("d")
    let folder = Folder()
    let path = try folder.write("a.tar", tar.finished())
    _ = try TarArchive(path, maximumMembers: 10)
    #expect { _ = try TarArchive(path, maximumMembers: 9) } throws: { "\($0)".contains("more than 9 members") }
  }

  @Test("gzip and zstd are unpacked in any pieces, members and frames in a row too", arguments: [false, true])
  func inflates(zstandard: Bool) throws {
    let content = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 7 ^ $0 >> 5) }
    let pack = zstandard ? zstd : gzip
    let packed = pack(Array(content[..<50_000])) + pack(Array(content[50_000...])) + (zstandard ? [] : [0, 0, 0])
    for piece in [1, 100, 65_536] {
      let source = try InflatingSource(MemorySource(packed, piece: piece))
      var result: [UInt8] = []
      var chunk = [UInt8](repeating: 0, count: 3000)
      while true {
        let count = try chunk.withUnsafeMutableBytes { try source.read(into: $0) }
        if count == 0 { break }
        result += chunk[..<count]
      }
      #expect(result == content)
    }
    let cut = try InflatingSource(MemorySource(Array(packed[..<1000])))
    var chunk = [UInt8](repeating: 0, count: 200_000)
    #expect(throws: ImageError.self) { while try chunk.withUnsafeMutableBytes({ try cut.read(into: $0) }) > 0 {} }
  }

  @Test(
    "xz and bzip2 archives, in whatever pieces, of several streams too; damaged and cut ones are told",
    .enabled(if: installed("xz") && installed("bzip2")), arguments: ["xz -9", "bzip2"])
  func archives(_ command: String) throws {
    let folder = Folder()
    let content = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 7 / 13) }
    try folder.write("plain", content)
    func pack(_ script: String) throws -> [UInt8] {
      let made = run(["sh", "-c", "cd \(folder.path) && (\(script)) > packed"])
      try #require(made.code == 0, "\(made.output)")
      return try Files.read(folder.path + "/packed")
    }
    func unpacked(_ bytes: [UInt8], piece: Int = .max) throws -> [UInt8] {
      let source = try InflatingSource(MemorySource(bytes, piece: piece), isLayer: false)
      var result: [UInt8] = []
      var chunk = [UInt8](repeating: 0, count: 3000)
      while true {
        let count = try chunk.withUnsafeMutableBytes { try source.read(into: $0) }
        if count == 0 { return result }
        result += chunk[..<count]
      }
    }
    let one = try pack("\(command) -c plain")
    for piece in [1, 1000, .max] { #expect(try unpacked(one, piece: piece) == content, "\(piece)") }
    #expect(try unpacked(pack("\(command) -c plain; \(command) -c plain"), piece: 999) == content + content)
    #expect(try unpacked(pack("\(command) -c /dev/null")).isEmpty)
    var damaged = one
    damaged[one.count / 2] ^= 0xff
    for bytes in [damaged, Array(one.dropLast(20)), Array(one.prefix(8))] {
      #expect(throws: ImageError.self) { try unpacked(bytes) }
    }
    // As a layer it is refused by name.
    let layer = #expect(throws: ImageError.self) { try InflatingSource(MemorySource(one)) }
    #expect(layer?.cause.contains("compressed with \(command.prefix { $0 != " " })") == true)
  }

  @Test("an xz stream that wants more memory than is given is refused by name", .enabled(if: installed("xz")))
  func memory() throws {
    let folder = Folder()
    let made = run(["sh", "-c", "cd \(folder.path) && echo x | xz --lzma2=dict=512MiB -c > packed"])
    try #require(made.code == 0, "\(made.output)")
    let source = try InflatingSource(FileSource(folder.path + "/packed"), isLayer: false)
    var chunk = [UInt8](repeating: 0, count: 100)
    let error = #expect(throws: ImageError.self) { try source.fill(&chunk) }
    #expect(error?.kind == .hostile && error?.cause.contains("256 MiB") == true, "\(String(describing: error))")
  }

  @Test("layers in xz and bzip2 are refused by name, a damaged zstd stream is told")
  func formats() {
    let xz = #expect(throws: ImageError.self) { try InflatingSource(MemorySource([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0])) }
    #expect(xz?.cause.contains("xz") == true)
    let bzip2 = #expect(throws: ImageError.self) { try InflatingSource(MemorySource(Array("BZh9xx".utf8))) }
    #expect(bzip2?.cause.contains("bzip2") == true)
    var bytes = zstd(Array("hello hello hello hello".utf8))
    bytes[5] ^= 0xff
    #expect(throws: ImageError.self) {
      let source = try InflatingSource(MemorySource(bytes))
      var chunk = [UInt8](repeating: 0, count: 100)
      while try chunk.withUnsafeMutableBytes({ try source.read(into: $0) }) > 0 {}
    }
  }
}
