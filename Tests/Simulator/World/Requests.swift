import Linearizability
import Model

/// What a client or a user asks of the cluster through any manager.
struct Request {
  var client: Int
  var operation: Int
  var kind: Kind

  enum Kind {
    case read
    /// The register's row and value; with a version: only if it still has it.
    case writeRegister(Int, Int64, version: UInt64?)
    case add(Int64)
    case remove(Int64)
    /// Made into a command by whoever leads, from its state.
    case user(UserOperation)
    case addMember(RaftIDNumber)
    case removeMember(RaftIDNumber)
    case transfer(RaftIDNumber)
  }
  typealias RaftIDNumber = UInt64
}

enum Reply {
  case done
  case state(ClusterState)
  /// It did not happen and never will.
  case refused(outOfSequence: Bool, String)
  case unknown
}

enum UserOperation {
  case createService(name: String, UserService)
  case scale(name: String, replicas: UInt64)
  case update(name: String, image: String)
  case force(name: String, UInt64)
  case rollback(name: String)
  case remove(name: String)
  case createNetwork(name: String)
  case removeNetwork(name: String)
  case deploy(stack: String, services: [(String, UserService)])
  case removeStack(String)
  case availability(node: NodeID, NodeAvailability)
}

struct UserService {
  var image: String
  /// Nil: global.
  var replicas: UInt64?
  var startsFirst: Bool
  var networks: [String]
  var publishes: Bool
  var port: UInt16?
  var parallelism: UInt64
  var fallsBack: Bool
  /// nil: no health check.
  var check: HealthConfig?
}
