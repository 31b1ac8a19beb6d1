import Foundation
import Testing

extension MainJobTests {
  /// Commands as a user gives them, with mistakes. Nested, so that it takes turns with the rest; each test makes a stack of its own and
  /// leaves the cluster as it was.
  @Suite(.serialized) struct User {
    let cluster: LocalCluster
    init() throws { cluster = try LocalCluster.shared.get() }

    private func deploy(_ more: String = "", replicas: Int = 2) throws -> Outcome {
      let manifest = """
        name: user
        services:
          shop:
            image: web:1
            stop_grace_period: 1s
            deploy: {replicas: \(replicas)}
        \(more)
        """
      return try cluster.must(cluster.deploy(manifest: manifest))
    }
    private func down() { _ = try? cluster.orch("down", "user") }

    @Test("4: a key without effect is told with its place, and the rest is deployed")
    func warning() throws {
      defer { down() }
      let deployed = try deploy("    isolation: default", replicas: 1)
      #expect((deployed.output + deployed.errors).contains(":7:5: warning: services.shop.isolation"), "\(deployed)")
      #expect(try cluster.running("shop").count == 1)
    }

    @Test("3: docker finds a service by its short name, and its scale replaces no task")
    func dockerScale() throws {
      defer { down() }
      _ = try deploy()
      let before = Set(try cluster.running("shop").compactMap { $0["ID"] })
      #expect(before.count == 2)
      #expect(try cluster.must(cluster.docker("service", "ps", "shop", on: "host2")).output.contains("user_shop.1"))
      try cluster.must(cluster.docker("service", "scale", "shop=3", on: "host3"))
      #expect(Set(try cluster.running("shop").compactMap { $0["ID"] }).isSuperset(of: before))
      #expect(try cluster.tasks("shop").count == 3)
    }

    @Test("7: an update to an image that nobody has ends soon, with image, host and reason; a rollback ends when it is complete")
    func missingImage() throws {
      defer { down() }
      _ = try deploy()
      let clock = ContinuousClock()
      let start = clock.now
      let failed = try cluster.orch("update", "shop", "--image", "192.168.77.1:1/nosuch:9")
      #expect(failed.code == 1 && clock.now - start < .seconds(30), "\(failed)")
      #expect(failed.errors.contains("nosuch:9 was rejected on host") && failed.errors.contains("orch image load"), "\(failed)")
      try cluster.must(cluster.orch("rollback", "shop"))
      #expect(try cluster.running("shop").allSatisfy { $0["Image"] == "web:1" })
      #expect(try cluster.must(cluster.orch("inspect", "shop")).output.contains("rollback completed"))
    }

    @Test("an image's name that is none is refused by the manager, whoever asks; nothing changes")
    func badReference() throws {
      defer { down() }
      _ = try deploy()
      let before = Set(try cluster.running("shop").compactMap { $0["ID"] })
      let sentence = "'Bad Image!!' is not an image's name"
      for refused in [
        try cluster.orch("update", "shop", "--image", "Bad Image!!"), try cluster.docker("service", "update", "--image", "Bad Image!!", "user_shop"),
        try cluster.docker("service", "create", "--name", "user_bad", "Bad Image!!"),
      ] {
        #expect(refused.code == 1 && refused.errors.contains(sentence) && refused.errors.contains("NAME:TAG"), "\(refused)")
      }
      #expect(try cluster.tasks("shop").count == before.count && Set(cluster.running("shop").compactMap { $0["ID"] }) == before)
      #expect(try cluster.orch("ps", "user_bad").code == 1)
    }

    @Test(
      "an image file that is none says what it is and how to make one, and nobody keeps anything of it",
      arguments: [("text", "it is no tar file"), ("empty", "it is empty"), ("other tar", "it has neither manifest.json nor index.json")])
    func badArchive(_ kind: String, _ words: String) throws {
      let folder = try TemporaryFolder()
      let file = "\(folder.path)/file"
      let text = kind == "empty" ? "" : String(repeating: "this is no archive\n", count: 100)
      try text.write(toFile: file, atomically: true, encoding: .utf8)
      if kind == "other tar" {
        try cluster.must(LocalCluster.run("/usr/bin/env", ["tar", "-C", folder.path, "-cf", file + ".tar", "file"]))
      }
      let given = kind == "other tar" ? file + ".tar" : file
      let load = try cluster.orch("image", "load", given)
      #expect(load.code == 1 && load.errors.contains("\(given): ") && load.errors.contains(words) && load.errors.contains("docker save"), "\(load)")
      if kind != "other tar" {
        let imported = try cluster.orch("image", "import", "user-none:1", given)
        #expect(imported.code == 1 && imported.errors.contains(words) && imported.errors.contains("tar -C ROOT"), "\(imported)")
      }
      #expect(try !cluster.must(cluster.orch("image", "ls")).output.contains("user-none"))
    }

