import Foundation
import Testing

extension MainJobTests {
  /// Secrets and configs through the public commands, and where their content is and is not.
  @Suite struct SecretTests {
    let cluster: LocalCluster
    private let scratch: TemporaryFolder
    private var folder: String { scratch.path }
    /// Not in the program's own text: it is made for each run.
    let content = "plain-\(UUID().uuidString)"
    init() throws {
      cluster = try LocalCluster.shared.get()
      scratch = try TemporaryFolder()
    }

    private func write(_ name: String, _ text: String) throws { try scratch.write(name, text) }

    private func running(_ service: String) async throws -> String {
      var id = ""
      try await eventually("\(service) runs") {
        id = try cluster.running(service).first?["ID"] ?? ""
        return (!id.isEmpty, "\(try cluster.tasks(service))")
      }
      return id
    }

    /// Files below the cluster's folders that hold the content, and agents and managers that have it in memory.
    private func places() throws -> (files: String, processes: [String]) {
      let files = try LocalCluster.run(
        "/bin/grep", ["-rlF", "--devices=skip", content, "/var/lib/orch/dev/\(cluster.name)", "/run/orch/dev/\(cluster.name)"]
      ).output
      let found = try LocalCluster.run("/usr/bin/pgrep", ["-fa", "/orch-agent .*orch-dev-\(cluster.name)"]).output
      var processes: [String] = []
      for line in found.split(separator: "\n") {
        let pid = String(line.prefix { $0 != " " })
        if try memory(of: pid) { processes.append(String(line)) }
      }
      return (files, processes)
    }

