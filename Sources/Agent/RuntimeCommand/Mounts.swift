import ArgumentParser
import Bundle
import LinuxSystem

struct Mounts: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mounts", abstract: "Add mounts to a running container, or take them away.",
    discussion: "FILE is a JSON list in the shape of config.json's \"mounts\". Sources are the host's.")
  @ParentCommand var parent: OrchRuntime
  enum Change: String, ExpressibleByArgument, CaseIterable { case add, remove }
  @Argument(help: "add or remove.") var change: Change
  @Argument var id: String
  @Argument var file: String

  func run() throws {
    let document: [UInt8]
    do throws(SystemError) { document = try Files.read(file) } catch { throw BundleError("\(error)") }
    for warning in try parent.bundles().changeMounts(id, document, adding: change == .add) { Log.warning(warning) }
  }
}
