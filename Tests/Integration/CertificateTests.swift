import Foundation
import Testing

extension MainJobTests {
  /// The public API over TCP: mutual TLS with certificates that the cluster makes for users.
  @Suite(.serialized) struct Certificates {
    let cluster: LocalCluster
    private let scratch: TemporaryFolder
    private var folder: String { scratch.path }
    init() throws {
      cluster = try LocalCluster.shared.get()
      scratch = try TemporaryFolder()
    }

    /// A command on host3, against host1's or host2's manager, with the certificates of a folder.
    private func orch(_ certificates: String, manager: Int = 1, _ arguments: String...) throws -> Outcome {
      try run(["ORCH_HOST=tcp://192.168.77.\(manager):2376", "ORCH_CERT_PATH=\(certificates)", "\(LocalCluster.programs)/orch"] + arguments)
    }
    private func run(_ words: [String]) throws -> Outcome {
      try LocalCluster.run(
        "\(LocalCluster.programs)/orch", ["dev", "exec", "host3", "--", "env"] + words, environment: ["ORCH_DEV_CLUSTER": LocalCluster.name])
    }
    /// A node's own files under the names that clients expect.
    private func steal(_ host: String, _ daemon: String) throws -> String {
      let target = "\(folder)/\(host)-\(daemon)"
      try FileManager.default.createDirectory(atPath: target, withIntermediateDirectories: true)
      for (from, to) in [("node.pem", "cert.pem"), ("node.key", "key.pem"), ("ca.pem", "ca.pem")] {
        try FileManager.default.copyItem(atPath: "/var/lib/orch/dev/\(LocalCluster.name)/\(host)/lib/\(daemon)/\(from)", toPath: "\(target)/\(to)")
      }
      return target
    }

    @Test("3: orch and docker use any manager's API over TCP with a user's certificate; a worker's, a stranger's and none are refused")
    func tcp() throws {
      let ann = "\(folder)/ann"
      // By a follower too: the leader signs.
      try cluster.must(cluster.orch("cert", "create", "ann", "--out", ann, "--days", "1", on: "host3"))
      #expect(try FileManager.default.attributesOfItem(atPath: "\(ann)/key.pem")[.posixPermissions] as? Int == 0o600)
      for manager in [1, 2] {
        let nodes = try cluster.must(orch(ann, manager: manager, "nodes", "--format", "json"))
        #expect(nodes.rows.count == 3)
      }
      let docker = try run([
        "DOCKER_HOST=tcp://192.168.77.2:2376", "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=\(ann)", "docker", "node", "ls", "-q",
      ])
      #expect(try cluster.must(docker).output.split(separator: "\n").count == 3)

      let worker = try orch(steal("host3", "agent"), "nodes")
      #expect(worker.code == 1 && worker.errors.contains("refuses the certificate") && worker.errors.contains("orch cert create"), "\(worker)")
      #expect(try orch(steal("host2", "manager"), "nodes").code == 0)
      let bare = try run(["curl", "-sk", "--max-time", "5", "https://192.168.77.1:2376/info"])
      #expect(bare.code != 0 && bare.output.isEmpty, "\(bare)")
      let plain = try run(["ORCH_HOST=http://192.168.77.1:2376", "\(LocalCluster.programs)/orch", "nodes"])
      #expect(plain.code == 1 && plain.errors.contains("ORCH_CERT_PATH"), "\(plain)")

      let again = try cluster.orch("cert", "create", "ann", "--out", ann)
      #expect(again.code == 2 && again.errors.contains("--force"), "\(again)")
      let stranger = try cluster.orch("cert", "create", "a b", "--out", "\(folder)/b")
      #expect(stranger.code == 2 && stranger.errors.contains("is no user's name"), "\(stranger)")
      #expect(!FileManager.default.fileExists(atPath: "\(folder)/b"))
    }

    @Test("9: over TCP, too, what an exec started ends when its client is killed, though it reads nothing of what it is sent")
    func killed() async throws {
      let bob = "\(folder)/bob"
      try cluster.must(cluster.orch("cert", "create", "bob", "--out", bob, "--days", "1"))
      try cluster.must(cluster.orch("run", "--detach", "--name", "deaf", "busybox:1", "sleep", "1000"))
      let task = try #require(try cluster.running("deaf").first?["ID"])
      func processes() throws -> Outcome { try cluster.orch("exec", task, "ps") }
      for manager in [1, 2] {
        let script = """
          "$0" exec -i "$1" sleep 779 </dev/zero >/dev/null 2>&1 &
          until "$0" exec "$1" ps | grep -q 'sleep 779'; do sleep 0.2; done
          sleep 3; "$0" exec "$1" ps | grep -q 'sleep 779' && echo still
          kill -9 $!; wait $!; echo "ended $?"
          """
        let killed = try run([
          "ORCH_HOST=tcp://192.168.77.\(manager):2376", "ORCH_CERT_PATH=\(bob)", "/bin/bash", "-c", script, "\(LocalCluster.programs)/orch", task,
        ])
        #expect(killed.output.contains("still\nended 137"), "\(killed)")
        try await eventually("what manager \(manager) was asked for is gone") {
          let seen = try processes()
          return (seen.code == 0 && !seen.output.contains("sleep 779"), "\(seen)")
        }
      }
      try cluster.must(cluster.orch("rm", "deaf"))
    }
  }
}
