import Foundation
import Synchronization
import Testing

/// The main job, on real daemons, kernels objects and containers, as a user drives it. In order: each test begins where the last ended.
@Suite(.serialized, .enabled(if: geteuid() == 0, "needs root"))
struct MainJobTests {
  let cluster: LocalCluster
  let manifest = "\(LocalCluster.repository)/manifests/web.yaml"
  private let scratch: TemporaryFolder
  init() throws {
    cluster = try LocalCluster.shared.get()
    scratch = try TemporaryFolder()
  }

  /// What a failed test left must not fail the next: every daemon is up, the sample is as its manifest says.
  private func baseline() throws {
    for host in ["host1", "host2", "host3"] { try cluster.must(cluster.dev("start", host)) }
    try cluster.must(cluster.orch("deploy", manifest))
  }

  @Test("1: three hosts have joined with tokens; a wrong token, another cluster's and a second join are refused with a sentence")
  func t01join() throws {
    let nodes = try cluster.must(cluster.orch("nodes", "--format", "json")).rows
    #expect(nodes.map { $0["Hostname"] } == ["host1", "host2", "host3"])
    #expect(nodes.allSatisfy { $0["Status"] == "Ready" && $0["Availability"] == "Active" })
    #expect(nodes.filter { $0["ManagerStatus"] == "Leader" }.count == 1)
    let token = try cluster.must(cluster.orch("join-token", "worker", "-q")).output.trimmingCharacters(in: .whitespacesAndNewlines)
    #expect(token.hasPrefix("ORCHTKN-1-"))
    let agent = "\(LocalCluster.programs)/orch-agent"
    let broken = String(token.dropLast()) + (token.last == "0" ? "1" : "0")
    let wrong = try cluster.on(
      "host1", agent, "join", "--state-dir", "\(scratch.path)/agent", "--manager-state-dir", "/nowhere", "--token", broken, "192.168.77.1:2377")
    #expect(wrong.code != 0 && wrong.errors.contains("token"), "\(wrong)")
    var parts = token.split(separator: "-").map(String.init)
    parts[2] = String(parts[2].dropLast(2)) + (parts[2].hasSuffix("77") ? "88" : "77")
    let foreign = try cluster.on(
      "host1", agent, "join", "--state-dir", "\(scratch.path)/agent", "--manager-state-dir", "/nowhere", "--token", parts.joined(separator: "-"),
      "192.168.77.1:2377")
    #expect(foreign.code != 0 && foreign.errors.contains("another cluster"), "\(foreign)")
    let again = try cluster.on("host2", agent, "join", "--token", token, "192.168.77.1:2377")
    #expect(again.code != 0 && again.errors.contains("joined already"), "\(again)")
  }

  @Test("4: the sample manifest deploys and converges; deploying it again changes nothing")
  func t02deploy() async throws {
    try cluster.must(cluster.orch("deploy", manifest))
    #expect(try cluster.running("web").count == 3)
    #expect(Set(try cluster.running("web").compactMap { $0["Node"] }).count == 3)
    let before = try cluster.tasks("web").compactMap { $0["ID"] }.sorted()
    let again = try cluster.must(cluster.orch("deploy", manifest))
    #expect(again.output.contains("unchanged"), "\(again)")
    #expect(try cluster.tasks("web").compactMap { $0["ID"] }.sorted() == before)
  }

  @Test("8: a published port answers on every host")
  func t03published() async throws {
    try baseline()
    for host in ["host1", "host2", "host3"] {
      try await eventually("\(host) answers") {
        let answer = try cluster.on(host, "timeout", "3", "busybox", "wget", "-qO-", "http://127.0.0.1:8080/")
        return (answer.code == 0 && answer.output.contains("web"), "\(answer)")
      }
    }
    let other = try cluster.on("host1", "timeout", "3", "busybox", "wget", "-qO-", "http://192.168.77.3:8080/")
    #expect(other.code == 0, "\(other)")
  }

  @Test("8: tasks reach each other by name, alias and tasks.NAME across hosts, and the outside through their host")
  func t04names() async throws {
    try baseline()
    try await eventually("the visitor has met tasks on every host, by name and by alias") {
      let log = try cluster.orch("logs", "visitor").output
      return (["host1", "host2", "host3"].allSatisfy(log.contains) && log.contains("site"), log)
    }
    let visitor = try #require(try cluster.running("visitor").first?["ID"])
    let addresses = try cluster.must(cluster.orch("exec", visitor, "nslookup", "tasks.web"))
    #expect(addresses.output.components(separatedBy: "Address").count >= 4, "\(addresses)")
    try cluster.must(cluster.orch("exec", visitor, "timeout", "3", "wget", "-qO-", "http://192.168.77.2:8080/"))
  }

