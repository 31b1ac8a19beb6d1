// responder: the sample images' HTTP server. One process, one thread, no dependencies; linked statically.
//
// GET /        service, task, host, version: a line each ("task: 4f2a...")
// GET /health  200 "ok", not logged
// GET /exit/N  answers, then exits with status N
//
// Environment: PORT (80), VERSION, SERVICE, TASK, HOST (default of each of the last three: the hostname),
// START_DELAY (seconds before it listens), EXIT_AFTER (seconds; then exits with EXIT_CODE, 1 by default), STOP_DELAY (seconds SIGTERM takes).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *setting(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value && *value ? value : otherwise;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void say(const char *what) {
  printf("%s\n", what);
  fflush(stdout);
}

// Waits for SIGTERM or SIGINT; true when one came.
static int stopped(int signals, double seconds) {
  struct pollfd entry = {signals, POLLIN, 0};
  return poll(&entry, 1, seconds < 0 ? 0 : (int)(seconds * 1000)) > 0;
}

static void answer(int client, const char *host, const char *version) {
  struct timeval limit = {2, 0};
  setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  char request[4096], body[1024], reply[2048];
  size_t length = 0;
  while (length < sizeof request - 1) {
    ssize_t count = read(client, request + length, sizeof request - 1 - length);
    if (count <= 0) break;
    length += count;
    request[length] = 0;
    if (strstr(request, "\r\n\r\n") || strstr(request, "\n\n")) break;
  }
  request[length] = 0;
  char path[256] = "";
  if (sscanf(request, "%*15s %255s", path) != 1) { close(client); return; }

  const char *status = "200 OK";
  int leave = -1;
  if (!strcmp(path, "/health")) snprintf(body, sizeof body, "ok\n");
  else if (!strncmp(path, "/exit/", 6)) { leave = atoi(path + 6) & 255; snprintf(body, sizeof body, "exit %d\n", leave); }
  else if (!strcmp(path, "/"))
    snprintf(body, sizeof body, "service: %s\ntask: %s\nhost: %s\nversion: %s\n", setting("SERVICE", host), setting("TASK", host), setting("HOST", host), version);
  else { status = "404 Not Found"; snprintf(body, sizeof body, "there is no %s\n", path); }

  int size = snprintf(reply, sizeof reply, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                      status, strlen(body), strncmp(request, "HEAD ", 5) ? body : "");
  if (write(client, reply, size) < 0) perror("write");
  shutdown(client, SHUT_WR);
  close(client);
  if (strcmp(path, "/health")) printf("%s %s\n", path, status);
  fflush(stdout);
  if (leave >= 0) exit(leave);
}

int main(void) {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  const char *version = setting("VERSION", "0");
  double born = now(), life = atof(setting("EXIT_AFTER", "0"));

  // PID 1 gets no default action for SIGTERM, so it is taken from a descriptor.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, NULL);
  signal(SIGPIPE, SIG_IGN);
  int signals = signalfd(-1, &set, SFD_CLOEXEC);
  if (stopped(signals, atof(setting("START_DELAY", "0")))) return 0;

  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(setting("PORT", "80"))), .sin_addr.s_addr = INADDR_ANY};
  if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 512) < 0) {
    perror("listen");
    return 1;
  }
  printf("version %s listens on port %s\n", version, setting("PORT", "80"));
  fflush(stdout);

  for (;;) {
    struct pollfd entries[2] = {{signals, POLLIN, 0}, {listener, POLLIN, 0}};
    double left = life > 0 ? life - (now() - born) : 3600;
    if (life > 0 && left <= 0) { say("the time is up"); return atoi(setting("EXIT_CODE", "1")); }
    if (poll(entries, 2, (int)(left * 1000) + 1) < 0 && errno != EINTR) return 1;
    if (entries[0].revents) {
      double delay = atof(setting("STOP_DELAY", "0"));
      say("stopping");
      if (delay > 0) usleep((useconds_t)(delay * 1e6));
      // Who is connected already and waits in the listener's queue would be reset by its end: answered first.
      fcntl(listener, F_SETFL, O_NONBLOCK);
      for (int client; (client = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0;) answer(client, host, version);
      return 0;
    }
    if (entries[1].revents) {
      int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
      if (client >= 0) answer(client, host, version);
    }
  }
}