    /// Whether a process has the content in memory that it can write to.
    private func memory(of pid: String) throws -> Bool {
      guard let maps = try? String(contentsOfFile: "/proc/\(pid)/maps", encoding: .utf8) else { return false }
      let descriptor = open("/proc/\(pid)/mem", O_RDONLY | O_CLOEXEC)
      guard descriptor >= 0 else { return false }
      defer { close(descriptor) }
      let wanted = Data(content.utf8)
      for line in maps.split(separator: "\n") {
        let parts = line.split(separator: " ")
        let ends = parts[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
        guard parts[1].hasPrefix("rw"), ends.count == 2, ends[1] - ends[0] <= 256 << 20 else { continue }
        var bytes = [UInt8](repeating: 0, count: Int(ends[1] - ends[0]))
        let count = pread(descriptor, &bytes, bytes.count, off_t(ends[0]))
        if count > 0, Data(bytes[..<count]).range(of: wanted) != nil { return true }
      }
      return false
    }

    @Test("a container reads its secret and its config; nobody else has the content, and no disk and no log")
    func t01deployed() async throws {
      try write("key.txt", content + "\n")
      try write(
        "secret.yaml",
        """
        name: sec
        services:
          web:
            image: busybox:1
            command: sh -c 'trap exit TERM; while sleep 1; do :; done'
            user: "1000"
            deploy: {placement: {constraints: [node.hostname == host2]}}
            secrets: [key, {source: key, target: /etc/owned, uid: "1000", gid: "50", mode: 0400}]
            configs: [{source: conf, target: /etc/web.conf}]
        secrets: {key: {file: key.txt}}
        configs: {conf: {content: "port=80"}}
        """)
      try cluster.must(cluster.orch("deploy", "\(folder)/secret.yaml"))
      defer { _ = try? cluster.orch("down", "sec") }
      let task = try await running("sec_web")
      func inside(_ script: String) throws -> String { try cluster.must(cluster.orch("exec", task, "sh", "-c", script)).output }
      #expect(try inside("cat /run/secrets/key /etc/owned /etc/web.conf") == "\(content)\n\(content)\nport=80")
      #expect(try inside("stat -c '%u:%g %a' /run/secrets/key /etc/owned /etc/web.conf") == "0:0 444\n1000:50 400\n0:0 444\n")
      #expect(try inside("grep -c ' /run/secrets/key tmpfs ro' /proc/mounts") == "1\n")

      // Through every public answer that could show it.
      for arguments in [["secret", "inspect", "sec_key"], ["inspect", "sec_web"], ["secrets", "--format", "json"]] {
        let answer = try cluster.must(
          LocalCluster.run("\(LocalCluster.programs)/orch", arguments, environment: ["ORCH_HOST": cluster.socket()]))
        #expect(!answer.output.contains(content) && !answer.output.contains(Data(content.utf8).base64EncodedString()))
      }
      // The managers' databases and their write-ahead logs among them, and a backup.
      let places = try places()
      #expect(places.files.isEmpty, "\(places.files)")
      try cluster.must(cluster.orch("backup", "-q", "\(folder)/backup.db"))
      let backup = try Data(contentsOf: URL(fileURLWithPath: "\(folder)/backup.db"))
      #expect(backup.range(of: Data("sec_key".utf8)) != nil && backup.range(of: Data(content.utf8)) == nil)
      #expect(places.processes.allSatisfy { $0.contains("host2") } && !places.processes.isEmpty, "\(places.processes)")

      let refused = try cluster.orch("secret", "rm", "sec_key")
      #expect(refused.code == 1 && refused.errors.contains("in use by the following service: sec_web"), "\(refused)")

      // It stays with the container when the agent goes, and a new task gets it from the agent that came back.
      try cluster.must(cluster.dev("kill", "host2", "--agent"))
      try cluster.must(cluster.dev("start", "host2"))
      try await eventually("exec works again") { (try cluster.orch("exec", task, "cat", "/run/secrets/key").output == content + "\n", "") }
      try cluster.must(cluster.orch("update", "sec_web", "--force"))
      let next = try await running("sec_web")
      #expect(next != task)
      #expect(try cluster.must(cluster.orch("exec", next, "cat", "/run/secrets/key")).output == content + "\n")
      #expect(try self.places().files.isEmpty)

      // Unchanged again, then with another content.
      #expect(try cluster.must(cluster.orch("deploy", "\(folder)/secret.yaml")).output.contains("unchanged  secret sec_key"))
      try write("key.txt", "another\n")
      let other = try cluster.orch("deploy", "\(folder)/secret.yaml")
      #expect(other.code == 1 && other.errors.contains("give the new one another name"), "\(other)")

      #expect(try cluster.must(cluster.orch("down", "sec")).output.contains("removing   secret sec_key"))
      #expect(try cluster.orch("secret", "inspect", "sec_key").code == 1)
      #expect(try self.places().files.isEmpty)
    }

    @Test("a task gets five configs of 900 KiB, which together are more than a frame")
    func t03large() async throws {
      let folder = try TemporaryFolder()
      defer { _ = try? cluster.orch("down", "lot") }
      defer { for number in 1...5 { _ = try? cluster.orch("config", "rm", "lot\(number)") } }
      var grants = ""
      var definitions = ""
      for number in 1...5 {
        let text = String(repeating: "\(number)", count: 900 << 10)
        try cluster.must(cluster.orch("config", "create", "lot\(number)", try folder.write("lot\(number)", text)))
        grants += "{source: lot\(number), target: /etc/lot\(number)}, "
        definitions += "lot\(number): {external: true}, "
      }
      let manifest = try folder.write(
        "lot.yaml",
        """
        name: lot
        services:
          web:
            image: busybox:1
            command: sleep 1000
            deploy: {placement: {constraints: [node.hostname == host3]}}
            configs: [\(grants)]
        configs: {\(definitions)}
        """)
      try cluster.must(cluster.orch("deploy", "--detach", manifest))
      let task = try await running("lot_web")
      let sizes = try cluster.must(cluster.orch("exec", task, "sh", "-c", "cat /etc/lot? | wc -c; cut -c1 /etc/lot?")).output
      #expect(sizes == "\(5 * 900 << 10)\n1\n2\n3\n4\n5\n")
      // The whole set again, in a new session.
      try cluster.must(cluster.dev("kill", "host3", "--agent"))
      try cluster.must(cluster.dev("start", "host3"))
      try cluster.must(cluster.orch("update", "lot_web", "--force"))
      try await eventually("another task runs") { (try cluster.running("lot_web").contains { $0["ID"] != task }, "\(try cluster.tasks("lot_web"))") }
    }

    @Test("docker's commands for secrets and configs work, and its services use them")
    func t02docker() async throws {
      try write("key", content)
      try cluster.must(cluster.docker("secret", "create", "--label", "a=b", "dkey", "\(folder)/key"))
      try cluster.must(cluster.docker("config", "create", "dconf", "\(folder)/key", on: "host2"))
      defer {
        for arguments in [["service", "rm", "dweb"], ["secret", "rm", "dkey"], ["config", "rm", "dconf"]] {
          _ = try? LocalCluster.run("/usr/bin/env", ["docker"] + arguments, environment: ["DOCKER_HOST": cluster.socket()])
        }
      }
      #expect(try cluster.must(cluster.docker("secret", "ls", "--filter", "label=a=b")).output.contains("dkey"))
      let shown = try cluster.must(cluster.docker("secret", "inspect", "dkey", on: "host3")).output
      #expect(shown.contains(#""a": "b""#) && !shown.contains("Data"), "\(shown)")
      #expect(try cluster.must(cluster.docker("config", "inspect", "--pretty", "dconf")).output.contains(content))
      let again = try cluster.docker("secret", "create", "dkey", "\(folder)/key")
      #expect(again.code != 0 && again.errors.contains("already exists"), "\(again)")
      try cluster.must(
        cluster.docker(
          "service", "create", "--detach", "--name", "dweb", "--secret", "source=dkey,target=k,mode=0400", "--config", "source=dconf,target=/etc/c",
          "busybox:1", "sleep", "1000"))
      let task = try await running("dweb")
      #expect(try cluster.must(cluster.orch("exec", task, "cat", "/run/secrets/k", "/etc/c")).output == content + content)
      let used = try cluster.docker("secret", "rm", "dkey")
      #expect(used.code != 0 && used.errors.contains("is in use by the following service: dweb"), "\(used)")
      try cluster.must(cluster.docker("service", "update", "--detach", "--secret-rm", "dkey", "--config-rm", "dconf", "dweb"))
      try cluster.must(cluster.docker("secret", "rm", "dkey"))
      try cluster.must(cluster.docker("config", "rm", "dconf"))
    }
  }
}
