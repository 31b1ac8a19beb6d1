import CSeccomp
import LinuxSystem

/// What a container may call. What is not listed answers EPERM.
public struct SeccompProfile: Hashable, Sendable {
  public var allowed: [String]
  public var conditional: [Rule]
  /// Answered ENOSYS, so that the C library falls back (clone3: its flags cannot be inspected).
  public var absent: [String]

  public struct Rule: Hashable, Sendable {
    public var name: String
    public var argument: UInt32
    public var comparison: scmp_compare
    public var a: UInt64
    public var b: UInt64
    public func hash(into hasher: inout Hasher) {
      hasher.combine(name)
      hasher.combine(a)
    }
    public static func == (x: Self, y: Self) -> Bool {
      x.name == y.name && x.argument == y.argument && x.comparison.rawValue == y.comparison.rawValue && x.a == y.a && x.b == y.b
    }
  }

  static let byCapability: [(String, [String])] = [
    ("CAP_DAC_READ_SEARCH", ["open_by_handle_at"]),
    (
      "CAP_SYS_ADMIN",
      [
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "lsm_get_self_attr",
        "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl", "quotactl_fd",
        "setdomainname", "sethostname", "setns", "syslog", "umount",
        "umount2", "unshare",
      ]
    ),
    ("CAP_SYS_BOOT", ["reboot"]),
    ("CAP_SYS_CHROOT", ["chroot"]),
    ("CAP_SYS_MODULE", ["delete_module", "init_module", "finit_module"]),
    ("CAP_SYS_PACCT", ["acct"]),
    ("CAP_SYS_PTRACE", ["kcmp", "pidfd_getfd", "process_madvise"]),
    ("CAP_SYS_RAWIO", ["iopl", "ioperm"]),
    ("CAP_SYS_TIME", ["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    ("CAP_SYS_TTY_CONFIG", ["vhangup"]),
    ("CAP_SYS_NICE", ["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", ["syslog"]),
    ("CAP_BPF", ["bpf"]),
    ("CAP_PERFMON", ["perf_event_open"]),
  ]

  public static let relevantCapabilities = byCapability.reduce(CapabilitySet(rawValue: 0)) { sum, entry in
    CapabilitySet(name: entry.0).map(sum.union) ?? sum
  }

  /// The list follows Docker's default profile (moby/profiles seccomp/default.json as of 2026-05, documented at
  /// docs.docker.com/engine/security/seccomp). It does not name socketcall, the 32-bit ABI's one call for all that concerns sockets, but
  /// libseccomp lets it pass where it lets socket pass; its arguments are in memory, where no filter sees them. So a 32-bit program
  /// reaches AF_ALG and AF_VSOCK, as under Docker's. The x32 ABI, which Debian's kernels have off, is refused.
  public static func standard(for capabilities: CapabilitySet) -> Self {
    var allowed = base
    for (name, calls) in byCapability {
      if let one = CapabilitySet(name: name), capabilities.isSuperset(of: one) { allowed += calls }
    }
    let admin = CapabilitySet(name: "CAP_SYS_ADMIN").map(capabilities.isSuperset(of:)) ?? false
    var conditional: [Rule] = [
      // Plain sockets of every family but AF_VSOCK (40) and AF_ALG (38).
      Rule(name: "socket", argument: 0, comparison: SCMP_CMP_LT, a: 38, b: 0),
      Rule(name: "socket", argument: 0, comparison: SCMP_CMP_EQ, a: 39, b: 0),
      Rule(name: "socket", argument: 0, comparison: SCMP_CMP_GT, a: 40, b: 0),
    ]
    // personality: the values that only name an ABI.
    for value: UInt64 in [0, 8, 0x20000, 0x20008, 0xffff_ffff] {
      conditional.append(Rule(name: "personality", argument: 0, comparison: SCMP_CMP_EQ, a: value, b: 0))
    }
    // clone without a flag that makes a namespace.
    if !admin { conditional.append(Rule(name: "clone", argument: 0, comparison: SCMP_CMP_MASKED_EQ, a: 0x7e02_0000, b: 0)) }
    return Self(allowed: allowed, conditional: conditional, absent: admin ? [] : ["clone3"])
  }

  /// For every container. ptrace and its like are no way around a filter since Linux 4.8, which checks it after them. Names of other
  /// architectures do nothing on this one.
  static let base: [String] = """
    accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range bind breakpoint brk cacheflush cachestat capget
    capset chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl
    fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu
    getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid
    getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create
    memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd
    msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead
    readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat
    renameat2 restart_syscall riscv_flush_icache riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address set_tls setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl
    shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketpair splice stat stat64 statfs statfs64 statmount
    statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
    timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
    """.split(whereSeparator: { $0 == " " || $0 == "\n" }).map(String.init)
}
