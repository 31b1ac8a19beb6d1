import CLinux
import Glibc
import LinuxSystem
import Model
import Netlink

// The way around the bridges (BypassState) in the kernel. Programs hang at links and hold the map, so that frames go on while no agent runs, and the next
// agent finds both there. Whatever of it fails, frames take the bridges.
extension HostNetwork {
  enum Bypass: Sendable {
    /// Nothing was asked yet.
    case unknown
    /// Nobody wants it, and nothing of it is left.
    case unwanted
    /// The kernel is too old, or somebody forbids it: tried again by time alone.
    case refused(NetworkProblem)
    case held(Held)
    struct Held: Sendable {
      var map: SharedDescriptor
      var mapID: UInt32
      /// By VNI.
      var programs: [UInt32: (id: UInt32, descriptor: SharedDescriptor)] = [:]
      /// What the kernel was brought to last; what differs from it since is drift.
      var reached: BypassState?
      /// What that was worked out of, beside the places of all tasks; nil: it was changed since.
      var basis: Basis?
    }
    struct Basis: Equatable {
      var containers: [TaskID: TaskNetwork]
      /// Of links, by their names.
      var numbers: [String: UInt32]
    }
  }

  /// Of the filter at a link's ingress ("or"): whoever does not say another comes first.
  static let priority: UInt16 = 0x6f72
  private static let refusals = [EINVAL, ENOSYS, EPERM, EOPNOTSUPP, ENOENT]

  /// - Parameters:
  ///   - links: of this host, as they are now.
  ///   - isSame: tasks are where they were at the last call.
  ///   - compares: with the kernel, which tells nobody of changes; otherwise what it was brought to is there.
  func bypass(
    _ world: NetworkWorld, _ state: HostState, _ links: [LinkInfo], _ successors: [NetworkAttachment: TaskID], _ socket: NetlinkSocket, isSame: Bool,
    compares: Bool
  ) -> [NetworkProblem] {
    switch memory.withLock({ $0.bypass }) {
    case .unwanted: return []
    case .refused(let problem) where !compares: return [problem]
    default: break
    }
    let doors = links.filter { ($0.kind == "vxlan" && isOurs($0)) || ($0.kind == "veth" && $0.name.hasPrefix(InterfaceName.vethPrefix)) }
    let numbers = Dictionary(doors.lazy.map { ($0.name, $0.index) }, uniquingKeysWith: { a, _ in a })
    let basis = Bypass.Basis(containers: world.containers, numbers: numbers)
    if case .held(let held) = memory.withLock({ $0.bypass }), isSame, !compares, held.reached != nil, held.basis == basis { return [] }
    let wanted = configuration.bypassesBridges ? BypassState(world, state, successors) { numbers[$0] } : BypassState()
    do {
      guard var held = try hold(doors.map(\.index), socket, isWanted: !wanted.doors.isEmpty) else {
        memory.withLock { $0.bypass = configuration.bypassesBridges ? .unknown : .unwanted }
        return []
      }
      let present: BypassPresent
      if !compares, let reached = held.reached {
        present = self.present(reached)
      } else {
        present = try observe(doors.map(\.index), &held, socket)
      }
      let operations = wanted.operations(from: present)
      if held.reached == wanted { count(operations.map { _ in "bypass" }) }
      try perform(operations, &held, socket)
      let used = Set(wanted.doors.values)
      held.programs = held.programs.filter { used.contains($0.key) }
      (held.reached, held.basis) = (wanted, basis)
      memory.withLock { $0.bypass = .held(held) }
      return []
    } catch {
      // An agent before this one may have left programs, too, which go by what it knew.
      let left = end(doors.map(\.index), socket)
      let problem = NetworkProblem("way around the bridges", "\(error); frames pass them")
      memory.withLock { memory in
        if left != nil {
          memory.bypass = .unknown
        } else if !configuration.bypassesBridges {
          memory.bypass = .unwanted
        } else if let error = error as? NetlinkError, Self.refusals.contains(error.errno) {
          memory.bypass = .refused(problem)
        } else {
          memory.bypass = .unknown
        }
      }
      return left.map { [$0] } ?? (configuration.bypassesBridges ? [problem] : [])
    }
  }

