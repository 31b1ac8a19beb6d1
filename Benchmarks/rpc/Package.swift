// swift-tools-version: 6.2
// gRPC beside our Transport: a package of its own, so that orch itself does not depend on gRPC.
import PackageDescription

let package = Package(
  name: "rpc-bench",
  platforms: [.macOS(.v15)],
  dependencies: [
    .package(name: "orch", path: "../.."),
    .package(url: "https://github.com/grpc/grpc-swift-2", exact: "2.4.3"),
    .package(url: "https://github.com/grpc/grpc-swift-nio-transport", exact: "2.9.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
  ],
  targets: [
    .executableTarget(
      name: "rpc-bench",
      dependencies: [
        .product(name: "Transport", package: "orch"), .product(name: "Identity", package: "orch"), .product(name: "Model", package: "orch"),
        .product(name: "Surroundings", package: "orch"),
        .product(name: "GRPCCore", package: "grpc-swift-2"),
        .product(name: "GRPCNIOTransportHTTP2Posix", package: "grpc-swift-nio-transport"), .product(name: "Logging", package: "swift-log"),
      ])
  ]
)
