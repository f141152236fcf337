/* A disk that fills: what is written behind the first DISK_BYTES of files under DISK_FOLDER fails with ENOSPC. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long written;

ssize_t write(int file, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    char link[64], path[PATH_MAX];
    const char *folder = getenv("DISK_FOLDER"), *most = getenv("DISK_BYTES");
    ssize_t length;

    if (!real)
        real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, path, sizeof path - 1);
    if (folder && most && length > 0) {
        path[length] = 0;
        if (strncmp(path, folder, strlen(folder)) == 0) {
            if (written + (long)size > atol(most)) {
                errno = ENOSPC;
                return -1;
            }
            written += (long)size;
        }
    }
    return real(file, data, size);
}