  /// A container that is new, until the next comparison.
  func bypass(_ container: TaskNetwork, in world: NetworkWorld, _ socket: NetlinkSocket) {
    change(socket) { state in
      state.add(container, world, world.successors(of: Set(container.attachments))) { name in
        let index = if_nametoindex(name)
        return index == 0 ? nil : index
      }
    }
  }
  /// Of a container that goes.
  func endBypass(_ links: Set<UInt32>, _ socket: NetlinkSocket) { change(socket) { $0.remove(links) } }

  /// From what was reached last. When it fails the next comparison does it.
  private func change(_ socket: NetlinkSocket, _ body: (inout BypassState) -> Void) {
    guard configuration.bypassesBridges, case .held(var held) = memory.withLock({ $0.bypass }), let old = held.reached else { return }
    var wanted = old
    body(&wanted)
    held.basis = nil
    do {
      try perform(wanted.operations(from: present(old)), &held, socket)
      held.reached = wanted
    } catch {
      held.reached = nil
    }
    memory.withLock { $0.bypass = .held(held) }
  }

  /// What is there unless somebody else changed it.
  private func present(_ reached: BypassState) -> BypassPresent {
    BypassPresent(programs: reached.doors.mapValues { .init(vni: $0) }, targets: reached.targets)
  }

  // MARK: The kernel

  /// The map: this agent's, the one of an agent before, or a new one. nil: there is none, and nobody needs one.
  private func hold(_ links: [UInt32], _ socket: NetlinkSocket, isWanted: Bool) throws -> Bypass.Held? {
    if case .held(let held) = memory.withLock({ $0.bypass }) { return held }
    var isLeft = false
    for link in links {
      guard let id = try entered(link, socket), let program = try program(id), BypassProgram.isOurs(program.name) else { continue }
      isLeft = true
      guard BypassProgram.vni(name: program.name) != nil, program.map != 0 else { continue }
      let map = clinux_bpf_open(1, program.map)
      if map >= 0 { return Bypass.Held(map: SharedDescriptor(owning: map), mapID: program.map) }
    }
    guard isWanted || isLeft else { return nil }
    let map = SharedDescriptor(owning: try check(clinux_bpf_map(UInt32(BypassState.most), "orch"), "make a map", "BPF"))
    var id: UInt32 = 0
    try check(clinux_bpf_map_id(map.rawValue, &id), "read a map", "BPF")
    return Bypass.Held(map: map, mapID: id)
  }

  private func observe(_ links: [UInt32], _ held: inout Bypass.Held, _ socket: NetlinkSocket) throws -> BypassPresent {
    var present = BypassPresent(targets: try targets(held.map))
    var known = Dictionary(held.programs.map { ($0.value.id, BypassPresent.Program(vni: $0.key)) }, uniquingKeysWith: { a, _ in a })
    for link in links {
      guard let id = try entered(link, socket) else { continue }
      if known[id] == nil {
        guard let program = try program(id) else { continue }
        let vni = program.map == held.mapID ? BypassProgram.vni(name: program.name) : nil
        known[id] = .init(vni: vni)
        if let vni, held.programs[vni] == nil { held.programs[vni] = (id, program.descriptor) }
      }
      present.programs[link] = known[id]
    }
    return present
  }

  private func perform(_ operations: [BypassOperation], _ held: inout Bypass.Held, _ socket: NetlinkSocket) throws {
    for operation in operations {
      switch operation {
      case .remove(let place): try check(clinux_bpf_remove(held.map.rawValue, place.bits), "forget", "\(place)")
      case .set(let place, let target): try check(clinux_bpf_set(held.map.rawValue, place.bits, target.bits), "set", "\(place)")
      case .enter(let link, let vni):
        let program = try load(vni, &held)
        do {
          try socket.perform([
            .addFilterPlace(link),
            .setIngressFilter(link, priority: Self.priority, program: program.rawValue, name: BypassProgram.name(vni: vni)),
          ])
        } catch {
          // It went meanwhile, with its namespace.
          if error.errno != ENODEV { throw error }
        }
      case .leave(let link): try socket.perform([.deleteIngressFilter(link, priority: Self.priority)])
      }
    }
  }

