import Foundation
import Model
import Testing

@testable import Manifest

func parse(
  _ text: String, path: String = "dir/web.yaml", project: String? = nil, _ environment: [String: String] = [:], files: [String: String] = [:]
) throws(ManifestError) -> StackSpec {
  try Manifest.parse(text: text, path: path, projectName: project, environment: environment, readFile: { files[$0] })
}

/// The errors of a service `web` with these lines below its image.
func complaints(_ lines: String, _ environment: [String: String] = [:]) -> [String] {
  let body = lines.split(separator: "\n").map { "    " + $0 }.joined(separator: "\n")
  do throws(ManifestError) {
    _ = try parse("services:\n  web:\n    image: web:1\n\(body)\n", environment)
    return []
  } catch {
    return error.errors.map { "\($0.line):\($0.column) \($0.message)" }
  }
}

func service(_ lines: String, _ environment: [String: String] = [:], top: String = "", files: [String: String] = [:]) throws -> ServiceSpec {
  let body = lines.split(separator: "\n").map { "    " + $0 }.joined(separator: "\n")
  return try parse("services:\n  web:\n    image: web:1\n\(body)\n\(top)", environment, files: files).services[0]
}

@Suite struct Refusals {
  static let table: [(String, String)] = [
    ("deploy: {replicas: two}", "4:24 services.web.deploy.replicas: expected a whole number of 0 or more, found text 'two'"),
    ("deploy: {replicas: -1}", "4:24 services.web.deploy.replicas: expected a whole number of 0 or more, found -1"),
    (
      "deploy: {replicas: 1000000000}",
      "4:24 services.web.deploy.replicas: expected a whole number of 0 or more and at most 1000000, found 1000000000"
    ),
    ("deploy: {replicas: 1.5}", "4:24 services.web.deploy.replicas: expected a whole number of 0 or more, found 1.5"),
    (
      "deploy: {replicas: 010}",
      "4:24 services.web.deploy.replicas: expected a whole number of 0 or more, found 010, which YAML 1.1 reads as octal; write it without the leading zero"
    ),
    ("deploy: {replicas: [1]}", "4:24 services.web.deploy.replicas: expected a whole number of 0 or more, found a list"),
    ("deploy: {replcas: 3}", "4:14 services.web.deploy.replcas: unknown key 'replcas'; did you mean 'replicas'?"),
    ("imgae: x", "4:5 services.web.imgae: unknown key 'imgae'; did you mean 'image'?"),
    ("zzzzzz: x", "4:5 services.web.zzzzzz: unknown key 'zzzzzz'; remove it, or begin it with 'x-' if it is your own"),
    ("depends_on: [db]", "4:18 services.web.depends_on[0]: there is no service 'db'; declare it, or write 'required: false'"),
    ("init: yes", "4:11 services.web.init: expected true or false, found text 'yes'; write true"),
    ("tty: off", "4:10 services.web.tty: expected true or false, found text 'off'; write false"),
    ("tty: 1", "4:10 services.web.tty: expected true or false, found 1"),
    ("ports: 8080:80", "4:12 services.web.ports: expected a list of ports, found text '8080:80'; write '- \"8080:80\"'"),
    ("ports: [abc]", "4:13 services.web.ports[0]: expected PUBLISHED:TARGET such as 8080:80, found text 'abc'"),
    ("ports: ['70000:80']", "4:13 services.web.ports[0]: a port is a number from 1 to 65535, found '70000'"),
    ("ports: ['0-1:80-81']", "4:13 services.web.ports[0]: a port is a number from 1 to 65535, found '0-1'"),
    ("ports: ['80:0']", "4:13 services.web.ports[0]: a port is a number from 1 to 65535, found '0'"),
    ("ports: ['+80:80']", "4:13 services.web.ports[0]: expected PUBLISHED:TARGET such as 8080:80, found text '+80:80'"),
    ("ports: ['80:80/icmp']", "4:13 services.web.ports[0]: expected one of 'tcp', 'udp', 'sctp' after '/', found 'icmp'"),
    (
      "ports: ['8000-8002:80-81']",
      "4:13 services.web.ports[0]: 3 published ports for 2 of the container; make both ranges equally long, or name one port of the container for one of the range"
    ),
    (
      "ports: [{target: 80, published: 8000-8010, mode: host}]",
      "4:37 services.web.ports[0].published: a range of ports is not supported in host mode; write one port, or leave 'published' out: each task has a free one of its host then"
    ),
    (
      "ports: [{target: 80, published: 8010-8000}]",
      "4:37 services.web.ports[0].published: the range '8010-8000' runs backwards; write the lower port first"
    ),
    (
      "ports: [{target: 80, published: 8000-}]",
      "4:37 services.web.ports[0].published: expected a port or a range such as 8000-8010, found text '8000-'"
    ),
    ("ports: [{target: 80, published: 0-9}]", "4:37 services.web.ports[0].published: a port is a number from 1 to 65535, found '0-9'"),
    ("ports: [{target: 80, published: -1}]", "4:37 services.web.ports[0].published: expected a whole number of 0 or more, found -1"),
    ("ports: ['9-8:9-8']", "4:13 services.web.ports[0]: the range '9-8' runs backwards; write the lower port first"),
    (
      "ports: ['localhost:80:80']",
      "4:13 services.web.ports[0]: expected an address of a host before the published port, found 'localhost'; write it as 127.0.0.1:8080:80 or '[::1]:8080:80'"
    ),
    ("ports: ['1.2.3.4:5:6:7']", "4:13 services.web.ports[0]: expected PUBLISHED:TARGET such as 8080:80, found text '1.2.3.4:5:6:7'"),
    ("ports: ['80:80', '80:81']", "4:22 services.web.ports[1]: port 80/tcp is published twice; publish another port"),
    ("ports: ['80:80', '[::1]:80:81']", "4:22 services.web.ports[1]: port 80/tcp is published twice; publish another port"),
    ("ports: [{published: 80}]", "4:13 services.web.ports[0]: 'target' is missing; name the container's port"),
    (
      "stop_grace_period: 10",
      "4:24 services.web.stop_grace_period: expected a duration such as 10s or 1m30s, found 10; add a unit: s, m, h, ms, us or ns"
    ),
    ("stop_grace_period: -1s", "4:24 services.web.stop_grace_period: expected a duration such as 10s or 1m30s, found text '-1s'"),
    (
      "platform: windows/amd64",
      "4:15 services.web.platform: 'windows/amd64' is no platform that orch places tasks by; write linux/ARCHITECTURE, for example linux/amd64 or linux/arm64"
    ),
    ("mem_limit: lots", "4:16 services.web.mem_limit: expected a size such as 64m or 1g, found text 'lots'; units are b, k, m, g, t"),
    ("mem_limit: 1k", "4:16 services.web.mem_limit: expected at least 6291456 bytes, found text '1k'"),
    ("cpus: 0", "4:11 services.web.cpus: expected a number of CPUs greater than 0 such as 0.5, found 0"),
    (
      "restart: sometimes",
      "4:14 services.web.restart: expected one of 'no', 'always', 'on-failure', 'on-failure:COUNT', 'unless-stopped', found text 'sometimes'"
    ),
    ("cap_add: [NET_ADMN]", "4:15 services.web.cap_add[0]: there is no capability 'NET_ADMN'; did you mean 'NET_ADMIN'?"),
    ("stop_signal: SIGTREM", "4:18 services.web.stop_signal: expected a signal such as SIGTERM, found text 'SIGTREM'; did you mean 'SIGTERM'?"),
    (
      "volumes: ['data:/data']",
      "4:15 services.web.volumes[0]: the volume 'data' is not declared; add it under top-level 'volumes', or write './data' for a folder beside the manifest"
    ),
    ("volumes: ['./a:b']", "4:15 services.web.volumes[0]: expected an absolute path, found text 'b'; begin it with '/'"),
    ("volumes: ['./a:/x/../..']", "4:15 services.web.volumes[0]: the path '/x/../..' leaves its place; write it without '..'"),
    ("volumes: ['./a:/x:rx']", "4:15 services.web.volumes[0]: unknown option 'rx'; use ro or rw"),
    (
      "tmpfs: ['/x:suid']",
      "4:13 services.web.tmpfs[0]: the option 'suid' is not supported; remove it: a tmpfs has neither set-id programs nor devices"
    ),
    (
      "volumes: ['/a:/x:rshared']",
      "4:15 services.web.volumes[0]: the propagation 'rshared' is not supported; remove it: \(Mount.BindOptions.propagationAdvice)"
    ),
    (
      "volumes: [{type: bind, source: /a, target: /b, bind: {propagation: rslave}}]",
      "4:72 services.web.volumes[0].bind.propagation: the propagation 'rslave' is not supported; remove it: \(Mount.BindOptions.propagationAdvice)"
    ),
    (
      "logging: {driver: gelf}",
      "4:14 services.web.logging: the logging driver 'gelf' is not supported; use json-file or leave it out; 'orch logs' reads what it keeps"
    ),
    (
      "logging: {options: {max-size: lots}}",
      "4:14 services.web.logging: the log's max-size 'lots' is no size; write one such as 10m, or -1 for no limit"
    ),
    ("tmpfs: [/x, /x]", "4:17 services.web.tmpfs[1]: something else is mounted at '/x' already; mount it elsewhere"),
    ("networks: [fornt]", "4:16 services.web.networks.fornt: the network 'fornt' is not declared; add it under top-level 'networks'"),
    (
      "network_mode: service:db",
      "4:19 services.web.network_mode: the network mode 'service:db' is not supported; use host or none, or 'networks': a task shares no other's network"
    ),
    ("environment: [=x]", "4:19 services.web.environment[0]: expected KEY=VALUE, found text '=x'; name the key before '='"),
    ("environment: {A: [1]}", "4:22 services.web.environment.A: expected text, a number or true or false, found a list"),
    ("command: \"echo 'x\"", "4:14 services.web.command: a quote is not closed in 'echo 'x'; close it, or write the words as a list"),
    (
      "deploy: {mode: global, replicas: 2}",
      "4:38 services.web.deploy.replicas: a global service has no 'replicas'; remove 'replicas', or use mode: replicated"
    ),
    (
      "deploy: {placement: {constraints: [node.rol == worker]}}",
      "4:40 services.web.deploy.placement.constraints[0]: a node has no 'node.rol'; did you mean 'node.role'?"
    ),
    (
      "deploy: {update_config: {order: first}}",
      "4:37 services.web.deploy.update_config.order: expected one of 'stop-first', 'start-first', found text 'first'"
    ),
    (
      "deploy: {update_config: {max_failure_ratio: 2}}",
      "4:49 services.web.deploy.update_config.max_failure_ratio: expected a number from 0 to 1, found 2"
    ),
    (
      "healthcheck: {test: [curl, x]}",
      "4:25 services.web.healthcheck.test: the first word must be NONE, CMD or CMD-SHELL, found 'curl'; write [CMD, curl, ...]"
    ),
    ("working_dir: app", "4:18 services.web.working_dir: expected an absolute path, found text 'app'; begin it with '/'"),
    ("hostname: a b", "4:15 services.web.hostname: 'a b' cannot be a hostname; use at most 63 letters, digits, '-' and '.'"),
    (
      "extra_hosts: ['db:nowhere']",
      "4:19 services.web.extra_hosts[0]: expected an IP address for 'db', found 'nowhere'; host-gateway and names are not supported"
    ),
    ("ulimits: {nofiles: 3}", "4:15 services.web.ulimits.nofiles: there is no limit 'nofiles'; did you mean 'nofile'?"),
    ("cpuset: 0-x", "4:13 services.web.cpuset: '0-x' is no list of CPUs; write numbers and ranges such as 0-2,4"),
    ("memswap_limit: 1g", "4:20 services.web.memswap_limit: 'memswap_limit' goes with a limit of memory; add 'mem_limit'"),
    ("shm_size: 1", "4:15 services.web.shm_size: expected at least 4096 bytes, found 1"),
    ("oom_score_adj: 1001", "4:20 services.web.oom_score_adj: expected a whole number of -1000 or more and at most 1000, found 1001"),
    (
      "security_opt: ['seccomp:unconfined']",
      "4:20 services.web.security_opt[0]: 'seccomp:unconfined' is not supported; every container has Docker's own profile; name what it needs in 'cap_add'"
    ),
    (
      "security_opt: ['no-new-privilege']",
      "4:20 services.web.security_opt[0]: unknown option 'no-new-privilege'; use no-new-privileges:true or no-new-privileges:false"
    ),
    ("env_file: missing.env", "4:15 services.web.env_file: the file 'dir/missing.env' cannot be read; make it, or write 'required: false'"),
    ("user: ${WHO:?who runs it}", "4:11 services.web.user: the variable 'WHO' must be set: who runs it; set it in the environment"),
    ("user: ${WHO", "4:11 services.web.user: '${' without its '}' in '${WHO'; close the brace, or write $$ for a plain dollar sign"),
    ("user: a$", "4:11 services.web.user: a '$' that begins no variable in 'a$'; write $$ for a plain dollar sign"),
    ("tty: !reset true", "4:10 services.web.tty: the YAML tag '!reset' is not supported; remove it"),
  ]

