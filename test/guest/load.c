/*
 * load: the third workload of the test guest (`run=load` on the kernel's command line): a VM with much memory in use that
 * writes to it at a known rate. What it costs to capture is measured from outside (`npm run bench -- capture`).
 *
 * At its start it fills `fillMiB` of memory, sixteen pages after sixteen with
 *
 *   4 of random bytes, as media, ciphers and what is compressed already (xorshift64*)
 *   8 of words: of 1,024 words of 8 bytes, one after the other at random, as text and tables (10 bits in 64)
 *   3 of pointers: every fourth 8 bytes are zero, the others addresses within 16 MiB of each other (21 bits in 64)
 *   1 of 64 pages of words that are the same all over memory, as libraries are that many have loaded
 *
 * and then, told on its console, one thing until it is told the next:
 *
 *   idle ID
 *   write ID RATE BYTES AREA   in RATE pages a second BYTES bytes (a multiple of 8, at most 4096) become random ones, at a
 *                              random place of the page. It goes through the first AREA pages of what was filled in an
 *                              order that looks random, and to each once before it comes to any again
 *   cache ID DEVICE            reads it to its end, so that the kernel caches it
 *   status ID                  answers what it has done since it was told
 *   sum ID                     reads all of what was filled, in order, and answers with its hash: what it sees of its RAM
 *
 * It answers each with one line, and with ` sum=` and the FNV-1a hash of what stands before (bank.c says why):
 *   LOAD id=ID kind=idle|write|cache|status pages=P us=T        pages written, or read; the guest's own clock
 *   LOAD id=ID kind=sum pages=P us=T hash=H                     H below 2^48
 *   LOAD id=ID kind=error error=ERRNO
 * `id=0 kind=ready`: memory is full. A guest that is given too little of a processor falls behind, and what is more than a
 * second behind it leaves out: `status` tells.
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
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "guest.h"

#define PAGE 4096
#define WORDS_IN_PAGE (PAGE / 8)
#define DICTIONARY 1024
#define SHARED 64
#define TICK_MS 5
#define MOST_BEHIND_US 1e6

static uint64_t *memory;
static uint64_t pages, dictionary[DICTIONARY], shared[SHARED][WORDS_IN_PAGE];

/* What it does now: nothing where the rate is 0. */
static double rate, begun_us, due_us;
static uint64_t bytes, area, stride, place, written;

/* -------------------------------------------------------------------------------------------------------- filling */

static void fill_words(uint64_t *page) {
  uint64_t random = 0;
  for (int i = 0; i < WORDS_IN_PAGE; i++, random >>= 10) {
    if (i % 6 == 0) random = next_random();
    page[i] = dictionary[random % DICTIONARY];
  }
}

static void fill_pointers(uint64_t *page) {
  for (int i = 0; i < WORDS_IN_PAGE; i++)
    page[i] = i % 4 == 3 ? 0 : 0x00007f35c0000000ull + (next_random() >> 43) * 8;
}

static void fill_page(uint64_t number) {
  uint64_t *page = memory + number * WORDS_IN_PAGE, kind = number % 16;
  if (kind < 4)
    for (int i = 0; i < WORDS_IN_PAGE; i++) page[i] = next_random();
  else if (kind < 12)
    fill_words(page);
  else if (kind < 15)
    fill_pointers(page);
  else
    memcpy(page, shared[number / 16 % SHARED], PAGE);
}

static void fill(void) {
  for (int i = 0; i < DICTIONARY; i++) {
    char word[9];
    snprintf(word, sizeof word, "%c%c%c%02x ", 'a' + (int)(next_random() % 26), "aeiou"[next_random() % 5],
             'a' + (int)(next_random() % 26), (unsigned)(next_random() % 256));
    memcpy(&dictionary[i], "        ", 8);
    memcpy(&dictionary[i], word, strlen(word));
  }
  for (int i = 0; i < SHARED; i++) fill_words(shared[i]);
  for (uint64_t i = 0; i < pages; i++) fill_page(i);
}

/* -------------------------------------------------------------------------------------------------------- writing */

