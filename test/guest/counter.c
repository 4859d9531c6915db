/*
 * counter: the workload of the test guest that shows whether disks and RAM are of the same moment (`run=counter`). It
 * mounts /dev/vda (ext4) and counts, one step every `intervalUs`: the number goes into RAM (`ram`), then into a slot of a
 * ring in the file /disk/ring, fsync, then into the same slot of a ring at the begin of /dev/vdb, if there is one, fsync,
 * and then into RAM again (`synced`). So in every moment
 *
 *   synced <= the highest number on vdb <= the highest number on vda <= ram <= synced + 1
 *
 * and the `slots` slots hold the numbers before it: a disk that is older or newer than RAM cannot look right. A page of RAM
 * that begins with MAGIC holds `ram` and `synced`, so that they can be found from outside.
 *
 * A restored VM would write over what shows that a disk is newer than its RAM. So each step begins with a look past all
 * caches: the slot of the last number must hold it, and the next slot must not yet hold the next.
 *
 * Commands on the console, one a line; it answers each with one line, and with ` sum=` and the FNV-1a hash of what stands
 * before (bank.c says why):
 *   check ID         reads the rings past all caches: how many slots hold another number than they must, and how many steps
 *                    have ever begun with one that did
 *   write ID RATE    from now on RATE random blocks of /disk/data (`dataMiB`) a second are filled with random bytes
 *   cache ID PATH    reads a file or device to its end, so that the kernel caches it
 *   drop ID          forgets what it caches
 *   COUNTER id=ID kind=check|write|cache|drop|error ram=N synced=N wrong=N pages=N error=ERRNO
 * `id=0 kind=ready`: it counts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

#define BLOCK 4096
#define READ_SLOTS 64 /* at once; `slots` is a power of two from here on */
#define MAGIC "diapause-counter"

static struct {
  char magic[16];
  uint64_t ram, synced;
} *state;

static uint64_t *block, *many, data_blocks, slots = READ_SLOTS, odd_steps;
static int ring, second = -1, data_file, ring_past_cache, second_past_cache;
static double interval_us = 5000, rate, due_us, step_us;

static void answer(int id, const char *kind, uint64_t wrong, uint64_t pages, int error) {
  say("COUNTER id=%d kind=%s ram=%" PRIu64 " synced=%" PRIu64 " wrong=%" PRIu64 " pages=%" PRIu64 " error=%d", id, kind,
      state->ram, state->synced, wrong, pages, error);
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

/* -------------------------------------------------------------------------------------------------------- counting */

static void put(int fd, uint64_t number) {
  for (int i = 0; i < BLOCK / 8; i++) block[i] = number;
  if (pwrite(fd, block, BLOCK, number % slots * BLOCK) != BLOCK || fsync(fd)) fail("counter: a write");
}

static int is_all(const uint64_t *words, uint64_t number) {
  for (int i = 0; i < BLOCK / 8; i++)
    if (words[i] != number) return 0;
  return 1;
}

/* What the slot of `number` holds where the last that was written is `last`. */
static uint64_t wanted_at(uint64_t slot, uint64_t last) {
  uint64_t back = (last - slot) % slots;
  return last < back ? 0 : last - back;
}

static int is_odd(int past_cache, uint64_t number) {
  uint64_t slot = number % slots;
  if (pread(past_cache, block, BLOCK, slot * BLOCK) != BLOCK) fail("counter: a look");
  return !is_all(block, wanted_at(slot, state->synced));
}

static int looks_odd(int past_cache) {
  return is_odd(past_cache, state->synced) + is_odd(past_cache, state->synced + 1) > 0;
}

static void step(void) {
  uint64_t number = state->synced + 1;
  odd_steps += looks_odd(ring_past_cache) || (second >= 0 && looks_odd(second_past_cache));
  state->ram = number;
  __sync_synchronize();
  put(ring, number);
  if (second >= 0) put(second, number);
  __sync_synchronize();
  state->synced = number;
}

/* Slots that do not hold the number that they must. */
static uint64_t wrong_in(int past_cache) {
  uint64_t wrong = 0;
  for (uint64_t slot = 0; slot < slots; slot++) {
    uint64_t at = slot % READ_SLOTS;
    if (at == 0 && pread(past_cache, many, READ_SLOTS * BLOCK, slot * BLOCK) != READ_SLOTS * BLOCK) fail("counter: a check");
    wrong += !is_all(many + at * (BLOCK / 8), wanted_at(slot, state->synced));
  }
  return wrong;
}

static void write_what_is_due(void) {
  double now = now_us();
  if (rate && now - due_us > 1e6) due_us = now - 1e6;
  for (; rate && due_us < now; due_us += 1e6 / rate) {
    for (int i = 0; i < BLOCK / 8; i++) block[i] = next_random();
    if (pwrite(data_file, block, BLOCK, next_random() % data_blocks * BLOCK) != BLOCK) fail("counter: data");
  }
}

/* ------------------------------------------------------------------------------------------------------- console */

static uint64_t cache(const char *path) {
  static char buffer[256 * 1024];
  uint64_t bytes = 0;
  ssize_t n;
  int fd = open(path, O_RDONLY);
  if (fd < 0) return 0;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) bytes += n;
  return bytes / BLOCK; /* left open: the cache of a device goes when nobody has it open */
}