  @Test("a bad service is refused by place, path, reason and remedy", arguments: table)
  func service(_ lines: String, _ expected: String) {
    #expect(complaints(lines).first == expected)
    #expect(complaints(lines).count <= 2)
  }

  static let files: [(String, String)] = [
    ("", "0:0 the manifest is empty; a manifest needs at least a 'services' map"),
    ("- a", "1:1 expected a map, found a list; write 'key: value' lines"),
    ("version: '3'", "1:1 there is no 'services'; a manifest names at least one service with its image"),
    ("services: {}", "1:11 services: there is no service; name at least one with its image"),
    ("services: [a]", "1:11 services: expected a map, found a list; write 'name:' lines, not a list"),
    ("services:\n  web:\n", "2:3 services.web: the service is empty; give it at least an image"),
    ("services:\n  web: {}", "2:3 services.web: the service has no image; add 'image: NAME:TAG'"),
    (
      "services:\n  web: {image: Web}",
      "2:16 services.web.image: 'Web' is not an image's name (names are lower-case); write NAME:TAG, HOST/NAME:TAG or NAME@sha256:DIGEST"
    ),
    ("services:\n  a: {image: a}\n  a: {image: b}", "2:3 'a' stands twice in one map; keep one of them"),
    ("services:\n  a: {image: a\n", "3:1 not valid YAML: while parsing a flow mapping: did not find expected ',' or '}'; correct the YAML here"),
    (
      "services:\n\ta: 1",
      "2:1 not valid YAML: while scanning for the next token: found character that cannot start any token; YAML is indented with spaces, not tabs"
    ),
    ("servces: {}", "1:1 there is no 'services'; a manifest names at least one service with its image"),
    (
      "services: {a: {image: a}}\nnetworks: {n: {driver: bridge}}",
      "2:24 networks.n.driver: the network driver 'bridge' is not supported; use 'overlay' or leave it out: a stack's networks reach across hosts"
    ),
    (
      "services: {a: {image: a}}\nnetworks: {n: {ipam: {config: [{subnet: 10.0.0.0/33}]}}}",
      "2:41 networks.n.ipam.config[0].subnet: expected a subnet such as 10.1.0.0/24 or fd00:1::/64, found text '10.0.0.0/33'"
    ),
    (
      "services: {a: {image: a}}\nvolumes: {v: {driver: nfs}}",
      "2:23 volumes.v.driver: the volume driver 'nfs' is not supported; use 'local' or leave it out"
    ),
    (
      "name: Bad Name\nservices: {a: {image: a}}",
      "1:7 name: 'Bad Name' cannot be a stack's name; use lower-case letters, digits, '-' and '_', a letter or digit first"
    ),
    (
      "services: {a: {image: a, ports: ['80:1']}, b: {image: b, ports: ['80:2']}}",
      "1:65 services.b.ports: port 80/tcp is already published by services.a; publish another port"
    ),
    (
      "services: {a: {image: a, ports: [{target: 1, published: 80, mode: host}]}, b: {image: b, ports: ['80:2']}}",
      "1:97 services.b.ports: port 80/tcp is already published by services.a; publish another port"
    ),
    ("services: {a: {image: a}}\n---\nb: 1", "2:1 not valid YAML: found a second document; correct the YAML here"),
    (
      "services: {a: {image: a}, 'b c': {image: b}}",
      "1:27 services.b c: 'web_b c' cannot be a service's name; use at most 63 letters, digits, '-', '_' and '.', a letter or digit first and last"
    ),
  ]

