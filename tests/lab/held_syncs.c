/* Preloaded into a database: a sync of a binlog file waits while the file that HELD_SYNCS
 * names exists, as on a disk that has stopped. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void hold(int fd)
{
    char link[64], path[4096];
    const char *held = getenv("HELD_SYNCS");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!held || length < 0)
        return;
    path[length] = 0;
    while (strstr(path, "/bin.0") && access(held, F_OK) == 0)
        usleep(1000);
}

int fdatasync(int fd)
{
    hold(fd);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

int fsync(int fd)
{
    hold(fd);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
