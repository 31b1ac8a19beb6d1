import ArgumentParser
import Model

/// Where the cluster's networks get their subnets from.
struct PoolOptions: ParsableArguments {
  @Option(
    name: .customLong("default-addr-pool"),
    help: "Networks that declare no subnet get one of this pool; the first is ingress's. (default: 10.0.0.0/8)")
  var pools: [String] = []

  @Option(name: .customLong("default-addr-pool-mask-length"), help: "The length of these subnets. (default: 24)")
  var length: Int?

  func chosen(isNew: Bool) throws -> AddressPool {
    if !isNew, !pools.isEmpty || length != nil {
      throw UserError("--default-addr-pool and --default-addr-pool-mask-length are for a new cluster: this one keeps its own")
    }
    do throws(AddressPool.Refusal) { return try AddressPool(pools, length: length) } catch { throw UserError(error.description) }
  }
}