  @Test("a bad file is refused", arguments: files)
  func file(_ text: String, _ expected: String) {
    var messages: [String] = []
    do throws(ManifestError) { _ = try parse(text) } catch { messages = error.errors.map { "\($0.line):\($0.column) \($0.message)" } }
    #expect(messages.first == expected)
  }

  @Test("all errors come at once, in the order of the text, with warnings between")
  func all() throws {
    let text = "version: '3'\nservices:\n  a:\n    image: a\n    container_name: x\n    scale: no\n  b:\n    imagee: b\n"
    let error = #expect(throws: ManifestError.self) { try parse(text) }
    #expect(
      error?.description == """
        dir/web.yaml:1:1: warning: version: 'version' is ignored; it is obsolete; remove it
        dir/web.yaml:5:5: warning: services.a.container_name: 'container_name' is ignored; tasks are named by service and slot
        dir/web.yaml:6:12: error: services.a.scale: expected a whole number of 0 or more, found text 'no'
        dir/web.yaml:7:3: error: services.b: the service has no image; add 'image: NAME:TAG'
        dir/web.yaml:8:5: error: services.b.imagee: unknown key 'imagee'; did you mean 'image'?
        """)
  }

  @Test("aliases that grow without end are refused")
  func laughs() {
    var text = "x-a: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for level in 1...9 { text += "x-\(level): &a\(level) [\((0..<10).map { _ in "*a\(level - 1)" }.joined(separator: ", "))]\n" }
    let error = #expect(throws: ManifestError.self) { try parse(text + "services: {a: {image: a, command: *a9}}") }
    #expect(error?.errors.contains { $0.problem.contains("grows beyond 200000 values") } == true)
  }
}

@Suite struct Readings {
  @Test("two services may have one number in host mode: their tasks are on different nodes")
  func hostPorts() throws {
    let port = "ports: [{target: 1, published: 80, mode: host}]"
    #expect(try parse("services: {a: {image: a, \(port)}, b: {image: b, \(port)}}").services.map { $0.ports.map(\.publishedPort) } == [[80], [80]])
  }

