import Testing

@testable import Dockerfile

@Suite("Build stage")
struct BuildStageTests {
  /// Carries out one stage's instructions; the steps and how it ended.
  private func build(_ text: String, _ given: [String: String] = [:], base: ImageSettings = .init()) throws -> (
    steps: [BuildStage.Step], stage: BuildStage
  ) {
    let dockerfile = try Dockerfile(text)
    let plan = try BuildPlan(dockerfile, target: nil, arguments: given, platform: BuildPlatform(architecture: "amd64"))
    var stage = BuildStage(base, arguments: plan.arguments, escape: dockerfile.escape)
    return (try dockerfile.stages[0].instructions.map { try stage.step($0) }, stage)
  }
  private func run(_ step: BuildStage.Step?) -> BuildStage.RunAction? { if case .run(let run)? = step?.action { run } else { nil } }
  private func copy(_ step: BuildStage.Step?) -> BuildStage.CopyAction? { if case .copy(let copy)? = step?.action { copy } else { nil } }

  @Test("settings of every instruction")
  func settings() throws {
    var base = ImageSettings()
    base.env = ["PATH=/bin", "KEEP=1"]
    base.cmd = ["old"]
    let text = """
      FROM a
      ENV A=1 B="two words" C=$A
      ENV C $A and more
      LABEL "x.y"="v w" z=$B
      WORKDIR /srv
      WORKDIR app/../www
      USER $A:0
      EXPOSE 80 53/udp 8000-8002
      VOLUME /v ["x"]
      VOLUME ["/w", "/a b"]
      STOPSIGNAL SIGQUIT
      SHELL ["/bin/bash", "-ec"]
      HEALTHCHECK --interval=1m30s --timeout=200ms --retries=2 CMD curl x
      ENTRYPOINT ["/srv/run", "$A"]
      ONBUILD RUN echo hi
      MAINTAINER ann
      """
    let settings = try build(text, base: base).stage.settings
    #expect(settings.env == ["PATH=/bin", "KEEP=1", "A=1", "B=two words", "C=1 and more"])
    #expect(settings.labels == ["x.y": "v w", "z": "two words"])
    #expect(settings.workingDir == "/srv/www")
    #expect(settings.user == "1:0")
    #expect(settings.exposedPorts == ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"])
    #expect(settings.volumes == ["/a b", "/v", "/w", "[x]"])
    #expect(settings.stopSignal == "SIGQUIT")
    #expect(settings.health == .init(test: ["CMD-SHELL", "curl x"], interval: 90_000_000_000, timeout: 200_000_000, retries: 2))
    #expect(settings.entrypoint == ["/srv/run", "$A"])
    // The command below was meant for another program.
    #expect(settings.cmd == [])
    #expect(settings.onbuild == ["RUN echo hi"])
    #expect(settings.author == "ann")
    #expect(try build("FROM a\nCMD x y\nENTRYPOINT z").stage.settings.cmd == ["/bin/sh", "-c", "x y"])
    #expect(try build("FROM a\nENV A=2 B=$A", base: base).stage.settings.env.suffix(2) == ["A=2", "B="])
  }

