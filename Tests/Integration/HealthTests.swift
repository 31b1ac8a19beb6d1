import Foundation
import Testing

extension MainJobTests {
  /// Health checks: real probes in real containers. Nested, so that it takes turns with the rest; each test makes a stack of its own.
  @Suite(.serialized) struct Health {
    let cluster: LocalCluster
    init() throws { cluster = try LocalCluster.shared.get() }

    private func deploy(_ services: String, detach: Bool = false) throws -> Outcome {
      let manifest = "name: health\nservices:\n\(services)\n"
      return detach ? try cluster.deploy(manifest: manifest, "--detach") : try cluster.deploy(manifest: manifest)
    }
    private func down() { _ = try? cluster.orch("down", "health") }
    /// Healthy while /tmp/ok is there.
    private func patient(_ more: String = "") -> String {
      """
        patient:
          image: busybox:1
          command: [sh, -c, "touch /tmp/ok; exec sleep 1000"]
          stop_grace_period: 0s
          healthcheck: {test: "test -f /tmp/ok || { echo the file is gone; exit 3; }", interval: 300ms, retries: 2}
      \(more)
      """
    }
    private func answer(_ host: String, _ port: Int) throws -> Bool {
      try cluster.on(host, "timeout", "3", "busybox", "wget", "-qO-", "http://127.0.0.1:\(port)/").code == 0
    }

    @Test("a task is starting, and sent nothing, until its probe succeeds; then it is healthy, in ps and in inspect")
    func gates() async throws {
      defer { down() }
      let slow = """
          slow:
            image: web:1
            ports: ["8097:80"]
            environment: {START_DELAY: "5"}
            stop_grace_period: 1s
            healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1/health"], interval: 1s, start_period: 20s, start_interval: 100ms}
        """
      try cluster.must(deploy(slow, detach: true))
      try await eventually("it is starting and says why") {
        let tasks = try cluster.tasks("slow")
        let state = tasks.first?["CurrentState"] ?? ""
        return (state.hasPrefix("Starting") && state.contains("health: starting") && tasks.first?["Error"]?.contains("refused") == true, "\(tasks)")
      }
      #expect(try !answer("host1", 8097))
      try await eventually("it is healthy") {
        let tasks = try cluster.running("slow")
        return (tasks.count == 1 && tasks[0]["CurrentState"]?.contains("(healthy)") == true, "\(try cluster.tasks("slow"))")
      }
      for host in ["host1", "host2", "host3"] { try await eventually("\(host) answers") { (try answer(host, 8097), "") } }
      let id = try #require(try cluster.running("slow").first?["ID"])
      let shown = try cluster.must(cluster.orch("inspect", id, on: "host2")).output.filter { $0 != " " }
      #expect(shown.contains("\"Status\":\"healthy\"") && shown.contains("\"ExitCode\":0"), "\(shown)")
    }

    @Test("an unhealthy task is replaced, with the probe's words as its reason")
    func unhealthy() async throws {
      defer { down() }
      try cluster.must(deploy(patient()))
      let first = try #require(try cluster.running("patient").first?["ID"])
      try cluster.must(cluster.orch("exec", first, "rm", "/tmp/ok"))
      try await eventually("another has taken its place") {
        let tasks = try cluster.running("patient")
        return (tasks.count == 1 && tasks[0]["ID"] != first, "\(try cluster.tasks("patient"))")
      }
      let ended = try #require(try cluster.tasks("patient").first { $0["ID"] == first })
      #expect(
        ended["CurrentState"]?.hasPrefix("Failed") == true && ended["Error"] == "task: unhealthy: exit 3: the file is gone (2 in a row)", "\(ended)")
    }

    @Test("an agent that was killed goes on with the checks of what it finds again")
    func agentRestart() async throws {
      defer { down() }
      try cluster.must(deploy(patient("    deploy: {placement: {constraints: [node.hostname == host3]}}")))
      let first = try #require(try cluster.running("patient").first?["ID"])
      try cluster.must(cluster.dev("kill", "host3", "--agent"))
      try cluster.must(cluster.dev("start", "host3"))
      try await Task.sleep(for: .seconds(2))
      try await eventually("the same one is healthy") {
        let same = try cluster.running("patient")
        return (same.map { $0["ID"] } == [first] && same[0]["CurrentState"]?.contains("(healthy)") == true, "\(same)")
      }
      try cluster.must(cluster.orch("exec", first, "rm", "/tmp/ok"))
      try await eventually("another has taken its place") {
        let tasks = try cluster.running("patient")
        return (tasks.count == 1 && tasks[0]["ID"] != first, "\(try cluster.tasks("patient"))")
      }
    }

