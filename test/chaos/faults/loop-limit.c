/*
 * loop-limit DEVICE BYTES: nothing of a loop device can be read or written behind so many bytes (0: no limit), also while
 * a file system is mounted from it, which hears EIO as from a disk with bad sectors.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct loop_info64 info;
  if (argc != 3) return 2;
  int fd = open(argv[1], O_RDWR | O_CLOEXEC), failed;
  if (fd < 0 || ioctl(fd, LOOP_GET_STATUS64, &info)) {
    perror(argv[1]);
    return 1;
  }
  info.lo_sizelimit = strtoull(argv[2], 0, 10);
  /* EAGAIN: pages of the device were read while it was asked. */
  for (int tries = 0; (failed = ioctl(fd, LOOP_SET_STATUS64, &info)) && errno == EAGAIN && tries < 100; tries++) usleep(10000);
  if (failed) perror("LOOP_SET_STATUS64");
  return failed != 0;
}
