import Cgroups
import LinuxSystem
import Model

public struct RuntimeConfiguration: Hashable, Sendable {
  /// On tmpfs (/run/orch/agent): what must not outlive a boot. Made with mode 0700.
  public var stateDirectory: String
  /// On disk: upper folders of overlays and logs. Made with mode 0700.
  public var dataDirectory: String
  /// Below the root of every hierarchy; may have several components.
  public var cgroupParent: String
  /// The default of `orch-agent --cgroup-parent`.
  public static let firstParent = "orch"
  /// The executable orch-init.
  public var initPath: String
  /// Processes of a container that names no limit.
  public var defaultPids: Int64
  /// Stubs held ready for starts, of each of the two kinds; 0: every start makes everything itself.
  public var stubs: Int
  public init(
    stateDirectory: String, dataDirectory: String, cgroupParent: String = firstParent, initPath: String, defaultPids: Int64 = 4096, stubs: Int = 0
  ) {
    self.stateDirectory = stateDirectory
    self.dataDirectory = dataDirectory
    self.cgroupParent = cgroupParent
    self.initPath = initPath
    self.defaultPids = defaultPids
    self.stubs = stubs
  }
}

/// Operation, object, cause, and when known what to do.
public struct RuntimeError: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Kind: Hashable, Sendable {
    /// What was asked for is wrong: repeating it will not help.
    case invalid
    case noSuchContainer
    case alreadyExists
    case notRunning
    /// argv[0] is not there (127) or cannot be executed (126).
    case command(exitCode: Int32)
    case system
  }
  public var kind: Kind
  public var operation: String
  public var object: String
  public var cause: String
  public init(_ kind: Kind, _ operation: String, _ object: String, _ cause: String) {
    self.kind = kind
    self.operation = operation
    self.object = object
    self.cause = cause
  }
  public init(_ operation: String, _ error: SystemError) {
    self.init(.system, "\(operation): \(error.operation)", error.object, error.errno.description)
  }
  public var description: String { "\(operation)\(object.isEmpty ? "" : " " + object): \(cause)" }
}

public struct RunningContainer: Hashable, Sendable {
  public var id: String
  /// Of the container's first process, as the host counts.
  public var pid: Int32
  /// The kernel's start time of that process (clock ticks since boot): with `pid` an identity.
  public var startTime: UInt64
  /// What was not possible and left out: a clamped rlimit and the like.
  public var warnings: [String]
}

public struct ContainerExit: Hashable, Sendable {
  /// As a shell has it: 128 + signal when a signal ended it.
  public var code: Int32
  public var signal: Int32?
  public var oomKilled: Bool
  public var finishedAt: Timestamp
  /// Empty, or why the code is not the container's own ("its monitor was killed").
  public var note: String
}

public struct RecoveredContainer: Hashable, Sendable {
  public enum State: Hashable, Sendable {
    case running(RunningContainer)
    case exited(ContainerExit)
    /// Its start was interrupted: nothing runs; `delete` it.
    case incomplete
  }
  public var id: String
  public var labels: [String: String]
  public var state: State
}

public struct ContainerStats: Hashable, Sendable {
  public var usage: CgroupUsage
  /// Of its own network namespace, without loopback; empty in the host's, and when it has ended.
  public var interfaces: [InterfaceCounters]
  public var receivedBytes: UInt64 { interfaces.reduce(0) { $0 &+ $1.received.bytes } }
  public var sentBytes: UInt64 { interfaces.reduce(0) { $0 &+ $1.sent.bytes } }
}

public struct LogOptions: Hashable, Sendable {
  public var follow: Bool
  /// The last lines only; nil: all that is kept.
  public var tail: Int?
  public var since: Timestamp?
  /// The last moment; `tail` counts back from it, `follow` ends with it.
  public var until: Timestamp?
  public var stdout: Bool
  public var stderr: Bool
  public init(
    follow: Bool = false, tail: Int? = nil, since: Timestamp? = nil, until: Timestamp? = nil, stdout: Bool = true, stderr: Bool = true
  ) {
    self.follow = follow
    self.tail = tail
    self.since = since
    self.until = until
    self.stdout = stdout
    self.stderr = stderr
  }
}

public struct LogLine: Hashable, Sendable {
  public enum Stream: UInt8, Hashable, Sendable { case stdout = 1, stderr = 2 }
  public var stream: Stream
  public var time: Timestamp
  /// With its newline; without one it is a part of a long line or the end of an output.
  public var bytes: [UInt8]
  public init(stream: Stream, time: Timestamp, bytes: [UInt8]) {
    self.stream = stream
    self.time = time
    self.bytes = bytes
  }
}
