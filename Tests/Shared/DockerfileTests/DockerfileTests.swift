import Testing

@testable import Dockerfile

@Suite("Dockerfile")
struct DockerfileTests {
  /// Keyword, rest and heredocs of every logical line.
  static let lines: [(text: String, expected: [String])] = [
    ("FROM a\nRUN b", ["1 FROM a", "2 RUN b"]),
    ("# c\n\nfrom a\n", ["3 FROM a"]),
    ("FROM a\nRUN x \\\n  y \\\n# between\n\n  z\nRUN w", ["1 FROM a", "2 RUN x   y   z", "7 RUN w"]),
    ("# escape=`\nFROM a\nRUN x `\n y\\\n", ["2 FROM a", "3 RUN x  y\\"]),
    ("# syntax=docker/dockerfile:1\n# escape=\\\nFROM a", ["3 FROM a"]),
    // A directive after a comment is a comment.
    ("# hello\n# escape=`\nFROM a\nRUN x \\\n y", ["3 FROM a", "4 RUN x  y"]),
    ("FROM a\r\nRUN x \\\r\n y\r\n", ["1 FROM a", "2 RUN x  y"]),
    ("\u{feff}FROM a", ["1 FROM a"]),
    ("FROM a\nRUN x \\", ["1 FROM a", "2 RUN x"]),
    (
      "FROM a\nRUN <<EOF\none\n  # not a comment\ntwo \\\nEOF\nRUN b", ["1 FROM a", "2 RUN <<EOF {EOF+|one\n  # not a comment\ntwo \\\n}", "7 RUN b"]
    ),
    ("FROM a\nRUN <<-E cat\n\tx\n\tE", ["1 FROM a", "2 RUN <<-E cat {E+-|x\n}"]),
    ("FROM a\nCOPY <<\"A\" <<B /d/\n$x\nA\n2\nB", ["1 FROM a", "2 COPY <<\"A\" <<B /d/ {A|$x\n} {B+|2\n}"]),
    ("FROM a\nRUN cat 3<<EOF >/x\n1\nEOF", ["1 FROM a", "2 RUN cat 3<<EOF >/x {EOF+|1\n}"]),
    // No heredocs: quoted, a here-string, arithmetic, another instruction.
    ("FROM a\nRUN echo \"<<EOF\" '<<X' <<<y $((1<<2))", ["1 FROM a", "2 RUN echo \"<<EOF\" '<<X' <<<y $((1<<2))"]),
    ("FROM a\nLABEL x=<<EOF", ["1 FROM a", "2 LABEL x=<<EOF"]),
  ]

  @Test("lines are joined, comments left out, heredocs taken with their instruction", arguments: lines)
  func logicalLines(_ example: (text: String, expected: [String])) throws {
    let shown = try LogicalLines(example.text).lines.map { line in
      "\(line.number) \(line.keyword) \(line.rest)"
        + line.heredocs.map { " {\($0.name)\($0.expands ? "+" : "")\($0.stripsTabs ? "-" : "")|\($0.content)}" }.joined()
    }
    #expect(shown == example.expected)
  }

  static let errors: [(text: String, error: String)] = [
    ("", "line 1: there is no FROM: begin with FROM IMAGE, or FROM scratch"),
    ("RUN x\nFROM a", "line 1: RUN before the first FROM: only ARG may stand there"),
    ("FROM a\nFOO x", "line 2: 'FOO' is no instruction of a Dockerfile"),
    ("FROM a\n\nRUN \\\n  <<EOF\nx", "line 3: the heredoc <<EOF is not closed by a line 'EOF'"),
    ("# escape=x\nFROM a", "line 1: the escape character is \\ or `, not 'x'"),
    ("# escape=`\n# escape=`\nFROM a", "line 2: the directive 'escape' stands twice"),
    ("FROM a as b\nFROM c AS B", "line 2: a stage named 'b' stands above already: give it another name"),
    ("FROM a b", "line 1: write FROM IMAGE, or FROM IMAGE AS NAME"),
    ("FROM a AS 1x", "line 1: '1x' cannot name a stage: a letter, then letters, digits, '-', '_' or '.'"),
    ("FROM --foo=1 a", "line 1: FROM has no flag --foo"),
    ("FROM a\nENV", "line 2: ENV needs an argument"),
    ("FROM a\nENV x", "line 2: ENV x has no value: write x=…"),
    ("FROM a\nENV a=b c", "line 2: 'c' is not NAME=VALUE: a value with spaces wants quotes"),
    ("FROM a\nCOPY x", "line 2: COPY needs a source and a target"),
    ("FROM a\nCOPY --parents=x a b", "line 2: COPY --parents is true or false, not 'x'"),
    ("FROM a\nADD --parents a b", "line 2: ADD --parents needs a value, or is not supported"),
    (
      "FROM a\nADD --from=x a b",
      "line 2: ADD --from is not supported: --chown, --chmod, --exclude and --link are, COPY's --from and --parents, ADD's --checksum"
    ),
    ("FROM a\nRUN --mount=type=cache y", "line 2: RUN --mount: it needs a target"),
    ("FROM a\nRUN --mount=type=ssh y", "line 2: RUN --mount: type=ssh is not supported: bind, cache, tmpfs and secret are; send a key as a secret"),
    ("FROM a\nRUN --mount=type=cache,target=/x,sharing=never y", "line 2: RUN --mount: sharing is shared, private or locked"),
    ("FROM a\nRUN --mount=type=tmpfs,target=/x,size=much y", "line 2: RUN --mount: size=much is no number of bytes: write 64m"),
    ("FROM a\nRUN --mount=target=/x,uid=0 y", "line 2: RUN --mount: type=bind knows no 'uid'"),
    ("FROM a\nRUN --mount=type=secret y", "line 2: RUN --mount: a secret needs an id"),
    ("FROM a\nRUN --security=insecure y", "line 2: RUN has no flag --security=insecure"),
    ("FROM a\nRUN []", "line 2: RUN needs a command"),
    ("FROM a\nSHELL /bin/sh", "line 2: SHELL takes a JSON array, such as [\"/bin/bash\", \"-c\"]"),
    ("FROM a\nONBUILD FROM x", "line 2: ONBUILD may not hold FROM"),
    ("FROM a\nONBUILD COPY x", "line 2: COPY needs a source and a target"),
    ("FROM a\nHEALTHCHECK --interval=x CMD y", "line 2: HEALTHCHECK --interval=x: expected a time such as 30s or 1m30s"),
    ("FROM a\nHEALTHCHECK y", "line 2: write HEALTHCHECK CMD …, or HEALTHCHECK NONE"),
    ("FROM a\nARG a b=1 c d%", "line 2: 'd%' is not NAME or NAME=VALUE"),
  ]

