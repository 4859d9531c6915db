/*
 * Loaded into QEMU with LD_PRELOAD, so that a guest that breaks out of it finds little. Before QEMU's main it
 *
 * - opens /dev/userfaultfd (Linux 6.1) where its user may, and has QEMU's calls of userfaultfd(2) answered from it. That call gives
 *   faults in the kernel, which KVM's are, only to CAP_SYS_PTRACE (unless vm.unprivileged_userfaultfd is 1), by which a process
 *   writes the memory of all others; the device asks for nothing but to be opened. QEMU does the same from 8.1 on.
 * - hands over, where DIAPAUSE_UFFD names a unix socket, what tracker.c listens for there: a userfaultfd, its pagemap and its maps,
 *   which nobody else can make or may open. One byte says how it went: 'u' with the three descriptors, or 'e' with the errno
 *   as text behind it. QEMU goes on in any case.
 * - keeps other processes of its user that have no capability, which other QEMUs are, from its memory: it is not dumpable (ptrace(2)).
 * - gives up system calls that QEMU's own filter allows, which forbids some forty and allows the rest.
 *
 * Build: cc -O2 -shared -fPIC handoff.c -o handoff.so -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/ioctl.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* From linux/userfaultfd.h of 6.1; older headers lack it. */
#define NEW_USERFAULTFD _IO(0xAA, 0x00)

static int device = -1;

/* In the place of libc's. */
long syscall(long number, ...) {
  static long (*libc)(long, ...);
  long a[6];
  va_list arguments;
  va_start(arguments, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long); /* as libc's: whatever is there, the kernel knows how many it reads */
  va_end(arguments);
  if (number == SYS_userfaultfd && device >= 0) {
    int made = ioctl(device, NEW_USERFAULTFD, a[0]);
    if (made >= 0 || errno != ENOTTY) return made; /* else another device was put there */
  }
  if (!libc) libc = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  return libc(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int hand_over(int s) {
  int handed[3];
  char text[16] = "u";
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof handed)];
  } control = {0};
  struct iovec part = {text, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  handed[0] = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  int why = errno;
  handed[1] = handed[0] < 0 ? -1 : open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  handed[2] = handed[1] < 0 ? -1 : open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (handed[2] < 0) {
    part.iov_len = (size_t)snprintf(text, sizeof text, "e%d", handed[0] < 0 ? why : errno);
  } else {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof handed);
    memcpy(CMSG_DATA(&control.header), handed, sizeof handed);
  }
  int sent = sendmsg(s, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
  for (int i = 0; i < 3; i++)
    if (handed[i] >= 0) close(handed[i]);
  return sent;
}

static void hand_over_to(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return;
  strcpy(address.sun_path, path);
  int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s < 0) return;
  if (connect(s, (struct sockaddr *)&address, sizeof address) == 0 && hand_over(s)) perror("diapause: userfaultfd could not be handed over");
  close(s);
}

#if defined __x86_64__
#define OWN_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define OWN_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

/*
 * Refused with EPERM, as by a kernel that forbids them. Other processes' memory and descriptors; files by handles, which lead out of a
 * container; programs (QEMU's filter knows execve alone, which a script that becomes QEMU still needs); and parts of the kernel that
 * QEMU has no use for, in which most privileges were ever found. Not io_uring: QEMU's main loop may be made of it.
 */
static const int refused[] = {
  SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_execveat,
  SYS_bpf, SYS_perf_event_open, SYS_add_key, SYS_request_key, SYS_keyctl,
  SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot,
  SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load,
  /* Younger than some headers, with one number on all machines: open_tree, move_mount, fsopen, fsconfig, fsmount, fspick; pidfd_getfd,
     process_madvise, mount_setattr. */
  428, 429, 430, 431, 432, 433, 438, 440, 442,
};

static void refuse(void) {
#ifdef OWN_ARCHITECTURE
  enum { COUNT = sizeof refused / sizeof *refused };
  struct sock_filter filter[COUNT + 6], *at = filter;
  *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
  *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCHITECTURE, 0, COUNT + 3); /* calls of 32 bits: refused */
  *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (int i = 0; i < COUNT; i++) *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)refused[i], (unsigned char)(COUNT - i + 1), 0);
  *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 1, 0); /* x32's, which are the same calls again */
  *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  struct sock_fprog program = {(unsigned short)(at - filter), filter};
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) perror("diapause: system calls could not be given up");
#endif
}

__attribute__((constructor)) static void begin(void) {
  if (getenv("DIAPAUSE_TELL")) fputs("diapause: loaded\n", stderr); /* who asks whether this QEMU takes a library */
  device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  const char *path = getenv("DIAPAUSE_UFFD");
  if (path) hand_over_to(path);
  prctl(PR_SET_DUMPABLE, 0);
  /* Unless it may gain privileges by a program that it becomes (hypervisor.confined = false), which needs all calls. */
  if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) refuse();
}
