/*
 * bank: the workload of the test guest. VM i of N holds accounts and moves money to the N - 1 others over one long-lived
 * TCP connection per ordered pair (i to j). What it is for: to show that a group of VMs that was cut, killed and resumed
 * lost nothing. Three things make it a hard witness:
 *
 *   1. Every transfer has a number. The receiver counts numbers that are missing (gaps) or come again (doubles), over
 *      the life of the channel and not of the connection, so a broken connection cannot hide what it lost.
 *   2. `audit ID` on the console stops this VM's own transfers and sends a MARK on each outgoing connection. TCP is in
 *      order, so once the MARKs of all others are in, nothing is in flight to this VM; then it prints AUDIT. The sum of
 *      `money` over all AUDIT lines must be the money the banks started with (Chandy-Lamport with empty channels).
 *   3. The nonce is made at boot and lives in RAM only: the same nonce later means a resume and not a reboot.
 *
 * Silence (stallMs) is the longest time an established incoming connection brought nothing, by the guest's own
 * CLOCK_MONOTONIC; from a MARK until the next transfer the sender is silent on purpose and that is not counted.
 * The guest's clock stands still while the VM does: an outage as seen from outside is measured outside.
 *
 * Arguments are `name=value` words, unknown ones are ignored, so that init can pass the kernel's whole command line:
 *   vm=1 vms=3 net=10.9.0. accounts=64 money=1000 intervalUs=5000 burst=1 dirty=0 dirtyMiB=16 disk=0 beatMs=0
 * `dirty`: pages of `dirtyMiB` written a second; `disk`: blocks of /dev/vda written and read a second, past the page cache.
 * `beatMs`: so often a number that only grows is broadcast by the second NIC, for whoever listens outside (struct beat).
 *
 * `tcp ID` prints how often a timer of this VM's TCP has ended without an acknowledgement since it booted, and how often another
 * one's TCP has told it that it had what came once more (duplicate SACK, RFC 2883): such a timeout no lost frame has caused.
 *
 * Console lines end in ` sum=` and the FNV-1a hash of what stands before: a line torn by a crash and glued to what a
 * resumed VM prints next must not pass for a line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAX_VMS 64
#define MAX_ACCOUNTS 65536
#define PORT 7000
#define OUT_BYTES 65536
#define CONNECT_TIMEOUT_MS 400 /* a SYN lost while the other boots would be sent again after 1, 3, 7 s only */
#define RETRY_MS 100
#define REPORT_MS 250
#define MAGIC 0x4b4e4142u
#define BLOCK 4096
#define MOST_BEHIND_MS 1e3

enum kind { HELLO = 1, TRANSFER = 2, MARK = 3 };

/* On the wire as in memory (x86-64, little endian), 40 bytes. MARK carries the audit's id in `seq`. */
struct record {
  uint32_t magic, kind;
  uint64_t seq;
  uint32_t from, to;
  int64_t amount;
  uint64_t check;
};

/* By UDP from no address to all, so that nobody need be asked for one. `seq` grows by 1 for as long as this memory lives. */
#define BEAT_PORT 7001
#define BEAT_MAGIC 0x54414542u
struct beat {
  uint32_t magic, vm;
  uint64_t nonce, seq;
};

enum state { IDLE, CONNECTING, UP };

struct outgoing {
  int fd;
  enum state state;
  double since; /* of the state, ms */
  uint64_t seq; /* of the next transfer = transfers sent */
  int64_t sum;
  uint64_t written; /* bytes taken by the kernel: modulo the record's size, how much of the first record is gone */
  size_t used;
  char bytes[OUT_BYTES];
};

struct incoming {
  int fd; /* -1: none */
  uint64_t expected; /* number of the next transfer = transfers received */
  int64_t sum;
  uint64_t marked; /* id of the last MARK */
  double last;     /* when data came last, ms; < 0 while the sender is silent on purpose */
};

/* An accepted connection; `from` is 0 until its HELLO has told. */
struct accepted {
  int fd;
  int from;
  size_t used;
  char bytes[8192];
};