  private func load(_ vni: UInt32, _ held: inout Bypass.Held) throws -> SharedDescriptor {
    if let program = held.programs[vni] { return program.descriptor }
    let code = BypassProgram.code(vni: vni, map: held.map.rawValue).instructions
    let name = BypassProgram.name(vni: vni)
    let descriptor = SharedDescriptor(owning: try check(clinux_bpf_frames(code, code.count, name), "load program", name))
    held.programs[vni] = (try describe(descriptor, name).id, descriptor)
    return descriptor
  }

  /// None of ours is at these links afterwards; else what is wrong.
  private func end(_ links: [UInt32], _ socket: NetlinkSocket) -> NetworkProblem? {
    do {
      for link in links where try entered(link, socket) != nil { try socket.perform([.deleteIngressFilter(link, priority: Self.priority)]) }
      return nil
    } catch {
      return .unfinished("way around the bridges", "\(error)")
    }
  }

  /// The program at our place of a link.
  private func entered(_ link: UInt32, _ socket: NetlinkSocket) throws -> UInt32? {
    try socket.ingressFilters(link).first { $0.priority == Self.priority }?.program
  }

  private struct Program {
    var name: String
    var map: UInt32
    var descriptor: SharedDescriptor
  }
  /// nil: it is gone.
  private func program(_ id: UInt32) throws -> Program? {
    let raw = clinux_bpf_open(0, id)
    if raw == -ENOENT { return nil }
    let descriptor = SharedDescriptor(owning: try check(raw, "open program", "\(id)"))
    let facts = try describe(descriptor, "\(id)")
    return Program(name: facts.name, map: facts.map, descriptor: descriptor)
  }
  private func describe(_ descriptor: SharedDescriptor, _ name: String) throws -> (name: String, id: UInt32, map: UInt32) {
    var bytes = [CChar](repeating: 0, count: 16)
    var id: UInt32 = 0
    var map: UInt32 = 0
    try check(clinux_bpf_program(descriptor.rawValue, &bytes, &id, &map), "read program", name)
    return (String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self), id, map)
  }

  private func targets(_ map: SharedDescriptor) throws -> [BypassState.Place: BypassState.Target] {
    var keys = [UInt64](repeating: 0, count: BypassState.most)
    var values = keys
    let count = Int(try check(clinux_bpf_read(map.rawValue, &keys, &values, UInt32(keys.count)), "read a map", "BPF"))
    return Dictionary(
      (0..<count).map { (BypassState.Place(bits: keys[$0]), BypassState.Target(bits: values[$0])) }, uniquingKeysWith: { a, _ in a })
  }

  @discardableResult
  private func check(_ code: Int32, _ operation: String, _ object: String) throws -> Int32 {
    if code < 0 { throw NetlinkError(operation: operation, object: object, errno: -code) }
    return code
  }
}

// As BypassProgram reads them: two numbers of 32 bits, one after the other in memory.
extension BypassState.Place {
  /// The address in network order.
  var bits: UInt64 { unsafeBitCast((vni, address.rawValue.bigEndian), to: UInt64.self) }
  init(bits: UInt64) {
    let (vni, address) = unsafeBitCast(bits, to: (UInt32, UInt32).self)
    self.init(vni: vni, address: IPv4Address(UInt32(bigEndian: address)))
  }
}
extension BypassState.Target {
  var bits: UInt64 {
    switch self {
    case .tunnel(let link): unsafeBitCast((link, UInt32(0)), to: UInt64.self)
    case .container(let link): unsafeBitCast((link, UInt32(1)), to: UInt64.self)
    }
  }
  init(bits: UInt64) {
    let (link, kind) = unsafeBitCast(bits, to: (UInt32, UInt32).self)
    self = kind == 0 ? .tunnel(link) : .container(link)
  }
}
