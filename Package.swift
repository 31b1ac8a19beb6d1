// swift-tools-version: 6.2
// The house plan: docs/architecture.md. Every room is one target; who may import whom is what `deps:` says.
import PackageDescription

/// Our own warnings are errors; ORCH_LENIENT=1 builds with a compiler newer than ours.
let strict: [SwiftSetting] =
  Context.environment["ORCH_LENIENT"] == nil
  ? [.treatAllWarnings(as: .error), .treatWarning("DeprecatedDeclaration", as: .warning)] : []

let nio: [Target.Dependency] = [
  .product(name: "NIOCore", package: "swift-nio"),
  .product(name: "NIOPosix", package: "swift-nio"),
]
let nioSSL: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let log: Target.Dependency = .product(name: "Logging", package: "swift-log")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let protobuf: Target.Dependency = .product(name: "SwiftProtobuf", package: "swift-protobuf")
let trees: Target.Dependency = .product(name: "HashTreeCollections", package: "swift-collections")
let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
let ordered: Target.Dependency = .product(name: "OrderedCollections", package: "swift-collections")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let x509: Target.Dependency = .product(name: "X509", package: "swift-certificates")
let asn1: Target.Dependency = .product(name: "SwiftASN1", package: "swift-asn1")
let hummingbird: Target.Dependency = .product(name: "Hummingbird", package: "hummingbird")
let hummingbirdCore: Target.Dependency = .product(name: "HummingbirdCore", package: "hummingbird")
let hummingbirdTLS: Target.Dependency = .product(name: "HummingbirdTLS", package: "hummingbird")
let httpClient: Target.Dependency = .product(name: "AsyncHTTPClient", package: "async-http-client")
let yams: Target.Dependency = .product(name: "Yams", package: "Yams")

func room(_ name: String, _ path: String, _ deps: [Target.Dependency]) -> Target {
  .target(name: name, dependencies: deps, path: "Sources/\(path)", swiftSettings: strict)
}

func tests(_ room: String, _ side: String, _ deps: [Target.Dependency] = [], exclude: [String] = []) -> Target {
  .testTarget(
    name: "\(room)Tests", dependencies: [.byName(name: room)] + deps, path: "Tests/\(side)/\(room)Tests",
    exclude: exclude, swiftSettings: strict)
}

func systemLibrary(_ name: String, _ package: String?, _ debian: String) -> Target {
  .systemLibrary(name: name, path: "Sources/Shared/System/\(name)", pkgConfig: package, providers: [.apt([debian])])
}

let shared: [Target] = [
  systemLibrary("CSQLite", "sqlite3", "libsqlite3-dev"),
  systemLibrary("CSeccomp", "libseccomp", "libseccomp-dev"),
  systemLibrary("CCap", "libcap", "libcap-dev"),
  systemLibrary("CZlib", "zlib", "zlib1g-dev"),
  systemLibrary("CZstd", "libzstd", "libzstd-dev"),
  systemLibrary("CLzma", "liblzma", "liblzma-dev"),
  // Without a pkg-config file in Debian.
  systemLibrary("CBzip2", nil, "libbz2-dev"),
  systemLibrary("CNFTables", "libnftables", "libnftables-dev"),
  .target(name: "CLinux", path: "Sources/Shared/CLinux"),
  room("Model", "Shared/Model", [trees]),
  room("Surroundings", "Shared/Surroundings", ["Model"]),
  room("DurationText", "Shared/DurationText", []),
  room("Manifest", "Shared/Manifest", ["Model", "DurationText", yams]),
  room("Dockerfile", "Shared/Dockerfile", ["DurationText"]),
  .target(
    name: "Wire", dependencies: ["Model", protobuf], path: "Sources/Shared/Wire", exclude: ["Protos"], swiftSettings: strict),
  room("API", "Shared/API", ["Model"]),
  room("Identity", "Shared/Identity", ["Model", "Surroundings", crypto, x509, asn1, nioSSL, .product(name: "NIOCore", package: "swift-nio")]),
  room(
    "Transport", "Shared/Transport",
    ["Model", "Wire", "Identity", protobuf, nioSSL, log, deque, .product(name: "NIOTLS", package: "swift-nio")] + nio),
  room("Telemetry", "Shared/Telemetry", ["LinuxSystem", log]),
  room("LinuxSystem", "Shared/LinuxSystem", ["CLinux", "CCap"]),
  room("Netlink", "Shared/Netlink", ["LinuxSystem", "CLinux"]),
  room("TreeArchive", "Shared/TreeArchive", ["LinuxSystem", "CLinux"]),
  room("RegistryLogin", "Shared/RegistryLogin", ["LinuxSystem"]),
]

