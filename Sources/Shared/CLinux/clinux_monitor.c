// What orch-init needs of the C library and Embedded Swift cannot say: paths put together, small files, the OOM counter.
#define _GNU_SOURCE
#include "clinux.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

int clinux_make_pipe(int *read_end, int *write_end) {
  int ends[2];
  int r = clinux_pipe(ends, 0);
  *read_end = ends[0];
  *write_end = ends[1];
  return r;
}
int clinux_unread_max(int fd) {
  // Of a terminal the kernel holds less (drivers/tty/pty.c, pty_common_install; N_TTY_BUF_SIZE).
  int size = fcntl(fd, F_GETPIPE_SZ);
  return size > 0 ? size : 1 << 17;
}
int clinux_terminal_peer(int master) { return ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC); }
int clinux_write_byte(int fd, uint8_t byte) { return (int)write(fd, &byte, 1); }
int clinux_save(const char *folder, const char *name, const void *bytes, size_t count) {
  char temporary[4096], final[4096];
  if (strlen(folder) + strlen(name) + 8 > sizeof final) return -ENAMETOOLONG;
  strcat(strcat(strcpy(final, folder), "/"), name);
  strcat(strcpy(temporary, final), ".tmp");
  int fd = clinux_open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) return fd;
  ssize_t n = write(fd, bytes, count);
  close(fd);
  if (n != (ssize_t)count) return -EIO;
  return rename(temporary, final) < 0 ? -errno : 0;
}
static void numbered(char *to, const char *path, int number) {
  char digits[12];
  int k = 11;
  strcpy(to, path);
  if (!number) return;
  digits[k] = 0;
  for (int v = number; v; v /= 10) digits[--k] = (char)('0' + v % 10);
  strcat(strcat(to, "."), digits + k);
}
int clinux_rotate(int fd, const char *path, int files) {
  char from[4096], to[4096];
  if (strlen(path) > 4000) return fd;
  if (files <= 1) unlink(path);
  for (int i = files - 1; i >= 1; i--) {
    numbered(from, path, i - 1);
    numbered(to, path, i);
    rename(from, to);
  }
  int next = clinux_open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (next < 0) return fd;
  if (fd >= 0) close(fd);
  return next;
}
uint64_t clinux_oom_kills(const char *path) {
  char text[2048];
  if (!*path) return 0;
  int fd = clinux_open(path, O_RDONLY, 0);
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return 0;
  text[n] = 0;
  char *at = strstr(text, "oom_kill ");
  return at ? strtoull(at + 9, NULL, 10) : 0;
}

static int attach_socket(const char *folder, int listens) {
  // By the folder's descriptor: a path is longer than the 107 bytes that an address holds.
  int at = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (at < 0) return -errno;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/attach", at);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (listens ? SOCK_NONBLOCK : 0), 0), error = errno;
  int r = fd < 0 ? -1 : listens ? bind(fd, (struct sockaddr *)&address, sizeof address) : connect(fd, (struct sockaddr *)&address, sizeof address);
  if (r == 0 && listens) r = listen(fd, 4);
  if (fd >= 0 && r < 0) {
    error = errno;
    close(fd);
  }
  close(at);
  return r < 0 ? -error : fd;
}
int clinux_attach_listen(const char *folder) { return attach_socket(folder, 1); }
int clinux_attach_connect(const char *folder) { return attach_socket(folder, 0); }
int clinux_accept(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  return fd < 0 ? -errno : fd;
}
ssize_t clinux_send_record(int socket, uint8_t kind, const void *bytes, size_t count) {
  struct iovec parts[2] = {{&kind, 1}, {(void *)bytes, count}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  ssize_t n;
  do n = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT); while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}
int64_t clinux_monotonic_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
