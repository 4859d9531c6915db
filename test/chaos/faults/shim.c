/*
 * Loaded before a program (LD_PRELOAD), lets a file of 4096 bytes, which the program shares and a test writes, decide what
 * the program hears of the wall clock and of fsync, and of writes that sync by themselves (O_DSYNC, O_SYNC):
 *
 *   offset 0   int64    nanoseconds that the wall clock is ahead (negative: behind); heard by programs called node* alone
 *   offset 8   uint32   of 1000 calls of fsync, fdatasync and writes that sync so many give EIO: fsync has done nothing then,
 *                       and a write has written, as to a page cache whose disk fails
 *   offset 16  uint64   calls that failed so
 *   offset 24  uint64   questions for the time that were answered with another one
 *
 * The file is named by DIAPAUSE_CHAOS_SHIM; without it, nothing changes. Monotonic clocks and timers are left alone: a wall
 * clock that is set does not touch them. QEMU waits on the wall clock (condition variables until a moment on it), which a
 * shim cannot move with it: it keeps the real time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const int64_t SECOND = 1000000000;

struct control {
  _Atomic int64_t ahead;
  _Atomic uint32_t failing;
  uint32_t unused;
  _Atomic uint64_t failed;
  _Atomic uint64_t moved;
};

static struct control *control;
static int moves_clock;
static _Atomic uint32_t calls;

__attribute__((constructor)) static void load(void) {
  const char *path = getenv("DIAPAUSE_CHAOS_SHIM");
  char program[256];
  int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (shared == MAP_FAILED) return;
  ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
  program[n > 0 ? n : 0] = 0;
  const char *name = strrchr(program, '/');
  moves_clock = name && !strncmp(name + 1, "node", 4);
  control = shared;
}

static int64_t ahead(void) { return control && moves_clock ? control->ahead : 0; }

static void move(struct timespec *t, int64_t by) {
  int64_t at = t->tv_sec * SECOND + t->tv_nsec + by;
  t->tv_sec = at / SECOND;
  t->tv_nsec = at % SECOND;
}

int clock_gettime(clockid_t clock, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, t);
  int64_t by = ahead();
  if (result || !by || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE && clock != CLOCK_TAI)) return result;
  move(t, by);
  control->moved++;
  return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *t) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}

/* The kernel compares with its own clock; who waits has read ours. */
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
  static int (*real)(sem_t *restrict, const struct timespec *restrict);
  struct timespec there = *until;
  if (!real) real = dlsym(RTLD_NEXT, "sem_timedwait");
  move(&there, -ahead());
  return real(semaphore, &there);
}

/* Every call is drawn by its number, so that failures are spread and not in a row. */
static int fails(int fd) {
  struct stat file;
  if (!control || !control->failing) return 0;
  uint32_t draw = calls++ * 2654435761u;
  if ((uint64_t)draw * 1000 >> 32 >= control->failing || fstat(fd, &file)) return 0;
  if (!S_ISREG(file.st_mode) && !S_ISDIR(file.st_mode)) return 0;
  control->failed++;
  errno = EIO;
  return 1;
}

int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  return fails(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  return fails(fd) ? -1 : real(fd);
}

/* Asked at each call: descriptors are opened by ways that are not seen here, and their numbers are given again. */
static ssize_t written(int fd, ssize_t result) {
  int before = errno;
  int syncs = result >= 0 && control && control->failing && (fcntl(fd, F_GETFL) & O_DSYNC);
  errno = before;
  return syncs && fails(fd) ? -1 : result;
}

#define WRITES(name, parameters, ...)          \
  ssize_t name parameters {                    \
    static ssize_t(*real) parameters;          \
    if (!real) real = dlsym(RTLD_NEXT, #name); \
    return written(fd, real(__VA_ARGS__));     \
  }

/* Those with 64 are what programs call that were compiled for large files, as Node is. */
WRITES(write, (int fd, const void *from, size_t bytes), fd, from, bytes)
WRITES(writev, (int fd, const struct iovec *from, int count), fd, from, count)
WRITES(pwrite, (int fd, const void *from, size_t bytes, off_t at), fd, from, bytes, at)
WRITES(pwrite64, (int fd, const void *from, size_t bytes, off64_t at), fd, from, bytes, at)
WRITES(pwritev, (int fd, const struct iovec *from, int count, off_t at), fd, from, count, at)
WRITES(pwritev64, (int fd, const struct iovec *from, int count, off64_t at), fd, from, count, at)
