/*
 * line WIRE PORT: stands between a host's wire and the port of the switch that it was plugged in, and does to frames, both
 * ways, what bad lines do. PORT is a TAP that this makes, and that ends with it; WIRE is a device that is there when the
 * first line of standard input comes. Needs no netem in the kernel, and no netfilter.
 *
 * Each line of standard input says what is so from now on, of each way:
 *
 *   DELAY_US JITTER_US LOSS DUPLICATES    of a million frames so many are lost, or come twice
 *
 * Delay is DELAY ± JITTER, drawn for each frame: with jitter frames overtake each other. It answers `ready` once, and at
 * the end of standard input `passed N lost N twice N`. Frames under way are lost then.
 *
 *   line plain DEVICE 0|1    puts a device to sending frames of its MTU alone (1), or large ones (0): as a frame is lost
 *                            whole, large ones would be lost by the dozen
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A frame under way, with the header that says where its checksum belongs. */
struct frame {
  uint64_t due_us;
  uint64_t number; /* of two that are due at once the older is first */
  int to;
  uint32_t size;
  unsigned char *bytes;
};

/* 64 MiB of full frames: as much as a long fat line holds. What comes beyond is lost, as in any queue. */
enum { MOST_FRAMES = 44000, MOST_BYTES = 70000 };

static struct frame heap[MOST_FRAMES];
static size_t count;
static uint64_t delay_us, jitter_us, loss, duplicates, frames, passed, lost, twice;
/* xorshift64*: the draws need no quality, and no library. */
static uint64_t state = 88172645463325252ull;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t draw(uint64_t below) {
  state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
  return below ? (state * 2685821657736338717ull >> 16) % below : 0;
}

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static int before(const struct frame *a, const struct frame *b) {
  return a->due_us != b->due_us ? a->due_us < b->due_us : a->number < b->number;
}

static void push(struct frame f) {
  size_t i = count++;
  for (; i && before(&f, &heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
  heap[i] = f;
}

static struct frame pop(void) {
  struct frame top = heap[0], f = heap[--count];
  size_t i = 0, c;
  for (; (c = 2 * i + 1) < count; i = c) {
    if (c + 1 < count && before(&heap[c + 1], &heap[c])) c++;
    if (!before(&heap[c], &f)) break;
    heap[i] = heap[c];
  }
  heap[i] = f;
  return top;
}

static void keep(int to, const unsigned char *bytes, size_t size) {
  if (count == MOST_FRAMES) {
    lost++;
    return;
  }
  uint64_t due = now_us() + delay_us - jitter_us + draw(2 * jitter_us + 1);
  struct frame f = {due, frames++, to, size, malloc(size)};
  if (!f.bytes) fail("malloc");
  memcpy(f.bytes, bytes, size);
  push(f);
}

static void take(int from, int to) {
  static unsigned char bytes[MOST_BYTES];
  for (int left = 64; left--;) { /* then the other way's turn */
    ssize_t size = read(from, bytes, sizeof bytes);
    if (size < 0 && (errno == EAGAIN || errno == ENETDOWN)) return;
    if (size < 0) fail("read");
    if (draw(1000000) < loss) {
      lost++;
      continue;
    }
    keep(to, bytes, size);
    if (draw(1000000) < duplicates) {
      twice++;
      keep(to, bytes, size);
    }
  }
}

static void send_due(void) {
  for (uint64_t t = now_us(); count && heap[0].due_us <= t;) {
    struct frame f = pop();
    /* A device that is not up loses what it is given: that is none of the line's doing. */
    if (write(f.to, f.bytes, f.size) >= 0) passed++;
    free(f.bytes);
  }
}

static int open_wire(const char *name) {
  int one = 1, room = 8 << 20, fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("packet socket");
  /* Frames may be larger than the MTU, and their checksums unmade: the header before each says so. */
  if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one)) fail("PACKET_VNET_HDR");
  if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one)) fail("PACKET_IGNORE_OUTGOING");
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  struct sockaddr_ll here = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
  here.sll_ifindex = if_nametoindex(name);
  if (!here.sll_ifindex) fail(name);
  if (bind(fd, (void *)&here, sizeof here)) fail("bind");
  return fd;
}

static int open_port(const char *name) {
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) fail("/dev/net/tun");
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(fd, TUNSETIFF, &request)) fail("TUNSETIFF");
  return fd;
}

static int plain(const char *device, int on) {
  const uint32_t features[] = {ETHTOOL_STSO, ETHTOOL_SGSO};
  struct ifreq request = {0};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  strncpy(request.ifr_name, device, IFNAMSIZ - 1);
  for (size_t i = 0; i < 2; i++) {
    struct ethtool_value value = {features[i], !on};
    request.ifr_data = (void *)&value;
    if (ioctl(fd, SIOCETHTOOL, &request)) fail("SIOCETHTOOL");
  }
  return 0;
}

/* 0 at the end of standard input. */
static int hear(void) {
  static char text[4096];
  static size_t size;
  ssize_t n = read(0, text + size, sizeof text - 1 - size);
  if (n <= 0) return 0;
  text[size += n] = 0;
  char *line = text, *end;
  for (; (end = strchr(line, '\n')); line = end + 1)
    if (sscanf(line, "%lu %lu %lu %lu", &delay_us, &jitter_us, &loss, &duplicates) != 4 || jitter_us > delay_us) {
      fprintf(stderr, "not DELAY_US JITTER_US LOSS DUPLICATES: %.*s\n", (int)(end - line), line);
      exit(2);
    }
  memmove(text, line, size -= line - text);
  return 1;
}

/* Until the end of standard input. */
static void pass(int wire, int port) {
  for (;;) {
    struct pollfd p[3] = {{0, POLLIN, 0}, {wire, POLLIN, 0}, {port, POLLIN, 0}};
    uint64_t t = now_us(), wait_us = !count ? 1000000 : heap[0].due_us > t ? heap[0].due_us - t : 0;
    struct timespec wait = {wait_us / 1000000, wait_us % 1000000 * 1000};
    if (ppoll(p, 3, &wait, 0) < 0) fail("poll");
    if (p[0].revents && !hear()) return;
    if (p[1].revents) take(wire, port);
    if (p[2].revents) take(port, wire);
    send_due();
  }
}

int main(int argc, char **argv) {
  if (argc == 4 && !strcmp(argv[1], "plain")) return plain(argv[2], atoi(argv[3]));
  if (argc != 3) return 2;
  int port = open_port(argv[2]);
  state ^= now_us();
  puts("ready");
  fflush(stdout);
  if (hear()) pass(open_wire(argv[1]), port);
  printf("passed %lu lost %lu twice %lu\n", passed, lost, twice);
  return 0;
}
