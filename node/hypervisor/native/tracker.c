/*
 * Which pages of a VM's RAM were written? Needs Linux 6.7 (userfaultfd WP_ASYNC, PAGEMAP_SCAN).
 *
 *   tracker faults         tries only what QEMU itself needs (Linux 5.7); status 0, or 1 with the reason on stderr
 *   tracker probe DIR      tries all of it on a file in DIR; the same
 *   tracker serve SOCKET   tracks one process, which hands its userfaultfd, pagemap and maps to SOCKET (handoff.c)
 *
 * `serve` reads lines on stdin and answers on stdout, one answer a line, each a u32 kind, a u32 length and that many
 * bytes, in the host's byte order:
 *
 *   (at once)              LISTENING
 *   (handed over)          READY
 *   arm PID DEV INO BYTES  ARMED     all mappings in PID of the file (DEV, INO) are write-protected from now on; the
 *                                    kernel itself lifts the protection of a page at a write, and nobody is woken
 *   scan                   RANGES    pairs of u32: first page of the file, number of pages. What was written since the
 *                                    last scan (or arm), protected again in the same step. Adjacent pages are one pair;
 *                                    pairs may overlap where the file is mapped more than once.
 *   any of them            ERROR     text; what was tracked is not to be trusted any more
 *
 * It ends when stdin does or its parent thread dies; the kernel then lifts all protection. As it serves it has no capability, and
 * nobody else's eyes on its memory: what it needs of the process it was handed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

/* From linux/fs.h and linux/userfaultfd.h of 6.7; older headers lack them. */
struct region {
  uint64_t start, end, categories;
};
struct scan_arg {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)
enum { WRITTEN = 1 << 1, SCAN_WP_MATCHING = 1, SCAN_CHECK_WPASYNC = 2 };
enum { FEATURES = 1 << 0 /* WP */ | 1 << 12 /* WP_SHMEM */ | 1 << 13 /* WP_UNPOPULATED */ | 1 << 15 /* WP_ASYNC */ };

enum { PAGE = 4096, REGIONS = 1 << 14, MAPPINGS = 64 };
/* Protected at a time: the call holds the process's mmap lock, for which its page faults wait. A guess. */
static const uint64_t PROTECT_BYTES = 64 << 20;

enum kind { LISTENING = 1, READY, ARMED, RANGES, ERROR };

struct mapping {
  uint64_t start, end, offset;
};
struct range {
  uint32_t first, pages;
};

static struct mapping mappings[MAPPINGS];
static int mapping_count;
static struct range *ranges;
static size_t range_count, range_room;
static char problem[512];

__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(problem, sizeof problem, format, arguments);
  va_end(arguments);
  return -1;
}

static int fail_errno(const char *what) { return fail("%s: %s", what, strerror(errno)); }

static int enable(int uffd) {
  struct uffdio_api api = {.api = UFFD_API, .features = FEATURES};
  if (ioctl(uffd, UFFDIO_API, &api)) return fail("userfaultfd cannot write-protect asynchronously (Linux 6.7 can): %s", strerror(errno));
  return 0;
}