static uint64_t common_divisor(uint64_t a, uint64_t b) { return b ? common_divisor(b, a % b) : a; }

static int begin(double new_rate, uint64_t new_bytes, uint64_t new_area) {
  if (new_rate && (new_bytes % 8 || new_bytes < 8 || new_bytes > PAGE || new_area < 1 || new_area > pages)) return EINVAL;
  rate = new_rate;
  bytes = new_bytes;
  area = new_area;
  place = written = 0;
  begun_us = due_us = now_us();
  for (stride = area * 0.6180339887 + 1; area && common_divisor(area, stride) != 1;) stride++;
  return 0;
}

static void write_what_is_due(void) {
  double now = now_us();
  if (!rate) return;
  if (now - due_us > MOST_BEHIND_US) due_us = now - MOST_BEHIND_US;
  for (; due_us < now; due_us += 1e6 / rate, written++) {
    uint64_t *page = memory + place * WORDS_IN_PAGE, count = bytes / 8;
    place = (place + stride) % area;
    page += count < WORDS_IN_PAGE ? next_random() % (WORDS_IN_PAGE - count + 1) : 0;
    for (uint64_t i = 0; i < count; i++) page[i] = next_random();
  }
}

static int cache(int id, const char *path) {
  static char buffer[256 * 1024];
  double from = now_us();
  uint64_t read_bytes = 0;
  ssize_t n;
  if (mount("devtmpfs", "/dev", "devtmpfs", 0, "") && errno != EBUSY) return errno;
  int fd = open(path, O_RDONLY);
  if (fd < 0) return errno;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) read_bytes += n;
  if (n < 0) return errno;
  /* Left open: the cache of a device goes when nobody has it open. */
  say("LOAD id=%d kind=cache pages=%" PRIu64 " us=%.0f", id, read_bytes / PAGE, now_us() - from);
  return 0;
}

/* As FNV-1a, by eight bytes. */
static uint64_t sum_of_memory(void) {
  uint64_t hash = 14695981039346656037ull;
  for (uint64_t i = 0; i < pages * WORDS_IN_PAGE; i++) hash = (hash ^ memory[i]) * 1099511628211ull;
  return (hash ^ hash >> 32) & 0xffffffffffffull;
}

/* ------------------------------------------------------------------------------------------------------- console */

static void command(const char *line) {
  int id = 0, error = 0;
  double new_rate = 0;
  uint64_t new_bytes = 0, new_area = 0;
  char path[64];
  if (sscanf(line, "status %d", &id) == 1)
    say("LOAD id=%d kind=status pages=%" PRIu64 " us=%.0f", id, written, now_us() - begun_us);
  else if (sscanf(line, "sum %d", &id) == 1) {
    double from = now_us();
    uint64_t hash = sum_of_memory();
    say("LOAD id=%d kind=sum pages=%" PRIu64 " us=%.0f hash=%" PRIu64, id, pages, now_us() - from, hash);
  } else if (sscanf(line, "cache %d %63s", &id, path) == 2)
    error = cache(id, path);
  else if (sscanf(line, "write %d %lf %" SCNu64 " %" SCNu64, &id, &new_rate, &new_bytes, &new_area) == 4) {
    if (!(error = begin(new_rate, new_bytes, new_area))) say("LOAD id=%d kind=write pages=0 us=0", id);
  } else if (sscanf(line, "idle %d", &id) == 1) {
    begin(0, 0, 0);
    say("LOAD id=%d kind=idle pages=0 us=0", id);
  }
  if (error) say("LOAD id=%d kind=error error=%d", id, error);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    if (!strncmp(argv[i], "fillMiB=", 8)) pages = strtoull(argv[i] + 8, 0, 10) << 8;
  raw_console();
  memory = mmap(0, pages * PAGE + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("load: memory");
    return 1;
  }
  fill();
  begin(0, 0, 0);
  say("LOAD id=0 kind=ready pages=%" PRIu64 " us=%.0f", pages, now_us());
  for (;;) {
    struct pollfd p = {0, POLLIN, 0};
    if (poll(&p, 1, rate ? TICK_MS : -1) > 0) read_commands(command);
    write_what_is_due();
  }
}
