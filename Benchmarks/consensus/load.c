// load: the clients of both systems, so that neither pays for its own client library.
//
//   load etcd HOST:PORT write|read|fill CLIENTS SECONDS [FOLDER]  (fill: every key once, not measured; FOLDER: node.pem, node.key, for TLS)
//   load orch HOST:PORT write|read|fill CLIENTS SECONDS FOLDER
//
// One thread, epoll, min(CLIENTS, 100) connections (etcd's own published benchmark: 100 connections for 1,000 clients); each client has
// one request under way. 10,000 keys at random, values of 256 bytes. Two seconds of warming up are not counted.
//   etcd: gRPC's KV/Put and KV/Range (linearizable) in HTTP/2 frames made by hand (RFC 9113; headers indexed after the first request,
//         RFC 7541), which cost less than any client library; with a FOLDER over TLS 1.3 with a client's certificate, else without TLS.
//   orch: frames over TLS 1.3 with a client's certificate, a stream for each request, as its daemons call each other.
// Prints: requests/s, p50, p99, worst in ms, failed requests, CPU seconds of this program per second.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { KEYS = 10000, VALUE = 256, WARM_UP = 2 };

typedef struct {
  uint8_t *bytes;
  size_t used, room;
} Buffer;

typedef struct {
  uint32_t id;  // of the stream
  double began;
  bool answered;
} Client;

typedef struct {
  int fd;
  SSL *tls;
  Buffer in, out;
  size_t sent;
  uint32_t next_stream;
  bool indexed;        // HTTP/2: the headers are in the server's table
  uint32_t unreturned; // HTTP/2: received bytes that the server has no credit for yet
  Client *clients;
  int count;
  int *slots;  // a stream's client: (id / 2) modulo SLOTS; the streams under way are far fewer
} Connection;
enum { SLOTS = 4096 };

static bool is_etcd, is_write, is_fill;
static unsigned filled, fill_answers;
static double counting_from;
static double *times;
static size_t samples, failures;
static char *authority;

