/*
 * wire PORT: what hosts send, as seen at the switch where they are plugged in: one line for every TCP segment to port
 * PORT that opens a connection or carries bytes:
 *
 *   SECONDS.NANOSECONDS FROM TO SOURCE_PORT SEQUENCE BYTES S|-
 *
 * FROM and TO are IPv4 addresses; SEQUENCE is that of the first byte; S is the SYN. The time is CLOCK_MONOTONIC, taken by
 * the kernel when the segment came in, so it is right however late this process gets to read. It is seen also where the
 * switch forwards nothing for that host. At the end of standard input it says `lost N` (segments that the kernel had no
 * room for) and ends.
 */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const int64_t SECOND = 1000000000;

static int64_t now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * SECOND + t.tv_nsec;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

/* Only what comes in at a port of the switch, and only TCP over IPv4 to `port`, not fragmented. */
static void narrow(int fd, uint16_t port) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 10, 0),
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 8),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 23),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 6),
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 20),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x1fff, 4, 0),
      BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 14),
      BPF_STMT(BPF_LD | BPF_H | BPF_IND, 16),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 256),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program)) fail("filter");
}

static void tell(const unsigned char *packet, size_t size, int64_t at) {
  struct iphdr ip;
  struct tcphdr tcp;
  char from[INET_ADDRSTRLEN], to[INET_ADDRSTRLEN];
  if (size < sizeof(struct ethhdr) + sizeof ip) return;
  memcpy(&ip, packet + sizeof(struct ethhdr), sizeof ip);
  if (size < sizeof(struct ethhdr) + ip.ihl * 4u + sizeof tcp) return;
  memcpy(&tcp, packet + sizeof(struct ethhdr) + ip.ihl * 4u, sizeof tcp);
  int bytes = ntohs(ip.tot_len) - ip.ihl * 4 - tcp.doff * 4;
  if (bytes <= 0 && !tcp.syn) return;
  inet_ntop(AF_INET, &ip.saddr, from, sizeof from);
  inet_ntop(AF_INET, &ip.daddr, to, sizeof to);
  printf("%lld.%09lld %s %s %u %u %d %s\n", (long long)(at / SECOND), (long long)(at % SECOND), from, to,
         ntohs(tcp.source), ntohl(tcp.seq), bytes, tcp.syn ? "S" : "-");
}

static void read_all(int fd) {
  for (;;) {
    unsigned char packet[256];
    char control[256];
    struct iovec part = {packet, sizeof packet};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT);
    if (n < 0) break;
    int64_t at = now(CLOCK_MONOTONIC);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_type == SCM_TIMESTAMPNS) {
      struct timespec stamp; /* on the wall clock: how long ago that is, is the same on any clock */
      memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
      at -= now(CLOCK_REALTIME) - (stamp.tv_sec * SECOND + stamp.tv_nsec);
    }
    tell(packet, n, at);
  }
  fflush(stdout);
}

int main(int argc, char **argv) {
  int one = 1, room = 8 << 20;
  struct tpacket_stats lost;
  socklen_t size = sizeof lost;
  if (argc != 2) return 2;
  /* All protocols: a socket for IP alone would see what the bridge hands up, not what comes in at its ports. */
  int fd = socket(AF_PACKET, SOCK_RAW, 0);
  if (fd < 0) fail("packet socket");
  narrow(fd, atoi(argv[1]));
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
  struct sockaddr_ll all = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
  if (bind(fd, (void *)&all, sizeof all)) fail("bind");
  puts("ready");
  fflush(stdout);
  struct pollfd p[2] = {{fd, POLLIN, 0}, {0, POLLIN, 0}};
  while (poll(p, 2, -1) > 0 && !p[1].revents)
    if (p[0].revents) read_all(fd);
  read_all(fd);
  if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &lost, &size)) fail("statistics");
  printf("lost %u\n", lost.tp_drops);
  return 0;
}
