/*
 * beats PORT...: what VMs say on a network of theirs, as seen at the ports of the switch where their hosts are plugged in. One
 * line for every beat of a bank (struct beat in test/guest/bank.c) that comes in at one of the ports:
 *
 *   SECONDS.NANOSECONDS PORT VM NONCE SEQ
 *
 * The time is CLOCK_MONOTONIC, taken by the kernel when the frame came in, so it is right however late this process gets to
 * read. At the end of standard input it says `lost N` (frames that the kernel had no room for) and ends.
 */
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BEAT_PORT 7001
#define BEAT_MAGIC 0x54414542u
#define MAX_PORTS 64

static const int64_t SECOND = 1000000000;

struct beat {
  uint32_t magic, vm;
  uint64_t nonce, seq;
};

static int64_t now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * SECOND + t.tv_nsec;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

/* Only UDP over IPv4 to BEAT_PORT, without options and not fragmented. One socket for all ports, so that what came first is read first. */
static int open_all(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 7, 0),
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 5),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 23),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 3),
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 36),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, BEAT_PORT, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 256),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  struct sockaddr_ll all = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
  int one = 1, room = 4 << 20;
  int fd = socket(AF_PACKET, SOCK_RAW, 0);
  if (fd < 0) fail("packet socket");
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program)) fail("filter");
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
  if (bind(fd, (void *)&all, sizeof all)) fail("bind");
  return fd;
}

static void tell(const char *port, const unsigned char *frame, size_t size, int64_t at) {
  struct beat b;
  if (size < sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr) + sizeof b) return;
  memcpy(&b, frame + sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct udphdr), sizeof b);
  if (b.magic != BEAT_MAGIC) return;
  printf("%lld.%09lld %s %u %016" PRIx64 " %" PRIu64 "\n", (long long)(at / SECOND), (long long)(at % SECOND), port, b.vm,
         b.nonce, b.seq);
}

/* What comes in at other interfaces than these is the same frame again, on its way through the switch. */
static void read_all(int fd, int ports, char **names, const unsigned *indices) {
  for (;;) {
    unsigned char frame[256];
    char control[256];
    struct sockaddr_ll from;
    struct iovec part = {frame, sizeof frame};
    struct msghdr m = {&from, sizeof from, &part, 1, control, sizeof control, 0};
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT);
    if (n < 0) break;
    int64_t at = now(CLOCK_MONOTONIC);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_type == SCM_TIMESTAMPNS) {
      struct timespec stamp; /* on the wall clock: how long ago that is, is the same on any clock */
      memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
      at -= now(CLOCK_REALTIME) - (stamp.tv_sec * SECOND + stamp.tv_nsec);
    }
    for (int i = 0; i < ports; i++)
      if ((unsigned)from.sll_ifindex == indices[i]) tell(names[i], frame, n, at);
  }
  fflush(stdout);
}

int main(int argc, char **argv) {
  unsigned indices[MAX_PORTS];
  struct tpacket_stats lost;
  socklen_t size = sizeof lost;
  if (argc < 2 || argc > MAX_PORTS) return 2;
  for (int i = 1; i < argc; i++)
    if (!(indices[i - 1] = if_nametoindex(argv[i]))) fail(argv[i]);
  int fd = open_all();
  puts("ready");
  fflush(stdout);
  struct pollfd p[2] = {{fd, POLLIN, 0}, {0, POLLIN, 0}};
  while (poll(p, 2, -1) > 0 && !p[1].revents)
    if (p[0].revents) read_all(fd, argc - 1, argv + 1, indices);
  read_all(fd, argc - 1, argv + 1, indices);
  if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &lost, &size)) fail("statistics");
  printf("lost %u\n", lost.tp_drops);
  return 0;
}