let manager: [Target] = [
  room("Raft", "Manager/Raft", ["Model", deque]),
  room("Replica", "Manager/Replica", ["Model", "Raft", deque]),
  room("Store", "Manager/Store", ["Model", "Replica", "Wire", "CSQLite", "LinuxSystem", protobuf]),
  room("Scheduler", "Manager/Scheduler", ["Model", trees]),
  room("Allocator", "Manager/Allocator", ["Model", trees]),
  room("Orchestrator", "Manager/Orchestrator", ["Model", "Allocator", "Scheduler", trees]),
  room("Dispatcher", "Manager/Dispatcher", ["Model", trees]),
  room("Leader", "Manager/Leader", ["Model", "Orchestrator", "Dispatcher"]),
  room("Consensus", "Manager/Consensus", ["Model", "Raft", "Replica", "Store", "Wire", "Transport", "LinuxSystem", protobuf, log, deque]),
  room(
    "ControlAPI", "Manager/ControlAPI",
    ["Model", "Surroundings", "RegistryLogin", "API", "Orchestrator", "Scheduler", hummingbird, hummingbirdCore, hummingbirdTLS, nioSSL, log] + nio),
  .executableTarget(
    name: "orch-manager",
    dependencies: [
      "Model", "Surroundings", "Raft", "Store", "Wire", "Dispatcher", "Leader", "Consensus", "ControlAPI", "API",
      "Identity", "Transport", "Telemetry", arguments, log, lifecycle, protobuf, nioSSL,
    ] + nio, path: "Sources/Manager/Daemon", swiftSettings: strict),
]

let agent: [Target] = [
  room("Worker", "Agent/Worker", ["Model"]),
  room("Seccomp", "Agent/Seccomp", ["CSeccomp", "LinuxSystem"]),
  room("Cgroups", "Agent/Cgroups", ["LinuxSystem"]),
  room("Launch", "Agent/Launch", ["LinuxSystem", "CLinux"]),
  room("Runtime", "Agent/Runtime", ["Model", "Surroundings", "LinuxSystem", "CLinux", "Launch", "Seccomp", "Cgroups", log]),
  room("OCI", "Agent/OCI", []),
  room("Bundle", "Agent/Bundle", ["OCI", "LinuxSystem", "CLinux", "Launch", "Seccomp", "Cgroups"]),
  room(
    "AgentImage", "Agent/Image",
    [
      "Model", "Surroundings", "LinuxSystem", "RegistryLogin", "TreeArchive", "CLinux", "CZlib", "CZstd", "CLzma", "CBzip2", crypto, httpClient, log,
      nioSSL,
    ] + nio),
  room(
    "Build", "Agent/Build",
    ["Model", "Surroundings", "Dockerfile", "AgentImage", "AgentNetwork", "DNS", "Runtime", "TreeArchive", "LinuxSystem", "CLinux", log]),
  room("DNS", "Agent/DNS", ["Model", "LinuxSystem", "CLinux", log]),
  room("AgentNetwork", "Agent/Network", ["Model", "LinuxSystem", "CLinux", "Netlink", "CNFTables", "Telemetry", log]),
  room("AgentVolume", "Agent/Volume", ["Model", "LinuxSystem", "CLinux"]),
  .executableTarget(
    name: "orch-init", dependencies: ["CLinux"], path: "Sources/Agent/Init",
    // Embedded Swift, linked statically: the process that stays beside every container (docs/architecture.md).
    // -no-static-stdlib: the toolchain has no embedded library beside the static one, where a release build would look for it.
    swiftSettings: strict + [.enableExperimentalFeature("Embedded"), .unsafeFlags(["-wmo", "-no-static-stdlib"])],
    linkerSettings: [
      .unsafeFlags([
        "-no-static-stdlib", "-enable-experimental-feature", "Embedded", "-Xclang-linker", "-static", "-Xclang-linker", "-no-pie",
      ])
    ]),
  .executableTarget(
    name: "orch-runtime", dependencies: ["OCI", "Bundle", "DurationText", "Launch", "LinuxSystem", "CLinux", arguments],
    path: "Sources/Agent/RuntimeCommand",
    swiftSettings: strict,
    // Started three times in a container's life: half of a start was the dynamic loader's (docs/runtime.md).
    linkerSettings: [.unsafeFlags(["-static-executable"], .when(configuration: .release))]),
  .executableTarget(
    name: "orch-agent",
    dependencies: [
      "Model", "API", "Surroundings", "Wire", "Worker", "Runtime", "Cgroups", "AgentImage", "Build", "AgentNetwork", "AgentVolume", "DNS",
      "LinuxSystem",
      "RegistryLogin", "Identity",
      "Transport", "Telemetry", arguments, log, lifecycle, protobuf,
    ] + nio, path: "Sources/Agent/Daemon", swiftSettings: strict),
]