  @Test("7: scale up, down and several at once; wrong counts are refused and change nothing")
  func t05scale() async throws {
    try baseline()
    try cluster.must(cluster.orch("scale", "web=6"))
    #expect(try cluster.running("web").count == 6)
    try cluster.must(cluster.orch("scale", "web=2", "visitor=2"))
    try await eventually("scaled down") {
      let (web, visitor) = (try cluster.running("web").count, try cluster.running("visitor").count)
      return (web == 2 && visitor == 2, "\(web) \(visitor)")
    }
    for wrong in ["web=-1", "web=1000000000", "web=many", "web", "nobody=1"] {
      let refused = try cluster.orch("scale", wrong)
      #expect(refused.code != 0 && !refused.errors.isEmpty, "\(wrong): \(refused)")
    }
    #expect(try cluster.running("web").count == 2)
    try cluster.must(cluster.orch("scale", "web=3", "visitor=1"))
  }

  @Test(
    "3: the stock docker CLI works",
    .enabled(
      if: FileManager.default.isExecutableFile(atPath: "/usr/bin/docker") || FileManager.default.isExecutableFile(atPath: "/usr/local/bin/docker")))
  func t06docker() async throws {
    try baseline()
    let nodes = try cluster.must(cluster.docker("node", "ls"))
    #expect(nodes.output.contains("Leader") && nodes.output.contains("host3"))
    #expect(try cluster.must(cluster.docker("service", "ls")).output.contains("3/3"))
    #expect(try cluster.must(cluster.docker("service", "ps", "web")).output.contains("Running"))
    #expect(try cluster.must(cluster.docker("service", "inspect", "web")).output.contains("TaskTemplate"))
    try cluster.must(cluster.docker("service", "scale", "web=4"))
    #expect(try cluster.running("web").count == 4)
    try cluster.must(cluster.docker("service", "update", "--image", "web:2", "web"))
    #expect(try cluster.running("web").allSatisfy { $0["Image"]?.hasPrefix("web:2") == true })
    try cluster.must(cluster.docker("service", "logs", "web", on: "host3"))
    try cluster.must(cluster.orch("rollback", "web"))
    try cluster.must(cluster.orch("scale", "web=3"))
  }

