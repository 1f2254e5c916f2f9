/* What a power cut would leave: each file as it was when it was last synced.
 *
 * LD_PRELOADed into a supervisor, it copies a file below $BRAINJAR_TEST_STATE to the same place below $BRAINJAR_TEST_SHADOW whenever
 * that is synced; when a directory is synced, the copies go of what is in it no more. What was never synced is not there.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int shadow_of(const char *path, char *out, size_t size) {
    const char *state = getenv("BRAINJAR_TEST_STATE"), *shadow = getenv("BRAINJAR_TEST_SHADOW");
    if (!state || !shadow || strncmp(path, state, strlen(state)) != 0)
        return 0;
    return snprintf(out, size, "%s%s", shadow, path + strlen(state)) < (int)size;
}

static void forget(const char *path, const char *target) {
    char here[4400], there[4400];
    DIR *copies = opendir(target);
    if (!copies)
        return;
    for (struct dirent *one; (one = readdir(copies));) {
        snprintf(here, sizeof here, "%s/%s", path, one->d_name);
        snprintf(there, sizeof there, "%s/%s", target, one->d_name);
        if (access(here, F_OK) != 0)
            unlink(there);
    }
    closedir(copies);
}

static void keep(int fd) {
    struct stat what;
    char link[64], path[4096], target[4096], aside[4200], block[65536];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return;
    path[n] = 0;
    if (!shadow_of(path, target, sizeof target) || fstat(fd, &what) != 0)
        return;
    if (S_ISDIR(what.st_mode)) {
        forget(path, target);
        return;
    }
    for (char *at = target + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        mkdir(target, 0700);
        *at = '/';
    }
    snprintf(aside, sizeof aside, "%s.copying", target);
    int from = open(path, O_RDONLY | O_CLOEXEC), to = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (from >= 0 && to >= 0) {
        while ((n = read(from, block, sizeof block)) > 0)
            if (write(to, block, n) != n)
                break;
        rename(aside, target);
    }
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int rc = real(fd);
    if (rc == 0)
        keep(fd);
    return rc;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int rc = real(fd);
    if (rc == 0)
        keep(fd);
    return rc;
}
