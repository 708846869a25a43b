/* Logs what a process does to the files of one folder: a library for LD_PRELOAD.
 *
 * CALLS_FOLDER is the folder, CALLS_LOG the log. One record for each call that has succeeded:
 * kind, length of the name, offset, length of the data (all little-endian), name, data.
 * w write, t truncate (offset is the size), s sync, d delete. Names are relative to the folder;
 * that of a folder that is synced is its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int log_fd = -1;
static const char *folder;
static size_t folder_size;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CALLS_LOG");
    folder = getenv("CALLS_FOLDER");
    if (!path || !folder) return;
    folder_size = strlen(folder);
    log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(const void *data, size_t size)
{
    const char *at = data;
    while (size) {
        ssize_t done = syscall(SYS_write, log_fd, at, size);
        if (done <= 0) abort();
        at += done;
        size -= done;
    }
}

static void note_path(char kind, const char *path, int64_t offset, const void *data, uint32_t size)
{
    if (log_fd < 0 || strncmp(path, folder, folder_size) || path[folder_size] != '/') return;
    const char *name = path + folder_size + 1;
    uint16_t length = strlen(name);
    char head[15];
    head[0] = kind;
    memcpy(head + 1, &length, 2);
    memcpy(head + 3, &offset, 8);
    memcpy(head + 11, &size, 4);
    put(head, sizeof head);
    put(name, length);
    if (size) put(data, size);
}

static void note(char kind, int fd, int64_t offset, const void *data, size_t size)
{
    char link[64], path[4096];
    if (log_fd < 0) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    note_path(kind, path, offset, data, size);
}

#define REAL(name, type) static type real; if (!real) real = (type)dlsym(RTLD_NEXT, name)

typedef ssize_t (*pwrite_call)(int, const void *, size_t, off_t);
typedef ssize_t (*write_call)(int, const void *, size_t);
typedef int (*truncate_call)(int, off_t);
typedef int (*sync_call)(int);
typedef int (*unlink_call)(const char *);

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    REAL("pwrite", pwrite_call);
    ssize_t done = real(fd, data, size, offset);
    if (done > 0) note('w', fd, offset, data, done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL("write", write_call);
    ssize_t done = real(fd, data, size);
    if (done > 0 && log_fd >= 0) note('w', fd, lseek(fd, 0, SEEK_CUR) - done, data, done);
    return done;
}

int ftruncate(int fd, off_t size)
{
    REAL("ftruncate", truncate_call);
    int done = real(fd, size);
    if (!done) note('t', fd, size, 0, 0);
    return done;
}

int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

int fsync(int fd)
{
    REAL("fsync", sync_call);
    int done = real(fd);
    if (!done) note('s', fd, 0, 0, 0);
    return done;
}

int fdatasync(int fd)
{
    REAL("fdatasync", sync_call);
    int done = real(fd);
    if (!done) note('s', fd, 0, 0, 0);
    return done;
}

int unlink(const char *path)
{
    REAL("unlink", unlink_call);
    int done = real(path);
    if (!done) note_path('d', path, 0, 0, 0);
    return done;
}
