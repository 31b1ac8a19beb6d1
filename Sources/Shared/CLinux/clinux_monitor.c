// What orch-init needs of the C library and Embedded Swift cannot say: paths put together, small files, the OOM counter.
#define _GNU_SOURCE
#include "clinux.h"
#include <errno.h>
#include <stdio.h>

int clinux_make_pipe(int *read_end, int *write_end) {
  int ends[2];
  int r = clinux_pipe(ends, 0);
  *read_end = ends[0];
  *write_end = ends[1];
  return r;
}
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