let cli: [Target] = [
  room("APIClient", "CLI/APIClient", ["Model", "API", httpClient, nioSSL] + nio),
  room("DevCluster", "CLI/Dev", []),
  .executableTarget(
    name: "orch",
    dependencies: [
      "Model", "Manifest", "API", "APIClient", "Identity", "RegistryLogin", "Telemetry", "Surroundings", "DevCluster", "Dockerfile", "TreeArchive",
      "LinuxSystem", arguments,
      .product(name: "NIOCore", package: "swift-nio"),
    ],
    path: "Sources/CLI/Command", swiftSettings: strict),
]

let testTargets: [Target] = [
  // A checker of clients' histories, for the simulator and for the test of real processes.
  .target(name: "Linearizability", path: "Tests/Linearizability", swiftSettings: strict),
  tests("Linearizability", "Shared"),
  .target(name: "OwnProcess", dependencies: ["LinuxSystem"], path: "Tests/OwnProcess", swiftSettings: strict),
  // A whole cluster in simulated time (docs/simulator.md). A debug build can plant faults in the cores.
  .executableTarget(
    name: "simulator",
    dependencies: ["Model", "Raft", "Replica", "Allocator", "Orchestrator", "Dispatcher", "Leader", "Worker", "Linearizability"],
    path: "Tests/Simulator", exclude: ["regressions.txt"], swiftSettings: strict + [.define("PLANTED", .when(configuration: .debug))]),
  // Parsers of outside bytes (docs/development.md): a debug build lets it in.
  .executableTarget(
    name: "fuzz",
    dependencies: [
      "Model", "API", "Manifest", "Identity", "Wire", "Transport", "DNS", "AgentImage", "LinuxSystem", "ControlAPI", "Dockerfile", "OCI", "Bundle",
      "Netlink", "AgentNetwork", protobuf,
    ],
    path: "Tests/Fuzz", exclude: ["Corpus"], swiftSettings: strict),
  tests("Model", "Shared"),
  tests("Manifest", "Shared", ["Model"]),
  tests("Dockerfile", "Shared"),
  tests("Wire", "Shared", ["Model", "Surroundings"]),
  tests("API", "Shared", ["Model"]),
  tests("Identity", "Shared", ["Model", "Surroundings", crypto, x509, asn1]),
  tests("Transport", "Shared", ["Model", "Surroundings", "Identity", "Wire", protobuf, log, nioSSL] + nio),
  tests("LinuxSystem", "Shared", ["CLinux"]),
  tests("Netlink", "Shared"),
  tests("RegistryLogin", "Shared", ["LinuxSystem"]),
  tests("Raft", "Manager", ["Model"], exclude: ["testdata"]),
  tests("Replica", "Manager", ["Model", "Raft"]),
  tests("Store", "Manager", ["Model", "Raft", "Replica", "CSQLite", "Wire"]),
  tests("Scheduler", "Manager"),
  tests("Allocator", "Manager"),
  tests("Orchestrator", "Manager"),
  tests("Dispatcher", "Manager"),
  tests("Leader", "Manager", ["Model", "Dispatcher", "Orchestrator"]),
  tests("Consensus", "Manager", ["Model", "Surroundings", "Raft", "Replica", "Store", "Wire", "Transport", "Identity", protobuf, log]),
  tests(
    "ControlAPI", "Manager",
    ["Model", "LinuxSystem", "Surroundings", "API", "APIClient", log, lifecycle, .product(name: "NIOCore", package: "swift-nio")]),
  tests("Worker", "Agent"),
  tests("Seccomp", "Agent", ["LinuxSystem", "CSeccomp"]),
  tests("Cgroups", "Agent", ["LinuxSystem"]),
  tests("OCI", "Agent"),
  tests("Bundle", "Agent", ["LinuxSystem", "CLinux", "orch-runtime"]),
  tests("Runtime", "Agent", ["LinuxSystem", "Cgroups", "Seccomp", "Model", "AgentVolume"]),
  tests("AgentImage", "Agent", ["LinuxSystem", "CLinux", "CZlib", "CZstd", "Model", crypto]),
  tests(
    "Build", "Agent",
    ["LinuxSystem", "CLinux", "Model", "AgentImage", "AgentNetwork", "DNS", "Netlink", "Runtime", "Cgroups", "TreeArchive", "Dockerfile", log]),
  tests("Telemetry", "Shared", ["LinuxSystem"]),
  tests("DNS", "Agent", ["Model", "LinuxSystem", "OwnProcess", log]),
  tests("AgentNetwork", "Agent", ["Model", "Netlink", "LinuxSystem", "CLinux", "OwnProcess", "Telemetry", log]),
  tests("AgentVolume", "Agent", ["LinuxSystem", "CLinux", "Model"]),
  tests("APIClient", "CLI", ["Model", "API", "LinuxSystem"]),
  tests("DevCluster", "CLI"),
  // Real processes, kernel objects and hosts in network namespaces; needs root. Drives the programs beside the test bundle.
  .testTarget(
    name: "IntegrationTests", dependencies: ["Linearizability", "Model", "Identity", "LinuxSystem", "Transport", "Wire", log] + nio,
    path: "Tests/Integration", swiftSettings: strict),
]

