import Foundation
import Testing

extension MainJobTests {
  /// Images made on a host, services made of them, and single runs, as a user drives them.
  @Suite struct BuildTests {
    let cluster: LocalCluster
    private let scratch: TemporaryFolder
    init() throws {
      cluster = try LocalCluster.shared.get()
      scratch = try TemporaryFolder()
    }

    private func write(_ name: String, _ text: String) throws {
      let path = "\(scratch.path)/\(name)"
      try FileManager.default.createDirectory(
        at: URL(fileURLWithPath: path).deletingLastPathComponent(), withIntermediateDirectories: true)
      try text.write(toFile: path, atomically: true, encoding: .utf8)
    }

    /// "package", "source": what the steps that depend on them did.
    private func steps(_ output: String) -> [String: String] {
      var states: [String: String] = [:]
      let parts = output.components(separatedBy: "Step ").dropFirst()
      for part in parts {
        let name = part.contains("RUN echo installing") ? "install" : part.contains("COPY . .") ? "copy" : nil
        if let name { states[name] = part.contains("---> Using cache") ? "cached" : "done" }
      }
      return states
    }

    @Test("a VOLUME of an image is a volume of the task's own with what all layers have there; a mount of the service's own takes its place")
    func t02volume() throws {
      try write(
        "volume/Dockerfile",
        """
        FROM busybox:1
        RUN mkdir -p /data/sub && echo base >/data/sub/low && echo old >/data/gone && chown 7:8 /data
        RUN echo top >/data/top && rm /data/gone
        VOLUME /data /empty
        """)
      try cluster.must(cluster.orch("build", "-t", "volume:1", "--node", "host3", "\(scratch.path)/volume", seconds: 120))
      defer { _ = try? cluster.orch("image", "rm", "--node", "host3", "volume:1") }
      let folder = "/var/lib/orch/agent/volumes"
      let before = try cluster.on("host3", "ls", folder).output
      let look = "cat /data/sub/low /data/top; ls /data; stat -c %u:%g /data; echo x >/empty/x; grep -cE ' /(data|empty) ' /proc/mounts"
      let run = try cluster.must(cluster.orch("run", "--rm", "--node", "host3", "volume:1", "sh", "-c", look))
      #expect(run.output == "base\ntop\nsub\ntop\n7:8\n2\n", "\(run)")
      let own = try cluster.must(
        cluster.orch("run", "--rm", "--node", "host3", "-v", "/etc:/data/:ro", "volume:1", "sh", "-c", "ls -d /data/passwd; touch /data/x; ls /empty")
      )
      #expect(own.output == "/data/passwd\n" && own.errors.contains("Read-only"), "\(own)")
      for _ in 0..<100 where try cluster.on("host3", "ls", folder).output != before { usleep(100_000) }
      #expect(try cluster.on("host3", "ls", folder).output == before)
      // Nor of what it was read by.
      #expect(try cluster.on("host3", "ls", "/var/lib/orch/agent/images/ingest").output == "")
    }

