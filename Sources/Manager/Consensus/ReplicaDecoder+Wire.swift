import Model
import Replica
import Wire

extension ReplicaDecoder {
  /// Commands and members as protobuf.
  public static let wire = ReplicaDecoder(
    command: { try Command(serialized: $0) }, member: { try? WireRaftMember(serializedBytes: $0).model() })
}