    @Test("a probe that does not end in time is killed with all it started, and counts as failed")
    func timeout() async throws {
      defer { down() }
      let stuck = """
          stuck:
            image: busybox:1
            command: [sleep, "1000"]
            stop_grace_period: 0s
            healthcheck: {test: "echo waiting; sleep 777 & sleep 777; wait", interval: 500ms, timeout: 300ms, start_period: 60s, start_interval: 200ms}
        """
      try cluster.must(deploy(stuck, detach: true))
      try await eventually("its timeout is told") {
        let tasks = try cluster.tasks("stuck")
        return (tasks.first?["Error"]?.contains("Health check exceeded timeout (0.3s): waiting") == true, "\(tasks)")
      }
      try await Task.sleep(for: .seconds(2))
      let id = try #require(try cluster.tasks("stuck").first?["ID"])
      let processes = try cluster.must(cluster.orch("exec", id, "ps", "-o", "args")).output
      #expect(
        processes.components(separatedBy: "sleep 777").count <= 5, "one probe: its shell, whose line has it twice, and two sleeps. \(processes)")
    }

    @Test("an image's HEALTHCHECK is carried out; `disable: true` switches it off")
    func image() async throws {
      defer { down() }
      let scratch = try TemporaryFolder()
      let folder = scratch.path
      let made = try LocalCluster.run(
        "/bin/sh",
        [
          "-ec",
          """
          cd \(folder); tar xf \(LocalCluster.images)/busybox-1.tar
          old=$(ls *.json | grep -v manifest)
          sed 's/"config":{/"config":{"Healthcheck":{"Test":["CMD-SHELL","test -f \\/tmp\\/ok"],"Interval":200000000,"Retries":2},/' $old > new
          id=$(sha256sum new | cut -d" " -f1); rm $old; mv new $id.json
          sed -i "s/$old/$id.json/; s/busybox:1/checked:1/" manifest.json; tar cf checked.tar *.json */
          """,
        ])
      try cluster.must(made)
      try cluster.must(cluster.orch("image", "load", "\(folder)/checked.tar"))
      try cluster.must(
        deploy(
          """
            ill: {image: "checked:1", command: [sleep, "1000"], stop_grace_period: 0s, deploy: {restart_policy: {condition: none}}}
            off: {image: "checked:1", command: [sleep, "1000"], stop_grace_period: 0s, healthcheck: {disable: true}}
          """, detach: true))
      try await eventually("one is unhealthy, the other runs") {
        let (ill, off) = (try cluster.tasks("ill"), try cluster.running("off"))
        return (ill.first?["Error"]?.contains("unhealthy: exit 1 (2 in a row)") == true && off.count == 1, "\(ill) \(off)")
      }
      #expect(try cluster.running("off").first?["CurrentState"]?.contains("health") == false)
    }

    @Test("an update whose new tasks do not become healthy is rolled back, and the old ones serve all the time")
    func update() async throws {
      defer { down() }
      let service = """
          site:
            image: web:1
            ports: ["8098:80"]
            stop_grace_period: 1s
            healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:80/health"], interval: 300ms, retries: 2}
            deploy: {replicas: 2, update_config: {order: start-first, failure_action: rollback}}
        """
      try cluster.must(deploy(service))
      // It listens elsewhere: the probe fails.
      let updated = try cluster.orch("update", "site", "--env-add", "PORT=81")
      #expect(updated.code == 1 && updated.errors.contains("rolled back") && updated.errors.contains("unhealthy"), "\(updated)")
      #expect(try cluster.running("site").count == 2)
      #expect(try answer("host2", 8098))
    }

    @Test("depends_on: what waits starts after what it waits for is healthy and complete, and deploy ends when all is as it should be")
    func dependsOn() throws {
      defer { down() }
      let deployed = try cluster.must(
        deploy(
          """
            app:
              image: busybox:1
              command: [sleep, "1000"]
              stop_grace_period: 0s
              depends_on: {db: {condition: service_healthy}, migrate: {condition: service_completed_successfully}}
            db:
              image: busybox:1
              command: [sh, -c, "sleep 3; touch /tmp/ok; exec sleep 1000"]
              stop_grace_period: 0s
              healthcheck: {test: "test -f /tmp/ok", interval: 300ms, start_period: 10s, start_interval: 200ms}
            migrate:
              image: busybox:1
              command: [sh, -c, "sleep 0.5; date +%s.%N"]
              depends_on: [db]
          """))
      #expect(deployed.output.contains("pending (waiting for health_db to be healthy (0/1"), "\(deployed)")
      #expect(deployed.output.contains("3 services converged"), "\(deployed)")
      #expect(try cluster.running("app").count == 1)
      let ended = try cluster.tasks("migrate")
      #expect(ended.count == 1 && ended[0]["CurrentState"]?.hasPrefix("Complete") == true, "\(ended)")
    }
  }
}
