/*
 * speed: the other workload of the test guest (`run=speed` on the kernel's command line). It measures the network between
 * two VMs: how fast TCP fills it, and how long a small UDP datagram takes there and back. Every VM serves; one whose
 * console is told to measures against another, by its own clock alone, so that no two clocks need to agree.
 *
 *   stream ID VM MS MSS     writes to VM for MS milliseconds in segments of at most MSS bytes, then closes its end and waits
 *                           for the number of bytes that came. From the connection to that answer is the time.
 *   ping ID VM COUNT BYTES  COUNT datagrams, one after the other; one that is not back after a second counts as lost.
 *
 * Each answers with one line, a result that cannot be had with `error=` and the errno:
 *   SPEED id=ID kind=stream bytes=N got=N us=T again=R          again: segments sent again
 *   SPEED id=ID kind=ping medianUs=.. p10Us=.. p90Us=.. lost=N
 * and with ` sum=` and the FNV-1a hash of what stands before (bank.c says why). `id=0 kind=ready`: it serves.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "guest.h"

#define TCP_PORT 7001
#define UDP_PORT 7002
#define MAX_CONNECTIONS 8
#define MAX_PINGS 100000
#define PING_TIMEOUT_MS 1000
#define STREAM_TIMEOUT_MS 20000 /* a connection that stands still for so long is given up */

struct sink {
  int fd; /* -1: free */
  uint64_t bytes;
};

static struct sink sinks[MAX_CONNECTIONS];
static char net[32] = "10.9.0.";
static char buffer[256 * 1024];

static struct sockaddr_in address_of(int vm, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  char text[64];
  snprintf(text, sizeof text, "%s%d", net, vm);
  inet_pton(AF_INET, text, &a.sin_addr);
  return a;
}

/* A connected socket whose calls give up after a while, or -1. `mss` 0: TCP's own choice. */
static int connected(int type, int vm, int port, int timeout_ms, int mss) {
  struct sockaddr_in a = address_of(vm, port);
  struct timeval t = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
  int fd = socket(AF_INET, type, 0);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
  if (mss) setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof mss);
  if (connect(fd, (void *)&a, sizeof a) == 0) return fd;
  close(fd);
  return -1;
}

/* ----------------------------------------------------------------------------------------------------- measuring */

