import Foundation
import Testing

extension MainJobTests {
  /// What is on the wire, as Wireshark's decoders read it. Nested, so that it takes turns with the rest.
  @Suite(.serialized) struct ForeignEyes {
    let cluster: LocalCluster
    init() throws { cluster = try LocalCluster.shared.get() }
    static let tshark = FileManager.default.isExecutableFile(atPath: "/usr/bin/tshark")

    @Test(
      "between hosts goes VXLAN of the networks and of their tasks alone, nothing broadcast; names are answered well-formed",
      .enabled(if: tshark, "needs tshark (Debian: tshark)"))
    func wire() throws {
      let folder = FileManager.default.temporaryDirectory.appendingPathComponent("orch-wire-\(UUID())").path
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      defer {
        _ = try? cluster.orch("down", "wire")
        try? FileManager.default.removeItem(atPath: folder)
      }
      try """
      name: wire
      services:
        web: {image: "web:1", stop_grace_period: 1s, deploy: {replicas: 3}}
        client: {image: "busybox:1", command: [sleep, "100000"], stop_grace_period: 0s}
      """.write(toFile: folder + "/wire.yaml", atomically: true, encoding: .utf8)
      try cluster.must(cluster.orch("deploy", folder + "/wire.yaml", seconds: 90))
      let client = try #require(try cluster.running("client").first)
      let (task, host) = (try #require(client["ID"]), try #require(client["Node"]))
      // Both captures begin before anything is asked, and end by themselves.
      let script = """
        n=/run/orch/agent/netns/\(task)
        tshark -q -i eth0 -f 'udp port 4789' -a duration:20 -w \(folder)/vxlan.pcap 2> \(folder)/vxlan.log & a=$!
        nsenter --net=$n tshark -q -i lo -f 'udp or tcp' -a duration:20 -w \(folder)/names.pcap 2> \(folder)/names.log & b=$!
        for i in $(seq 100); do grep -q Capturing \(folder)/vxlan.log && grep -q Capturing \(folder)/names.log && break; sleep 0.1; done
        sleep 1
        for i in 1 2 3 4 5 6 7 8 9; do nsenter --net=$n timeout 5 busybox wget -qO /dev/null http://$(nsenter --net=$n busybox nslookup web 127.0.0.11 | awk '/^Address/ {x=$NF} END {print x}')/; done
        nsenter --net=$n busybox nslookup tasks.web 127.0.0.11; nsenter --net=$n busybox nslookup nobody.web 127.0.0.11
        sleep 1
        kill -TERM $a $b; wait $a $b
        tshark -r \(folder)/vxlan.pcap -T fields -e vxlan.vni -e eth.dst -e ip.src -e ip.dst -e _ws.malformed -e _ws.expert.message -E separator='|' > \(folder)/vxlan.txt
        tshark -r \(folder)/names.pcap -T fields -e dns.flags.response -e dns.flags.rcode -e dns.qry.name -e dns.a -e _ws.malformed -E separator='|' dns > \(folder)/names.txt
        """
      let captured = try cluster.on(host, "bash", "-c", script, seconds: 60)
      func lines(_ name: String) -> [[Substring]] {
        String(decoding: FileManager.default.contents(atPath: "\(folder)/\(name)") ?? Data(), as: UTF8.self).split(separator: "\n").map {
          $0.split(separator: "|", omittingEmptySubsequences: false)
        }
      }
      let (frames, names) = (lines("vxlan.txt"), lines("names.txt"))
      #expect(frames.count > 9 && names.count > 9, "\(captured) \(frames) \(names)")
      for frame in frames where frame.count >= 5 {
        #expect(Int(frame[0]).map { $0 >= 4096 } == true, "\(frame)")
        // Outer and inner receiver; a member's address begins with 02:42, a broadcast or multicast one has its lowest bit set.
        #expect(frame[1].split(separator: ",").last?.hasPrefix("02:42:0a:") == true, "\(frame)")
        #expect(
          frame[2].split(separator: ",").last?.hasPrefix("10.") == true && frame[3].split(separator: ",").last?.hasPrefix("10.") == true, "\(frame)")
        #expect(frame[4].isEmpty, "\(frame)")
      }
      let answers = names.filter { $0.count >= 5 && ($0[0] == "1" || $0[0] == "True") }
      #expect(answers.allSatisfy { $0[4].isEmpty }, "\(answers)")
      #expect(answers.contains { $0[2] == "web" && $0[1] == "0" && $0[3].hasPrefix("10.") }, "\(answers)")
      #expect(answers.contains { $0[2] == "tasks.web" && $0[3].split(separator: ",").count == 3 }, "\(answers)")
    }
  }
}
