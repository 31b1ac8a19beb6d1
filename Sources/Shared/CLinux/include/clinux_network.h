// What Swift's Glibc module lacks for network namespaces and event loops.
#pragma once
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clinux_constants.h"

/// setns(2) of the calling thread into the network namespace of `descriptor`. -1 and errno on failure.
static inline int clinux_enter_network_namespace(int descriptor) { return (int)syscall(SYS_setns, descriptor, CLINUX_CLONE_NEWNET); }
/// unshare(2): gives the calling thread a new network namespace. -1 and errno on failure.
static inline int clinux_new_network_namespace(void) { return (int)syscall(SYS_unshare, CLINUX_CLONE_NEWNET); }
/// Names the calling thread; the kernel keeps 15 bytes.
static inline void clinux_name_thread(const char *name) { prctl(PR_SET_NAME, (unsigned long)name, 0, 0, 0); }