  static let exposed: [(String, [String]?)] = [
    ("EXPOSE $PORTS", ["443/tcp", "80/udp"]), ("EXPOSE 1 ${PORTS} 2", ["1/tcp", "2/tcp", "443/tcp", "80/udp"]), ("EXPOSE $NONE", []),
    ("EXPOSE \"$PORTS\"", nil), ("EXPOSE 8080:80", ["80/tcp"]), ("EXPOSE 127.0.0.1:8080:80/udp", ["80/udp"]), ("EXPOSE [::1]:8080:80", ["80/tcp"]),
    ("EXPOSE 8000-8001:80-81", ["80/tcp", "81/tcp"]), ("EXPOSE 8000-8009:80", ["80/tcp"]), ("EXPOSE :80", ["80/tcp"]), ("EXPOSE 80/TCP", ["80/tcp"]),
    ("EXPOSE 80/", ["80/tcp"]), ("EXPOSE 8000-8002:80-81", nil), ("EXPOSE 80:", nil), ("EXPOSE x:80", nil), ("EXPOSE here:8080:80", nil),
    ("EXPOSE 80/icmp", nil), ("EXPOSE 81-80", nil), ("EXPOSE 65536", nil), ("EXPOSE 1-2-3", nil),
  ]
  @Test("EXPOSE takes what BuildKit takes: variables of several ports, and ports of `docker run -p`", arguments: exposed)
  func exposes(_ line: String, _ ports: [String]?) throws {
    let text = "FROM a\nARG PORTS=\"80/udp 443\"\nARG NONE=\n\(line)"
    guard let ports else {
      #expect(throws: DockerfileError.self) { try build(text) }
      return
    }
    #expect(try build(text).stage.settings.exposedPorts == ports)
  }

  @Test("RUN has its shell, environment, arguments and place")
  func runs() throws {
    let result = try build(
      """
      ARG V=global
      FROM a
      ENV E=1
      RUN one $E
      ARG V
      ARG W=w$E
      ARG E=arg
      WORKDIR /x
      USER u
      RUN --network=none ["two", "$E"]
      RUN <<EOF
      three
      EOF
      RUN cat <<EOF
      four
      EOF
      """, ["W": "given", "http_proxy": "p", "unused": "1"])
    let runs = result.steps.compactMap(run)
    #expect(runs[0].arguments == ["/bin/sh", "-c", "one $E"])
    #expect(runs[0].env == ["E=1", "http_proxy=p"] && runs[0].workingDir == "/" && runs[0].user == "")
    #expect(runs[1].arguments == ["two", "$E"] && runs[1].network == .none)
    #expect(runs[1].env == ["E=1", "V=global", "W=given", "http_proxy=p"] && runs[1].workingDir == "/x" && runs[1].user == "u")
    #expect(runs[2].arguments == ["/bin/sh", "-c", "three\n"])
    #expect(runs[3].arguments == ["/bin/sh", "-c", "cat <<EOF\nfour\nEOF\n"])
    #expect(result.stage.arguments.unused == ["unused"])
    #expect(runs[2].script == nil)
  }

