import APIClient
import Testing

@Suite struct QueryPrinterTests {
  /// In pieces of `step` bytes, as a network might bring it.
  private func printed(_ format: QueryPrinter.Format, _ answer: String, width: Int? = nil, step: Int = 7) throws -> [String] {
    var lines: [String] = []
    let bytes = Array(answer.utf8)
    try withoutActuallyEscaping({ (line: String) in lines.append(line) }) { add in
      var printer = QueryPrinter(format, width: width, print: add)
      for start in stride(from: 0, to: bytes.count, by: step) { try printer.add(bytes[start..<min(start + step, bytes.count)]) }
      try printer.finish()
    }
    return lines
  }

  private let answer = """
    {"columns":["node","n","what"]}
    ["host1",3,null]
    ["a \\"quoted\\", name",-1.5,"two\\nlines, ü"]
    {"rows":2}

    """

  @Test("a table pads its columns, and leaves the last as it is", arguments: [1, 7, 1000])
  func table(step: Int) throws {
    #expect(
      try printed(.table, answer, step: step) == [
        "NODE               N      WHAT", "host1              3", "a \"quoted\", name   -1.5   two lines, ü",
      ])
  }

  @Test("a narrow terminal cuts the widest columns, also in rows that come later")
  func narrow() throws {
    let long = String(repeating: "x", count: 50)
    let rows = (0..<1500).map { "[\($0),\"\(long)\"]" }.joined(separator: "\n")
    let lines = try printed(.table, "{\"columns\":[\"i\",\"text\"]}\n\(rows)\n{\"rows\":1500}\n", width: 30, step: 4096)
    #expect(lines.count == 1501 && lines.allSatisfy { $0.count <= 31 })
    #expect(lines[1].hasSuffix("xxx…") && lines[1].count == 30)
    #expect(lines[1500].hasSuffix("xxx…") && lines[1500].hasPrefix("1499   x"), "a number is not cut")
  }

  @Test("json is an object a line with the columns' names in their order; equal names are numbered")
  func json() throws {
    #expect(
      try printed(.json, answer) == [
        #"{"node":"host1","n":3,"what":null}"#, #"{"node":"a \"quoted\", name","n":-1.5,"what":"two\nlines, ü"}"#,
      ])
    #expect(try printed(.json, "{\"columns\":[\"a\",\"a\"]}\n[1,2]\n{\"rows\":1}\n") == [#"{"a":1,"a_2":2}"#])
  }

  @Test("csv quotes what must be quoted (RFC 4180)")
  func csv() throws {
    #expect(
      try printed(.csv, answer) == ["node,n,what", "host1,3,", "\"a \"\"quoted\"\", name\",-1.5,\"two\nlines, ü\""])
  }

  @Test("no rows: a header for people and csv, nothing for programs that read objects")
  func empty() throws {
    let none = "{\"columns\":[\"a\",\"b\"]}\n{\"rows\":0}\n"
    #expect(try printed(.table, none) == ["A   B"])
    #expect(try printed(.csv, none) == ["a,b"])
    #expect(try printed(.json, none) == [])
  }

  @Test("an answer that was cut off, or ended with an error, is an error after the rows that came")
  func cutOff() throws {
    #expect(throws: ClientError.self) { try printed(.table, "{\"columns\":[\"a\"]}\n[1]\n") }
    #expect(throws: ClientError.broken("stopped after 10 s")) {
      try printed(.table, "{\"columns\":[\"a\"]}\n[1]\n{\"error\":\"stopped after 10 s\"}\n")
    }
    for nonsense in ["[1\n", "[\"a]\n", "hello\n", "[\"\\q\"]\n"] {
      #expect(throws: ClientError.self) { try printed(.csv, "{\"columns\":[\"a\"]}\n\(nonsense){\"rows\":1}\n") }
    }
  }
}
