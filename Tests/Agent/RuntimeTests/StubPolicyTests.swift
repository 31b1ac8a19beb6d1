import Testing

@testable import Runtime

@Suite struct StubPolicyTests {
  typealias Output = StubPolicy.Output

  private func seconds(_ count: Int64) -> Duration { .seconds(count) }

  @Test("one of each kind is made when the agent is ready, a start takes one, and the next is made when no start is under way")
  func life() {
    var policy = StubPolicy(limit: 4, idle: .seconds(600))
    #expect(policy.step(.opened, now: seconds(1)) == [.make(.ownNetwork), .wake(at: seconds(601))])
    #expect(policy.step(.made(.ownNetwork, 1), now: seconds(1)) == [.make(.givenNetwork)])
    #expect(policy.step(.made(.givenNetwork, 2), now: seconds(1)) == [])
    #expect(policy.step(.starting(.ownNetwork), now: seconds(2)) == [.take(1)])
    // Another finds none: from here on two are wanted.
    #expect(policy.step(.starting(.ownNetwork), now: seconds(2)) == [])
    #expect(policy.step(.started, now: seconds(2)) == [])
    #expect(policy.step(.started, now: seconds(2)) == [.make(.ownNetwork)])
    #expect(policy.step(.made(.ownNetwork, 3), now: seconds(2)) == [.make(.ownNetwork)])
    #expect(policy.step(.made(.ownNetwork, 4), now: seconds(2)) == [])
    // Never the same one twice.
    #expect(policy.step(.starting(.ownNetwork), now: seconds(3)) == [.take(3)])
    #expect(policy.step(.starting(.ownNetwork), now: seconds(3)) == [.take(4)])
    #expect(policy.step(.starting(.givenNetwork), now: seconds(3)) == [.take(2)])
  }

  @Test("a start while one is made goes without, and what is made then is kept for the next")
  func beside() {
    var policy = StubPolicy(limit: 1)
    #expect(policy.step(.opened, now: .zero).first == .make(.ownNetwork))
    #expect(policy.step(.starting(.ownNetwork), now: .zero) == [])
    // Not a second one meanwhile.
    #expect(policy.step(.started, now: .zero) == [])
    _ = policy.step(.made(.ownNetwork, 1), now: .zero)
    #expect(policy.step(.starting(.ownNetwork), now: .zero) == [.take(1)])
  }

  @Test("never more are held than the bound of each kind, whatever comes", arguments: [0, 1, 4])
  func bound(limit: Int) {
    var policy = StubPolicy(limit: limit)
    var random = SystemRandomNumberGenerator()
    var next: StubPolicy.ID = 0
    var (held, making, starts): (Set<StubPolicy.ID>, [StubPolicy.Kind], Int) = ([], [], 0)
    func carryOut(_ outputs: [Output]) {
      for output in outputs {
        switch output {
        case .take(let id), .discard(let id): #expect(held.remove(id) != nil, "\(id) was given out before")
        case .make(let kind): making.append(kind)
        case .wake: break
        }
      }
    }
    carryOut(policy.step(.opened, now: .zero))
    for turn in 0..<3000 {
      let now = Duration.seconds(turn)
      switch Int.random(in: 0..<8, using: &random) {
      case 0, 1:
        starts += 1
        carryOut(policy.step(.starting(.allCases.randomElement(using: &random)!), now: now))
      case 2, 3:
        guard starts > 0 else { continue }
        starts -= 1
        carryOut(policy.step(.started, now: now))
      case 4, 5:
        guard let kind = making.popLast() else { continue }
        next += 1
        held.insert(next)
        carryOut(policy.step(.made(kind, next), now: now))
      case 6:
        guard let dead = held.randomElement(using: &random) else { continue }
        held.remove(dead)
        carryOut(policy.step(.died(dead), now: now))
      default:
        if turn % 40 == 0 { carryOut(policy.step(.memoryShort, now: now)) } else { carryOut(policy.step(.timer, now: now)) }
      }
      #expect(held.count <= 2 * limit && making.count <= 1)
      #expect(held == Set(policy.ready.values.joined()))
    }
  }

  @Test("all are given up after the idle time and when memory is short; the next start has more made")
  func givenUp() {
    var policy = StubPolicy(limit: 2, idle: .seconds(60))
    _ = policy.step(.opened, now: .zero)
    _ = policy.step(.made(.ownNetwork, 1), now: .zero)
    _ = policy.step(.made(.givenNetwork, 2), now: .zero)
    // A start since then: the timer is set anew.
    _ = policy.step(.starting(.ownNetwork), now: seconds(30))
    _ = policy.step(.started, now: seconds(30))
    _ = policy.step(.made(.ownNetwork, 3), now: seconds(30))
    #expect(policy.step(.timer, now: seconds(60)) == [.wake(at: seconds(90))])
    #expect(policy.step(.timer, now: seconds(90)) == [.discard(3), .discard(2)])
    #expect(policy.step(.timer, now: seconds(150)) == [])
    #expect(policy.step(.starting(.ownNetwork), now: seconds(200)) == [])
    #expect(policy.step(.started, now: seconds(200)) == [.make(.ownNetwork), .wake(at: seconds(260))])
    _ = policy.step(.made(.ownNetwork, 4), now: seconds(200))
    #expect(policy.step(.memoryShort, now: seconds(201)) == [.discard(4)])
    #expect(policy.step(.timer, now: seconds(202)) == [])
  }

  @Test("after a failure or a kill nothing is made until the next start")
  func failure() {
    var policy = StubPolicy(limit: 2)
    _ = policy.step(.opened, now: .zero)
    #expect(policy.step(.failed(.ownNetwork), now: .zero) == [])
    _ = policy.step(.starting(.ownNetwork), now: .zero)
    #expect(policy.step(.started, now: .zero).contains(.make(.ownNetwork)))
    _ = policy.step(.made(.ownNetwork, 7), now: .zero)
    #expect(policy.step(.died(7), now: .zero) == [])
    #expect(policy.step(.starting(.ownNetwork), now: .zero) == [])
  }

  @Test("without an opened pool, or with none allowed, nothing is ever made")
  func off() {
    var closed = StubPolicy(limit: 4)
    #expect(closed.step(.starting(.ownNetwork), now: .zero) + closed.step(.started, now: .zero) == [])
    var none = StubPolicy(limit: 0)
    #expect(none.step(.opened, now: .zero) == [])
    #expect(none.step(.starting(.ownNetwork), now: .zero) + none.step(.started, now: .zero) == [])
  }
}