static int self = 1, total = 1, accounts = 64;
static char net[32] = "10.9.0.";
static int64_t money = 1000, interval_us = 5000, burst = 1, dirty_rate, dirty_mib = 16, disk_rate, beat_ms;
static int64_t balance[MAX_ACCOUNTS];
static struct outgoing out[MAX_VMS + 1];
static struct incoming in[MAX_VMS + 1];
static struct accepted conn[2 * MAX_VMS];
static uint64_t gaps, doubles, broken, bad, nonce, audit_id, chance = 88172645463325252ull;
static int paused, audit_printed;
static double stall_max;
static char console[32768];
static size_t console_used;

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static uint32_t pick(uint32_t below) { /* xorshift64; never 0 for below 0 */
  chance ^= chance << 13;
  chance ^= chance >> 7;
  chance ^= chance << 17;
  return (uint32_t)((chance >> 32) * below >> 32);
}

static uint64_t fnv64(const void *data, size_t n) {
  uint64_t h = 14695981039346656037ull;
  for (const unsigned char *p = data; n--; p++) h = (h ^ *p) * 1099511628211ull;
  return h;
}

static uint32_t fnv32(const char *data, size_t n) {
  uint32_t h = 2166136261u;
  for (; n--; data++) h = (h ^ (unsigned char)*data) * 16777619u;
  return h;
}

/* ---------------------------------------------------------------------------------------------------------- console */

static void console_flush(void) {
  ssize_t n;
  while (console_used && (n = write(1, console, console_used)) > 0) {
    console_used -= n;
    memmove(console, console + n, console_used);
  }
}

/* Appends the hash and queues the line; not where it does not fit: a later one will do. */
static void console_line(char *line, size_t n, size_t size) {
  if (n + 20 > size || console_used + n + 20 > sizeof console) return;
  n += sprintf(line + n, " sum=%08x\n", fnv32(line, n));
  memcpy(console + console_used, line, n);
  console_used += n;
  console_flush();
}

static double silence(int j, double now) { return in[j].fd >= 0 && in[j].last >= 0 ? now - in[j].last : 0; }

static void report(const char *what) {
  char line[8192];
  size_t n = 0;
  int conns = 0, j;
  int64_t sum = 0;
  double now = now_ms(), stall = stall_max;
#define ADD(...) n += snprintf(line + n, n < sizeof line ? sizeof line - n : 0, __VA_ARGS__)
  for (j = 0; j < accounts; j++) sum += balance[j];
  for (j = 1; j <= total; j++) {
    if (j == self) continue;
    conns += (out[j].state == UP) + (in[j].fd >= 0);
    if (silence(j, now) > stall) stall = silence(j, now);
  }
  ADD("%s vm=%d nonce=%016" PRIx64 " uptimeMs=%.0f money=%" PRId64, what, self, nonce, now, sum);
  ADD(" sent=");
  for (j = 1; j <= total; j++)
    if (j != self) ADD("%s%d:%" PRIu64 ":%" PRId64, j > 1 + (self == 1) ? "," : "", j, out[j].seq, out[j].sum);
  ADD(total > 1 ? " recv=" : "- recv=-");
  for (j = 1; j <= total; j++)
    if (j != self) ADD("%s%d:%" PRIu64 ":%" PRId64, j > 1 + (self == 1) ? "," : "", j, in[j].expected, in[j].sum);
  ADD(" gaps=%" PRIu64 " doubles=%" PRIu64 " broken=%" PRIu64 " bad=%" PRIu64 " conns=%d stallMs=%.1f", gaps, doubles,
      broken, bad, conns, stall);
  console_line(line, n, sizeof line);
#undef ADD
}

/* A counter of TcpExt, which /proc/net/netstat has as a line of names and one of values; -1: it has none of that name. */
static long long tcp_counter(const char *wanted) {
  static char text[16384];
  int fd = open("/proc/net/netstat", O_RDONLY);
  ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
  char *values, *name, *value, *names_left, *values_left;
  if (fd >= 0) close(fd);
  text[n > 0 ? n : 0] = 0;
  if (!(values = strchr(text, '\n'))) return -1;
  *values++ = 0;
  name = strtok_r(text, " ", &names_left);
  value = strtok_r(values, " \n", &values_left);
  while (name && value && strcmp(name, wanted)) {
    name = strtok_r(0, " ", &names_left);
    value = strtok_r(0, " \n", &values_left);
  }
  return name && value ? atoll(value) : -1;
}

static void report_tcp(uint64_t id) {
  char line[128];
  size_t n = snprintf(line, sizeof line, "TCP id=%" PRIu64 " vm=%d timeouts=%lld duplicates=%lld", id, self,
                      tcp_counter("TCPTimeouts"), tcp_counter("TCPDSACKRecv"));
  console_line(line, n, sizeof line);
}