    @Test("a build keeps to the workshop's cache; deploy --build brings it to every host; docker's classic builder; run passes output and code on")
    func t01build() async throws {
      try write("app/package.json", "{\"name\": \"one\"}\n")
      try write("app/src/index.html", "first\n")
      try write("app/.dockerignore", "Dockerfile\nnotes\n")
      try write("app/notes", "1")
      try write(
        "app/Dockerfile",
        """
        FROM busybox:1 AS base
        WORKDIR /app
        COPY package.json .
        RUN echo installing; cp package.json installed
        COPY . .

        FROM base
        LABEL orch.run=attach orch.task=other run.oci.handler=krun org.systemd.property.DeviceAllow=1
        USER 1000
        ENTRYPOINT ["/bin/busybox"]
        CMD ["cat", "src/index.html", "installed"]
        """)
      try write(
        "stack.yaml",
        """
        name: made
        services:
          app:
            build: {context: ./app, args: {X: "1"}}
            command: ["httpd", "-f", "-p", "8000", "-h", "/app/src"]
            deploy: {mode: global}
        """)
      let app = "\(scratch.path)/app"
      func build(_ tag: String, _ more: String...) throws -> Outcome {
        try LocalCluster.run(
          "\(LocalCluster.programs)/orch", ["build", "-t", tag] + more + [app], environment: ["ORCH_HOST": cluster.socket()], seconds: 60)
      }
      let first = try cluster.must(build("made-one:1"))
      #expect(first.output.contains("Step 1/") && first.output.contains("installing\n") && first.output.contains("Successfully tagged made-one:1"))
      #expect(steps(first.output) == ["install": "done", "copy": "done"])
      try write("app/src/index.html", "second\n")
      #expect(steps(try cluster.must(build("made-one:2")).output) == ["install": "cached", "copy": "done"])
      try write("app/notes", "2")
      #expect(steps(try cluster.must(build("made-one:3")).output) == ["install": "cached", "copy": "cached"])
      try write("app/package.json", "{\"name\": \"two\"}\n")
      #expect(steps(try cluster.must(build("made-one:4")).output) == ["install": "done", "copy": "done"])
      // Only one host has it.
      for _ in 0..<3 {
        #expect(
          try cluster.must(cluster.orch("run", "--rm", "made-one:4")).output
            == "second\n{\"name\": \"two\"}\n")
      }
      let target = try cluster.must(build("made-base:1", "--target", "base"))
      #expect(target.output.contains("Step 5/5") && !target.output.contains("USER"), "\(target)")
      #expect(
        try cluster.must(
          cluster.orch("run", "--rm", "-w", "/", "made-base:1", "/bin/busybox", "pwd")
        ).output == "/\n")
      // Quiet: the id alone, and the same from the same files.
      let ids = try [build("made-one:5", "-q"), build("made-one:5", "-q")].map { try cluster.must($0).output }
      #expect(ids[0].hasPrefix("sha256:") && ids[0] == ids[1])
      #expect(try cluster.must(cluster.orch("image", "ls")).output.contains("made-one"))

      try write("app/bad.Dockerfile", "FROM busybox:1\nRUN exit 7\n")
      let failed = try build("made-bad:1", "-f", "\(app)/bad.Dockerfile")
      #expect(failed.code == 7 && failed.errors.contains("line 2") && failed.errors.contains("ended with code 7"), "\(failed)")
      try write("app/bad.Dockerfile", "FROM busybox:1\nFOO bar\n")
      let wrong = try build("made-bad:1", "-f", "\(app)/bad.Dockerfile")
      #expect(wrong.code == 1 && wrong.errors.contains("Dockerfile line 2: 'FOO' is no instruction"), "\(wrong)")

      // A secret out of a file; what was made is found again until the cache is pruned.
      try write("key", "1234567")
      try write(
        "app/secret.Dockerfile",
        "FROM busybox:1\nRUN --mount=type=secret,id=key,required --mount=type=cache,target=/c wc -c </run/secrets/key; echo kept >>/c/f; wc -l </c/f\n"
      )
      func secretBuild() throws -> Outcome {
        try cluster.must(build("made-secret:1", "-f", "\(app)/secret.Dockerfile", "--secret", "id=key,src=\(scratch.path)/key"))
      }
      #expect(try secretBuild().output.contains("\n7\n1\n"))
      #expect(try secretBuild().output.contains("Using cache"))
      try cluster.must(cluster.orch("builder", "prune"))
      #expect(try secretBuild().output.contains("\n7\n1\n"))
      let without = try build("made-secret:1", "--no-cache", "-f", "\(app)/secret.Dockerfile")
      #expect(without.code == 1 && without.errors.contains("--secret id=key"), "\(without)")

      // Ctrl-C, at a manager that leads and at one that does not.
      try write("app/slow.Dockerfile", "FROM busybox:1\nRUN echo begun; sleep 600\n")
      for host in ["host1", "host2"] {
        let begin = """
          "$1" build -f "$2/slow.Dockerfile" "$2" >"$3" 2>&1 & build=$!
          until grep -qs ^begun "$3"; do kill -0 $build || break; sleep 0.1; done
          kill -INT $build; wait $build
          """
        let given = try LocalCluster.run(
          "/bin/sh", ["-c", begin, "sh", "\(LocalCluster.programs)/orch", app, "\(scratch.path)/slow-\(host)"],
          environment: ["ORCH_HOST": cluster.socket(host)], seconds: 60)
        #expect(given.code == 130, "\(given)")
        let containers = "/var/lib/orch/dev/\(LocalCluster.name)/\(host)/lib/agent/containers/containers"
        try await eventually("the build's container is gone") {
          let left = try FileManager.default.contentsOfDirectory(atPath: containers).filter { $0.hasPrefix("build-") }
          return (left.isEmpty, "\(left)")
        }
      }