/// Programs that `make bench` runs.
let benchmarks: [Target] = [
  .executableTarget(
    name: "consensus-bench",
    dependencies: [
      "Model", "Surroundings", "Raft", "Store", "Wire", "Consensus", "Scheduler", "Orchestrator", "Dispatcher", "Identity", "Transport", log,
      protobuf,
    ] + nio, path: "Benchmarks/consensus/Sources", swiftSettings: strict),
  .executableTarget(
    name: "network-bench", dependencies: ["Model", "AgentNetwork", "DNS", log], path: "Benchmarks/network/Sources", swiftSettings: strict),
  .executableTarget(
    name: "runtime-bench", dependencies: ["Runtime", "Seccomp", "LinuxSystem"], path: "Benchmarks/runtime/Sources", swiftSettings: strict),
  .executableTarget(name: "image-bench", dependencies: ["AgentImage"], path: "Benchmarks/images/Sources", swiftSettings: strict),
]

let package = Package(
  name: "orch",
  platforms: [.macOS(.v15)],
  products: [
    .executable(name: "orch", targets: ["orch"]),
    .executable(name: "orch-manager", targets: ["orch-manager"]),
    .executable(name: "orch-agent", targets: ["orch-agent"]),
    .executable(name: "orch-init", targets: ["orch-init"]),
    .executable(name: "orch-runtime", targets: ["orch-runtime"]),
    // For Benchmarks/rpc alone.
    .library(name: "Model", targets: ["Model"]),
    .library(name: "Surroundings", targets: ["Surroundings"]),
    .library(name: "Identity", targets: ["Identity"]),
    .library(name: "Transport", targets: ["Transport"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.0"),
    .package(url: "https://github.com/apple/swift-asn1", from: "1.7.0"),
    .package(url: "https://github.com/apple/swift-certificates", from: "1.21.0"),
    .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0", traits: []),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
    .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0", traits: []),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
  ],
  targets: shared + manager + agent + cli + testTargets + benchmarks
)