/* --------------------------------------------------------------------------------------------------------- outgoing */

static void out_close(int j, int was_up) {
  struct outgoing *o = &out[j];
  size_t rest = o->written % sizeof(struct record);
  if (o->fd >= 0) close(o->fd);
  o->fd = -1;
  o->state = IDLE;
  o->since = now_ms();
  if (!was_up) return;
  broken++;
  if (rest) { /* the other side got half a record: the half that is left means nothing on a new connection */
    rest = sizeof(struct record) - rest;
    o->used -= rest;
    memmove(o->bytes, o->bytes + rest, o->used);
  }
  o->written = 0;
}

static void out_flush(int j) {
  struct outgoing *o = &out[j];
  ssize_t n;
  if (o->state != UP || !o->used) return;
  n = send(o->fd, o->bytes, o->used, MSG_NOSIGNAL);
  if (n > 0) {
    o->written += n;
    o->used -= n;
    memmove(o->bytes, o->bytes + n, o->used);
  } else if (n < 0 && errno != EAGAIN && errno != EINTR)
    out_close(j, 1);
}

/* At the head of the queue only for HELLO, which must be the first record of a connection. */
static int queue(int j, enum kind kind, uint64_t seq, uint32_t from, uint32_t to, int64_t amount) {
  struct outgoing *o = &out[j];
  struct record r = {MAGIC, kind, seq, from, to, amount, 0};
  if (o->used + sizeof r > sizeof o->bytes) return 0;
  r.check = fnv64(&r, sizeof r - sizeof r.check);
  if (kind == HELLO) {
    memmove(o->bytes + sizeof r, o->bytes, o->used);
    memcpy(o->bytes, &r, sizeof r);
  } else
    memcpy(o->bytes + o->used, &r, sizeof r);
  o->used += sizeof r;
  return 1;
}

static void out_connect(int j) {
  struct outgoing *o = &out[j];
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  char address[64];
  int one = 1;
  snprintf(address, sizeof address, "%s%d", net, j);
  o->since = now_ms();
  if (!inet_pton(AF_INET, address, &a.sin_addr)) return;
  if ((o->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0) return;
  setsockopt(o->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(o->fd, (void *)&a, sizeof a) == 0 || errno == EINPROGRESS)
    o->state = CONNECTING;
  else
    out_close(j, 0);
}

/* `ready`: poll says so. Reading matters too: the other side never sends, so anything readable is an end or an error. */
static void out_ready(int j, int ready) {
  struct outgoing *o = &out[j];
  int error = 0;
  socklen_t size = sizeof error;
  char c;
  if (o->state == CONNECTING && ready & (POLLOUT | POLLERR | POLLHUP)) {
    getsockopt(o->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
      out_close(j, 0);
      return;
    }
    o->state = UP;
    o->written = 0;
    if (!queue(j, HELLO, 0, self, j, 0)) abort(); /* transfers leave room for it: see transfer() */
  } else if (o->state == UP && ready & (POLLIN | POLLERR | POLLHUP)) {
    if (recv(o->fd, &c, 1, 0) >= 0 || (errno != EAGAIN && errno != EINTR)) {
      out_close(j, 1);
      return;
    }
  }
  out_flush(j);
}

/* Into the queue only: several leave in one piece. */
static void transfer(int j) {
  /* Never twice the same: a VM that went back says other things than before, and who has heard those is found out. */
  chance ^= (uint64_t)(now_ms() * 1e6);
  uint32_t from = pick(accounts);
  int64_t amount = 1 + pick(100);
  /* Debited and queued in one step, so money is always in an account or in a numbered record. Half the queue at most:
     a receiver that is away for long does not make the queue grow without end. */
  if (out[j].state != UP || out[j].used > OUT_BYTES / 2) return;
  if (balance[from] < amount) amount = balance[from];
  if (amount && queue(j, TRANSFER, out[j].seq, from, pick(accounts), amount)) {
    balance[from] -= amount;
    out[j].seq++;
    out[j].sum += amount;
  }
}

/* --------------------------------------------------------------------------------------------------------- incoming */

static void check_audit(void) {
  int j;
  if (!paused || audit_printed) return;
  for (j = 1; j <= total; j++)
    if (j != self && in[j].marked < audit_id) return;
  char what[40];
  snprintf(what, sizeof what, "AUDIT id=%" PRIu64, audit_id);
  audit_printed = 1;
  report(what);
}

static void conn_close(struct accepted *c) {
  if (c->from) {
    broken++;
    if (in[c->from].fd == c->fd) in[c->from].fd = -1;
  }
  close(c->fd);
  c->fd = -1;
}

/* 0: the connection is no good. */
static int take(struct accepted *c, const struct record *r) {
  struct incoming *i;
  double now = now_ms();
  int j;
  if (r->magic != MAGIC || r->check != fnv64(r, sizeof *r - sizeof r->check)) return bad++, 0;
  if (!c->from) {
    if (r->kind != HELLO || r->from < 1 || r->from > (uint32_t)total || r->from == (uint32_t)self) return bad++, 0;
    for (j = 0; j < 2 * MAX_VMS; j++)
      if (conn[j].fd >= 0 && conn[j].from == (int)r->from) conn_close(&conn[j]);
    c->from = r->from;
    in[c->from].fd = c->fd;
    in[c->from].last = now;
    return 1;
  }
  i = &in[c->from];
  if (silence(c->from, now) > stall_max) stall_max = silence(c->from, now);
  i->last = now;
  if (r->kind == MARK) {
    i->marked = r->seq;
    i->last = -1;
    check_audit();
    return 1;
  }
  if (r->kind != TRANSFER || r->to >= (uint32_t)accounts || r->amount <= 0) return bad++, 0;
  if (r->seq < i->expected) return doubles++, 1;
  gaps += r->seq - i->expected;
  i->expected = r->seq + 1;
  i->sum += r->amount;
  balance[r->to] += r->amount;
  return 1;
}

static void conn_ready(struct accepted *c) {
  ssize_t n = recv(c->fd, c->bytes + c->used, sizeof c->bytes - c->used, 0);
  size_t at = 0;
  struct record r;
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    conn_close(c);
    return;
  }
  c->used += n;
  for (; c->used - at >= sizeof r; at += sizeof r) {
    memcpy(&r, c->bytes + at, sizeof r);
    if (!take(c, &r)) {
      conn_close(c);
      return;
    }
  }
  c->used -= at;
  memmove(c->bytes, c->bytes + at, c->used);
}

