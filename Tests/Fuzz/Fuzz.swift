// Every parser of bytes from outside, fed with anything: none may trap, hang or take memory without bound, and some keep a promise that is
// checked (FuzzTarget). Two uses: `fuzz replay` feeds the corpus again (make test); `make fuzz TARGET=NAME` is a build with libFuzzer,
// which looks for new inputs by coverage (https://llvm.org/docs/LibFuzzer.html). An input that ever failed stays in Corpus/NAME.
import Glibc

@main struct Fuzz {
  static func main() {
    let arguments = Array(CommandLine.arguments.dropFirst())
    switch arguments.first {
    case "list": for target in FuzzTarget.allCases { print(target.rawValue) }
    case "replay": exit(replay(arguments.count > 1 ? arguments[1] : "Tests/Fuzz/Corpus"))
    case let name?:
      if let target = FuzzTarget(rawValue: name), let code = search(target) { exit(code) }
      usage(name == "--help" ? 0 : 2)
    case nil: usage(2)
    }
  }

  private static func usage(_ code: Int32) -> Never {
    print("usage: fuzz list | replay [FOLDER] | TARGET FOLDER... (with libFuzzer: make fuzz TARGET=NAME SECONDS_EACH=60)")
    exit(code)
  }

  /// nil: this program was built without libFuzzer, whose own `main` Swift's linking leaves out.
  private static func search(_ target: FuzzTarget) -> Int32? {
    typealias Feed = @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
    typealias Driver =
      @convention(c) (UnsafeMutablePointer<Int32>, UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>, Feed) -> Int32
    guard let driver = dlsym(nil, "LLVMFuzzerRunDriver") else { return nil }
    searched = target
    // libFuzzer reads the arguments after its program's name.
    var count = CommandLine.argc - 1
    var arguments = CommandLine.unsafeArgv + 1
    return unsafeBitCast(driver, to: Driver.self)(&count, &arguments, fuzzOneInput)
  }

  /// A line before each input: what traps is named by the last one.
  private static func replay(_ folder: String) -> Int32 {
    var count = 0
    for target in FuzzTarget.allCases {
      for name in files("\(folder)/\(target)") {
        guard let bytes = content("\(folder)/\(target)/\(name)") else {
          print("cannot read \(folder)/\(target)/\(name)")
          return 1
        }
        print("\(target)/\(name)")
        fflush(nil)
        target.feed(bytes)
        count += 1
      }
    }
    print("\(count) inputs")
    return count == 0 ? 1 : 0
  }

  private static func files(_ folder: String) -> [String] {
    guard let directory = opendir(folder) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } }
      if !name.hasPrefix(".") { names.append(name) }
    }
    return names.sorted()
  }

  private static func content(_ path: String) -> [UInt8]? {
    guard let file = fopen(path, "rb") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while case let count = fread(&chunk, 1, chunk.count, file), count > 0 { bytes += chunk[..<count] }
    return bytes
  }
}

nonisolated(unsafe) private var searched = FuzzTarget.manifest

/// The name is libFuzzer's, whose `main` refers to it.
@_cdecl("LLVMFuzzerTestOneInput") public func fuzzOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  searched.feed(Array(UnsafeBufferPointer(start: bytes, count: count)))
  return 0
}
