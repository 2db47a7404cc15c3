/* A native plugin that does, in `state`, what its setting `deed` says: everything that a plugin must not be able to do.
 * What the kernel refused comes back as failure 0xd6 with errno as `sub`; what was not refused, as finished. It is built
 * by tests/e2e/tests/native/main.rs and shows nothing about how a plugin should be written. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "ota_pal.h"

static const ota_pal_lent *lent;
static char deed[64];
static char place[256];

#ifndef NAME
#define NAME "hostile"
#endif

#ifndef NEEDS
#define NEEDS OTA_PAL_LOG
#endif

static const char *const kinds[] = {"hostile", NULL};
static const uint32_t schemas[] = {1};
static const ota_pal_description me = {
    sizeof me, OTA_PAL_CAN_STAGED | OTA_PAL_CAN_REVERT, 0, NEEDS, NAME, "1.0.0", kinds, schemas, 1, 0,
};

static const ota_pal_description *describe(void) { return &me; }

static int is(const char *name) { return !strcmp(deed, name); }

static int open_and_close(const char *path, int flags)
{
    int fd = open(path, flags, 0600);
    if (fd >= 0)
        close(fd);
    return fd;
}

/* With this deed, for as long as the file is there. */
static int32_t unless(const char *name, ota_pal_failure *failure)
{
    if (!is(name) || open_and_close(place, O_RDONLY) < 0)
        return 0;
    failure->main = 0xd6;
    return -1;
}

static int32_t open_it(const ota_pal_lent *l, const ota_pal_setting *settings, uint32_t count,
                       const ota_pal_saved *saved, void **self, ota_pal_failure *failure)
{
    (void)saved;
    lent = l;
    for (uint32_t n = 0; n < count; n++) {
        if (!strcmp(settings[n].key, "deed"))
            snprintf(deed, sizeof deed, "%s", settings[n].value);
        if (!strcmp(settings[n].key, "place"))
            snprintf(place, sizeof place, "%s", settings[n].value);
    }
    *self = deed;
    return unless("refuses-open", failure);
}

static int nothing(void *argument)
{
    (void)argument;
    return 0;
}

static void *thread(void *argument) { return argument; }

/* Numbers above those of the three standard files: the channel is one of them. */
static void everywhere(const void *bytes, size_t length)
{
    for (int fd = 3; fd < 64; fd++)
        (void)!write(fd, bytes, length);
}

