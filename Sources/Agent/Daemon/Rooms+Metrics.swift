import AgentNetwork
import DNS
import Telemetry

extension Rooms {
  /// What an agent tells Prometheus (docs/network.md).
  func metrics() async -> [Metric] {
    let repairs = await network.repairs.sorted { $0.key < $1.key }
    let questions = names.counts
    return [
      Metric(
        "orch_network_repairs_total", .counter,
        "What others changed of the host's links, addresses, forwarding entries, ports and rules and was repaired.",
        repairs.map { .init($0.value, ["kind": $0.key]) }),
      Metric(
        "orch_network_strangers_packets_total", .counter, "VXLAN packets dropped since their sender is not on the network, or is a container.",
        [.init(await network.strangers)]),
      Metric(
        "orch_network_unknown_destination_frames_total", .counter,
        "Frames of containers that ended on their host: for a receiver that is not on the network, or for all (broadcast, multicast).",
        [.init(await network.unknownDestinations)]),
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
