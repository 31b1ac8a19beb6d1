// Traffic for bench.py, the same for orch and for what it is compared with.
// traffic server PORT                      echoes TCP and UDP until killed
// traffic rtt tcp|udp ADDRESS PORT SECONDS   64 bytes to and fro, one at a time; prints: trips/s p50 p99 (us)
// traffic stream ADDRESS PORT SECONDS      as much as comes back, 256 KB on the way; prints: Gbit/s each way
// traffic connect ADDRESS PORT SECONDS WORKERS   connect, 1 byte to and fro, reset; prints: connections/s p50 p99 (us)
// traffic answer ADDRESS PORT              answers every DNS question with 10.99.0.1 until killed: what a resolver costs that does nothing else
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static void die(const char *what) { perror(what); exit(1); }
static struct sockaddr_in at(const char *address, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, address, &a.sin_addr);
  return a;
}
static void patient(int s) { struct timeval t = {2, 0}; setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t); setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t); }

static int whole(int s, const char *bytes, ssize_t n) {
  while (n > 0) {
    ssize_t sent = write(s, bytes, n);
    if (sent < 0 && errno == EAGAIN) { poll(&(struct pollfd){s, POLLOUT, 0}, 1, 2000); continue; }
    if (sent <= 0) return 0;
    bytes += sent, n -= sent;
  }
  return 1;
}

static void server(int port) {
  int on = 1, tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), e = epoll_create1(0);
  struct sockaddr_in a = at("0.0.0.0", port);
  setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(tcp, (void *)&a, sizeof a) || listen(tcp, 4096) || bind(udp, (void *)&a, sizeof a)) die("bind");
  struct epoll_event v = {.events = EPOLLIN, .data.fd = tcp}, events[64];
  epoll_ctl(e, EPOLL_CTL_ADD, tcp, &v);
  v.data.fd = udp;
  epoll_ctl(e, EPOLL_CTL_ADD, udp, &v);
  char bytes[65536];
  for (;;) {
    int count = epoll_wait(e, events, 64, -1);
    for (int i = 0; i < count; i++) {
      int s = events[i].data.fd;
      if (s == tcp) {
        for (int c; (c = accept4(tcp, 0, 0, SOCK_NONBLOCK)) >= 0;) {
          setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
          v.data.fd = c;
          epoll_ctl(e, EPOLL_CTL_ADD, c, &v);
        }
      } else if (s == udp) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t n;
        while (size = sizeof from, (n = recvfrom(udp, bytes, sizeof bytes, 0, (void *)&from, &size)) >= 0) sendto(udp, bytes, n, 0, (void *)&from, size);
      } else {
        ssize_t n = read(s, bytes, sizeof bytes);
        if (n <= 0 && !(n < 0 && errno == EAGAIN)) close(s);
        else if (n > 0 && !whole(s, bytes, n)) close(s);
      }
    }
  }
}

enum { MOST = 2000000 };
static int order(const void *a, const void *b) { float x = *(const float *)a, y = *(const float *)b; return (x > y) - (x < y); }
static void tell(float *times, long count, double seconds) {
  if (count == 0) { fprintf(stderr, "nothing came back\n"); exit(1); }
  qsort(times, count, sizeof *times, order);
  printf("%.1f %.1f %.1f\n", count / seconds, times[count / 2], times[count * 99 / 100]);
}

static void answer(const char *address, int port) {
  int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), e = epoll_create1(0), room = 1 << 20;
  struct sockaddr_in a = at(address, port), asker;
  setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  if (bind(s, (void *)&a, sizeof a)) die("bind");
  struct epoll_event v = {.events = EPOLLIN, .data.fd = s};
  epoll_ctl(e, EPOLL_CTL_ADD, s, &v);
  // The question's name, A, IN, a second, four bytes.
  const unsigned char record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 99, 0, 1};
  unsigned char bytes[4096];
  while (epoll_wait(e, &v, 1, -1) > 0) {
    for (int i = 0; i < 64; i++) {
      socklen_t size = sizeof asker;
      ssize_t count = recvfrom(s, bytes, 2048, 0, (void *)&asker, &size);
      if (count < 12) break;
      size_t end = 12;
      while (end < (size_t)count && bytes[end]) end += bytes[end] + 1;
      end += 5;
      if (end > (size_t)count) continue;
      // Answer, authoritative, recursion as asked and available; one answer, no EDNS.
      bytes[2] = 0x84 | (bytes[2] & 1), bytes[3] = 0x80, bytes[7] = 1, bytes[11] = 0;
      memcpy(bytes + end, record, sizeof record);
      sendto(s, bytes, end + sizeof record, MSG_DONTWAIT, (void *)&asker, size);
    }
  }
}