static int protect(int uffd) {
  for (int i = 0; i < mapping_count; i++) {
    struct mapping m = mappings[i];
    struct uffdio_register all = {.range = {m.start, m.end - m.start}, .mode = UFFDIO_REGISTER_MODE_WP};
    if (ioctl(uffd, UFFDIO_REGISTER, &all)) return fail_errno("memory cannot be registered for write protection");
    for (uint64_t at = m.start; at < m.end; at += PROTECT_BYTES) {
      uint64_t left = m.end - at;
      struct uffdio_writeprotect part = {.range = {at, left < PROTECT_BYTES ? left : PROTECT_BYTES}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
      if (ioctl(uffd, UFFDIO_WRITEPROTECT, &part)) return fail_errno("memory cannot be write-protected");
    }
  }
  return 0;
}

static int add_range(uint32_t first, uint32_t pages) {
  if (range_count > 0 && ranges[range_count - 1].first + ranges[range_count - 1].pages == first) {
    ranges[range_count - 1].pages += pages;
    return 0;
  }
  if (range_count == range_room) {
    size_t room = range_room ? 2 * range_room : 4096;
    struct range *larger = realloc(ranges, room * sizeof *ranges);
    if (!larger) return fail("no memory for %zu ranges", room);
    ranges = larger;
    range_room = room;
  }
  ranges[range_count++] = (struct range){first, pages};
  return 0;
}

static int scan(int pagemap) {
  static struct region found[REGIONS];
  range_count = 0;
  for (int i = 0; i < mapping_count; i++) {
    struct mapping m = mappings[i];
    for (uint64_t at = m.start; at < m.end;) {
      struct scan_arg query = {.size = sizeof query, .flags = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC, .start = at, .end = m.end,
        .vec = (uint64_t)(uintptr_t)found, .vec_len = REGIONS, .category_mask = WRITTEN, .return_mask = WRITTEN};
      int n = ioctl(pagemap, SCAN_IOCTL, &query);
      if (n < 0) return fail_errno("PAGEMAP_SCAN (Linux 6.7 has it)");
      for (int j = 0; j < n; j++) {
        uint64_t offset = found[j].start - m.start + m.offset;
        if (add_range((uint32_t)(offset / PAGE), (uint32_t)((found[j].end - found[j].start) / PAGE))) return -1;
      }
      if (query.walk_end <= at) return fail("PAGEMAP_SCAN makes no progress");
      at = query.walk_end;
    }
  }
  return 0;
}

/* Finds all mappings of a file in the process `pid`, of which `descriptor` is the maps; they must cover its first `bytes` bytes. */
static int find_mappings(int descriptor, int pid, dev_t device, uint64_t inode, uint64_t bytes) {
  char *row = NULL;
  size_t room = 0;
  FILE *maps = fdopen(descriptor, "r");
  if (!maps) return fail_errno("maps");
  mapping_count = 0;
  while (getline(&row, &room, maps) > 0) {
    unsigned long start, end, offset, found;
    unsigned major, minor;
    if (sscanf(row, "%lx-%lx %*s %lx %x:%x %lu", &start, &end, &offset, &major, &minor, &found) != 6) continue;
    if (found != inode || makedev(major, minor) != device || mapping_count == MAPPINGS) continue;
    mappings[mapping_count++] = (struct mapping){start, end, offset};
  }
  free(row);
  fclose(maps);
  for (uint64_t covered = 0; covered < bytes;) {
    uint64_t before = covered;
    for (int i = 0; i < mapping_count; i++) {
      uint64_t end = mappings[i].offset + mappings[i].end - mappings[i].start;
      if (mappings[i].offset <= covered && end > covered) covered = end;
    }
    if (covered == before) return fail("process %d does not map byte %lu of its RAM file", pid, (unsigned long)covered);
  }
  return 0;
}

static int open_own(const char *path) {
  int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  return descriptor < 0 ? fail_errno(path) : descriptor;
}

static void put(const void *bytes, size_t length) {
  for (const char *at = bytes; length > 0;) {
    ssize_t n = write(1, at, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) exit(1); /* nobody listens any more */
    at += n;
    length -= (size_t)n;
  }
}

static void answer(enum kind kind, const void *bytes, size_t length) {
  uint32_t header[2] = {kind, (uint32_t)length};
  put(header, sizeof header);
  put(bytes, length);
}

struct process {
  int uffd, pagemap, maps;
};

/* Waits for the handover, or for the end of stdin (then it exits). */
static int receive(const char *path, struct process *handed) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return fail("the socket's path is too long");
  strcpy(address.sun_path, path);
  unlink(path);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1)) return fail_errno(path);
  answer(LISTENING, NULL, 0);
  struct pollfd wait[2] = {{.fd = listener, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
  while (poll(wait, 2, -1) < 0)
    if (errno != EINTR) return fail_errno("poll");
  int s = wait[0].revents ? accept(listener, NULL, NULL) : -1;
  close(listener);
  unlink(path);
  if (!wait[0].revents) exit(0);
  if (s < 0) return fail_errno("accept");

  char text[16] = "";
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof *handed)];
  } control;
  struct iovec part = {text, sizeof text - 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  ssize_t length = recvmsg(s, &message, MSG_CMSG_CLOEXEC);
  close(s);
  struct cmsghdr *header = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof *handed)) {
    memcpy(handed, CMSG_DATA(header), sizeof *handed);
    return enable(handed->uffd);
  }
  if (text[0] == 'e') return fail("QEMU may not use userfaultfd: %s", strerror(atoi(text + 1)));
  return fail("QEMU handed nothing over");
}

/* Of all threads, but there is one. */
static int give_up_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capset, &header, none)) return fail_errno("capabilities cannot be given up");
  return prctl(PR_SET_DUMPABLE, 0) ? fail_errno("its memory cannot be closed to others") : 0;
}

