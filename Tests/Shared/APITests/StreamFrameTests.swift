import API
import Model
import Testing

@Suite struct StreamFrameTests {
  @Test("frames come out whole, however the bytes were cut", arguments: 1...13)
  func parse(size: Int) throws {
    let frames = [StreamFrame(.stdout, Array("hello".utf8)), StreamFrame(.stderr), StreamFrame(.exit, [1, 2, 3])]
    let bytes = frames.flatMap(\.bytes)
    var parser = StreamFrame.Parser()
    var found: [StreamFrame] = []
    for start in stride(from: 0, to: bytes.count, by: size) {
      parser.append(bytes[start..<min(bytes.count, start + size)])
      while let frame = try parser.next() { found.append(frame) }
    }
    #expect(found == frames)
    #expect(parser.isEmpty)
  }

  @Test("a frame is docker's: stream, three zeros, big-endian length")
  func layout() { #expect(StreamFrame(.stderr, Array("ab".utf8)).bytes == [2, 0, 0, 0, 0, 0, 0, 2, 97, 98]) }

  @Test("an unknown stream and a length over the limit are refused")
  func refuse() {
    var unknown = StreamFrame.Parser()
    unknown.append([9, 0, 0, 0, 0, 0, 0, 0])
    #expect(throws: StreamFrame.Fault.unknownStream(9)) { try unknown.next() }
    var long = StreamFrame.Parser()
    long.append([1, 0, 0, 0, 0x7F, 0, 0, 0])
    #expect(throws: StreamFrame.Fault.self) { try long.next() }
  }

  @Test("a pipe paces its writer, keeps order, and lets either side leave")
  func pipe() async throws {
    let pipe = Pipe<Int>(capacity: 2)
    let writer = Task {
      var sent = 0
      for number in 0..<100 where await pipe.send(number) { sent += 1 }
      pipe.finish()
      return sent
    }
    var got: [Int] = []
    for try await number in pipe {
      got.append(number)
      if number == 49 { break }
    }
    #expect(got == Array(0..<50))
    pipe.cancel()
    #expect(await writer.value < 100)
    let waiting = Pipe<Int>(capacity: 1)
    let reader = Task { try await waiting.next() }
    reader.cancel()
    #expect(try await reader.value == nil)
    #expect(await waiting.send(1) == false)
  }
}