static void accept_all(int listener) {
  int fd, j;
  while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
    for (j = 0; j < 2 * MAX_VMS && conn[j].fd >= 0; j++) {}
    if (j == 2 * MAX_VMS)
      close(fd);
    else
      conn[j] = (struct accepted){.fd = fd};
  }
}

/* --------------------------------------------------------------------------------------------------------- commands */

static void command(const char *line) {
  uint64_t id;
  int j;
  if (sscanf(line, "audit %" SCNu64, &id) == 1) {
    if (id < audit_id || (id == audit_id && !paused)) return;
    /* The same id again sends the marks and prints the line again: either may have been lost with a connection. */
    audit_id = id;
    for (j = 1; j <= total; j++)
      if (j != self && queue(j, MARK, id, self, j, 0)) out_flush(j);
    paused = 1;
    audit_printed = 0;
    check_audit();
  } else if (sscanf(line, "tcp %" SCNu64, &id) == 1)
    report_tcp(id);
  else if (!strcmp(line, "go"))
    paused = 0;
  else if (!strcmp(line, "reset")) {
    stall_max = 0;
    for (j = 1; j <= total; j++)
      if (in[j].last >= 0) in[j].last = now_ms();
  }
}

static void read_commands(void) {
  static char line[128];
  static size_t used;
  char c;
  while (read(0, &c, 1) == 1) {
    if (c == '\n' || c == '\r') {
      line[used] = 0;
      if (used) command(line);
      used = 0;
    } else if (used < sizeof line - 1)
      line[used++] = c;
  }
}

/* ------------------------------------------------------------------------------------------------------------- disk */

static int disk = -1;
static uint32_t disk_blocks;
/* What each block was written with last, as RAM knows it; 0: nothing, and then the disk has zeros. */
static uint64_t *disk_stamps;

static int open_disk(void) {
  uint64_t bytes = 0;
  if (mount("devtmpfs", "/dev", "devtmpfs", 0, "") && errno != EBUSY) return -1;
  disk = open("/dev/vda", O_RDWR | O_DIRECT);
  if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes)) return -1;
  disk_blocks = (uint32_t)(bytes / BLOCK);
  disk_stamps = calloc(disk_blocks, sizeof *disk_stamps);
  return disk_stamps ? 0 : -1;
}

