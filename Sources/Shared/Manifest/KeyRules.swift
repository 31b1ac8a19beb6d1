/// The Compose specification's keys that are not carried out, and what to do instead.
enum KeyRules {
  private static let later = "orch does not do this yet; remove it"

  static let top: [String: KeyRule] = [
    "version": .ignored("it is obsolete; remove it"),
    "include": .unsupported("write the included services into this file"),
    "models": .unsupported("run the model as a service"),
  ]

  static let service: [String: KeyRule] = [
    "container_name": .ignored("tasks are named by service and slot"),
    "attach": .ignored("use 'orch logs'"),
    "develop": .ignored("it is for development on one host"),
    "isolation": .ignored("it is for Windows"),
    "runtime": .ignored("orch has its own runtime"),
    "expose": .ignored("services of one network reach every port of each other"),
    "mac_address": .ignored("addresses are the allocator's"),
    "oom_kill_disable": .ignored("a container over its memory limit is ended"),
    "cgroup": .ignored("every container has its own cgroup namespace"),
    "cgroup_parent": .ignored("orch chooses the cgroup"),
    "uts": .ignored("every container has its own hostname"),
    "ipc": .ignored("every container has its own IPC namespace"),
    "userns_mode": .ignored("user namespaces are the agent's choice"),
    "cpu_count": .ignored("use 'cpus'"), "cpu_percent": .ignored("use 'cpus'"),
    "cpu_rt_period": .ignored("use 'cpus'"), "cpu_rt_runtime": .ignored("use 'cpus'"),
    "mem_swappiness": .ignored("cgroup v2 has none; use 'memswap_limit'"),
    "blkio_config": .ignored("disks are not limited"), "device_cgroup_rules": .ignored("devices are not given to containers"),
    "storage_opt": .ignored("writable layers are not limited"),

    "links": .unsupported("services of one network find each other by name; give other names with networks.<name>.aliases"),
    "external_links": .unsupported("attach both services to one network"),
    "extends": .unsupported("use a YAML anchor and '<<: *anchor'"),
    "profiles": .unsupported("keep the service in a manifest of its own"),
    "privileged": .unsupported("name the capabilities in 'cap_add'"),
    "pid": .unsupported("every container has its own processes"),
    "devices": .unsupported(later), "gpus": .unsupported(later),
    "pull_policy": .unsupported("an agent pulls what it does not have; name another tag or digest to get another image"),
    "annotations": .unsupported("use 'labels'"), "label_file": .unsupported("use 'labels'"),
    "post_start": .unsupported(later), "pre_stop": .unsupported(later),
    "volumes_from": .unsupported("name the volumes in 'volumes'"),
    "provider": .unsupported(later), "models": .unsupported(later), "use_api_socket": .unsupported(later),
    "credential_spec": .unsupported("it is for Windows"),
  ]

  static let deploy: [String: KeyRule] = [:]
  static let build: [String: KeyRule] = [
    "cache_from": .ignored("the build's cache is the host's own"), "cache_to": .ignored("the build's cache is the host's own"),
    "dockerfile_inline": .unsupported("write it into a file and name that in 'dockerfile'"),
    "additional_contexts": .unsupported("put the files into the context, or use COPY --from=IMAGE"),
    "secrets": .unsupported(later), "ssh": .unsupported(later), "extra_hosts": .unsupported(later), "shm_size": .unsupported(later),
    "ulimits": .unsupported(later), "privileged": .unsupported("a build has a container's capabilities"), "entitlements": .unsupported(later),
    "isolation": .unsupported("it is for Windows"), "platforms": .unsupported("an image is built for the host that builds it"),
    "provenance": .unsupported(later), "sbom": .unsupported(later),
  ]
  static let resources: [String: KeyRule] = [
    "devices": .unsupported("devices are not reserved yet; use placement.constraints"),
    "generic_resources": .unsupported("use placement.constraints on a node label"),
  ]
  static let port: [String: KeyRule] = [
    "app_protocol": .ignored("ports are forwarded whatever they carry")
  ]
  static let attachment: [String: KeyRule] = [
    "ipv4_address": .ignored("addresses are the allocator's; use the service's name"),
    "ipv6_address": .ignored("addresses are the allocator's; use the service's name"),
    "link_local_ips": .ignored("addresses are the allocator's"),
    "mac_address": .ignored("addresses are the allocator's"),
    "priority": .ignored("networks are attached in the order of the manifest"),
    "gw_priority": .ignored("networks are attached in the order of the manifest"),
    "interface_name": .ignored("interfaces are named eth0, eth1, ..."),
    "driver_opts": .unsupported("options are the network's, under top-level 'networks'"),
  ]
  static let network: [String: KeyRule] = [
    "enable_ipv4": .ignored("overlay networks are always IPv4")
  ]
  static let volume: [String: KeyRule] = [
    "driver_opts": .unsupported("local volumes have no options yet; use a bind mount of a mounted folder")
  ]
  static let file: [String: KeyRule] = [
    "template_driver": .unsupported("what stands in the file is not expanded; write the file as it shall be"),
    "driver": .unsupported("orch keeps secrets itself; remove it"), "driver_opts": .unsupported("orch keeps secrets itself; remove it"),
  ]
  static let mount: [String: KeyRule] = [
    "consistency": .ignored("it is for Docker Desktop")
  ]
  static let bind: [String: KeyRule] = ["selinux": .ignored("SELinux labels are not changed")]
  static let environmentFile: [String: KeyRule] = ["format": .unsupported("lines of KEY=VALUE are read as docker compose does")]
}