  @Test("a service gets Docker's names and labels, and the stack's own network")
  func names() throws {
    let stack = try parse("name: shop\nservices:\n  web: {image: 'web:1', labels: {a: b}, deploy: {labels: [c=d]}}\n")
    let web = stack.services[0]
    #expect(web.name == "shop_web")
    #expect(web.labels == ["c": "d", "com.docker.stack.namespace": "shop", "com.docker.stack.image": "web:1"])
    #expect(web.taskTemplate.containerSpec.labels == ["a": "b", "com.docker.stack.namespace": "shop"])
    #expect(web.networks == [.init(target: "shop_default", aliases: ["web"])])
    #expect(web.replicas == 1)
    #expect(stack.networks.map(\.name) == ["shop_default"])
    #expect(stack.networks[0].driver == "overlay")
  }

  static let nameTable: [(path: String, text: String, project: String?, expected: String)] = [
    ("manifests/web.yaml", "", nil, "web"), ("shop/compose.yaml", "", nil, "shop"), ("/srv/My Shop/docker-compose.yml", "", nil, "myshop"),
    ("manifests/web.yaml", "name: shop\n", nil, "shop"), ("manifests/web.yaml", "name: shop\n", "other", "other"),
  ]
  @Test("the stack's name is the given one, the written one, or the file's", arguments: nameTable)
  func stackName(_ row: (path: String, text: String, project: String?, expected: String)) throws {
    #expect(try parse(row.text + "services: {a: {image: a}}", path: row.path, project: row.project).name == row.expected)
  }

  static let values: [(String, [String: String], String)] = [
    ("$A", ["A": "1"], "1"), ("${A}", ["A": "1"], "1"), ("x${A}y", ["A": "1"], "x1y"), ("${A:-b}", [:], "b"), ("${A:-b}", ["A": ""], "b"),
    ("${A-b}", ["A": ""], ""), ("${A-b}", [:], "b"), ("${A:+b}", ["A": "1"], "b"), ("${A:+b}", ["A": ""], ""), ("${A+b}", ["A": ""], "b"),
    ("$$A", ["A": "1"], "$A"), ("$${A}", [:], "${A}"), ("${A:-${B:-c}}", [:], "c"), ("${A:-${B}}", ["B": "2"], "2"), ("${A:-x}}", [:], "x}"),
    ("${A:-$$}", [:], "$"), ("${A:-a b:c}", [:], "a b:c"), ("${A?no}", ["A": ""], ""),
  ]
  @Test("variables are put in as the Compose specification says", arguments: values)
  func interpolation(_ text: String, _ environment: [String: String], _ expected: String) throws {
    let spec = try service("environment:\n  X: '\(text)'", environment)
    #expect(spec.taskTemplate.containerSpec.env == ["X=" + expected])
  }

  @Test("keys are not interpolated, and an unset variable warns")
  func keys() throws {
    let stack = try parse("services: {a: {image: a, labels: {$K: '$V'}}}", ["K": "k"])
    #expect(stack.services[0].taskTemplate.containerSpec.labels?["$K"] == "")
    #expect(stack.warnings.map(\.message) == ["services.a.labels.$K: the variable 'V' is not set and reads as empty; set it, or write ${V:-default}"])
  }

  @Test("text stays as it is written, whatever YAML 1.1 makes of it")
  func traps() throws {
    let spec = try service("environment: {A: on, B: 0777, C: 1.10, D: 22:22, E: true, F: 1e3, G: 2001-01-01, H: ~, I: ''}", ["H": "host"])
    #expect(spec.taskTemplate.containerSpec.env == ["A=on", "B=0777", "C=1.10", "D=22:22", "E=true", "F=1e3", "G=2001-01-01", "H=host", "I="])
    #expect(try service("ports: [22:22]").ports == [PortConfig(targetPort: 22, publishedPort: 22)])
  }

  static let durations: [(String, Int64)] = [
    ("10s", 10_000_000_000), ("1h5m30s20ms", 3_930_020_000_000), ("1.5s", 1_500_000_000), ("7us", 7_000), ("9ns", 9), ("0", 0), ("0s", 0),
  ]
  @Test("durations are Go's", arguments: durations)
  func duration(_ text: String, _ nanoseconds: Int64) throws {
    #expect(try service("stop_grace_period: \(text)").taskTemplate.containerSpec.stopGracePeriod == Nanoseconds(nanoseconds))
  }

