/*
 * Loaded into QEMU with LD_PRELOAD. Before QEMU's main it makes a userfaultfd of that process, which nobody else can
 * make, and hands it to whoever listens on the unix socket named by DIAPAUSE_UFFD: tracker.c. One byte says how it went:
 * 'u' with the descriptor, or 'e' with the errno as text behind it. QEMU goes on in any case.
 *
 * It runs before QEMU's -sandbox forbids anything, and keeps nothing open.
 * Build: cc -O2 -shared -fPIC handoff.c -o handoff.so
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

__attribute__((constructor)) static void handoff(void) {
  const char *path = getenv("DIAPAUSE_UFFD");
  if (!path) return;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return;
  strcpy(address.sun_path, path);
  int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s < 0) return;
  if (connect(s, (struct sockaddr *)&address, sizeof address) == 0) {
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    char text[16] = "u";
    union {
      struct cmsghdr header;
      char bytes[CMSG_SPACE(sizeof uffd)];
    } control = {0};
    struct iovec part = {text, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (uffd < 0) {
      part.iov_len = (size_t)snprintf(text, sizeof text, "e%d", errno);
    } else {
      message.msg_control = control.bytes;
      message.msg_controllen = sizeof control.bytes;
      control.header.cmsg_level = SOL_SOCKET;
      control.header.cmsg_type = SCM_RIGHTS;
      control.header.cmsg_len = CMSG_LEN(sizeof uffd);
      memcpy(CMSG_DATA(&control.header), &uffd, sizeof uffd);
    }
    if (sendmsg(s, &message, MSG_NOSIGNAL) < 0) perror("diapause: userfaultfd could not be handed over");
    if (uffd >= 0) close(uffd);
  }
  close(s);
}