static void die(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

static uint64_t random_state = 88172645463325252u;
static uint64_t random_number(void) {  // xorshift64 (Marsaglia 2003)
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

// --- bytes

static void put(Buffer *buffer, const void *bytes, size_t count) {
  if (buffer->used + count > buffer->room) {
    buffer->room = (buffer->used + count) * 2;
    buffer->bytes = realloc(buffer->bytes, buffer->room);
    if (!buffer->bytes) die("memory");
  }
  memcpy(buffer->bytes + buffer->used, bytes, count);
  buffer->used += count;
}
static void put_byte(Buffer *buffer, uint8_t byte) { put(buffer, &byte, 1); }
static void put_big32(Buffer *buffer, uint32_t value) {
  uint32_t big = htonl(value);
  put(buffer, &big, 4);
}
static size_t varint(uint8_t *to, uint64_t value) {
  size_t count = 0;
  while (value > 127) {
    to[count++] = value | 128;
    value >>= 7;
  }
  to[count++] = value;
  return count;
}
static size_t text_field(uint8_t *to, uint8_t tag, const void *bytes, size_t length) {
  to[0] = tag;
  size_t at = 1 + varint(to + 1, length);
  memcpy(to + at, bytes, length);
  return at + length;
}

/// {1: key, 2: value} in protobuf: etcd's PutRequest and RangeRequest, and what orch's benchmark member takes.
static size_t request(uint8_t *to) {
  char key[32];
  static char value[VALUE];
  size_t length = snprintf(key, sizeof key, "volume%05u", is_fill ? filled++ % KEYS : (unsigned)(random_number() % KEYS));
  size_t at = text_field(to, 0x0a, key, length);
  if (is_write) {
    memset(value, 'a' + random_number() % 26, VALUE);
    at += text_field(to + at, 0x12, value, VALUE);
  }
  return at;
}

// --- etcd: HTTP/2

static void http2_frame(Buffer *out, size_t length, uint8_t type, uint8_t flags, uint32_t stream) {
  uint8_t head[9] = {length >> 16, length >> 8, length, type, flags, stream >> 24, stream >> 16, stream >> 8, stream};
  put(out, head, 9);
}

static void http2_hello(Connection *c) {
  put(&c->out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
  http2_frame(&c->out, 0, 4, 0, 0);
  http2_frame(&c->out, 4, 8, 0, 0);
  put_big32(&c->out, 0x3fffffff);  // WINDOW_UPDATE: the server may send a gigabyte ahead
  c->next_stream = 1;
}

static void http2_request(Connection *c, uint32_t id) {
  const uint8_t again[] = {0x83, c->tls ? 0x87 : 0x86, 0xc1, 0xc0, 0xbf, 0xbe};
  uint8_t first[256], body[512];
  size_t length = 0;
  if (!c->indexed) {
    const char *path = is_write ? "/etcdserverpb.KV/Put" : "/etcdserverpb.KV/Range";
    first[length++] = 0x83;  // :method POST
    first[length++] = c->tls ? 0x87 : 0x86;  // :scheme https or http
    length += text_field(first + length, 0x44, path, strlen(path));
    length += text_field(first + length, 0x41, authority, strlen(authority));
    length += text_field(first + length, 0x5f, "application/grpc", 16);
    memcpy(first + length, "\x40\x02te\x08trailers", 13);
    length += 13;
    c->indexed = true;
    http2_frame(&c->out, length, 1, 4, id);
    put(&c->out, first, length);
  } else {
    http2_frame(&c->out, sizeof again, 1, 4, id);
    put(&c->out, again, sizeof again);
  }
  length = request(body);
  http2_frame(&c->out, length + 5, 0, 1, id);
  put_byte(&c->out, 0);
  put_big32(&c->out, length);
  put(&c->out, body, length);
}

// --- orch: frames (Sources/Shared/Wire/Protos/frame.proto)

static void orch_frame(Buffer *out, const uint8_t *bytes, size_t length) {
  put_big32(out, length);
  put(out, bytes, length);
}

static void orch_hello(Connection *c) {
  orch_frame(&c->out, (uint8_t[]){0x48, 1}, 2);  // kind HELLO (0), version 1
  c->next_stream = 1;
}

static void orch_request(Connection *c, uint32_t id) {
  uint8_t frame[640], body[512];
  size_t length = request(body), at = 0;
  frame[at++] = 0x08;
  frame[at++] = 1;  // OPEN
  frame[at++] = 0x10;
  at += varint(frame + at, id);
  const char *method = is_write ? "bench.write" : "bench.read";
  at += text_field(frame + at, 0x1a, method, strlen(method));
  at += text_field(frame + at, 0x22, body, length);
  memcpy(frame + at, "\x28\x01\x30\x01", 4);  // with payload, end
  orch_frame(&c->out, frame, at + 4);
}

// --- clients

static void ask(Connection *c, Client *client) {
  client->id = c->next_stream;
  client->began = now();
  client->answered = false;
  c->next_stream += 2;
  c->slots[client->id / 2 % SLOTS] = client - c->clients;
  if (is_etcd) http2_request(c, client->id); else orch_request(c, client->id);
}

static Client *client_of(Connection *c, uint32_t id) {
  Client *client = &c->clients[c->slots[id / 2 % SLOTS]];
  return client->id == id ? client : NULL;
}

static void answered(Connection *c, Client *client, bool well) {
  double at = now();
  fill_answers += well;
  if (client->began >= counting_from) {
    if (well) times[samples++] = at - client->began; else failures++;
  }
  ask(c, client);
}

static size_t read_http2(Connection *c, const uint8_t *at, size_t count) {
  if (count < 9) return 0;
  size_t length = at[0] << 16 | at[1] << 8 | at[2];
  if (count < 9 + length) return 0;
  uint8_t type = at[3], flags = at[4];
  uint32_t id = ntohl(*(uint32_t *)(at + 5)) & 0x7fffffff;
  if (type == 4 && !(flags & 1)) http2_frame(&c->out, 0, 4, 1, 0);
  if (type == 6 && !(flags & 1)) {
    http2_frame(&c->out, 8, 6, 1, 0);
    put(&c->out, at + 9, 8);
  }
  if (type == 7) die("etcd says goodbye");
  Client *client = id ? client_of(c, id) : NULL;
  if (type == 0) {
    c->unreturned += length;
    if (c->unreturned > 1 << 24) {
      http2_frame(&c->out, 4, 8, 0, 0);
      put_big32(&c->out, c->unreturned);
      c->unreturned = 0;
    }
    // An error comes without a message: trailers alone. A value that was found is longer than its size.
    if (client) client->answered = is_write ? length > 5 : length > VALUE;
  }
  if (client && ((type == 3) || ((type == 0 || type == 1) && flags & 1))) answered(c, client, client->answered && type != 3);
  return 9 + length;
}

static size_t read_orch(Connection *c, const uint8_t *at, size_t count) {
  if (count < 4) return 0;
  size_t length = ntohl(*(uint32_t *)at);
  if (count < 4 + length) return 0;
  const uint8_t *end = at + 4 + length, *p = at + 4;
  uint64_t kind = 0, stream = 0, payload = 0;
  while (p < end) {
    uint8_t tag = *p++;
    uint64_t value = 0;
    for (int shift = 0; p < end; shift += 7) {
      uint8_t byte = *p++;
      value |= (uint64_t)(byte & 127) << shift;
      if (!(byte & 128)) break;
    }
    if (tag == 0x08) kind = value;
    if (tag == 0x10) stream = value;
    if (tag == 0x22) payload = value;
    if ((tag & 7) == 2) {
      if (kind == 4 && failures < 3) fprintf(stderr, "load: orch refused: %.*s\n", (int)value, (const char *)p);
      p += value;
    }
  }
  Client *client = stream ? client_of(c, stream) : NULL;
  if (client && (kind == 2 || kind == 3 || kind == 4)) answered(c, client, kind == 2 && (is_write || payload >= VALUE));
  return 4 + length;
}

// --- connections

static void flush(Connection *c, int epoll) {
  while (c->sent < c->out.used) {
    ssize_t count;
    if (c->tls) {
      count = SSL_write(c->tls, c->out.bytes + c->sent, c->out.used - c->sent);
      if (count <= 0 && SSL_get_error(c->tls, count) == SSL_ERROR_WANT_WRITE) break;
    } else {
      count = write(c->fd, c->out.bytes + c->sent, c->out.used - c->sent);
      if (count < 0 && errno == EAGAIN) break;
    }
    if (count <= 0) die("send");
    c->sent += count;
  }
  bool all = c->sent == c->out.used;
  if (all) c->sent = c->out.used = 0;
  struct epoll_event event = {.events = EPOLLIN | (all ? 0 : EPOLLOUT), .data.ptr = c};
  if (!all) epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

static void receive(Connection *c) {
  for (;;) {
    if (c->in.room - c->in.used < 1 << 16) {
      c->in.room = c->in.used + (1 << 17);
      c->in.bytes = realloc(c->in.bytes, c->in.room);
    }
    ssize_t count;
    if (c->tls) {
      count = SSL_read(c->tls, c->in.bytes + c->in.used, c->in.room - c->in.used);
      if (count <= 0 && SSL_get_error(c->tls, count) == SSL_ERROR_WANT_READ) break;
    } else {
      count = read(c->fd, c->in.bytes + c->in.used, c->in.room - c->in.used);
      if (count < 0 && errno == EAGAIN) break;
    }
    if (count <= 0) {
      errno = count < 0 ? errno : ECONNRESET;
      die("receive");
    }
    c->in.used += count;
    size_t at = 0, taken;
    while ((taken = (is_etcd ? read_http2 : read_orch)(c, c->in.bytes + at, c->in.used - at))) at += taken;
    memmove(c->in.bytes, c->in.bytes + at, c->in.used - at);
    c->in.used -= at;
    // Without TLS a short read has emptied the socket.
    if (!c->tls && count < 1 << 16) break;
  }
}

static void dial(Connection *c, struct sockaddr_in *address, SSL_CTX *tls) {
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(c->fd, (struct sockaddr *)address, sizeof *address)) die("connect");
  if (tls) {
    c->tls = SSL_new(tls);
    SSL_set_fd(c->tls, c->fd);
    if (SSL_connect(c->tls) != 1) die("TLS");
  }
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  c->slots = calloc(SLOTS, sizeof *c->slots);
  if (is_etcd) http2_hello(c); else orch_hello(c);
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

int main(int count, char **arguments) {
  if (count < 6 || (count < 7 && strcmp(arguments[1], "etcd"))) {
    fprintf(stderr, "usage: load etcd|orch HOST:PORT write|read|fill CLIENTS SECONDS [FOLDER]\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  is_etcd = !strcmp(arguments[1], "etcd");
  is_fill = !strcmp(arguments[3], "fill");
  is_write = is_fill || !strcmp(arguments[3], "write");
  authority = strdup(arguments[2]);
  char *colon = strchr(arguments[2], ':');
  *colon = 0;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1))};
  inet_pton(AF_INET, arguments[2], &address.sin_addr);
  int clients = atoi(arguments[4]), connections = clients < 100 ? clients : 100;
  double duration = atof(arguments[5]);
  SSL_CTX *tls = NULL;
  if (count > 6) {
    char path[4096];
    tls = SSL_CTX_new(TLS_client_method());
    if (is_etcd) SSL_CTX_set_alpn_protos(tls, (const uint8_t *)"\x02h2", 3);
    SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    snprintf(path, sizeof path, "%s/node.pem", arguments[6]);
    if (SSL_CTX_use_certificate_chain_file(tls, path) != 1) die(path);
    snprintf(path, sizeof path, "%s/node.key", arguments[6]);
    if (SSL_CTX_use_PrivateKey_file(tls, path, SSL_FILETYPE_PEM) != 1) die(path);
  }
  random_state ^= (uint64_t)getpid() << 32 ^ (uint64_t)(now() * 1e9);
  times = malloc(sizeof *times * (size_t)(duration * 400000 + 100000));
  int epoll = epoll_create1(0);
  Connection *all = calloc(connections, sizeof *all);
  for (int i = 0; i < connections; i++) {
    Connection *c = &all[i];
    dial(c, &address, tls);
    c->count = clients / connections + (i < clients % connections);
    c->clients = calloc(c->count, sizeof *c->clients);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
  }
  counting_from = now() + WARM_UP;
  double end = counting_from + duration, pulse = now() + 1;
  for (int i = 0; i < connections; i++) {
    for (int j = 0; j < all[i].count; j++) ask(&all[i], &all[i].clients[j]);
    flush(&all[i], epoll);
  }
  struct epoll_event events[128];
  struct rusage before = {0}, after;
  bool counting = false;
  while (is_fill ? fill_answers < KEYS + 1000 : now() < end) {
    int ready = epoll_wait(epoll, events, 128, 100);
    for (int i = 0; i < ready; i++) {
      Connection *c = events[i].data.ptr;
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
      if (events[i].events & EPOLLOUT) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
      }
      flush(c, epoll);
    }
    if (!counting && now() >= counting_from) {
      getrusage(RUSAGE_SELF, &before);
      counting = true;
    }
    if (!is_etcd && now() > pulse) {
      // A silent side is taken for dead (Transport's Limits.silentSeconds).
      for (int i = 0; i < connections; i++) {
        orch_frame(&all[i].out, (uint8_t[]){0x08, 6}, 2);
        flush(&all[i], epoll);
      }
      pulse += 1;
    }
  }
  if (is_fill) return 0;
  getrusage(RUSAGE_SELF, &after);
  double cpu = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) + (after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
               ((after.ru_utime.tv_usec - before.ru_utime.tv_usec) + (after.ru_stime.tv_usec - before.ru_stime.tv_usec)) * 1e-6;
  if (!samples) {
    fprintf(stderr, "load: nothing was answered (%zu failures)\n", failures);
    return 1;
  }
  qsort(times, samples, sizeof *times, ascending);
  printf("%.0f %.3f %.3f %.3f %zu %.2f\n", samples / duration, times[samples / 2] * 1e3, times[samples * 99 / 100] * 1e3,
         times[samples - 1] * 1e3, failures, cpu / duration);
  return 0;
}