static int stream(int id, int vm, int ms, int mss) {
  uint64_t sent = 0, got = 0;
  struct tcp_info info = {0};
  socklen_t size = sizeof info;
  int fd = connected(SOCK_STREAM, vm, TCP_PORT, STREAM_TIMEOUT_MS, mss);
  double begin = now_us(), us;
  if (fd < 0) return errno;
  while (now_us() - begin < ms * 1e3) {
    ssize_t n = write(fd, buffer, 64 * 1024);
    if (n < 0) goto failed;
    sent += n;
  }
  if (shutdown(fd, SHUT_WR)) goto failed;
  errno = 0;
  if (recv(fd, &got, sizeof got, MSG_WAITALL) != sizeof got) goto failed;
  us = now_us() - begin;
  getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
  close(fd);
  say("SPEED id=%d kind=stream bytes=%" PRIu64 " got=%" PRIu64 " us=%.0f again=%u", id, sent, got, us,
      info.tcpi_total_retrans);
  return 0;
failed:
  close(fd);
  return errno ? errno : EPIPE;
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static int ping(int id, int vm, int count, int bytes) {
  static float times[MAX_PINGS];
  int fd, back = 0, lost = 0;
  if (count < 1 || count > MAX_PINGS || bytes < 4 || bytes > 8000) return EINVAL;
  if ((fd = connected(SOCK_DGRAM, vm, UDP_PORT, PING_TIMEOUT_MS, 0)) < 0) return errno;
  for (int32_t number = 0; number < count; number++) {
    int32_t echoed = -1;
    double begin = now_us();
    memcpy(buffer, &number, sizeof number);
    if (send(fd, buffer, bytes, 0) != bytes) break;
    while (echoed != number && recv(fd, buffer, bytes, 0) == bytes) memcpy(&echoed, buffer, sizeof echoed);
    if (echoed == number)
      times[back++] = now_us() - begin;
    else
      lost++;
  }
  close(fd);
  if (!back) return ETIMEDOUT;
  qsort(times, back, sizeof *times, ascending);
  say("SPEED id=%d kind=ping medianUs=%.1f p10Us=%.1f p90Us=%.1f lost=%d", id, times[back / 2], times[back / 10],
      times[back * 9 / 10], lost);
  return 0;
}

static void command(const char *line) {
  int id, vm, a, b, error;
  if (sscanf(line, "stream %d %d %d %d", &id, &vm, &a, &b) == 4)
    error = stream(id, vm, a, b);
  else if (sscanf(line, "ping %d %d %d %d", &id, &vm, &a, &b) == 4)
    error = ping(id, vm, a, b);
  else
    return;
  if (error) say("SPEED id=%d kind=error error=%d", id, error);
}

/* ------------------------------------------------------------------------------------------------------- serving */

static int bound(int type, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  int fd = socket(AF_INET, type, 0);
  if (bind(fd, (void *)&a, sizeof a) || (type == SOCK_STREAM && listen(fd, MAX_CONNECTIONS))) {
    perror("speed: bind");
    exit(1);
  }
  return fd;
}

static void take_connection(int listener) {
  int fd = accept(listener, 0, 0);
  for (int i = 0; i < MAX_CONNECTIONS; i++)
    if (sinks[i].fd < 0) {
      sinks[i] = (struct sink){.fd = fd};
      return;
    }
  close(fd);
}

static void swallow(struct sink *s) {
  ssize_t n = recv(s->fd, buffer, sizeof buffer, MSG_DONTWAIT);
  if (n > 0) s->bytes += n;
  if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) return;
  if (n == 0) send(s->fd, &s->bytes, sizeof s->bytes, MSG_NOSIGNAL);
  close(s->fd);
  s->fd = -1;
}

static void echo(int fd) {
  static char datagram[9000];
  struct sockaddr_in from;
  socklen_t size = sizeof from;
  ssize_t n = recvfrom(fd, datagram, sizeof datagram, MSG_DONTWAIT, (void *)&from, &size);
  if (n >= 0) sendto(fd, datagram, n, 0, (void *)&from, size);
}

int main(int argc, char **argv) {
  struct pollfd p[3 + MAX_CONNECTIONS];
  for (int i = 1; i < argc; i++)
    if (!strncmp(argv[i], "net=", 4)) snprintf(net, sizeof net, "%s", argv[i] + 4);
  signal(SIGPIPE, SIG_IGN);
  raw_console();
  for (int i = 0; i < MAX_CONNECTIONS; i++) sinks[i].fd = -1;
  int listener = bound(SOCK_STREAM, TCP_PORT), udp = bound(SOCK_DGRAM, UDP_PORT);
  say("SPEED id=0 kind=ready");
  for (;;) {
    p[0] = (struct pollfd){0, POLLIN, 0};
    p[1] = (struct pollfd){listener, POLLIN, 0};
    p[2] = (struct pollfd){udp, POLLIN, 0};
    for (int i = 0; i < MAX_CONNECTIONS; i++) p[3 + i] = (struct pollfd){sinks[i].fd, POLLIN, 0};
    if (poll(p, 3 + MAX_CONNECTIONS, -1) <= 0) continue;
    if (p[2].revents) echo(udp);
    for (int i = 0; i < MAX_CONNECTIONS; i++)
      if (sinks[i].fd >= 0 && p[3 + i].revents) swallow(&sinks[i]);
    if (p[1].revents) take_connection(listener);
    if (p[0].revents) read_commands(command);
  }
}
