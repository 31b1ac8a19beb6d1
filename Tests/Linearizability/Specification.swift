// Linearizability: whether what clients saw can be explained by one object that does one thing at a time (Herlihy and Wing, 1990).
//
// Record what each client asked, when, what it was answered and when, in a `History`; `check` finds an order of the operations that
// respects both time and the objects' rules, or says where there is none. Used by the simulator and by the test of real processes.

/// What one object may answer.
public protocol Specification {
  associatedtype State: Hashable
  associatedtype Input
  associatedtype Output
  static var initial: State { get }
  /// The state after `input` was answered with `output` in `state`; nil: no such answer there. An `output` of nil is unknown and may have
  /// been anything.
  static func step(_ state: State, _ input: Input, _ output: Output?) -> State?
}

/// One call of a client. Times are of one clock that all clients share and never goes back.
public struct Call<Input, Output> {
  public var client: Int
  public var input: Input
  /// Nil: never heard of; it may have taken effect at any time after `invoked`, or not at all.
  public var output: Output?
  public var invoked: Int64
  /// `Int64.max`: never.
  public var returned: Int64

  public init(client: Int, input: Input, output: Output?, invoked: Int64, returned: Int64) {
    self.client = client
    self.input = input
    self.output = output
    self.invoked = invoked
    self.returned = returned
  }
}
