import Glibc
import Model
import Synchronization
import Testing

@testable import AgentNetwork

@Suite("One change of endpoints")
struct ChangeTests {
  private typealias Content = (virtual: [IPv4Address: [IPv4Address]], alive: Set<IPv4Address>)

  @Test("elements of a table's maps change as their content does, whoever else went to the same content and from where")
  func elements() {
    var random = SystemRandomNumberGenerator()
    func some() -> Content {
      var content: Content = ([:], [])
      for number in 0..<Int.random(in: 0...6, using: &random) {
        let backends = (0..<Int.random(in: 0...3, using: &random)).map { _ in address("10.0.1.\(Int.random(in: 1...4, using: &random))") }
        content.virtual[address("10.0.0.\(number)")] = backends
        content.alive.formUnion(backends)
      }
      return content
    }
    for _ in 0..<300 {
      let (one, two, three) = (some(), some(), some())
      func made(_ content: Content) -> Balancing<IPv4Address> { Balancing(virtual: content.virtual, alive: content.alive) }
      let (first, second, third) = (made(one), made(two), made(three))
      let alone = made(three).changes(from: made(one))
      // Two namespaces from the first, one from the second, one that had nothing; and once more after all have it.
      for _ in 1...2 {
        for old in [first, first, second, Balancing(), first] {
          let change = third.changes(from: old)
          let fresh = made(three).changes(from: made((old.virtual, old.alive)))
          #expect(change == fresh)
          let isSame = old.virtual == third.virtual && old.alive == third.alive
          #expect((third == old) == isSame && (old == third) == isSame)
          #expect((change == ("", "")) == isSame)
        }
        third.settle()
      }
      #expect(third.changes(from: first) == alone)
    }
  }

  @Test("what differs of two lists of endpoints is what lies between their common ends")
  func between() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<300 {
      var cluster = Cluster(hosts: 2)
      for number in 1...Int.random(in: 1...6, using: &random) { cluster.place(number, on: 2) }
      let old = cluster.endpoints
      for _ in 0..<Int.random(in: 0...2, using: &random) {
        let number = Int.random(in: 1...8, using: &random)
        if Bool.random(using: &random) { cluster.remove(number) } else { cluster.place(number, on: 1, ready: .random(using: &random)) }
      }
      let (gone, come) = cluster.endpoints.changed(from: old)
      var made = old
      made.replaceSubrange(gone.startIndex..<gone.endIndex, with: come)
      #expect(made == cluster.endpoints)
      #expect((gone.isEmpty && come.isEmpty) == (old == cluster.endpoints))
      if let first = gone.first, let other = come.first { #expect(first != other) }
      if let last = gone.last, let other = come.last { #expect(last != other) }
    }
  }

  @Test("an endpoint that is ready or not changes no place; one that comes, goes, moves or has another task does")
  func places() {
    var cluster = Cluster(hosts: 2)
    cluster.place(1, on: 1)
    cluster.place(2, on: 2)
    let before = cluster.world(1)
    cluster.endpoints[3].ready = false
    #expect(cluster.world(1).hasSamePlaces(as: before))
    cluster.lose(2)
    #expect(cluster.world(1).hasSamePlaces(as: before))
    #expect(HostState(cluster.world(1)) == HostState(before))
    var moved = cluster
    moved.endpoints[3].underlay = moved.underlay(1)
    var renamed = cluster
    renamed.endpoints[3].task = renamed.task(3)
    var more = cluster
    more.place(3, on: 2)
    var fewer = cluster
    fewer.remove(2)
    var larger = cluster
    larger.mtu = 1400
    for other in [moved, renamed, more, fewer, larger] { #expect(!other.world(1).hasSamePlaces(as: before)) }
    #expect(!cluster.world(2).hasSamePlaces(as: before))
  }
}

@Suite("Changes of endpoints on a host", .serialized, .enabled(if: geteuid() == 0))
struct ChangeOnHostTests {
  @Test("entries and neighbours follow change after change as if all were read; what somebody took and the kernel told of comes back with the next")
  func follow() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 3)
      for number in 1...4 { cluster.place(number, on: min(number, 3)) }
      let overlay = try world.overlay(1)
      let told = Mutex(0)
      // Nobody repairs.
      await overlay.whenDrifted { told.withLock { $0 += 1 } }
      func apply() async throws -> [NetworkProblem] {
        try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      }
      func shape() async throws -> String {
        try await world.run(
          in: world.host(1), "sh", "-c",
          """
          bridge fdb show | grep dst | sort; ip neigh show nud permanent | sort
          for i in \(world.folder)/run1/netns/*; do
            for s in 'map ip orch virtual' 'map ip orch backends' 'set ip orch alive' 'set ip orch refused'; do nsenter --net=$i nft list $s; done
          done
          """
        ).output
      }
      func expectWhole(_ what: String) async throws {
        let (now, counted) = (try await shape(), await overlay.repairs)
        #expect(try await overlay.repair() == [], "\(what)")
        #expect(try await shape() == now, "\(what)")
        #expect(await overlay.repairs == counted, "\(what)")
      }
      _ = try await apply()
      _ = try await overlay.attach(cluster.network(1))
      try await expectWhole("at the beginning")
      let steps: [(String, (inout Cluster) -> Void)] = [
        ("not ready", { $0.endpoints[$0.endpoints.count - 1].ready = false }), ("moved", { $0.place(4, on: 2) }),
        ("comes", { $0.place(5, on: 3) }), ("gone", { $0.remove(2) }), ("lost", { $0.lose(3) }), ("back", { $0.place(3, on: 3) }),
      ]
      for (what, step) in steps {
        step(&cluster)
        #expect(try await apply() == [], "\(what)")
        let tunnel = try await shape()
        for number in 3...5 where cluster.endpoints.contains(where: { $0.task == cluster.task(number) }) {
          #expect(tunnel.contains("10.77.0.\(10 + number) dev orvx4096 lladdr 02:42:0a:4d:00:0\(String(number + 10, radix: 16)) "), "\(what)")
        }
        try await expectWhole(what)
      }
      // A link that is gone is seen by whoever changes something.
      #expect(try await world.run(in: world.host(1), "ip", "link", "del", "orvx4096").code == 0)
      cluster.endpoints[cluster.endpoints.count - 1].ready = false
      #expect(try await apply() == [])
      #expect(try await shape().contains("10.77.0.15 dev orvx4096"))
      try await Task.sleep(for: .milliseconds(1500))
      #expect(try await overlay.repair() == [])
      try await Task.sleep(for: .milliseconds(1500))
      for command in ["ip neigh del 10.77.0.15 dev orvx4096", "bridge fdb del 02:42:0a:4d:00:0f dev orvx4096 dst 192.168.77.3"] {
        let (before, heard) = (try await shape(), told.withLock { $0 })
        #expect(try await world.run(in: world.host(1), "sh", "-c", command).code == 0)
        for _ in 1...200 where told.withLock({ $0 }) == heard { try await Task.sleep(for: .milliseconds(20)) }
        #expect(try await shape() != before, "\(command)")
        cluster.endpoints[cluster.endpoints.count - 1].ready.toggle()
        #expect(try await apply() == [])
        cluster.endpoints[cluster.endpoints.count - 1].ready.toggle()
        #expect(try await apply() == [])
        #expect(try await shape() == before, "\(command)")
      }
    }
  }
}