static int drop(void) {
  int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
  sync();
  int bad = fd < 0 || write(fd, "3", 1) != 1;
  close(fd);
  return bad ? errno : 0;
}

static void command(const char *line) {
  int id = 0;
  double new_rate = 0;
  char path[64];
  if (sscanf(line, "check %d", &id) == 1)
    answer(id, "check", odd_steps + wrong_in(ring_past_cache) + (second < 0 ? 0 : wrong_in(second_past_cache)), 0, 0);
  else if (sscanf(line, "write %d %lf", &id, &new_rate) == 2) {
    rate = new_rate;
    due_us = now_us();
    answer(id, "write", 0, 0, 0);
  } else if (sscanf(line, "cache %d %63s", &id, path) == 2)
    answer(id, "cache", 0, cache(path), 0);
  else if (sscanf(line, "drop %d", &id) == 1)
    answer(id, "drop", 0, 0, drop());
}

static int opened(const char *path, int flags) {
  int fd = open(path, flags, 0600);
  if (fd < 0) fail(path);
  return fd;
}

static void mount_disks(void) {
  mkdir("/disk", 0700);
  if (mount("devtmpfs", "/dev", "devtmpfs", 0, "") && errno != EBUSY) fail("counter: /dev");
  if (mount("/dev/vda", "/disk", "ext4", 0, "")) fail("counter: /dev/vda");
  ring = opened("/disk/ring", O_RDWR | O_CREAT);
  data_file = opened("/disk/data", O_RDWR | O_CREAT);
  if (ftruncate(data_file, data_blocks * BLOCK)) fail("counter: data");
  if (access("/dev/vdb", F_OK) == 0) second = opened("/dev/vdb", O_RDWR);
  for (uint64_t slot = 0; slot < slots; slot++) {
    memset(block, 0, BLOCK);
    if (pwrite(ring, block, BLOCK, slot * BLOCK) != BLOCK) fail("counter: ring");
    if (second >= 0 && pwrite(second, block, BLOCK, slot * BLOCK) != BLOCK) fail("counter: vdb");
  }
  if (fsync(ring) || (second >= 0 && fsync(second))) fail("counter: fsync");
  ring_past_cache = opened("/disk/ring", O_RDONLY | O_DIRECT);
  if (second >= 0) second_past_cache = opened("/dev/vdb", O_RDONLY | O_DIRECT);
}

int main(int argc, char **argv) {
  uint64_t data_mib = 4;
  for (int i = 1; i < argc; i++) {
    if (!strncmp(argv[i], "dataMiB=", 8)) data_mib = strtoull(argv[i] + 8, 0, 10);
    if (!strncmp(argv[i], "intervalUs=", 11)) interval_us = strtod(argv[i] + 11, 0);
    if (!strncmp(argv[i], "slots=", 6)) slots = strtoull(argv[i] + 6, 0, 10);
  }
  data_blocks = data_mib << 8;
  raw_console();
  if (posix_memalign((void **)&state, BLOCK, BLOCK) || posix_memalign((void **)&block, BLOCK, BLOCK) ||
      posix_memalign((void **)&many, BLOCK, READ_SLOTS * BLOCK))
    fail("counter: memory");
  memset(state, 0, BLOCK);
  mount_disks();
  memcpy(state->magic, MAGIC, sizeof state->magic);
  answer(0, "ready", 0, 0, 0);
  for (;;) {
    struct pollfd p = {0, POLLIN, 0};
    double wait_us = step_us + interval_us - now_us();
    if (poll(&p, 1, wait_us > 0 ? wait_us / 1000 : 0) > 0) read_commands(command);
    write_what_is_due();
    if (now_us() - step_us < interval_us) continue;
    step_us = now_us();
    step();
  }
}