static long refused(void)
{
    char path[64];
    struct rlimit more = {RLIM_INFINITY, RLIM_INFINITY};
    static char stack[65536];
    if (is("fork"))
        return syscall(SYS_fork);
    if (is("fork-libc"))
        return fork();
    if (is("clone"))
        return clone(nothing, stack + sizeof stack, SIGCHLD, NULL);
    if (is("exec")) {
        char *const arguments[] = {"sh", "-c", "exit 0", NULL};
        return execv("/bin/sh", arguments);
    }
    if (is("system"))
        return system("true") == 0 ? 0 : -1;
    if (is("socket"))
        return socket(AF_INET, SOCK_STREAM, 0);
    if (is("socket-unix"))
        return socket(AF_UNIX, SOCK_STREAM, 0);
    if (is("socketpair")) {
        int pair[2];
        return socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    }
    if (is("ptrace"))
        return ptrace(PTRACE_ATTACH, getppid(), 0, 0);
    if (is("read-memory")) {
        char byte;
        struct iovec mine = {&byte, 1}, theirs = {(void *)0x400000, 1};
        return process_vm_readv(getppid(), &mine, 1, &theirs, 1, 0);
    }
    if (is("proc-mem")) {
        snprintf(path, sizeof path, "/proc/%d/mem", getppid());
        return open_and_close(path, O_RDWR);
    }
    if (is("proc-fd")) {
        snprintf(path, sizeof path, "/proc/%d/fd/0", getppid());
        return open_and_close(path, O_RDONLY);
    }
    if (is("kill-host"))
        return kill(getppid(), SIGKILL);
    if (is("kill-all"))
        return kill(-1, SIGKILL);
    if (is("own-signals"))
        return fcntl(open("/dev/null", O_RDONLY), F_SETOWN, getppid());
    if (is("own-signals-of-socket")) {
        int host = getppid();
        for (int fd = 3; fd < 64; fd++)
            if (ioctl(fd, FIOSETOWN, &host) == 0)
                return 0;
        errno = EPERM;
        return -1;
    }
    if (is("read-outside"))
        return open_and_close("/etc/passwd", O_RDONLY);
    if (is("read-place"))
        return open_and_close(place, O_RDONLY);
    if (is("write-place"))
        return open_and_close(place, O_WRONLY | O_CREAT | O_TRUNC);
    if (is("truncate-place"))
        return truncate(place, 0);
    if (is("unlink-place"))
        return unlink(place);
    if (is("rename-place"))
        return rename(place, "gone");
    if (is("link-place"))
        return link(place, "mine");
    if (is("chmod-place"))
        return chmod(place, 0777);
    if (is("symlink-place")) {
        (void)!symlink(place, "through");
        return open_and_close("through", O_RDONLY);
    }
    if (is("mount"))
        return mount("none", "/tmp", "tmpfs", 0, NULL);
    if (is("chroot"))
        return chroot("/");
    if (is("namespace"))
        return unshare(CLONE_NEWUSER);
    if (is("reboot"))
        return reboot(RB_ENABLE_CAD);
    if (is("raise-limits"))
        return setrlimit(RLIMIT_NOFILE, &more);
    if (is("set-id"))
        return setuid(0) == 0 && getuid() == 0 ? -1 : setgid(0);
    if (is("memory-file"))
        return memfd_create("x", 0);
    if (is("io-uring"))
        return syscall(SYS_io_uring_setup, 1, stack);
    if (is("bpf"))
        return syscall(SYS_bpf, 0, stack, 1);
    if (is("keys"))
        return syscall(SYS_add_key, "user", "x", "y", 1, -3);
    if (is("privileges"))
        return prctl(PR_SET_DUMPABLE, 1);
    if (is("leak-descriptors")) {
        int fd = 0;
        while (fd >= 0)
            fd = open("/dev/null", O_RDONLY);
        return fd;
    }
    if (is("memory")) {
        for (;;) {
            void *more_memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (more_memory == MAP_FAILED)
                return -1;
            *(char *)more_memory = 1;
        }
    }
    if (is("memory-shared")) {
        for (;;) {
            void *more_memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            if (more_memory == MAP_FAILED)
                return -1;
            *(char *)more_memory = 1;
        }
    }
    errno = 0;
    return 0;
}

static void breaks(void)
{
    if (is("spin"))
        for (;;)
            __asm__ volatile("");
    if (is("sleep"))
        for (;;)
            sleep(1000);
    if (is("stop"))
        kill(getpid(), SIGSTOP);
    if (is("segfault"))
        *(volatile int *)16 = 1;
    if (is("abort"))
        abort();
    if (is("exit"))
        exit(3);
    if (is("divide"))
        raise(SIGFPE);
    if (is("stack")) {
        volatile char frame[1 << 16];
        frame[0] = 1;
        breaks();
        frame[1] = frame[0];
    }
    if (is("flood-log"))
        for (;;)
            lent->log(lent->host, OTA_PAL_WARN, "flood");
    if (is("flood-lines")) {
        static char long_line[1 << 20];
        memset(long_line, 'x', sizeof long_line - 1);
        for (;;)
            lent->log(lent->host, OTA_PAL_ERROR, long_line);
    }
    if (is("flood-clock"))
        for (;;)
            (void)lent->now_ms(lent->host);
    if (is("garbage"))
        everywhere("\xff\xff\xff\x7f\xff\xff\xff\x7f", 8);
    if (is("no-message"))
        everywhere("\x04\0\0\0\0\0\0\0\xee\xee\xee\xee", 12);
    if (is("started-again"))
        everywhere("\x03\0\0\0\0\0\0\0\0\1\0", 11);
    if (is("half-a-frame"))
        for (everywhere("\x10\0\0\0", 4);;)
            sleep(1000);
    if (is("drip"))
        for (everywhere("\0\x70\1\0\0\0\0\0", 8);; usleep(10000))
            everywhere("\0", 1);
    if (is("hang-up")) {
        close_range(3, ~0u, 0);
        for (;;)
            sleep(1000);
    }
    if (is("ignore-everything")) {
        for (int n = 1; n < 64; n++)
            signal(n, SIG_IGN);
        for (;;)
            sleep(1000);
    }
    if (is("threads")) {
        pthread_t id;
        while (pthread_create(&id, NULL, thread, NULL) == 0)
            pthread_join(id, NULL);
    }
}

