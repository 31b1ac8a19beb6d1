import Telemetry

extension OverlayNetwork {
  /// For Prometheus; names, kinds and labels are those of docs/network.md.
  public func metrics() async -> [Metric] {
    let repairs = repairs.sorted { $0.key < $1.key }
    return [
      Metric(
        "orch_network_repairs_total", .counter,
        "What others changed of the host's links, addresses, forwarding entries, ports and rules and was repaired.",
        repairs.map { .init($0.value, ["kind": $0.key]) }),
      Metric(
        "orch_network_strangers_packets_total", .counter, "VXLAN packets dropped since their sender is not on the network, or is a container.",
        [.init(await strangers)]),
      Metric(
        "orch_network_unknown_destination_frames_total", .counter,
        "Frames of containers that ended on their host: for a receiver that is not on the network, or for all (broadcast, multicast).",
        [.init(await unknownDestinations)]),
      Metric(
        "orch_network_bridge_bypass", .gauge,
        "1: frames between containers go around this host's bridges; 0: nobody wants or needs it, or the kernel refuses.",
        [.init(bypassesBridges ? 1 : 0)]),
    ]
  }
}