  @Test("what cannot be read is told with its line", arguments: errors)
  func refusals(_ example: (text: String, error: String)) {
    #expect(throws: DockerfileError.self) { try Dockerfile(example.text) }
    do { _ = try Dockerfile(example.text) } catch { #expect("\(error)" == "Dockerfile \(example.error)") }
  }

  static let expansions: [(text: String, expected: String)] = [
    ("$a/${b}", "1/"), ("${a:-x}", "1"), ("${b:-x}", "x"), ("${empty:-x}", "x"), ("${empty-x}", ""), ("${b-x}", "x"),
    ("${a:+x}", "x"), ("${b:+x}", ""), ("${empty:+x}", ""), ("${empty+x}", "x"), ("${b:-${a}y}", "1y"), ("\\$a", "$a"), ("\\${a}", "${a}"),
    ("'$a'", "$a"), ("\"$a b\"", "1 b"), ("\"\\$a \\\" \\x\"", "$a \" \\x"), ("a\\ b", "a b"), ("$", "$"), ("$$a", "$1"), ("x$(y)", "x$(y)"),
    ("$9z", "z"), ("${b:-'q r'}", "q r"),
  ]

  @Test("variables, quotes and escapes", arguments: expansions)
  func expansion(_ example: (text: String, expected: String)) throws {
    #expect(try Words().expand(example.text) { ["a": "1", "empty": ""][$0] } == example.expected)
  }

  @Test(
    "a variable that cannot be read is refused",
    arguments: [
      ("${a", "'}' is missing after '${a'"), ("${}", "'${' is followed by no name"), ("'a", "a single quote is not closed"),
      ("\"a", "a double quote is not closed"), ("${b:?is needed}", "b: is needed"), ("${b?}", "b: not set"),
      ("${a#x}", "the modifier '#' of '${a' is not supported: -, + and ? are, each with or without a colon"),
    ])
  func badExpansion(_ text: String, _ message: String) {
    do throws(Words.Problem) {
      let value = try Words().expand(text) { ["a": "1"][$0] }
      Issue.record("\(text) became \(value)")
    } catch { #expect(error.message == message) }
  }

  @Test("only the stages that the target needs are built, and bases see the ARGs above")
  func plan() throws {
    let text = """
      ARG BASE=alpine
      ARG TAG=${BASE}-1
      FROM ${BASE}:${TAG} AS one
      FROM --platform=$BUILDPLATFORM busybox AS unused
      FROM scratch AS two
      COPY --from=one /a /b
      COPY --from=0 /a /b
      FROM two AS three
      COPY --from=docker.io/x:1 /a /b
      """
    let dockerfile = try Dockerfile(text)
    func stages(_ target: String?, _ given: [String: String] = [:]) throws -> [String] {
      try BuildPlan(dockerfile, target: target, arguments: given, platform: BuildPlatform(architecture: "amd64")).items.map {
        "\($0.number) \($0.base)"
      }
    }
    #expect(try stages(nil) == ["0 image(\"alpine:alpine-1\")", "2 scratch", "3 stage(2)"])
    #expect(try stages("ONE", ["BASE": "debian"]) == ["0 image(\"debian:debian-1\")"])
    #expect(try stages("1") == ["1 image(\"busybox\")"])
    #expect(throws: DockerfileError(1, "there is no stage 'four': there are one, unused, two, three")) { try stages("four") }
    #expect(throws: DockerfileError(1, "--platform=linux/arm64: this host builds for linux/amd64 only")) {
      try BuildPlan(Dockerfile("FROM --platform=linux/arm64 a"), target: nil, arguments: [:], platform: BuildPlatform(architecture: "amd64"))
    }
  }
}