      // Without --build the user is told what to do; with it every host gets the image.
      let told = try cluster.orch("deploy", "\(scratch.path)/stack.yaml")
      #expect(told.code == 1 && told.errors.contains("orch deploy --build"), "\(told)")
      do {
        let deployed = try cluster.must(cluster.orch("deploy", "--build", "\(scratch.path)/stack.yaml"))
        #expect(deployed.output.contains("converged"), "\(deployed)")
        let tasks = try cluster.tasks("made_app")
        #expect(try cluster.running("made_app").count == 3, "\(tasks)\n\(deployed.output)")
        try labels()
        try await run()
        try archives()
      } catch {
        _ = try? cluster.orch("down", "made")
        throw error
      }
      try cluster.must(cluster.orch("down", "made"))

      // docker's own command, by the builder that it calls classic; another manager passes it on.
      if FileManager.default.isExecutableFile(atPath: "/usr/bin/docker") {
        let docker = try LocalCluster.run(
          "/usr/bin/env", ["docker", "build", "-t", "made-docker:1", app],
          environment: ["DOCKER_HOST": cluster.socket("host2"), "DOCKER_BUILDKIT": "0"],
          seconds: 60)
        #expect(docker.code == 0 && docker.output.contains("Successfully tagged made-docker:1"), "\(docker)")
      }
    }

    /// `orch run -i`, `-it` and `orch attach`, with what is typed, at a pseudoterminal (script(1)) if `size` says so.
    private func typed(_ text: String, size: String? = nil, _ words: String...) throws -> Outcome {
      let orch = (["\(LocalCluster.programs)/orch"] + words).map { "'\($0)'" }.joined(separator: " ")
      let command = size.map { "script -qec \"stty rows \($0); exec \(orch)\" /dev/null" } ?? orch
      return try LocalCluster.run(
        "/bin/sh", ["-c", "printf '\(text)' | \(command)"], environment: ["ORCH_HOST": cluster.socket(), "SHELL": "/bin/sh"], seconds: 60)
    }

    private func conversations() async throws {
      let sorted = try typed("b\\na\\n", "run", "--rm", "-i", "made-app", "sh", "-c", "busybox sort; echo over >&2; exit 4")
      #expect(sorted.code == 4 && sorted.output == "a\nb\n" && sorted.errors == "over\n", "\(sorted)")
      let many = try typed("", "run", "--rm", "-i", "made-app", "busybox", "seq", "1", "50000")
      #expect(many.code == 0 && many.output.hasPrefix("1\n2\n") && many.output.hasSuffix("49999\n50000\n"), "\(many.output.utf8.count)")
      let refused = try typed("", "run", "--rm", "-it", "made-app", "sh")
      #expect(refused.code != 0 && refused.errors.contains("not a terminal"), "\(refused)")

      let shell = try typed(
        "busybox stty size; echo $((6*7)); exit 5\\n", size: "33 cols 99", "run", "--rm", "-it", "--network", "made_default", "made-app", "sh")
      #expect(shell.code == 5 && shell.output.contains("33 99\r\n") && shell.output.contains("42\r\n"), "\(shell)")
      let left = try typed("\\001x", size: "10 cols 40", "run", "-it", "--name", "left", "--detach-keys", "ctrl-a,x", "made-app", "sh")
      #expect(left.code == 0 && left.output.contains("left goes on"), "\(left)")
      #expect(try cluster.running("left").count == 1)
      try await detached("left.1")
      let back = try typed("exit 7\\n", size: "10 cols 40", "attach", "left.1")
      #expect(back.code == 7, "\(back)")
      try cluster.must(cluster.orch("rm", "left"))

      // What --rm promised holds for a command that was left, too.
      let brief = try typed("\\001x", size: "10 cols 40", "run", "--rm", "-it", "--name", "brief", "--detach-keys", "ctrl-a,x", "made-app", "sh")
      #expect(brief.code == 0 && brief.output.contains("brief goes on") && brief.output.contains("removed at its end"), "\(brief)")
      #expect(try cluster.running("brief").count == 1)
      #expect(try typed("exit 3\\n", size: "10 cols 40", "attach", "brief.1").code == 3)
      try await eventually("it was removed at its end") {
        let seen = try cluster.orch("services", "-q")
        return (!seen.output.contains("brief"), "\(seen)")
      }
    }

    /// Commands that go on without anybody: started so, and left by the detach keys.
    private func detached(_ task: String) async throws {
      let begun = try cluster.must(
        cluster.orch(
          "exec", "-d", task, "sh", "-c",
          "busybox sleep 1; echo loud; echo by-d >/tmp/by-d; busybox sleep 781"))
      #expect(begun.output == "" && begun.errors == "", "\(begun)")
      let none = try cluster.orch("exec", "-d", task, "/nowhere")
      #expect(none.code == 127 && none.errors.contains("/nowhere"), "\(none)")
      let keys = try typed(
        "\\001x", size: "10 cols 40", "exec", "-it", "--detach-keys", "ctrl-a,x", task, "sh", "-c",
        "busybox sleep 1; echo by-keys >/tmp/by-keys; exec busybox sleep 782")
      #expect(keys.code == 0 && keys.output.contains("the command goes on in \(task)"), "\(keys)")
      try await eventually("both went on") {
        let seen = try cluster.orch(
          "exec", task, "busybox", "sh", "-c", "busybox cat /tmp/by-d /tmp/by-keys; busybox ps")
        return (
          seen.output.hasPrefix("by-d\nby-keys\n") && seen.output.contains("sleep 781")
            && seen.output.contains("sleep 782"), "\(seen)"
        )
      }
    }

    /// An image's labels are shown, and mean nothing to the agent and the runtime (CVE-2026-53488).
    private func labels() throws {
      let shown = try cluster.must(cluster.orch("image", "inspect", "made-app", "--node", "host1"))
        .output
      #expect(shown.contains("\"orch.run\": \"attach\"") && shown.contains("krun"), "\(shown)")
      for host in ["host1", "host2", "host3"] {
        let (lib, run) = ("/var/lib/orch/dev/\(LocalCluster.name)/\(host)/lib/agent/containers", "/run/orch/dev/\(LocalCluster.name)/\(host)")
        let found = try LocalCluster.run("/bin/sh", ["-c", "grep -rlE 'krun|DeviceAllow|orch\\.run' \(lib) \(run)"])
        #expect(found.output == "", "\(found)")
        let kept = try LocalCluster.run("/bin/sh", ["-c", "grep -rhE '^label ' \(run)/agent/containers | sort -u"])
        #expect(kept.output.contains("label orch.task made_app.") && !kept.output.contains("other"), "\(kept)")
      }
    }

    /// From a root's tar, to a layout's folder, from there, and away.
    private func archives() throws {
      let folder = scratch.path
      try cluster.must(
        LocalCluster.run(
          "/bin/sh",
          [
            "-c",
            "mkdir -p \(folder)/root/bin && cp /bin/busybox \(folder)/root/bin && tar -C \(folder)/root -cf \(folder)/root.tar .",
          ]))
      try cluster.must(
        cluster.orch("image", "import", "made-import:1", "\(folder)/root.tar", "--node", "host1"))
      #expect(
        try cluster.must(
          cluster.orch("run", "--rm", "made-import:1", "/bin/busybox", "echo", "imported")
        ).output == "imported\n")
      try cluster.must(
        cluster.orch(
          "image", "save", "made-import:1", "made-one:1", "--node", "host1", "--format", "oci-dir",
          "-o", "\(folder)/layout"))
      #expect(FileManager.default.fileExists(atPath: "\(folder)/layout/index.json"))
      try cluster.must(cluster.orch("image", "load", "\(folder)/layout", "--node", "host3"))
      let there = try cluster.must(cluster.orch("image", "ls", "--node", "host3")).output
      #expect(there.contains("made-import") && there.contains("made-one"), "\(there)")
      try saved()
      // A name that goes on to another image leaves one without a name.
      try cluster.must(
        cluster.orch("image", "tag", "made-one:1", "made-import:1", "--node", "host3"))
      func prune(_ options: String...) throws -> Outcome {
        try LocalCluster.run(
          "\(LocalCluster.programs)/orch", ["image", "prune", "--node", "host3"] + options, environment: ["ORCH_HOST": cluster.socket()])
      }
      // All is younger than that, with a name and without.
      for time in ["24h", "2020-01-01T00:00:00Z"] {
        #expect(try cluster.must(prune("--all", "--until", time)).output == "Total reclaimed space: 0B\n")
      }
      for time in ["yesterday", "1x", ""] {
        let refused = try prune("--until", time)
        #expect(refused.code == 1 && refused.errors.contains("until=\(time)'") && refused.errors.contains("RFC 3339"), "\(refused)")
      }
      let pruned = try cluster.must(prune("--until", "2099-01-01T00:00:00Z")).output
      #expect(
        pruned.contains("deleted: sha256:") && pruned.contains("Total reclaimed space:"),
        "\(pruned)")
      #expect(
        try cluster.must(cluster.orch("image", "prune", "--node", "host3")).output
          == "Total reclaimed space: 0B\n")
    }

    /// Each format, into a file and out of stdout, is the archive that others take it for; what cannot be written is told before it is begun.
    private func saved() throws {
      let (folder, names) = ("\(scratch.path)/saved", ["made-import:1", "made-one:1"])
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      func save(_ options: String, shell: String = "") throws -> Outcome {
        try LocalCluster.run(
          "/bin/sh", ["-c", "\(LocalCluster.programs)/orch image save --node host1 \(options) \(names.joined(separator: " ")) \(shell)"],
          environment: ["ORCH_HOST": cluster.socket()], seconds: 60)
      }
      for (format, files) in [("docker", ["manifest.json"]), ("oci", ["oci-layout", "index.json"])] {
        let (file, piped) = ("\(folder)/\(format).tar", "\(folder)/\(format)-piped.tar")
        try cluster.must(save("--format \(format) -o \(file)"))
        try cluster.must(save("--format \(format)", shell: "> \(piped)"))
        #expect(FileManager.default.contentsEqual(atPath: file, andPath: piped))
        let listed = try cluster.must(LocalCluster.run("/bin/tar", ["-tf", file])).output.split(separator: "\n").map(String.init)
        #expect(files.allSatisfy(listed.contains), "\(listed)")
        let names = try cluster.must(LocalCluster.run("/bin/tar", ["-xOf", file, files.last!])).output
        #expect(names.contains("made-import:1") && names.contains("made-one:1"), "\(names)")
        if format == "docker", FileManager.default.isExecutableFile(atPath: "/usr/bin/skopeo") {
          try cluster.must(LocalCluster.run("/usr/bin/skopeo", ["inspect", "--config", "docker-archive:\(file):made-one:1"]))
        }
        try cluster.must(cluster.orch("image", "load", file, "--node", "host2"))
        try cluster.must(cluster.orch("image", "inspect", "--node", "host2", "made-import:1", "made-one:1"))
        try cluster.must(cluster.orch("image", "rm", "--node", "host2", "made-import:1"))
      }
      let nowhere = try save("--format oci-dir", shell: "> /dev/null")
      #expect(nowhere.code != 0 && nowhere.errors.contains("Name the folder to make with -o"), "\(nowhere)")
      let there = try save("--format oci-dir -o \(folder)")
      #expect(there.code == 1 && there.errors.contains("\(folder) exists"), "\(there)")
      let unknown = try save("--format tar -o \(folder)/x")
      #expect(unknown.code != 0 && unknown.errors.contains("oci-dir"), "\(unknown)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder).count == 4)
    }

    /// The program's own answer to a signal is the run's; whoever does not listen is left at the third.
    private func signals() async throws {
      func signalled(_ program: String, _ signals: String, flags: String = "--rm") throws -> Outcome {
        let command = "trap '' INT; \(program)".replacing("'", with: "'\\''")
        return try LocalCluster.run(
          "/bin/sh",
          [
            "-c",
            """
            out=$(mktemp); \(LocalCluster.programs)/orch run \(flags) made-app sh -c '\(command)' >$out & run=$!
            for i in $(seq 300); do grep -q up $out && break; sleep 0.1; done
            for s in \(signals); do kill -$s $run; sleep 0.5; done
            wait $run; code=$?; cat $out; rm $out; exit $code
            """,
          ], environment: ["ORCH_HOST": cluster.socket()], seconds: 90)
      }
      let loop = "echo up; while :; do busybox sleep 0.1; done"
      let ended = try signalled("trap 'echo bye; exit 0' TERM; \(loop)", "TERM")
      #expect(ended.code == 0 && ended.output == "up\nbye\n", "\(ended)")
      let told = try signalled("trap 'echo one' USR1; trap 'echo two; exit 9' QUIT; \(loop)", "USR1 INT QUIT")
      #expect(told.code == 9 && told.output == "up\none\ntwo\n", "\(told)")
      let deaf = try signalled("trap '' TERM; \(loop)", "INT TERM INT")
      #expect(deaf.code == 1 && deaf.output == "up\n" && deaf.errors.contains("is taken away"), "\(deaf)")
      let left = try signalled("trap '' TERM; \(loop)", "TERM TERM TERM", flags: "--name deaf-run")
      #expect(left.code == 1 && left.errors.contains("deaf-run goes on"), "\(left)")
      #expect(try cluster.running("deaf-run").count == 1)
      try cluster.must(cluster.orch("rm", "deaf-run"))
    }

    /// Without --network: docker's bridge.
    private func bridged() async throws {
      var pids: [Int32] = []
      defer { for pid in pids { kill(pid, SIGKILL) } }
      func serve(_ host: String, _ place: String) throws {
        try cluster.must(cluster.on(host, "busybox", "httpd", "-p", place, "-h", "/etc"))
        let found = try cluster.must(LocalCluster.run("/usr/bin/pgrep", ["-fx", "busybox httpd -p \(place) -h /etc"])).output
        pids.append(try #require(Int32(found.trimmingCharacters(in: .whitespacesAndNewlines))))
      }
      // On the hosts' network, and at the loopback of the task's.
      try serve(LocalCluster.outside, "192.168.77.100:8091")
      try serve("host1", "127.0.0.1:8092")
      let known = try #require(try cluster.running("made_app").first?["ID"])
      let address = try cluster.must(cluster.orch("exec", known, "busybox", "ip", "-o", "-4", "address")).output
      let app = try #require(address.firstMatch(of: /inet (10\.[0-9.]+)\//)?.1, "a task on a network: \(address)")
      let look = """
        for t in 192.168.77.100:8091 127.0.0.1:8092 \(app):8000; do
          busybox timeout 3 busybox wget -qO- http://$t/hostname >/dev/null 2>&1 && echo $t; done
        busybox ls /sys/class/net | busybox sort | busybox xargs; busybox grep nameserver /etc/resolv.conf; exit 0
        """
      for (options, expected) in [
        ([], "192.168.77.100:8091\neth0 lo\nnameserver 127.0.0.11\n"),
        (["--network", "bridge"], "192.168.77.100:8091\neth0 lo\nnameserver 127.0.0.11\n"), (["--network", "none"], "lo\n"),
      ] {
        let seen = try LocalCluster.run(
          "\(LocalCluster.programs)/orch", ["run", "--rm", "--node", "host1"] + options + ["made-app", "sh", "-c", look],
          environment: ["ORCH_HOST": cluster.socket()], seconds: 60)
        #expect(seen.code == 0 && seen.output == expected, "\(options): \(seen)")
      }
      // As docker's own client says it.
      guard FileManager.default.isExecutableFile(atPath: "/usr/bin/docker") else { return }
      try cluster.must(
        cluster.docker(
          "service", "create", "-d", "--network", "bridge", "--name", "made-bridged", "--constraint", "node.hostname==host1", "busybox:1", "sleep",
          "100"))
      try await eventually("it runs") { (try cluster.running("made-bridged").count == 1, "\(try cluster.tasks("made-bridged"))") }
      let task = try #require(try cluster.running("made-bridged").first?["ID"])
      let shown = try cluster.must(cluster.orch("exec", task, "ip", "route"))
      #expect(shown.output.contains("default via"), "\(shown)")
      try cluster.must(cluster.orch("rm", "made-bridged"))
    }

    private func run() async throws {
      // A volume of one host is there for the next run, and a published port answers on another host.
      func on1(_ words: String...) throws -> Outcome {
        try LocalCluster.run(
          "\(LocalCluster.programs)/orch", ["run", "--node", "host1", "-u", "0"] + words,
          environment: ["ORCH_HOST": cluster.socket()], seconds: 60)
      }
      try cluster.must(
        on1("--rm", "-v", "made-data:/data", "made-app", "sh", "-c", "echo kept >/data/f"))
      let data = try on1(
        "--rm", "-v", "made-data:/data:ro", "made-app", "sh", "-c",
        "busybox cat /data/f; busybox touch /data/g 2>/dev/null || echo ro")
      #expect(data.code == 0 && data.output == "kept\nro\n", "\(data)")
      try cluster.must(cluster.orch("volumes", "--rm", "made-data"))
      try cluster.must(
        on1(
          "-d", "--name", "made-served", "-p", "8097:8000", "made-app", "httpd", "-f", "-p", "8000",
          "-h", "/app/src"))
      try await eventually("the published port answers on another host") {
        let answer = try cluster.on(
          "host2", "timeout", "3", "busybox", "wget", "-qO-", "http://127.0.0.1:8097/index.html")
        return (answer.output == "second\n", "\(answer)")
      }
      try cluster.must(cluster.orch("rm", "made-served"))
      let hello = try cluster.orch(
        "run", "--rm", "--node", "host1", "made-app", "sh", "-c", "id -u; echo $A >&2; exit 3")
      #expect(hello.code == 3 && hello.output == "1000\n" && hello.errors == "\n", "\(hello)")
      let cat = try cluster.orch("run", "--rm", "made-app")
      #expect(cat.code == 0 && cat.output == "second\n{\"name\": \"two\"}\n", "\(cat)")
      let asked = try cluster.orch(
        "run", "--rm", "--network", "made_default", "-e", "A=b", "-u", "0", "-w", "/tmp", "--entrypoint", "/bin/sh", "made-app", "-c",
        "busybox wget -qO- http://app:8000/index.html; echo $A $PWD $(busybox id -u)")
      #expect(asked.code == 0 && asked.output == "second\nb /tmp 0\n", "\(asked)")
      let missing = try cluster.orch("run", "--rm", "--entrypoint", "/nowhere", "made-app")
      #expect(missing.code == 127, "\(missing)")
      #expect(missing.errors.contains("/nowhere"), "\(missing)")
      let folder = try cluster.orch("run", "-d", "--rm", "--entrypoint", "/bin", "made-app")
      #expect(folder.code == 126 && folder.errors.contains("/bin"), "\(folder)")
      let bare = try cluster.orch("run", "--rm", "--entrypoint", "", "made-app", "echo", "bare")
      #expect(bare.code == 0 && bare.output == "bare\n", "\(bare)")
      let nothing = try cluster.orch("run", "--rm", "--entrypoint", "", "made-app")
      #expect(nothing.code != 0 && nothing.errors.contains("COMMAND"), "\(nothing)")
      try await bridged()
      // The managers carry --rm out where nobody waits.
      try cluster.must(cluster.orch("run", "-d", "--rm", "--name", "run-brief", "made-app", "busybox", "sleep", "1"))
      try cluster.must(cluster.orch("run", "-d", "--name", "ranged", "-p", "8098-8099:8000-8001/tcp", "made-app", "busybox", "sleep", "100"))
      let ranged = try cluster.must(cluster.orch("services")).output
      #expect(ranged.contains("8098") && ranged.contains("8099"), "\(ranged)")
      try cluster.must(cluster.orch("rm", "ranged"))
      // One of the range, as docker has it.
      try cluster.must(cluster.orch("run", "-d", "--name", "chosen", "-p", "8098-8099:80", "made-app", "busybox", "sleep", "100"))
      let chosen = try cluster.must(cluster.orch("services")).output
      #expect(chosen.contains("8098->80") != chosen.contains("8099->80"), "\(chosen)")
      try cluster.must(cluster.orch("rm", "chosen"))
      let uneven = try cluster.orch("run", "-d", "-p", "8098-8099:80-82", "made-app", "true")
      #expect(uneven.code != 0 && uneven.errors.contains("2 published ports for 3"), "\(uneven)")
      try await signals()
      try await conversations()
      // Nothing of a run with --rm is left.
      try await eventually("no run is left") {
        let services = try cluster.must(cluster.orch("services")).output
        return (!services.contains("run-"), services)
      }
    }
  }
}