int main(int n, char **v) {
  if (n == 4 && !strcmp(v[1], "answer")) answer(v[2], atoi(v[3]));
  if (n == 3 && !strcmp(v[1], "server")) server(atoi(v[2]));
  if (n == 6 && !strcmp(v[1], "rtt")) {
    int udp = !strcmp(v[2], "udp"), on = 1, s = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
    struct sockaddr_in a = at(v[3], atoi(v[4]));
    patient(s);
    if (connect(s, (void *)&a, sizeof a)) die("connect");
    if (!udp) setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    float *times = malloc(MOST * sizeof *times);
    char bytes[64] = {0};
    long count = 0;
    double begin = now(), end = begin + atof(v[5]), t = begin;
    while (t < end && count < MOST) {
      if (send(s, bytes, 64, 0) != 64 || recv(s, bytes, 64, udp ? 0 : MSG_WAITALL) != 64) die("trip");
      double u = now();
      times[count++] = (u - t) * 1e6;
      t = u;
    }
    tell(times, count, t - begin);
    return 0;
  }
  if (n == 5 && !strcmp(v[1], "stream")) {
    // All that is on its way has room here, so that neither side waits for the other for ever.
    enum { PIECE = 32768, MOST_ON_THE_WAY = 8 * PIECE };
    int room = 4 * MOST_ON_THE_WAY, s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = at(v[2], atoi(v[3]));
    patient(s);
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (connect(s, (void *)&a, sizeof a)) die("connect");
    static char bytes[PIECE];
    double begin = now(), end = begin + atof(v[4]);
    long sent = 0, back = 0;
    while (now() < end) {
      while (sent - back <= MOST_ON_THE_WAY - PIECE) {
        if (!whole(s, bytes, PIECE)) die("send");
        sent += PIECE;
      }
      ssize_t got = recv(s, bytes, PIECE, 0);
      if (got <= 0) die("receive");
      back += got;
    }
    printf("%.4f\n", back * 8 / (now() - begin) / 1e9);
    return 0;
  }
  if (n == 6 && !strcmp(v[1], "connect")) {
    int workers = atoi(v[5]);
    struct sockaddr_in a = at(v[2], atoi(v[3]));
    long each = MOST / workers;
    float *times = mmap(0, MOST * sizeof *times, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long *counts = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double seconds = atof(v[4]), begin = now();
    for (int w = 0; w < workers; w++) {
      if (fork() == 0) {
        struct linger reset = {1, 0};
        char byte = 1;
        for (double t = now(); t < begin + seconds && counts[w] < each;) {
          int s = socket(AF_INET, SOCK_STREAM, 0);
          patient(s);
          setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
          if (connect(s, (void *)&a, sizeof a) || send(s, &byte, 1, 0) != 1 || recv(s, &byte, 1, 0) != 1) die("connection");
          close(s);
          double u = now();
          times[w * each + counts[w]++] = (u - t) * 1e6;
          t = u;
        }
        _exit(0);
      }
    }
    int status, failed = 0;
    while (wait(&status) > 0) failed |= status;
    if (failed) return 1;
    double took = now() - begin;
    long count = 0;
    for (int w = 0; w < workers; w++) { memmove(times + count, times + w * each, counts[w] * sizeof *times); count += counts[w]; }
    tell(times, count, took);
    return 0;
  }
  fprintf(stderr, "usage: traffic server PORT | answer ADDRESS PORT | rtt tcp|udp ADDRESS PORT SECONDS | stream ADDRESS PORT SECONDS | connect ADDRESS PORT SECONDS WORKERS\n");
  return 2;
}
