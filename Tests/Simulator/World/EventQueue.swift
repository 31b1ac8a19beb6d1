/// Simulated microseconds since the world began.
typealias Time = Int64

extension Time {
  static func milliseconds(_ count: Int) -> Time { Time(count) * 1_000 }
  static func seconds(_ count: Int) -> Time { Time(count) * 1_000_000 }
}

/// What happens when. At one instant in the order in which it was asked for.
struct EventQueue<Event> {
  private struct Item {
    var time: Time
    var number: UInt64
    var event: Event
    static func < (a: Item, b: Item) -> Bool { a.time != b.time ? a.time < b.time : a.number < b.number }
  }
  private var heap: [Item] = []
  private var numbers: UInt64 = 0

  var isEmpty: Bool { heap.isEmpty }

  mutating func add(_ event: Event, at time: Time) {
    numbers += 1
    heap.append(Item(time: time, number: numbers, event: event))
    var child = heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard heap[child] < heap[parent] else { break }
      heap.swapAt(child, parent)
      child = parent
    }
  }

  mutating func next() -> (time: Time, event: Event)? {
    guard !heap.isEmpty else { return nil }
    heap.swapAt(0, heap.count - 1)
    let item = heap.removeLast()
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child] < heap[least] { least = child }
      if least == parent { break }
      heap.swapAt(parent, least)
      parent = least
    }
    return (item.time, item.event)
  }
}