  @Test("7: a killed container is replaced at once, with the reason in the history")
  func t07killed() async throws {
    try baseline()
    let victim = try #require(try cluster.running("web").first)
    let id = try #require(victim["ID"])
    _ = try cluster.orch("exec", id, "kill", "-9", "1")
    let inspect = try cluster.must(cluster.orch("inspect", id)).output
    if let range = inspect.range(of: #""PID" ?: ?(\d+)"#, options: .regularExpression),
      let pid = Int32(inspect[range].drop { !$0.isNumber })
    {
      kill(pid, SIGKILL)
    }
    try await eventually("replaced") {
      let tasks = try cluster.running("web")
      return (tasks.count == 3 && !tasks.contains { $0["ID"] == id }, "\(tasks)")
    }
    let history = try cluster.tasks("web").first { $0["ID"] == id }
    #expect(history?["CurrentState"]?.hasPrefix("Failed") == true, "\(history ?? [:])")
    #expect(history?["Error"]?.contains("137") == true, "\(history ?? [:])")
  }

  @Test("5: containers survive kill -9 and restart of their agent; logs are complete and exit codes known")
  func t08agentKilled() async throws {
    try baseline()
    let before = Set(try cluster.running("web").compactMap { $0["ID"] })
    try cluster.must(cluster.dev("kill", "host2", "--agent"))
    try await Task.sleep(for: .milliseconds(300))
    try cluster.must(cluster.dev("start", "host2"))
    try await eventually("host2 is ready") {
      let nodes = try cluster.orch("nodes", "--format", "json").rows
      return (nodes.allSatisfy { $0["Status"] == "Ready" }, "\(nodes)")
    }
    try await Task.sleep(for: .milliseconds(500))
    #expect(Set(try cluster.running("web").compactMap { $0["ID"] }) == before)
    for host in ["host1", "host2", "host3"] {
      try await eventually("\(host) answers") {
        (try cluster.on(host, "timeout", "3", "busybox", "wget", "-qO-", "http://127.0.0.1:8080/").code == 0, "")
      }
    }
  }

  @Test("7: update rolls to the new image, a changed manifest too, rollback goes back; a broken image pauses the update and says why")
  func t09update() async throws {
    try baseline()
    try cluster.must(cluster.orch("update", "web", "--image", "web:2"))
    #expect(try cluster.running("web").allSatisfy { $0["Image"]?.hasPrefix("web:2") == true })
    let answer = try cluster.on("host1", "timeout", "3", "busybox", "wget", "-qO-", "http://127.0.0.1:8080/")
    #expect(answer.output.contains("2"), "\(answer)")
    try cluster.must(cluster.orch("rollback", "web"))
    #expect(try cluster.running("web").allSatisfy { $0["Image"]?.hasPrefix("web:1") == true })
    // Nothing listens there.
    let missing = "192.168.77.1:5000/nosuch:9"
    let broken = try cluster.orch("update", "web", "--image", missing, seconds: 60)
    let reason = "pull \(missing): the image is not on this host and the registry 192.168.77.1:5000 cannot be reached"
    #expect(broken.code != 0 && (broken.output + broken.errors).contains("web"), "\(broken)")
    let failed = try cluster.tasks("web").filter { $0["Image"] == missing && !($0["Error"] ?? "").isEmpty }
    #expect(!failed.isEmpty && failed.allSatisfy { $0["Error"]!.hasPrefix(reason) }, "\(failed)")
    // The manifest says failure_action: rollback.
    try await eventually("three on web:1 again") {
      let tasks = try cluster.running("web")
      return (tasks.count == 3 && tasks.allSatisfy { $0["Image"]?.hasPrefix("web:1") == true }, "\(tasks)")
    }
  }

  @Test("7: a task that cannot be placed says why")
  func t10pending() async throws {
    try baseline()
    let file = try scratch.write(
      "pending.yaml", "services:\n  big:\n    image: web:1\n    deploy:\n      resources:\n        reservations: {memory: 900G}\n")
    try cluster.must(cluster.orch("deploy", file, "--name", "big", "--detach"))
    try await eventually("told why") {
      let tasks = try cluster.tasks("big_big")
      return (tasks.contains { ($0["Error"] ?? "").contains("insufficient memory") }, "\(tasks)")
    }
    for name in ["big_big", "big_big.1"] {
      let why = try cluster.must(cluster.orch("why", name, "--format", "json")).rows
      #expect(why.count == 1 && why[0]["Name"] == "big_big.1" && why[0]["Reason"]?.contains("insufficient memory") == true, "\(why)")
    }
    #expect(try cluster.must(cluster.orch("why", "web")).output == "demo_web: nothing is in the way, 3 tasks run\n")
    let unknown = try cluster.orch("why", "nobody")
    #expect(unknown.code == 1 && unknown.errors.contains("no service and no task is called nobody"), "\(unknown)")
    try cluster.must(cluster.orch("down", "big"))
  }

  @Test("2: any manager answers; a follower's manager killed and restarted catches up")
  func t11followers() async throws {
    try baseline()
    for host in ["host1", "host2", "host3"] { #expect(try cluster.orch("services", on: host).code == 0) }
    let leader = try #require(try cluster.leader)
    let follower = ["host1", "host2", "host3"].first { $0 != leader }!
    try cluster.must(cluster.dev("kill", follower, "--manager"))
    try cluster.must(cluster.orch("scale", "web=4", on: leader))
    try cluster.must(cluster.dev("start", follower))
    try await eventually("the follower answers with the new state") {
      let tasks = try cluster.running("web", on: follower)
      return (tasks.count == 4, "\(tasks)")
    }
    try cluster.must(cluster.orch("scale", "web=3"))
  }

  @Test("10: the leader is killed while scale runs in a loop: accepted again within 2 s, nothing acknowledged lost, no container notices")
  func t12leaderLost() async throws {
    try baseline()
    try await within(.seconds(2), "leader killed to next change accepted") {
      let leader = try #require(try cluster.leader)
      let other = ["host1", "host2", "host3"].first { $0 != leader }!
      /// Running containers' first processes.
      func processes() throws -> Set<String> {
        let rows = try cluster.must(
          cluster.orch("sql", "--format", "csv", "select id, container_id, pid from tasks where state = 'running' order by id", on: other))
        return Set(rows.output.split(separator: "\n").dropFirst().map(String.init))
      }
      /// The service's count, and how many times it was changed.
      func counted() throws -> (replicas: Int, revision: Int) {
        let row = try cluster.must(
          cluster.orch("sql", "--format", "csv", "select replicas, revision from services where name = 'demo_web'", on: other))
        let numbers = row.output.split(separator: "\n").last?.split(separator: ",").compactMap { Int($0) } ?? []
        return (try #require(numbers.first), try #require(numbers.last))
      }
      // After a rollback the revision is not the latest.
      for replicas in [4, 3] { try cluster.must(cluster.orch("scale", "web=\(replicas)", on: other)) }
      var before: Set<String> = []
      try await eventually("3 of web and a visitor run") {
        before = try processes()
        return (before.count == 4, "\(before)")
      }
      let first = try counted().revision

      struct Attempt: Sendable {
        var replicas: Int
        var began, ended: ContinuousClock.Instant
        var outcome: Outcome
      }
      final class Attempts: Sendable { let made = Mutex<[Attempt]>([]) }
      let attempts = Attempts()
      let loop = Task.detached { [cluster] in
        var replicas = 3
        while !Task.isCancelled {
          // What was not acknowledged is said again. Only upwards: no container has a reason to end.
          if attempts.made.withLock({ $0.last?.outcome.code ?? 0 }) == 0 { replicas += 1 }
          let began = ContinuousClock.now
          let outcome = try cluster.orch("scale", "--detach", "web=\(replicas)", on: other, seconds: 20)
          attempts.made.withLock { $0.append(Attempt(replicas: replicas, began: began, ended: .now, outcome: outcome)) }
        }
      }
      defer { loop.cancel() }
      func acknowledged(since: ContinuousClock.Instant? = nil) -> [Attempt] {
        attempts.made.withLock { $0.filter { attempt in attempt.outcome.code == 0 && since.map { attempt.ended > $0 } ?? true } }
      }
      try await eventually("the loop runs") { (acknowledged().count >= 3, "\(attempts.made.withLock { $0 })") }
      try cluster.must(cluster.dev("kill", leader, "--manager"))
      let killed = ContinuousClock.now
      // The one that was on its way may have been answered before.
      try await eventually("the loop goes on") { (acknowledged(since: killed).count >= 4, "\(attempts.made.withLock { $0.suffix(5) })") }
      loop.cancel()
      try await loop.value

      let next = try #require(attempts.made.withLock { $0.first { $0.began > killed && $0.outcome.code == 0 } ?? $0.last })
      #expect(next.outcome.code == 0, "\(next.outcome)")
      let all = attempts.made.withLock { $0 }
      let now = try counted()
      if let last = all.last, last.outcome.code == 0 { #expect(now.replicas == last.replicas, "\(all)") }
      // Every change that was acknowledged at its first attempt made a revision; no attempt made two.
      let certain = zip([nil] + all.map { $0 as Attempt? }, all).count { $1.outcome.code == 0 && ($0?.outcome.code ?? 0) == 0 }
      #expect((certain...all.count).contains(now.revision - first), "\(now.revision - first) of \(certain) to \(all.count)")
      #expect(try processes().isSuperset(of: before))
      try cluster.must(cluster.dev("start", leader))
      try cluster.must(cluster.orch("scale", "web=\(now.replicas)", on: other))
      #expect(try processes().isSuperset(of: before))
      try cluster.must(cluster.orch("scale", "web=3", on: other))
      return next.ended - killed
    }
  }

  @Test("7: a lost host's tasks run elsewhere within 5 s; it comes back without duplicates")
  func t13hostLost() async throws {
    try baseline()
    try await within(.seconds(5), "host lost to its tasks elsewhere") {
      try cluster.must(cluster.dev("kill", "host3"))
      let lost = ContinuousClock.now
      try await eventually("three run on two hosts") {
        let tasks = try cluster.running("web")
        return (tasks.count == 3 && !tasks.contains { $0["Node"] == "host3" }, "\(tasks)")
      }
      let gap = ContinuousClock.now - lost
      try cluster.must(cluster.dev("start", "host3"))
      try await eventually("host3 is ready") {
        let nodes = try cluster.orch("nodes", "--format", "json").rows
        return (nodes.allSatisfy { $0["Status"] == "Ready" }, "\(nodes)")
      }
      try await Task.sleep(for: .seconds(1))
      #expect(try cluster.running("web").count == 3)
      for host in ["host1", "host2", "host3"] {
        try await eventually("\(host) answers") {
          let answer = try cluster.on(host, "timeout", "3", "busybox", "wget", "-qO-", "http://127.0.0.1:8080/")
          return (answer.code == 0, "\(answer)")
        }
      }
      return gap
    }
  }

  @Test("2: all managers killed and started again: the state is as it was and containers never stopped")
  func t14allManagers() async throws {
    try baseline()
    let before = Set(try cluster.running("web").compactMap { $0["ID"] })
    for host in ["host1", "host2", "host3"] { try cluster.must(cluster.dev("kill", host, "--manager")) }
    for host in ["host1", "host2", "host3"] { try cluster.must(cluster.dev("start", host)) }
    try await eventually("they answer") {
      let nodes = try cluster.orch("nodes"); return (nodes.code == 0, "\(nodes)")
    }
    try await cluster.nodesAreReady()
    #expect(Set(try cluster.running("web").compactMap { $0["ID"] }) == before)
  }

  @Test(
    "6: an image is pulled from a registry by tag and by digest",
    .enabled(
      if: FileManager.default.isExecutableFile(atPath: "/usr/bin/docker-registry") && FileManager.default.isExecutableFile(atPath: "/usr/bin/skopeo"))
  )
  func t15registry() async throws {
    try baseline()
    let folder = scratch.path
    try scratch.write("config.yml", "version: 0.1\nstorage: {filesystem: {rootdirectory: \(folder)}}\nhttp: {addr: '192.168.77.1:5000'}\n")
    try cluster.must(cluster.on("host1", "sh", "-c", "docker-registry serve \(folder)/config.yml >\(folder)/log 2>&1 & echo $! > \(folder)/pid"))
    defer { _ = try? cluster.on("host1", "sh", "-c", "kill $(cat \(folder)/pid)") }
    try await eventually("the registry answers") {
      let answer = try cluster.on("host1", "timeout", "3", "busybox", "wget", "-qO-", "http://192.168.77.1:5000/v2/")
      return (answer.code == 0, "\(answer)")
    }
    let copied = try cluster.must(
      cluster.on(
        "host1", "skopeo", "copy", "--dest-tls-verify=false", "--digestfile", "\(folder)/digest", "docker-archive:\(LocalCluster.images)/web-2.tar",
        "docker://192.168.77.1:5000/team/web:two", seconds: 60))
    _ = copied
    let digest = try String(contentsOfFile: "\(folder)/digest", encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
    for reference in ["192.168.77.1:5000/team/web:two", "192.168.77.1:5000/team/web@\(digest)"] {
      let file = try scratch.write("pull.yaml", "services:\n  pulled:\n    image: \(reference)\n    deploy: {replicas: 3}\n")
      try cluster.must(cluster.orch("deploy", file, "--name", "pull"))
      #expect(try cluster.running("pull_pulled").count == 3)
      try cluster.must(cluster.orch("down", "pull"))
    }
    try images(folder)
    try await registryAuth(folder)
  }

  @Test(
    "6: a pull that is ended by Ctrl-C ends with 130, on the host and at the registry, too, and leaves nothing",
    .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/socat"), "needs socat"))
  func t15interrupted() async throws {
    try baseline()
    let folder = scratch.path
    // A registry whose layer never ends; it tells when somebody began to fetch it, and when he has gone.
    let digest = String(repeating: "ab", count: 32)
    #if arch(arm64)
      let architecture = "arm64"
    #else
      let architecture = "amd64"
    #endif
    try scratch.write(
      "config.json", #"{"architecture":"\#(architecture)","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:\#(digest)"]}}"#)
    try scratch.write(
      "serve",
      """
      #!/bin/sh
      read -r method path rest
      while read -r line && [ ${#line} -gt 1 ]; do :; done
      head() { printf 'HTTP/1.1 200 OK\\r\\nContent-Type: %s\\r\\nContent-Length: %s\\r\\nConnection: close\\r\\n\\r\\n' "$1" "$2"; }
      config=$(sha256sum \(folder)/config.json | cut -d' ' -f1)
      manifest='{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":'$(stat -c %s \(folder)/config.json)',"digest":"sha256:'$config'"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":100000000,"digest":"sha256:\(digest)"}]}'
      case $path in
        */manifests/*) head application/vnd.oci.image.manifest.v1+json ${#manifest}; [ $method = HEAD ] || printf %s "$manifest" ;;
        *$config) head application/octet-stream $(stat -c %s \(folder)/config.json); cat \(folder)/config.json ;;
        */blobs/*) head application/octet-stream 100000000; busybox head -c 1000000 /dev/zero; echo begun >>\(folder)/told; cat >/dev/null; echo gone >>\(folder)/told ;;
        *) head application/json 2; printf {} ;;
      esac
      """)
    chmod("\(folder)/serve", 0o755)
    let registry = try cluster.start(
      on: "host1", "socat TCP-LISTEN:5000,bind=192.168.77.1,reuseaddr,fork EXEC:\(folder)/serve >\(folder)/log 2>&1")
    defer { _ = try? cluster.on("host1", "kill", "\(registry)") }
    func told() -> String { (try? String(contentsOfFile: "\(folder)/told", encoding: .utf8)) ?? "" }
    func ingest() throws -> String { try cluster.on("host2", "sh", "-c", "find /var/lib/orch/agent -path '*/ingest/*'").output }
    #expect(try ingest() == "")
    let socket = cluster.socket()
    let pulling = Task.detached {
      try LocalCluster.run(
        "/bin/sh",
        ["-c", "echo $$ >\(folder)/pid; exec \(LocalCluster.programs)/orch image pull --node host2 192.168.77.1:5000/endless:1"],
        environment: ["ORCH_HOST": socket], seconds: 60)
    }
    try await eventually("the layer is on its way") {
      let here = try ingest()
      return (told() == "begun\n" && !here.isEmpty, told() + here)
    }
    let pid = try #require(Int32(try String(contentsOfFile: "\(folder)/pid", encoding: .utf8).trimmingCharacters(in: .newlines)))
    kill(pid, SIGINT)
    let outcome = try await pulling.value
    #expect(outcome.code == 130, "\(outcome)")
    try await eventually("nobody fetches it, and nothing of it is left") {
      let here = try ingest()
      return (told() == "begun\ngone\n" && here.isEmpty, told() + here)
    }
    #expect(try !cluster.must(cluster.orch("image", "ls", "--node", "host2")).output.contains("endless"))
  }

  /// The registry wants a password now, which the hosts do not have: the deploy brings it, and it is on no disk and in no answer.
  private func registryAuth(_ folder: String) async throws {
    let (user, server, name) = ("ann\(Int.random(in: 100_000_000..<1_000_000_000))", "192.168.77.1:5000", "192.168.77.1:5000/team/web:two")
    // bcrypt of "secret".
    try scratch.write("htpasswd", "\(user):$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n")
    try scratch.write(
      "auth.yml",
      """
      version: 0.1
      storage: {filesystem: {rootdirectory: \(folder)}}
      http: {addr: '\(server)'}
      auth: {htpasswd: {realm: test, path: \(folder)/htpasswd}}
      """)
    try cluster.must(
      cluster.on(
        "host1", "sh", "-c",
        "kill $(cat \(folder)/pid); docker-registry serve \(folder)/auth.yml >\(folder)/log 2>&1 & echo $! > \(folder)/pid"))
    try await eventually("the registry asks for a password") {
      let answer = try cluster.on("host1", "timeout", "3", "busybox", "wget", "-qO-", "http://\(server)/v2/")
      return (answer.errors.contains("401"), "\(answer)")
    }
    try FileManager.default.createDirectory(atPath: "\(folder)/login", withIntermediateDirectories: true)
    try scratch.write("login/config.json", "{\"auths\":{\"\(server)\":{\"auth\":\"\(Data("\(user):secret".utf8).base64EncodedString())\"}}}")
    let file = try scratch.write("pull.yaml", "services:\n  pulled:\n    image: \(name)\n    deploy: {replicas: 3}\n")
    func deploy() throws -> Outcome {
      try LocalCluster.run(
        "\(LocalCluster.programs)/orch", ["deploy", file, "--name", "pull", "--with-registry-auth"],
        environment: ["ORCH_HOST": cluster.socket(), "DOCKER_CONFIG": "\(folder)/login"], seconds: 90)
    }
    func once(_ flags: [String]) throws -> Outcome {
      try LocalCluster.run(
        "\(LocalCluster.programs)/orch", ["run", "--rm", "--node", "host3", "--entrypoint", "/bin/busybox"] + flags + [name, "echo", "was run"],
        environment: ["ORCH_HOST": cluster.socket(), "DOCKER_CONFIG": "\(folder)/login"], seconds: 90)
    }
    #expect(try once([]).code == 125)
    #expect(try cluster.must(once(["--with-registry-auth"])).output.contains("was run"))
    try cluster.must(deploy())
    #expect(try cluster.running("pull_pulled").count == 3)
    #expect(try cluster.must(deploy()).output.contains("unchanged  service pull_pulled"))
    // As it is, and as base64 has it at any offset, whole words of it.
    let hidden = (0..<3).map { offset in
      let text = Data(String(repeating: " ", count: offset).utf8 + Array(user.utf8)).base64EncodedString()
      return String(text.dropFirst(4).prefix(8))
    }
    for text in [user] + hidden + hidden.map({ $0.utf8.map(String.init).joined(separator: ",") }) {
      let files = try LocalCluster.run(
        "/bin/grep", ["-rlF", "--devices=skip", text, "/var/lib/orch/dev/\(cluster.name)", "/run/orch/dev/\(cluster.name)"])
      #expect(files.output.isEmpty, "\(text): \(files)")
    }
    for answer in [["inspect", "pull_pulled"], ["sql", "SELECT * FROM services"], ["sql", "SELECT * FROM revisions"]] {
      let shown = try LocalCluster.run("\(LocalCluster.programs)/orch", answer, environment: ["ORCH_HOST": cluster.socket()])
      #expect(shown.code == 0 && shown.output.contains("pull_pulled") && !shown.output.contains("OrchRegistryLogin"), "\(shown)")
    }
    try cluster.must(cluster.orch("down", "pull"))
    try cluster.must(cluster.orch("image", "rm", "--force", "--all-hosts", name))
  }

  /// By hand: to all hosts, from one back to the registry, into a file and out of it, away again; docker's commands see the same.
  private func images(_ folder: String) throws {
    let (name, copy) = ("192.168.77.1:5000/team/web:two", "192.168.77.1:5000/copy/web:1")
    let pulled = try cluster.must(cluster.orch("image", "pull", "--all-hosts", name))
    for host in ["host1", "host2", "host3"] { #expect(pulled.output.contains("\(host): Status: Image is up to date for \(name)"), "\(pulled)") }
    try cluster.must(cluster.orch("image", "tag", name, copy, "--node", "host2"))
    let pushed = try cluster.must(cluster.orch("image", "push", copy, "--node", "host2"))
    // Its layers are as they were loaded: the registry has them in another packing, so that they cannot be mounted.
    #expect(pushed.output.contains("1: digest: sha256:"), "\(pushed)")
    try cluster.must(cluster.orch("image", "pull", "-q", copy, "--node", "host3"))
    let inspected = try cluster.must(cluster.orch("image", "inspect", copy, "--node", "host3"))
    #expect(inspected.output.contains("\"Host\": \"host3\"") && inspected.output.contains(copy), "\(inspected)")
    let missing = try cluster.orch("image", "inspect", "192.168.77.1:5000/none:1")
    #expect(missing.code == 1 && missing.errors.contains("No such image"), "\(missing)")
    for format in ["docker", "oci"] {
      try cluster.must(cluster.orch("image", "save", copy, "--node", "host3", "-o", "\(folder)/\(format).tar", "--format", format))
      try cluster.must(cluster.orch("image", "rm", "--force", copy, "--node", "host2"))
      try cluster.must(cluster.orch("image", "load", "\(folder)/\(format).tar", "--node", "host2"))
      #expect(try cluster.must(cluster.orch("image", "ls", "--node", "host2")).output.contains("192.168.77.1:5000/copy/web"))
    }
    #expect(try !cluster.must(cluster.orch("image", "history", copy, "--node", "host2")).output.isEmpty)
    #expect(try cluster.must(cluster.docker("pull", name)).output.contains("Digest: sha256:"))
    #expect(try cluster.must(cluster.docker("images", "--format", "{{.Repository}}")).output.contains("192.168.77.1:5000/team/web"))
    let removed = try cluster.must(cluster.orch("image", "rm", "--force", "--all-hosts", name, copy))
    #expect(removed.output.contains("host2: Untagged: \(copy)"), "\(removed)")
    #expect(try !cluster.must(cluster.orch("image", "ls")).output.contains("192.168.77.1:5000"))
  }

  @Test("5: limits, exit codes and out-of-memory kills are reported; a volume outlives its containers until it is removed")
  func t16containers() async throws {
    try baseline()
    let file = try scratch.write(
      "containers.yaml",
      """
      services:
        oom:
          image: busybox:1
          command: ["sh", "-c", "sleep 0.2; x=$$(head -c 200000000 /dev/zero | tr '\\\\0' x); echo $${#x}"]
          deploy: {restart_policy: {condition: none}, resources: {limits: {memory: 32M, pids: 50}}}
        seven:
          image: busybox:1
          command: ["sh", "-c", "echo out; echo err >&2; exit 7"]
          deploy: {restart_policy: {condition: none}}
        data:
          image: busybox:1
          command: ["sh", "-c", "date +%s%N >> /data/starts; cat /data/starts; exec sleep 1000"]
          volumes: ["kept:/data"]
          deploy: {placement: {constraints: [node.hostname == host2]}}
      volumes:
        kept: {}
      """)
    try cluster.must(cluster.orch("deploy", file, "--name", "c", "--detach"))
    try await eventually("seven has failed with 7") {
      let tasks = try cluster.tasks("c_seven")
      return (tasks.contains { ($0["Error"] ?? "").contains("(7)") }, "\(tasks)")
    }
    let logs = try cluster.must(cluster.orch("logs", "c_seven"))
    #expect((logs.output + logs.errors).contains("out") && (logs.output + logs.errors).contains("err"), "\(logs)")
    try await eventually("out of memory is told") {
      let tasks = try cluster.tasks("c_oom")
      return (tasks.contains { ($0["Error"] ?? "").contains("memory") }, "\(tasks)")
    }
    try await eventually("data runs") { (try cluster.running("c_data").count == 1, "\(try cluster.tasks("c_data"))") }
    try cluster.must(cluster.orch("down", "c"))
    try cluster.must(cluster.orch("deploy", file, "--name", "c", "--detach"))
    try await eventually("the volume remembers") {
      let log = try cluster.orch("logs", "c_data").output
      return (log.split(separator: "\n").count >= 2, log)
    }
    try cluster.must(cluster.orch("down", "c", "--volumes"))
    #expect(try !cluster.orch("volumes").output.contains("c_kept"))
  }

  @Test("9: exec from anywhere passes input, output and exit code; drain moves tasks away and activate lets them come")
  func t17everyday() async throws {
    try baseline()
    let task = try #require(try cluster.running("web").first?["ID"])
    let failed = try cluster.orch("exec", task, "sh", "-c", "echo hi; exit 5", on: "host2")
    #expect(failed.code == 5 && failed.output.contains("hi"), "\(failed)")
    let ended = try cluster.orch("exec", "-i", task, "cat", seconds: 10)
    #expect(ended.code == 0, "end of input reaches the command: \(ended)")
    try cluster.must(cluster.orch("node", "drain", "host2"))
    try await eventually("host2 is empty") {
      let tasks = try cluster.running("web")
      return (tasks.count == 3 && !tasks.contains { $0["Node"] == "host2" }, "\(tasks)")
    }
    try cluster.must(cluster.orch("node", "activate", "host2"))
    for command in [
      ["inspect", "web"], ["version"], ["services", "-q"], ["completion", "bash"], ["completion", "zsh"], ["ps"], ["managers"], ["--help"],
    ] {
      let outcome = try LocalCluster.run("\(LocalCluster.programs)/orch", command, environment: ["ORCH_HOST": cluster.socket()])
      #expect(outcome.code == 0 && !outcome.output.isEmpty, "\(command): \(outcome)")
    }
  }

  @Test("bad input: each a sentence, an exit code, and nothing half done")
  func t18badInput() throws {
    try baseline()
    let file = "\(scratch.path)/bad.yaml"
    func deploy(_ text: String) throws -> Outcome {
      try scratch.write("bad.yaml", text)
      return try cluster.orch("deploy", file, "--name", "bad")
    }
    let type = try deploy("services:\n  a:\n    image: web:1\n    deploy:\n      replicas: two\n")
    #expect(type.code != 0 && type.errors.contains("\(file):5:") && type.errors.contains("replicas"), "\(type)")
    let key = try deploy("services:\n  a:\n    image: web:1\n    comand: x\n")
    #expect(key.code != 0 && key.errors.contains("\(file):4:") && key.errors.contains("command"), "\(key)")
    let port = try deploy("services:\n  a:\n    image: web:1\n    ports: ['8080:80']\n")
    #expect(port.code != 0 && port.errors.contains("8080"), "\(port)")
    #expect(try !cluster.orch("services").output.contains("bad_"))
    let up = try cluster.dev("up")
    #expect(up.code != 0 && up.errors.contains("already up"), "\(up)")
  }

  @Test("9: down removes the stack's services, networks and tasks")
  func t19down() async throws {
    try baseline()
    try cluster.must(cluster.orch("down", "demo"))
    #expect(try cluster.must(cluster.orch("services", "-q")).output.isEmpty)
    #expect(try !cluster.orch("networks").output.contains("demo_default"))
  }

  @Test("orch dev down leaves no namespace, cgroup, process or folder")
  func t20nothingLeft() throws {
    try cluster.must(cluster.dev("down", seconds: 60))
    let namespaces = (try? FileManager.default.contentsOfDirectory(atPath: "/run/netns")) ?? []
    #expect(!namespaces.contains { $0.hasPrefix("orch-\(LocalCluster.name)-") })
    let cgroups = try LocalCluster.run("/usr/bin/find", ["/sys/fs/cgroup", "-maxdepth", "3", "-name", "orch-dev-\(LocalCluster.name)*"])
    #expect(cgroups.output.isEmpty, "\(cgroups)")
    #expect(!FileManager.default.fileExists(atPath: "/var/lib/orch/dev/\(LocalCluster.name)"))
    #expect(!FileManager.default.fileExists(atPath: "/run/orch/dev/\(LocalCluster.name)"))
    let processes = try LocalCluster.run("/usr/bin/pgrep", ["-fa", "/orch-(manager|agent|init) .*orch-dev-\(LocalCluster.name)"])
    #expect(processes.output.isEmpty, "\(processes)")
  }
}