/*
 * Written and read by turns: what comes from a disk is written into RAM by the machine itself, not by a processor. A block that is
 * another than RAM remembers is of another moment than that: a restore that brings back RAM of one instant and the disk of another.
 */
static void use_disk(void) {
  static char block[64][BLOCK] __attribute__((aligned(BLOCK)));
  static uint32_t turn;
  char *at = block[turn++ % 64];
  uint32_t which = pick(disk_blocks);
  off_t offset = (off_t)which * BLOCK;
  if (turn % 2) {
    uint64_t stamp = chance | 1;
    for (int i = 0; i < BLOCK; i += 8) *(uint64_t *)(at + i) = stamp + (uint64_t)i;
    if (pwrite(disk, at, BLOCK, offset) == BLOCK) disk_stamps[which] = stamp;
    else bad++;
    return;
  }
  if (pread(disk, at, BLOCK, offset) != BLOCK) {
    bad++;
    return;
  }
  for (int i = 0; i < BLOCK; i += 8)
    if (*(uint64_t *)(at + i) != (disk_stamps[which] ? disk_stamps[which] + (uint64_t)i : 0)) {
      bad++;
      return;
    }
}

/* ------------------------------------------------------------------------------------------------------------- beat */

static int beats = -1;

static int open_beats(void) {
  struct ifreq r = {.ifr_name = "eth1"};
  int one = 1;
  beats = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  if (beats < 0 || ioctl(beats, SIOCGIFFLAGS, &r)) return -1;
  r.ifr_flags |= IFF_UP;
  return ioctl(beats, SIOCSIFFLAGS, &r) || setsockopt(beats, SOL_SOCKET, SO_BROADCAST, &one, sizeof one) ||
         setsockopt(beats, SOL_SOCKET, SO_BINDTODEVICE, r.ifr_name, sizeof r.ifr_name);
}

/* What does not leave is lost, as with any network: the next one comes soon. */
static void say_beat(void) {
  static uint64_t seq;
  struct sockaddr_in all = {.sin_family = AF_INET, .sin_port = htons(BEAT_PORT), .sin_addr.s_addr = INADDR_BROADCAST};
  struct beat b = {BEAT_MAGIC, (uint32_t)self, nonce, ++seq};
  if (sendto(beats, &b, sizeof b, 0, (void *)&all, sizeof all) < 0) return;
}

/* ------------------------------------------------------------------------------------------------------------- main */

static void settings(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    char *word = argv[i], *value = strchr(word, '=');
    if (!value) continue;
    *value++ = 0;
    if (!strcmp(word, "vm")) self = atoi(value);
    if (!strcmp(word, "vms")) total = atoi(value);
    if (!strcmp(word, "net")) snprintf(net, sizeof net, "%s", value);
    if (!strcmp(word, "accounts")) accounts = atoi(value);
    if (!strcmp(word, "money")) money = atoll(value);
    if (!strcmp(word, "intervalUs")) interval_us = atoll(value);
    if (!strcmp(word, "burst")) burst = atoll(value);
    if (!strcmp(word, "dirty")) dirty_rate = atoll(value);
    if (!strcmp(word, "dirtyMiB")) dirty_mib = atoll(value);
    if (!strcmp(word, "disk")) disk_rate = atoll(value);
    if (!strcmp(word, "beatMs")) beat_ms = atoll(value);
  }
  if (self < 1 || total < self || total > MAX_VMS || accounts < 1 || accounts > MAX_ACCOUNTS || interval_us < 100 ||
      burst < 1 || dirty_rate < 0 || dirty_mib < 1 || disk_rate < 0 || beat_ms < 0) {
    printf("bank: bad settings: 1 <= vm <= vms <= %d, 1 <= accounts <= %d, intervalUs >= 100, burst >= 1\n", MAX_VMS, MAX_ACCOUNTS);
    fflush(stdout);
    exit(2);
  }
}

static void raw_console(void) {
  struct termios t;
  if (tcgetattr(0, &t) == 0) {
    cfmakeraw(&t);
    tcsetattr(0, TCSANOW, &t);
  }
  fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
  fcntl(1, F_SETFL, fcntl(1, F_GETFL) | O_NONBLOCK);
}