  @Test("a heredoc with #! is a file that the shell runs; its content decides the step, and ONBUILD keeps heredocs as they stand")
  func scripts() throws {
    func first(_ text: String) throws -> BuildStage.Step { try #require(try build("FROM a\n" + text).steps.first) }
    let step = try first("RUN <<EOF\n#!/usr/bin/python3\nprint(1)\nEOF")
    #expect(run(step)?.arguments == ["/bin/sh", "-c", "/dev/pipes/EOF"])
    #expect(run(step)?.script == .init(name: "EOF", content: "#!/usr/bin/python3\nprint(1)\n"))
    #expect(try step.fingerprint != first("RUN <<EOF\n#!/usr/bin/python3\nprint(2)\nEOF").fingerprint)
    #expect(throws: DockerfileError(2, "RUN: the heredoc '..' cannot name a file")) { try first("RUN <<..\n#!/bin/sh\n..") }
    #expect(run(try first("RUN python3 <<EOF\n#!x\nEOF"))?.script == nil)
    let triggers = try build("FROM a\nONBUILD RUN <<A cat <<-B\n1\nA\n\t2\n\tB\nONBUILD COPY <<X /x\ny\nX").stage.settings.onbuild
    #expect(triggers == ["RUN <<A cat <<-B\n1\nA\n2\nB", "COPY <<X /x\ny\nX"])
    let again = try triggers.map { try Instruction(onbuild: $0, line: 1) }
    guard case .run(let command) = again[0].kind, case .copy(let copy) = again[1].kind else {
      Issue.record("\(again)")
      return
    }
    #expect(command.heredocs.map(\.content) == ["1\n", "2\n"] && copy.heredocs.map(\.content) == ["y\n"])
    #expect(throws: DockerfileError.self) { try build("FROM a\nONBUILD COPY <<X\ny\nX") }
  }

  @Test("COPY resolves its target, expands its words and holds its heredocs")
  func copies() throws {
    let steps = try build(
      """
      FROM a
      ENV N=app
      WORKDIR /srv
      COPY --chown=$N:0 --chmod=0750 --from=b $N/*.js ["x y"] .
      COPY a b
      COPY ["a b", "c/"]
      COPY <<one <<'two' /etc/
      $N
      one
      $N
      two
      ADD a.tar /
      """
    ).steps
    let copies = steps.compactMap(copy)
    #expect(copies[0].sources == ["app/*.js", "[x y]"] || copies[0].sources == ["app/*.js", "[x", "y]"])
    #expect(copies[0].target == "/srv/" && copies[0].owner == "app:0" && copies[0].mode == 0o750 && copies[0].from == "b")
    #expect(copies[1].target == "/srv/b" && copies[2].sources == ["a b"] && copies[2].target == "/srv/c/")
    #expect(copies[3].files.map { "\($0.name)=\($0.content)" } == ["one=app\n", "two=$N\n"])
    #expect(copies[4].unpacks && copies[4].target == "/")
    #expect(throws: DockerfileError(2, "COPY: with several sources the target is a folder: write /d/")) { try build("FROM a\nCOPY a b /d") }
    #expect(throws: DockerfileError(2, "COPY: --chmod=u+x: expected an octal mode such as 755")) { try build("FROM a\nCOPY --chmod=u+x a /d") }
  }

  /// Two Dockerfiles, their build arguments, and whether the last step's own part of the key is the same.
  static let keys: [(a: String, b: String, same: Bool)] = [
    ("RUN x", "RUN x", true),
    ("RUN x", "RUN  x ", true),
    ("RUN x", "RUN y", false),
    ("RUN x", "RUN [\"/bin/sh\", \"-c\", \"x\"]", true),
    ("RUN x", "RUN --network=none x", false),
    ("RUN [\"a\", \"bc\"]", "RUN [\"ab\", \"c\"]", false),
    ("ARG V=1\nRUN x", "ARG V=2\nRUN x", false),
    ("ARG V=1\nRUN x", "RUN x", false),
    ("ARG V=1\nRUN x", "ARG V=2\nARG V=1\nRUN x", true),
    // Nobody's result depends on a proxy, or should.
    ("ARG http_proxy=1\nRUN x", "ARG http_proxy=2\nRUN x", true),
    // ENV stands over it.
    ("ENV V=0\nARG V=1\nRUN x", "ENV V=0\nARG V=2\nRUN x", true),
    ("COPY a /b", "COPY a /c", false),
    // What is copied comes by its digest.
    ("COPY a /b", "COPY z /b", true),
    ("COPY a /b", "ADD a /b", false),
    ("COPY a /b", "COPY --chown=1 a /b", false),
    ("COPY a /b", "COPY --chmod=600 a /b", false),
    ("ARG V=1\nCOPY a /b", "ARG V=2\nCOPY a /b", true),
    ("ENV V=1\nCOPY a /$V", "ENV V=2\nCOPY a /$V", false),
    ("COPY <<E /b\n1\nE", "COPY <<E /b\n2\nE", false),
    ("ENV A=1", "ENV A 1", true),
    ("ENV A=1", "ENV A=2", false),
    ("WORKDIR /a/b", "WORKDIR /a/./b/", true),
    ("LABEL a=1", "LABEL a=\"1\"", true),
    ("ARG A=1", "ARG B=1", true),
  ]

  @Test("what decides a step is in its key, and nothing else is", arguments: keys)
  func fingerprints(_ example: (a: String, b: String, same: Bool)) throws {
    let (a, b) = (try build("FROM x\n" + example.a).steps.last, try build("FROM x\n" + example.b).steps.last)
    #expect((a?.fingerprint == b?.fingerprint) == example.same)
  }
}