/* Steps that it took to be told of the transfer, of "told-in-steps". */
static int told;

static int32_t state(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self;
    duty->answer = OTA_PAL_STATE;
    duty->state = OTA_PAL_STATE_VALID;
    if (is("no-such-answer"))
        duty->answer = 77;
    if (is("no-such-status"))
        duty->status = 77;
    if (is("told-in-steps") && told != 2)
        return -1;
    breaks();
    errno = 0;
    if (refused() >= 0)
        return 0;
    failure->main = 0xd6;
    failure->sub = (uint32_t)errno;
    snprintf(failure->detail, sizeof failure->detail, "%s: %s\n\x1b[31m", deed, strerror(errno));
    return -1;
}

static int32_t begin(void *self, const ota_pal_transfer *transfer, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self, (void)transfer;
    if (is("told-in-steps"))
        duty->status = OTA_PAL_WORKING;
    return unless("refuses-transfer", failure);
}

static int32_t step(void *self, uint32_t budget, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self, (void)budget, (void)failure;
    if (++told < 2)
        duty->status = OTA_PAL_WORKING;
    return 0;
}

static int32_t ends(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self, (void)duty, (void)failure;
    if (is("exit") || is("told-in-steps") || is("refuses-open") || is("refuses-transfer"))
        exit(0);
    if (is("told-to-end")) {
        raise(SIGTERM);
        raise(SIGINT);
        raise(SIGHUP);
    }
    return 0;
}

static int32_t activate(void *self, const uint8_t *sha256, ota_pal_duty *duty, ota_pal_failure *failure)
{
    static uint8_t much[OTA_PAL_TRANSFER_MAX_BYTES + 1];
    uint32_t taken;
    (void)sha256;
#ifdef AT_ACTIVATE
    AT_ACTIVATE;
#endif
    if (is("long-write"))
        return lent->write_at(lent->host, 0, 0, much, sizeof much, failure);
    if (is("long-line"))
        return lent->line_write(lent->host, much, sizeof much, &taken, failure);
    return ends(self, duty, failure);
}

static int32_t reject(void *self, ota_pal_duty *duty, ota_pal_failure *failure)
{
    (void)self, (void)duty, (void)failure;
    return 0;
}

static int32_t suspend(void *self, uint32_t *schema, uint8_t *bytes, uint32_t *length, ota_pal_failure *failure)
{
    (void)self, (void)bytes, (void)failure;
    *schema = 1;
    *length = is("too-much-saved") ? 1u << 30 : 0;
    return 0;
}

static const ota_pal_plugin table = {
    sizeof table, OTA_PAL_ABI_VERSION, describe, open_it, NULL, begin, begin, NULL, NULL, NULL, NULL, activate, ends,
    NULL, ends, reject, state, reject, step, suspend,
};

const ota_pal_plugin *ota_pal_plugin_entry(void)
{
#ifdef AT_LOAD
    AT_LOAD;
#endif
    return &table;
}

#ifdef CONSTRUCTOR
__attribute__((constructor)) static void at_start(void) { CONSTRUCTOR; }
#endif
