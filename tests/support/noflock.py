"""A folder as on a file system without flock, which is how many sites mount Lustre.

A small library, compiled once and loaded before all others, answers ENOSYS to flock(2) on files
below one folder. It holds for a program and its children.
"""

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int flock(int fd, int operation) {
    static int (*real)(int, int);
    const char *folder = getenv("NO_FLOCK_IN");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (folder && length > 0) {
        path[length] = 0;
        if (strncmp(path, folder, strlen(folder)) == 0) {
            errno = ENOSYS;
            return -1;
        }
    }
    if (!real) real = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
    return real(fd, operation);
}
"""


def compiler() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc")


def without_flock(folder: Path, work: Path) -> dict[str, str]:
    """The environment of a program to which `folder` has no flock; the library goes to `work`."""
    source, library = work / "noflock.c", work / "noflock.so"
    source.write_text(SOURCE)
    argv = [compiler(), "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(argv, check=True)
    return {**os.environ, "LD_PRELOAD": str(library), "NO_FLOCK_IN": str(folder.resolve())}
