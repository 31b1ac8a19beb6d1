import AgentNetwork
import DNS
import Telemetry

extension Rooms {
  /// What an agent tells Prometheus (docs/network.md).
  func metrics() async -> [Metric] {
    let questions = names.counts
    return await network.metrics() + [
      Metric(
        "orch_dns_questions_total", .counter, "Questions of containers, by who answered: the cluster, an answer that was kept, the host's servers.",
        [
          .init(questions.answered, ["by": "cluster"]), .init(questions.kept, ["by": "kept"]), .init(questions.forwarded, ["by": "servers"]),
        ]),
      Metric("orch_dns_failures_total", .counter, "Questions that no server answered (SERVFAIL).", [.init(questions.failed)]),
      Metric("orch_dns_malformed_total", .counter, "Datagrams that are no question.", [.init(questions.malformed)]),
    ]
  }
}
