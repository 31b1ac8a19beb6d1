import Testing

@testable import Manifest

@Suite("build of a service")
struct BuildTests {
  private func parse(_ text: String) throws(ManifestError) -> StackSpec {
    try Manifest.parse(text: text, path: "/stack/web.yaml", workingDirectory: "/stack", environment: ["TOKEN": "t"])
  }

  @Test("context, Dockerfile, arguments and target; an image's name is made when there is none")
  func builds() throws {
    let stack = try parse(
      """
      services:
        short:
          build: ./app
        long:
          image: registry.local/app:2
          build:
            context: ../other
            dockerfile: docker/Dockerfile
            target: production
            args: [A=1, TOKEN, MISSING]
            labels: {x: "1"}
            network: none
            no_cache: true
            pull: true
            tags: [app:latest]
            cache_from: [app:1]
        plain:
          image: web:1
      """)
    #expect(stack.builds.map(\.service) == ["web_short", "web_long"])
    #expect(stack.builds[0].image == "web-short" && stack.builds[0].context == "/stack/app" && stack.builds[0].dockerfile == nil)
    let long = stack.builds[1]
    #expect(long.image == "registry.local/app:2" && long.context == "/other" && long.dockerfile == "docker/Dockerfile" && long.target == "production")
    #expect(long.arguments == ["A": "1", "TOKEN": "t"] && long.labels == ["x": "1"] && long.network == "none" && long.noCache && long.pull)
    #expect(long.tags == ["app:latest"])
    #expect(stack.services.map(\.taskTemplate.containerSpec.image) == ["web-short", "registry.local/app:2", "web:1"])
    #expect(stack.warnings.map(\.path) == ["services.long.build.cache_from"])
  }

  @Test("what a build cannot do is told by place")
  func refusals() {
    do throws(ManifestError) {
      _ = try parse("services:\n  a:\n    build:\n      context: https://x/y.git\n      secrets: [s]\n      dockerfilx: x\n")
      Issue.record("it was taken")
    } catch {
      #expect(error.errors.map(\.line) == [4, 5, 6])
      #expect(error.errors.first?.problem == "the context 'https://x/y.git' is an address")
    }
  }
}