  static let sizes: [(String, Int64)] = [
    ("64m", 64 << 20), ("64M", 64 << 20), ("64mb", 64 << 20), ("1g", 1 << 30), ("1.5g", 3 << 29), ("8388608", 8 << 20), ("8388608b", 8 << 20),
    ("1GiB", 1 << 30),
  ]
  @Test(
    "a platform places tasks on the hosts that have it, beside what else places them", arguments: ["linux/amd64", "linux/arm64", "linux/arm64/v8"])
  func platform(text: String) throws {
    let spec = try service("platform: \(text)\ndeploy: {placement: {constraints: [node.role == worker]}}")
    let architecture = String(text.dropFirst(6).prefix(5))
    #expect(
      spec.taskTemplate.placement?.constraints == ["node.role == worker", "node.platform.os == linux", "node.platform.arch == \(architecture)"])
    #expect(try service("platform: \(text)").taskTemplate.placement?.constraints?.count == 2)
  }

  @Test("sizes are powers of 1024", arguments: sizes)
  func size(_ text: String, _ bytes: Int64) throws {
    #expect(try service("mem_limit: \(text)").taskTemplate.resources?.limits?.memoryBytes == bytes)
  }

  @Test("a port of one address of a host, short and long, of either family; 0.0.0.0 and :: are all of their family")
  func portAddresses() throws {
    let ports = try service(
      "ports: ['127.0.0.1:8080:80', '10.1.2.3:5000-5001:53-54/udp', '127.0.0.1::81', '0.0.0.0:82:82', {target: 83, published: 83, host_ip: 10.1.2.3}]"
    ).ports
    let (local, inside) = (IPAddress("127.0.0.1"), IPAddress("10.1.2.3"))
    #expect(ports.map(\.hostIP) == [local, inside, inside, local, IPAddress("0.0.0.0"), inside])
    #expect(ports.map(\.publishedPort) == [8080, 5000, 5001, nil, 82, 83])
    let six = try service(
      "ports: ['[::1]:8080:80', '[2001:db8::1]:5000-5001:53-54/udp', '[::1]::81', '[::]:82:82', {target: 83, published: 83, host_ip: 2001:db8::1}, "
        + "{target: 84, published: 84, host_ip: '[::1]'}, '127.0.0.1:8080:80']"
    ).ports
    #expect(six.map { $0.hostIP?.description } == ["::1", "2001:db8::1", "2001:db8::1", "::1", "::", "2001:db8::1", "::1", "127.0.0.1"])
    #expect(six.map(\.publishedPort) == [8080, 5000, 5001, nil, 82, 83, 84, 8080])
    #expect(six.map(\.targetPort) == [80, 53, 54, 81, 82, 83, 84, 80])
  }

  @Test("a range is one port of it, which the managers choose, short and long; one of one port is that one")
  func portRanges() throws {
    let short = try service("ports: ['8000-8010:80', '[::1]:8000-8001:81/udp', '8020-8020:82', '0:83', ':84/TCP']").ports
    #expect(short.map(\.publishedRange) == [8000...8010, 8000...8001, nil, nil, nil])
    #expect(short.map(\.publishedPort) == [nil, nil, 8020, nil, nil] && short.map(\.targetPort) == [80, 81, 82, 83, 84])
    #expect(short.map(\.hostIP) == [nil, IPAddress("::1"), nil, nil, nil] && short.map(\.protocol) == [.tcp, .udp, .tcp, .tcp, .tcp])
    let ports = try service(
      "ports: [{target: 80, published: \"8000-8010\", host_ip: 127.0.0.1}, {target: 81, published: 8000-8000}, {target: 82, published: 0}]"
    ).ports
    #expect(ports.map(\.publishedRange) == [8000...8010, nil, nil] && ports.map(\.publishedPort) == [nil, 8000, nil])
    #expect(ports.map(\.hostIP) == [IPAddress("127.0.0.1"), nil, nil])
  }

  @Test("one number at several addresses, of one service or of several; not at one of them and at all of its family")
  func portNumberAgain() throws {
    let ports = try service("ports: ['127.0.0.1:8080:80', '192.0.2.5:8080:80', '[::]:8080:81', '127.0.0.1:8080:80/udp']").ports
    #expect(ports.map(\.publishedPort) == [8080, 8080, 8080, 8080])
    for other in ["'0.0.0.0:8080:80'", "'8080:80'", "'127.0.0.1:8080:81'"] {
      let error = #expect(throws: ManifestError.self) { try service("ports: ['127.0.0.1:8080:80', \(other)]") }
      #expect(error?.errors.first?.problem == "port 8080/tcp is published twice", "\(other)")
    }
    func both(_ second: String) throws -> Int {
      try parse("services: {a: {image: a, ports: ['127.0.0.1:80:1']}, b: {image: b, ports: [\(second)]}}").services.count
    }
    #expect(try both("'192.0.2.5:80:1'") == 2 && both("'[::1]:80:1'") == 2)
    for other in ["'80:1'", "'0.0.0.0:80:1'", "'127.0.0.1:80:1'"] {
      let error = #expect(throws: ManifestError.self) { try both(other) }
      #expect(error?.errors.first?.problem == "port 80/tcp is already published by services.a", "\(other)")
    }
  }

  @Test("ports: short, range, protocol, without publishing, long")
  func ports() throws {
    let spec = try service(
      "ports:\n- 80\n- '8080:80'\n- '5000-5001:6000-6001/udp'\n- {target: 90, published: '9090', mode: host, protocol: tcp, name: web}")
    var long = PortConfig(targetPort: 90, publishedPort: 9090, publishMode: .host)
    long.name = "web"
    #expect(
      spec.ports == [
        PortConfig(targetPort: 80, publishedPort: nil), PortConfig(targetPort: 80, publishedPort: 8080),
        PortConfig(targetPort: 6000, publishedPort: 5000, protocol: .udp), PortConfig(targetPort: 6001, publishedPort: 5001, protocol: .udp), long,
      ])
  }

  @Test("mounts: named, bind beside the file, home, anonymous, long, tmpfs")
  func mounts() throws {
    let lines = """
      volumes:
      - data:/data:ro
      - ./site/../pages:/pages
      - ~/x:/home
      - /anonymous
      - {type: volume, source: data, target: /again, volume: {nocopy: true}}
      - {type: tmpfs, target: /run, tmpfs: {size: 1m, mode: 0700}}
      tmpfs: /tmp:size=64m,mode=1777
      """
    let mounts = try service(lines, ["HOME": "/root"], top: "volumes:\n  data:\n").taskTemplate.containerSpec.mounts ?? []
    #expect(mounts.map(\.target) == ["/data", "/pages", "/home", "/anonymous", "/again", "/run", "/tmp"])
    #expect(mounts.map(\.type) == [.volume, .bind, .bind, .volume, .volume, .tmpfs, .tmpfs])
    #expect(mounts.map(\.source) == ["web_data", "dir/pages", "/root/x", nil, "web_data", nil, nil])
    #expect(mounts[0].readOnly == true)
    #expect(mounts[0].volumeOptions?.labels == ["com.docker.stack.namespace": "web"])
    #expect(mounts[4].volumeOptions?.noCopy == true)
    #expect(mounts[5].tmpfsOptions?.mode == 0o700)
    #expect(mounts[6].tmpfsOptions?.sizeBytes == 64 << 20)
  }

  @Test(
    "a tmpfs is executable when it says so, and the words that say what it is anyway are read without a warning",
    arguments: [("/t:exec", [["exec"]]), ("/t:size=1m,noexec", [["noexec"]]), ("/t:rw,nosuid,nodev", nil)] as [(String, [[String]]?)])
  func temporary(_ text: String, _ options: [[String]]?) throws {
    let stack = try Manifest.parse(text: "services: {a: {image: a, tmpfs: '\(text)'}}", path: "m.yaml")
    #expect(stack.warnings.isEmpty)
    let mount = try #require(stack.services[0].taskTemplate.containerSpec.mounts?.first)
    #expect(mount.tmpfsOptions?.options == options && (mount.tmpfsOptions?.isExecutable ?? false) == text.hasSuffix(":exec"))
  }

  @Test("how much of a log is kept is the service's to say")
  func logging() throws {
    let task = try service("logging: {driver: json-file, options: {max-size: 2m, max-file: 4}}").taskTemplate
    #expect(task.logDriver == Driver(name: "json-file", options: ["max-size": "2m", "max-file": "4"]))
    #expect(try service("user: root").taskTemplate.logDriver == nil)
  }

  @Test(
    "a path beside the manifest is absolute once the folder it was named from is known",
    arguments: [("web.yaml", "/here/pages"), ("./web.yaml", "/here/pages"), ("../dir/web.yaml", "/dir/pages"), ("/abs/web.yaml", "/abs/pages")])
  func workingDirectory(_ path: String, _ source: String) throws {
    let text = "services: {a: {image: a, volumes: ['./pages:/pages']}}"
    let stack = try Manifest.parse(text: text, path: path, workingDirectory: "/here")
    #expect(stack.services[0].taskTemplate.containerSpec.mounts?.first?.source == source)
  }

  @Test("process: words by quotes, lists, environment over files, limits")
  func process() throws {
    let lines = """
      entrypoint: ["/bin/sh", -c]
      command: echo "a b" 'c d' e\\ f
      env_file: [a.env, {path: none.env, required: false}]
      environment: [A=2, C]
      ulimits: {nofile: {soft: 10, hard: 20}, core: 0}
      cap_add: [net_admin, CAP_SYS_TIME]
      sysctls: {net.core.somaxconn: 1024}
      extra_hosts: ["db:10.0.0.1", "v6=[::1]"]
      hostname: own
      domainname: example.org
      dns: [10.0.0.2, "fd00::2"]
      dns_search: example.org
      dns_opt: [timeout:1]
      stop_signal: int
      user: 1000
      restart: on-failure:3
      healthcheck: {test: curl -f http://localhost, interval: 5s, retries: 3}
      """
    let spec = try service(lines, ["C": "3"], files: ["dir/a.env": "# x\nA=1\nexport B=\"x $C\"\nD='$C' \n"])
    let container = spec.taskTemplate.containerSpec
    #expect(container.command == ["/bin/sh", "-c"])
    #expect(container.args == ["echo", "a b", "c d", "e f"])
    #expect(container.env == ["A=2", "B=x 3", "D=$C", "C=3"])
    #expect(container.ulimits == [.init(name: "nofile", hard: 20, soft: 10), .init(name: "core", hard: 0, soft: 0)])
    #expect(container.capabilityAdd == ["CAP_NET_ADMIN", "CAP_SYS_TIME"])
    #expect(container.sysctls == ["net.core.somaxconn": "1024"])
    #expect(container.hosts == ["10.0.0.1 db", "::1 v6"])
    #expect(container.hostname == "own" && container.domainname == "example.org")
    #expect(container.dnsConfig == .init(nameservers: ["10.0.0.2", "fd00::2"], search: ["example.org"], options: ["timeout:1"]))
    #expect(container.stopSignal == "SIGINT")
    #expect(container.user == "1000")
    #expect(container.healthCheck?.test == ["CMD-SHELL", "curl -f http://localhost"])
    #expect(spec.taskTemplate.restartPolicy?.condition == .onFailure)
    #expect(spec.taskTemplate.restartPolicy?.maxAttempts == 3)
  }

  @Test("limits in Compose's older words: swap, shares, CPUs, quota, reservation, shared memory, groups, score, privileges")
  func limits() throws {
    let task = try service(
      """
      mem_limit: 64m
      memswap_limit: 96m
      mem_reservation: 32m
      cpu_shares: 512
      cpu_quota: 25000
      cpu_period: 50000
      cpuset: 0-2,4
      shm_size: 16m
      group_add: [video, 44]
      oom_score_adj: 500
      security_opt: [no-new-privileges:false]
      """
    ).taskTemplate
    let limits = try #require(task.resources?.limits)
    #expect(limits.memoryBytes == 64 << 20 && task.resources?.swapBytes == 32 << 20)
    #expect(task.resources?.reservations?.memoryBytes == 32 << 20)
    #expect(limits.cpuShares == 512 && limits.nanoCPUs == 500_000_000 && limits.cpuset == "0-2,4")
    let container = task.containerSpec
    #expect(container.mounts?.map(\.target) == ["/dev/shm"] && container.mounts?.first?.tmpfsOptions?.sizeBytes == 16 << 20)
    #expect(container.groups == ["video", "44"] && container.oomScoreAdj == 500)
    #expect(container.privileges?.noNewPrivileges == false)
    #expect(try service("mem_limit: 64m\nmemswap_limit: -1").taskTemplate.resources?.swapBytes == -1)
    #expect(try service("security_opt: [no-new-privileges]").taskTemplate.containerSpec.privileges?.noNewPrivileges == true)
    #expect(complaints("cpus: 1\ncpu_quota: 50000") == ["5:16 services.web.cpu_quota: it differs from 'cpus' of the service; keep one of them"])
    // What rows of before say stays what it was.
    let old = try JSONDecoder().decode(ResourceRequirements.self, from: Data(#"{"Limits":{"MemoryBytes":5},"Reservations":{}}"#.utf8))
    var five = ResourceRequirements.Limit()
    five.memoryBytes = 5
    #expect(old == ResourceRequirements(limits: five, reservations: .init()))
    for (text, isList) in [
      ("0", true), ("0-2,4", true), ("3-1", false), ("", false), ("1,", false), ("-1", false), ("0-1-2", false), ("9000", false),
    ] {
      #expect(ResourceRequirements.isCPUList(text) == isList, "\(text)")
    }
  }

  @Test(
    "a key that is understood but not carried out yet is told with its place",
    arguments: [
      ("stdin_open: true", ""),
      (
        "depends_on: {other: {condition: service_started, restart: true}}\n  other:\n    image: a:1",
        "services.web.depends_on.other.restart: 'restart' has no effect yet"
      ),
      ("healthcheck: {test: [CMD, curl, x]}", ""), ("healthcheck: {disable: true}", ""), ("stdin_open: false", ""),
    ])
  func notYet(line: String, told: String) throws {
    let stack = try Manifest.parse(text: "services:\n  web:\n    image: a:1\n    \(line)\n", path: "m.yaml")
    let warnings = stack.warnings.map { "\($0.line):\($0.column) \($0.message)" }
    if told.isEmpty { #expect(warnings == []) } else { #expect(warnings.count == 1 && warnings[0].contains(told), "\(warnings)") }
  }

  @Test("manifests/web.yaml is read without a warning")
  func sample() throws {
    let root = #filePath.split(separator: "/").dropLast(4).joined(separator: "/")
    let path = "/\(root)/manifests/web.yaml"
    let text = try #require(FileText.read(path))
    let stack = try Manifest.parse(text: text, path: path)
    #expect(stack.warnings.isEmpty)
    #expect(stack.services.map(\.name) == ["demo_web", "demo_visitor"])
    #expect(stack.services[0].networks == [.init(target: "demo_default", aliases: ["web", "site"])])
    #expect(stack.services[0].ports == [PortConfig(targetPort: 80, publishedPort: 8080)])
  }

  @Test("deploy is read whole")
  func deploy() throws {
    let lines = """
      deploy:
        replicas: 5
        endpoint_mode: dnsrr
        update_config: {parallelism: 2, delay: 3s, failure_action: rollback, monitor: 4s, max_failure_ratio: 0.25, order: start-first}
        rollback_config: {parallelism: 0}
        restart_policy: {condition: on-failure, delay: 1s, max_attempts: 3, window: 60s}
        resources: {limits: {cpus: '0.50', memory: 50M, pids: 10}, reservations: {cpus: 0.25, memory: 20M}}
        placement: {constraints: ["node.role==worker", "node.labels.zone != a"], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}
      """
    let spec = try service(lines)
    #expect(spec.replicas == 5)
    #expect(spec.endpointMode == .dnsrr)
    #expect(spec.updateConfig?.parallelism == 2)
    #expect(spec.updateConfig?.delay == .seconds(3))
    #expect(spec.updateConfig?.failureAction == .rollback)
    #expect(spec.updateConfig?.maxFailureRatio == 0.25)
    #expect(spec.updateConfig?.order == .startFirst)
    #expect(spec.rollbackConfig?.parallelism == 0)
    #expect(spec.taskTemplate.restartPolicy?.window == .seconds(60))
    #expect(spec.taskTemplate.resources?.limits?.nanoCPUs == 500_000_000)
    #expect(spec.taskTemplate.resources?.limits?.pids == 10)
    #expect(spec.taskTemplate.resources?.reservations?.memoryBytes == 20 << 20)
    #expect(spec.taskTemplate.placement?.constraints == ["node.role==worker", "node.labels.zone != a"])
    #expect(spec.taskTemplate.placement?.preferences == [.init(spreadOver: "node.labels.zone")])
    #expect(spec.taskTemplate.placement?.maxReplicas == 2)
    #expect(try service("deploy: {mode: global}").isGlobal)
    #expect(try service("scale: 4").replicas == 4)
  }

  @Test("networks: external, renamed, with aliases, and no default one when nobody needs it")
  func networks() throws {
    let text = """
      services:
        a: {image: a, networks: {front: {aliases: [x, y]}, back: }}
        b: {image: b, networks: [front]}
      networks:
        front:
          {internal: true, attachable: true, labels: {l: v}, driver_opts: {com.docker.network.driver.mtu: 1400},
          ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.1, ip_range: 10.9.0.128/25, aux_addresses: {a: 10.9.0.130}}]}}
        back: {external: true, name: shared}
      volumes:
        logs: {name: all-logs}
        old: {external: true}
      """
    let stack = try parse(text)
    #expect(stack.networks.map(\.name) == ["web_front"])
    #expect(stack.networks[0].internalOnly == true)
    #expect(stack.networks[0].attachable == true && stack.networks[0].mtu == 1400)
    #expect(
      stack.networks[0].ipam?.config == [.init(subnet: "10.9.0.0/24", gateway: "10.9.0.1", range: "10.9.0.128/25", auxiliary: ["a": "10.9.0.130"])])
    #expect(stack.externalNetworks == ["shared"])
    #expect(stack.services[0].networks == [.init(target: "web_front", aliases: ["a", "x", "y"]), .init(target: "shared", aliases: ["a"])])
    #expect(stack.volumes.map(\.name) == ["all-logs"])
    #expect(stack.externalVolumes == ["old"])
  }

  @Test("a network with both families")
  func dualStack() throws {
    let stack = try parse(
      "services: {a: {image: a, networks: [n]}}\nnetworks: {n: {enable_ipv6: true, ipam: {config: [{subnet: 10.9.0.0/24}, {subnet: 'fd00:9::/64', gateway: 'fd00:9::1'}]}}}"
    )
    let spec = try #require(stack.networks.first { $0.name == "web_n" })
    #expect(spec.enableIPv6 == true && spec.declared4?.subnet == "10.9.0.0/24")
    #expect(spec.declared6?.subnet == "fd00:9::/64" && spec.declared6?.gateway == "fd00:9::1")
  }

  @Test("network_mode: the host's network, none, or the usual; no ports with the first two; options of networks that are not carried out are refused")
  func networkModes() throws {
    let stack = try parse(
      "services: {a: {image: a, network_mode: host}, b: {image: b, network_mode: none}, c: {image: c, network_mode: bridge}}")
    #expect(stack.services.map { $0.networks.map(\.target) } == [["host"], ["none"], ["web_default"]])
    #expect(stack.networks.map(\.name) == ["web_default"])
    for (text, problem) in [
      ("services: {a: {image: a, network_mode: host, ports: [80]}}", "network_mode host and ports do not go together"),
      ("services: {a: {image: a, network_mode: none, networks: [x]}}", "'networks' and 'network_mode' do not go together"),
      ("services: {a: {image: a}}\nnetworks: {n: {driver_opts: {encrypted: \"\"}}}", "orch does not encrypt networks yet"),
      ("services: {a: {image: a}}\nnetworks: {n: {driver_opts: {other: 1}}}", "the option other is not known"),
      ("services: {a: {image: a}}\nnetworks: {n: {ipam: {config: [{subnet: 'fd00:1::/64'}]}}}", "an IPv6 subnet needs 'enable_ipv6: true'"),
      (
        "services: {a: {image: a}}\nnetworks: {n: {enable_ipv6: true, ipam: {config: [{subnet: 'fd00:1::/64', ip_range: 'fd00:1::/80'}]}}}",
        "an IPv6 range is not supported"
      ),
      (
        "services: {a: {image: a}}\nnetworks: {n: {enable_ipv6: true, ipam: {config: [{subnet: 'fd00:1::/64'}, {subnet: 'fd00:2::/64'}]}}}",
        "a network has one subnet of each family, found 2"
      ),
    ] {
      let error = #expect(throws: ManifestError.self) { try parse(text) }
      #expect(error?.errors.contains { $0.message.contains(problem) } == true, "\(text): \(String(describing: error))")
    }
  }

  @Test("merge keys: own keys win, the first merged map wins over the second")
  func merge() throws {
    let text = """
      x-a: &a {image: a, hostname: ha, labels: {l: a}}
      x-b: &b {image: b, user: ub}
      services:
        web:
          <<: [*a, *b]
          hostname: own
      """
    let container = try parse(text).services[0].taskTemplate.containerSpec
    #expect(container.image == "a")
    #expect(container.hostname == "own")
    #expect(container.user == "ub")
    #expect(container.labels?["l"] == "a")
  }

  @Test("depends_on in both forms becomes docker compose's label; a service that must complete is not started again after it has")
  func dependsOn() throws {
    let text = """
      name: d
      services:
        web:
          image: a:1
          depends_on:
            db: {condition: service_healthy}
            job: {condition: service_completed_successfully, required: true}
            gone: {condition: service_started, required: false}
        cli: {image: a:1, depends_on: [db, web]}
        db: {image: b:1}
        job: {image: c:1}
      """
    let stack = try Manifest.parse(text: text, path: "m.yaml")
    #expect(
      stack.services.map { $0.labels?[StackLabel.dependsOn] ?? "" } == [
        "db:service_healthy:false,job:service_completed_successfully:false", "db:service_started:false,web:service_started:false", "", "",
      ])
    #expect(stack.services[3].taskTemplate.restartPolicy?.condition == .onFailure)
    #expect(stack.warnings.map(\.problem) == ["there is no service 'gone', so it is not waited for"])
  }

  @Test(
    "a depends_on that cannot come true is refused with its place",
    arguments: [
      ("a: {image: x, depends_on: [bb]}, b: {image: x}", "there is no service 'bb'; did you mean 'b'?"),
      ("a: {image: x, depends_on: {b: {condition: healthy}}}, b: {image: x}", "there is no condition 'healthy'"),
      (
        "a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [c]}, c: {image: x, depends_on: [a]}",
        "services wait for each other: a -> b -> c -> a"
      ),
      ("a: {image: x, depends_on: [a]}", "services wait for each other: a -> a"),
      (
        "a: {image: x, depends_on: {b: {condition: service_healthy}}}, b: {image: x, healthcheck: {disable: true}}",
        "'b' has its health check switched off"
      ),
      (
        "a: {image: x, depends_on: {b: {condition: service_completed_successfully}}}, b: {image: x, restart: always}",
        "'b' is started again whenever it has completed"
      ),
      ("a: {image: x, depends_on: [b], deploy: {mode: global}}, b: {image: x}", "a global service cannot wait for others yet"),
    ])
  func dependsOnRefused(services: String, told: String) {
    do {
      _ = try Manifest.parse(text: "services: {\(services)}", path: "m.yaml", projectName: "p")
      Issue.record("it was taken")
    } catch {
      #expect(error.diagnostics.contains { "\($0.problem); \($0.advice)".contains(told) && $0.line == 1 && $0.column > 1 }, "\(error)")
    }
  }
}