static int serve(const char *path) {
  struct process vm;
  int armed = 0;
  if (give_up_capabilities() || receive(path, &vm)) {
    answer(ERROR, problem, strlen(problem));
    return 1;
  }
  answer(READY, NULL, 0);
  for (char line[256]; fgets(line, sizeof line, stdin);) {
    int pid, done = -1;
    unsigned long device, inode, bytes;
    if (sscanf(line, "arm %d %lu %lu %lu", &pid, &device, &inode, &bytes) == 4) {
      done = armed ? fail("armed twice") : find_mappings(vm.maps, pid, device, inode, bytes) ? -1 : protect(vm.uffd);
      armed = 1;
      if (!done) answer(ARMED, NULL, 0);
    } else if (!strcmp(line, "scan\n")) {
      done = armed ? scan(vm.pagemap) : fail("not armed");
      if (!done) answer(RANGES, ranges, range_count * sizeof *ranges);
    } else {
      fail("not understood: %.100s", line);
    }
    if (done) answer(ERROR, problem, strlen(problem));
  }
  return 0;
}

static void *first_byte(void *page) { return (void *)(uintptr_t)*(volatile char *)page; }

/*
 * A background snapshot write-protects memory, and in post-copy a processor waits for a page until it is put there. As QEMU does,
 * this asks for faults in the kernel, too: KVM's are.
 */
static int faults(void) {
  enum { FAULT_MS = 5000, CONTENT = 7 };
  static char content[PAGE] __attribute__((aligned(PAGE))) = {CONTENT};
  int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  if (uffd < 0) return fail_errno("userfaultfd");
  struct uffdio_api api = {.api = UFFD_API, .features = 1 << 0 /* WP */};
  if (ioctl(uffd, UFFDIO_API, &api)) return fail_errno("userfaultfd cannot write-protect (Linux 5.7 can)");
  char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return fail_errno("memory");
  struct uffdio_register all = {.range = {(uintptr_t)page, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
  if (ioctl(uffd, UFFDIO_REGISTER, &all)) return fail_errno("memory cannot be registered for faults");
  pthread_t reader;
  if (pthread_create(&reader, NULL, first_byte, page)) return fail("no thread can be made");
  struct pollfd wait = {.fd = uffd, .events = POLLIN};
  struct uffd_msg message;
  int told = poll(&wait, 1, FAULT_MS) == 1 && read(uffd, &message, sizeof message) == sizeof message && message.event == UFFD_EVENT_PAGEFAULT;
  if (!told) return fail("userfaultfd does not tell of a page that is missing");
  struct uffdio_copy copy = {.dst = (uintptr_t)page, .src = (uintptr_t)content, .len = PAGE};
  if (ioctl(uffd, UFFDIO_COPY, &copy)) return fail_errno("a page cannot be put where one is missing");
  void *seen = NULL;
  pthread_join(reader, &seen);
  return seen == (void *)CONTENT ? 0 : fail("not the page is read that was put there");
}

/* Writes to a protected page and to one that was never there, and looks whether just these two are found. */
static int probe(const char *folder) {
  enum { PAGES = 64, WRITTEN_PAGE = 5, NEW_PAGE = 40 };
  int file = open(folder, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, PAGES * PAGE)) return fail_errno(folder);
  char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return fail_errno(folder);
  memset(memory, 1, 10 * PAGE);
  int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  if (uffd < 0) return fail_errno("userfaultfd (who may open /dev/userfaultfd may use it, or all with sysctl vm.unprivileged_userfaultfd=1)");
  prctl(PR_SET_DUMPABLE, 1); /* handoff.c, under which this is tried, has closed it, to itself too where that is not root */
  int pagemap = open_own("/proc/self/pagemap"), maps = open_own("/proc/self/maps");
  struct stat facts;
  if (pagemap < 0 || maps < 0 || enable(uffd)) return -1;
  if (fstat(file, &facts)) return fail_errno(folder);
  if (find_mappings(maps, getpid(), facts.st_dev, facts.st_ino, PAGES * PAGE) || protect(uffd) || scan(pagemap)) return -1;
  if (range_count != 0) return fail("pages are found written that were not");
  memory[WRITTEN_PAGE * PAGE] = 2;
  memory[NEW_PAGE * PAGE] = 2;
  if (scan(pagemap)) return -1;
  int found = range_count == 2 && ranges[0].first == WRITTEN_PAGE && ranges[0].pages == 1 && ranges[1].first == NEW_PAGE && ranges[1].pages == 1;
  if (!found) return fail("not the pages are found that were written");
  if (scan(pagemap)) return -1;
  return range_count == 0 ? 0 : fail("pages are found written twice");
}

int main(int argc, char **argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_IGN);
  if (argc == 3 && !strcmp(argv[1], "serve")) return serve(argv[2]);
  int tries = argc == 3 && !strcmp(argv[1], "probe");
  if (tries || (argc == 2 && !strcmp(argv[1], "faults"))) {
    if (!(tries ? probe(argv[2]) : faults())) return 0;
    fprintf(stderr, "%s\n", problem);
    return 1;
  }
  fprintf(stderr, "usage: tracker faults | tracker probe DIR | tracker serve SOCKET\n");
  return 2;
}