int main(int argc, char **argv) {
  static struct pollfd p[3 + 3 * MAX_VMS];
  static int who[3 + 3 * MAX_VMS]; /* j > 0: out[j]; j < 0: conn[-j - 1] */
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  int one = 1, j, n, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  char *heap = 0;
  double next, reported = 0, dirtied, disked, beaten, interval;

  signal(SIGPIPE, SIG_IGN);
  settings(argc, argv);
  raw_console();
  if (getrandom(&nonce, sizeof nonce, GRND_NONBLOCK) != sizeof nonce || !nonce) nonce = __builtin_ia32_rdtsc();
  chance ^= nonce;
  for (j = 0; j < accounts; j++) balance[j] = money;
  for (j = 0; j <= MAX_VMS; j++) out[j].fd = in[j].fd = -1;
  for (j = 0; j < 2 * MAX_VMS; j++) conn[j].fd = -1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void *)&a, sizeof a) || listen(listener, MAX_VMS)) {
    perror("bank: listen");
    return 1;
  }
  if (dirty_rate && !(heap = malloc(dirty_mib << 20))) return 1;
  if (disk_rate && open_disk()) {
    perror("bank: /dev/vda");
    return 1;
  }
  if (beat_ms && open_beats()) {
    perror("bank: eth1");
    return 1;
  }
  for (j = 1; j <= total; j++)
    if (j != self) out_connect(j);
  interval = interval_us / 1e3;
  dirtied = disked = beaten = next = now_ms();

  for (;;) {
    double now = now_ms();
    if (now >= next) {
      next = now - next > 4 * interval ? now + interval : next + interval; /* after a pause: no burst to catch up */
      for (j = 1; j <= total; j++) {
        struct outgoing *o = &out[j];
        if (j == self) continue;
        if (o->state == CONNECTING && now - o->since > CONNECT_TIMEOUT_MS) out_close(j, 0);
        if (o->state == IDLE && now - o->since > RETRY_MS) out_connect(j);
        for (int64_t k = 0; k < burst && !paused; k++) transfer(j);
        out_flush(j);
      }
      if (total == 1 && !paused) {
        int from = pick(accounts), to = pick(accounts);
        int64_t amount = balance[from] < 5 ? balance[from] : 5;
        balance[from] -= amount;
        balance[to] += amount;
      }
      for (; heap && dirtied < now; dirtied += 1e3 / dirty_rate)
        ((uint64_t *)heap)[(size_t)pick(dirty_mib << 8) * 512 + pick(512)] = chance;
      if (now - disked > MOST_BEHIND_MS) disked = now - MOST_BEHIND_MS;
      for (; disk >= 0 && disked < now; disked += 1e3 / disk_rate) use_disk();
    }
    if (beats >= 0 && now - beaten >= beat_ms) {
      beaten = now;
      say_beat();
    }
    if (now - reported >= REPORT_MS) {
      reported = now;
      if (!console_used) report("BANK");
    }
    n = 0;
    p[n++] = (struct pollfd){0, POLLIN | (console_used ? POLLOUT : 0), 0};
    p[n++] = (struct pollfd){listener, POLLIN, 0};
    for (j = 1; j <= total; j++)
      if (out[j].state != IDLE) {
        who[n] = j;
        p[n++] = (struct pollfd){out[j].fd, POLLIN | (out[j].state == CONNECTING || out[j].used ? POLLOUT : 0), 0};
      }
    for (j = 0; j < 2 * MAX_VMS; j++)
      if (conn[j].fd >= 0) {
        who[n] = -j - 1;
        p[n++] = (struct pollfd){conn[j].fd, POLLIN, 0};
      }
    now = now_ms();
    struct timespec wait = {0, now < next ? (long)((next - now) * 1e6) : 0};
    if (ppoll(p, n, &wait, 0) <= 0) continue;
    if (p[0].revents & POLLIN) read_commands();
    if (p[0].revents & POLLOUT) console_flush();
    if (p[1].revents) accept_all(listener);
    for (j = 2; j < n; j++) {
      if (!p[j].revents) continue;
      if (who[j] > 0) {
        if (out[who[j]].fd == p[j].fd) out_ready(who[j], p[j].revents);
      } else if (conn[-who[j] - 1].fd == p[j].fd)
        conn_ready(&conn[-who[j] - 1]);
    }
  }
}