    @Test("events of a service are found by its id, its name and its short name, those of its tasks too")
    func events() throws {
      defer { down() }
      _ = try deploy()
      let id = try cluster.must(cluster.orch("services", "--format", "json", "--no-trunc")).rows.first { $0["Name"] == "user_shop" }?["ID"]
      let scratch = try TemporaryFolder()
      for name in [try #require(id), "user_shop", "shop"] {
        let watched = try LocalCluster.run(
          "/bin/bash",
          [
            "-c",
            """
            timeout 60 "$0" events --filter service="$1" > "$2" & watcher=$!
            # It says nothing until something happens.
            for replicas in $3 5 $3 5 $3 5; do
              sleep 0.5; timeout 20 "$0" scale shop=$replicas --quiet 2>&1
              for turn in 1 2 3 4 5 6 7 8; do grep -q ' task ' "$2" && grep -q ' service update ' "$2" && break 2; sleep 0.25; done
            done
            kill $watcher; wait; cat "$2"
            """, "\(LocalCluster.programs)/orch", name, "\(scratch.path)/events",
            name == "shop" ? "2" : name == "user_shop" ? "4" : "3",
          ], environment: ["ORCH_HOST": cluster.socket()], seconds: 150)
        #expect(watched.output.contains(" service update ") && watched.output.contains(" task "), "\(name): \(watched)")
      }
    }

    @Test("down tells the end as soon as it is there, and not before")
    func downWaits() throws {
      _ = try deploy()
      let gone = try cluster.must(cluster.orch("down", "user"))
      #expect(gone.output.contains("stack user is gone"))
      #expect(try cluster.orch("ps", "user_shop").code == 1)
      #expect(try !cluster.must(cluster.orch("networks")).output.contains("user_"))
    }

    @Test("a host that is down holds nobody up: scale says so, down removes the stack, which is deployed again; what ran there ends when it is back")
    func lostHost() async throws {
      defer {
        _ = try? cluster.dev("start", "host3")
        down()
      }
      _ = try deploy(replicas: 3)
      let lost = try cluster.running("shop").filter { $0["Node"] == "host3" }.compactMap { $0["ID"] }
      try #require(lost.count == 1)
      try cluster.must(cluster.dev("kill", "host3", "--agent"))
      try await eventually("the host is down") {
        let nodes = try cluster.orch("nodes", "--format", "json").rows
        return (nodes.contains { $0["Hostname"] == "host3" && $0["Status"] == "Down" }, "\(nodes)")
      }
      let scaled = try cluster.must(cluster.orch("scale", "shop=2"))
      #expect((scaled.output + scaled.errors).contains("host3 is down: 1 task of user_shop on it ends when it is back"), "\(scaled)")
      #expect(try cluster.must(cluster.orch("down", "user")).output.contains("stack user is gone"))
      _ = try deploy()
      #expect(try cluster.running("shop").allSatisfy { $0["Node"] != "host3" })
      try cluster.must(cluster.dev("start", "host3"))
      try await cluster.nodesAreReady()
      try await eventually("what ran there is gone") {
        let there = try cluster.on("host3", "ls", "/run/orch/agent/netns").output
        return (!lost.contains(where: there.contains), there)
      }
    }

    @Test("a full disk: loading an image names the host and what to do, the other hosts have it")
    func fullDisk() throws {
      let images = "/var/lib/orch/agent/images"
      try cluster.must(cluster.on("host2", "mount", "-t", "tmpfs", "-o", "size=512k", "full", images))
      try cluster.must(cluster.on("host2", "mkdir", "\(images)/ingest"))
      defer { _ = try? cluster.on("host2", "umount", images) }
      let loaded = try cluster.orch("image", "load", "\(LocalCluster.images)/web-2.tar")
      #expect(loaded.code == 1 && loaded.errors.contains("host2") && loaded.errors.contains("free some space"), "\(loaded)")
      #expect(loaded.output.contains("host1: ") && loaded.output.contains("host3: "), "\(loaded)")
    }

    @Test(
      "what is not there is said with where to look", arguments: ["services": "ps nobody", "nodes": "node drain nobody"].sorted { $0.key < $1.key })
    func notFound(list: String, command: String) throws {
      let words = command.split(separator: " ").map(String.init)
      let refused =
        words.count == 2 ? try cluster.orch(words[0], words[1], on: "host2") : try cluster.orch(words[0], words[1], words[2], on: "host3")
      #expect(refused.code == 1 && refused.errors.contains("nobody not found: see orch \(list)"), "\(refused)")
    }
  }
}