@Suite struct FileTests {
  static let top = """
    secrets: {key: {file: ./key.txt}, token: {environment: TOKEN, labels: {a: b}}, old: {external: true, name: old_key}}
    configs: {conf: {content: "x=${X}"}, named: {file: /c, name: shared}}
    """

  @Test("secrets and configs are read in their short and long forms, from files, variables, the text itself, or the cluster")
  func forms() throws {
    let text = """
      name: st
      services:
        web:
          image: web:1
          secrets: [key, {source: token, target: /etc/token, uid: "100", gid: 101, mode: 0440}, {source: old, target: o}]
          configs: [conf, {source: named, target: /etc/n.conf}]
      \(Self.top)
      """
    let stack = try parse(text, ["TOKEN": "t0k", "X": "1"], files: ["dir/key.txt": "k", "/c": "c"])
    #expect(
      stack.files == [
        StackFile(kind: .secret, name: "st_key", labels: [StackLabel.namespace: "st"], source: .path("dir/key.txt")),
        StackFile(kind: .secret, name: "st_token", labels: [StackLabel.namespace: "st", "a": "b"], source: .text("t0k")),
        StackFile(kind: .config, name: "st_conf", labels: [StackLabel.namespace: "st"], source: .text("x=1")),
        StackFile(kind: .config, name: "shared", labels: [StackLabel.namespace: "st"], source: .path("/c")),
      ])
    #expect(stack.externalFiles == [.init(.secret, "old_key")])
    let files = stack.services[0].taskTemplate.containerSpec.files
    #expect(files.map(\.path) == ["/run/secrets/key", "/etc/token", "/run/secrets/o", "/conf", "/etc/n.conf"])
    #expect(files.map(\.name) == ["st_key", "st_token", "old_key", "st_conf", "shared"])
    #expect(files[1].target == FileTarget(name: "/etc/token", uid: "100", gid: "101", mode: 0o440))
    #expect(files[0].target == FileTarget(name: "key", uid: "0", gid: "0", mode: 0o444))
  }

  @Test(
    "what is wrong is told by place",
    arguments: [
      ("secrets: {a: {file: f, environment: E}}", "the secret says more than once where its content is"),
      ("secrets: {a: {}}", "the secret says not where its content is"), ("secrets: {a: {file: none}}", "the file 'dir/none' cannot be read"),
      ("secrets: {a: {environment: NONE}}", "the variable 'NONE' is not set"),
      ("secrets: {a: {file: f, template_driver: golang}}", "'template_driver' is not supported"),
      ("configs: {a: {content: x, template_driver: golang}}", "'template_driver' is not supported"),
      ("secrets: {a: {content: x}}", "unknown key 'content'"), ("secrets: {a: {file: f, external: true}}", "has its content in the cluster already"),
    ])
  func refusals(top: String, words: String) {
    do throws(ManifestError) {
      _ = try parse("services: {a: {image: a}}\n\(top)\n", files: ["dir/f": "x"])
      Issue.record("nothing was refused")
    } catch {
      #expect(error.errors.contains { $0.message.contains(words) }, "\(error.errors.map(\.message))")
    }
  }

  @Test("a reference to what is not declared, and two at one place, are told")
  func references() {
    let some = complaints("secrets: [kee, {source: key}]")
    #expect(some.contains { $0.contains("the secret 'kee' is not declared") })
    do throws(ManifestError) {
      _ = try parse("services: {a: {image: a, secrets: [k, {source: k}]}}\nsecrets: {k: {file: f}}\n", files: ["dir/f": "x"])
      Issue.record("nothing was refused")
    } catch { #expect(error.errors.contains { $0.message.contains("another secret is at '/run/secrets/k' already") }) }
  }
}
