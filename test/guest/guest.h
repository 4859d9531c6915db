/*
 * What the workloads of the test guest share: a clock, chance, lines with a checksum, and commands from the console.
 * bank.c, whose console must not make it wait, has its own.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static inline double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

/* xorshift64* */
static inline uint64_t next_random(void) {
  static uint64_t chance = 88172645463325252ull;
  chance ^= chance >> 12;
  chance ^= chance << 25;
  chance ^= chance >> 27;
  return chance * 2685821657736338717ull;
}

/* One line, with ` sum=` and the FNV-1a hash of what stands before (bank.c says why). */
static inline void say(const char *format, ...) {
  char line[512];
  uint32_t hash = 2166136261u;
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(line, sizeof line - 20, format, arguments);
  va_end(arguments);
  for (int i = 0; i < n; i++) hash = (hash ^ (unsigned char)line[i]) * 16777619u;
  n += sprintf(line + n, " sum=%08x\n", hash);
  if (write(1, line, n) != n) exit(1);
}

/* The console gives and takes bytes as they are. */
static inline void raw_console(void) {
  struct termios t;
  if (tcgetattr(0, &t)) return;
  cfmakeraw(&t);
  tcsetattr(0, TCSANOW, &t);
}

/* Reads a byte; at the end of a line `command` is given the line. */
static inline void read_commands(void (*command)(const char *line)) {
  static char line[128];
  static size_t used;
  char c;
  if (read(0, &c, 1) != 1) return;
  if (c != '\n' && c != '\r') {
    if (used < sizeof line - 1) line[used++] = c;
    return;
  }
  line[used] = 0;
  used = 0;
  command(line);
}
