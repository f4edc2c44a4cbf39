/* Shim: a disk and a clock that tests can break, between a service and its C library (LD_PRELOAD).
 *
 * It does nothing until `faults_attach` names a control file, a watched directory and a shadow directory. From then on:
 *
 * - For each database file in the watched directory the shadow holds what a disk would hold: writes only mark their
 *   pages dirty, and a successful fsync or fdatasync copies the dirty pages to the shadow. A failing sync copies nothing and
 *   leaves the pages clean, as Linux does, so that a later success does not bring them back.
 * - A name is on disk once its directory was synced: the shadow holds that mapping from names to files as well.
 * - The control file makes syncs and writes fail, and moves CLOCK_REALTIME.
 *
 * A file is identified by inode and time of birth, so that a new file with an old inode number is another file.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES_MAX 65536 /* files of up to 256 MiB */
#define FILES_MAX 64

struct control {
    int64_t clock_shift_ns;
    int32_t sync_errno;     /* what syncs fail with; 0: they succeed */
    int32_t syncs_to_fail;  /* how many more syncs fail; negative: all */
    int32_t write_errno;    /* what writes fail with; 0: they succeed */
    int32_t refused;        /* how many calls have failed on purpose */
};

struct file {
    char key[64];
    int shadow;
    uint8_t *dirty;
};

static struct control *control;
static char watched[PATH_MAX], shadows[PATH_MAX];
static struct file files[FILES_MAX];
static int files_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void resolve(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
}

/* Returns 0, or the error. All three paths are absolute; the directories exist, and the control file is one page long. */
int faults_attach(const char *control_file, const char *watched_directory, const char *shadow_directory) {
    int fd = open(control_file, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno;
    void *mapped = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED)
        return errno;
    snprintf(watched, sizeof watched, "%s/", watched_directory);
    snprintf(shadows, sizeof shadows, "%s", shadow_directory);
    control = mapped;
    return 0;
}

static int key_of(int fd, const char *name, char *key, size_t size, mode_t *mode) {
    struct statx found;
    if (statx(fd, name, *name ? 0 : AT_EMPTY_PATH, STATX_INO | STATX_BTIME | STATX_MODE, &found) != 0)
        return -1;
    snprintf(key, size, "%llu-%lld-%u", (unsigned long long)found.stx_ino, (long long)found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
    *mode = found.stx_mode;
    return 0;
}

/* The index in shared memory between connections (-shm) is not data: SQLite makes it again after every crash. */
static int is_database(const char *name) {
    const char *found = strstr(name, ".db");
    return found != NULL && (found[3] == 0 || strcmp(found, ".db-wal") == 0 || strcmp(found, ".db-journal") == 0);
}

static int is_watched(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strncmp(path, watched, strlen(watched)) == 0 && is_database(path + strlen(watched));
}

static void copy_page(int from, int to, off_t page) {
    char bytes[PAGE];
    ssize_t got = pread(from, bytes, PAGE, page * PAGE);
    if (got > 0)
        real_pwrite(to, bytes, (size_t)got, page * PAGE);
}

/* Returns the state of a database file, NULL for any other file. Its first contents count as synced. The caller holds the lock. */
static struct file *file_of(int fd) {
    char path[PATH_MAX], key[64], name[PATH_MAX + 80];
    mode_t mode;
    if (control == NULL || key_of(fd, "", key, sizeof key, &mode) != 0 || !S_ISREG(mode) || !is_watched(fd, path))
        return NULL;
    for (int i = 0; i < files_count; i++)
        if (strcmp(files[i].key, key) == 0)
            return &files[i];
    if (files_count == FILES_MAX)
        return NULL;
    struct file *file = &files[files_count];
    snprintf(name, sizeof name, "%s/%s.dirty", shadows, key);
    int dirty = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (dirty < 0 || real_ftruncate(dirty, PAGES_MAX) != 0)
        return NULL;
    file->dirty = mmap(NULL, PAGES_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, dirty, 0);
    close(dirty);
    snprintf(name, sizeof name, "%s/%s.image", shadows, key);
    file->shadow = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    struct stat state;
    if (file->shadow >= 0 && fstat(fd, &state) == 0) {
        /* Read through this descriptor: closing another one would release all of SQLite's locks on the file. */
        for (off_t page = 0; page * PAGE < state.st_size; page++)
            copy_page(fd, file->shadow, page);
    } else {
        file->shadow = open(name, O_RDWR | O_CLOEXEC);
    }
    if (file->dirty == MAP_FAILED || file->shadow < 0)
        return NULL;
    snprintf(file->key, sizeof file->key, "%s", key);
    files_count++;
    return file;
}

static void mark(struct file *file, off_t start, off_t end) {
    for (off_t page = start / PAGE; page * PAGE < end && page < PAGES_MAX; page++)
        file->dirty[page] = 1;
}

/* Returns 0 if a write may go on, else -1 with errno. */
static int before_write(int fd, off_t start, off_t end) {
    if (control == NULL)
        return 0;
    int kept = errno, refused = 0;
    pthread_mutex_lock(&lock);
    struct file *file = file_of(fd);
    if (file != NULL) {
        refused = control->write_errno;
        if (refused)
            control->refused++;
        else
            mark(file, start, end);
    }
    pthread_mutex_unlock(&lock);
    errno = refused ? refused : kept;
    return refused ? -1 : 0;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return before_write(fd, offset, offset + (off_t)count) ? -1 : real_pwrite(fd, bytes, count, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return pwrite64(fd, bytes, count, offset);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (control != NULL && fd > 2) {
        off_t offset = lseek(fd, 0, SEEK_CUR);
        if (offset >= 0 && before_write(fd, offset, offset + (off_t)count))
            return -1;
    }
    return real_write(fd, bytes, count);
}

int ftruncate64(int fd, off64_t size) {
    struct stat state;
    if (control != NULL && fstat(fd, &state) == 0 && before_write(fd, size, state.st_size))
        return -1;
    return real_ftruncate(fd, size);
}

int ftruncate(int fd, off_t size) {
    return ftruncate64(fd, size);
}

static int syncs_fail(void) {
    if (control->sync_errno == 0 || control->syncs_to_fail == 0)
        return 0;
    if (control->syncs_to_fail > 0)
        control->syncs_to_fail--;
    control->refused++;
    return control->sync_errno;
}

/* Puts all names of the watched directory on the disk. */
static void note_names(int fd) {
    char path[PATH_MAX], link[64], part[PATH_MAX + 16], whole[PATH_MAX + 16], key[64];
    mode_t mode;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 2);
    if (length < 0)
        return;
    snprintf(path + length, 2, "/");
    if (strcmp(path, watched) != 0)
        return;
    snprintf(part, sizeof part, "%s/names.%d", shadows, (int)getpid());
    snprintf(whole, sizeof whole, "%s/names", shadows);
    FILE *names = fopen(part, "we");
    DIR *directory = opendir(path);
    if (names != NULL && directory != NULL) {
        for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
            if (is_database(entry->d_name) && key_of(dirfd(directory), entry->d_name, key, sizeof key, &mode) == 0)
                fprintf(names, "%s %s\n", entry->d_name, key);
    }
    if (directory != NULL)
        closedir(directory);
    if (names != NULL && fclose(names) == 0)
        rename(part, whole);
}

static int sync_with(int fd, int (*really)(int)) {
    if (control == NULL)
        return really(fd);
    struct stat state;
    pthread_mutex_lock(&lock);
    struct file *file = file_of(fd);
    int failed = 0;
    if (file != NULL) {
        failed = syncs_fail();
        fstat(fd, &state);
        for (off_t page = 0; page < PAGES_MAX; page++) {
            if (file->dirty[page] && !failed)
                copy_page(fd, file->shadow, page);
            file->dirty[page] = 0;
        }
        if (!failed)
            real_ftruncate(file->shadow, state.st_size);
    } else if (fstat(fd, &state) == 0 && S_ISDIR(state.st_mode)) {
        note_names(fd);
    }
    pthread_mutex_unlock(&lock);
    if (failed) {
        errno = failed;
        return -1;
    }
    return 0; /* the shadow is the disk of these tests: no call needs to wait for the real disk */
}

int fsync(int fd) {
    return sync_with(fd, real_fsync);
}

int fdatasync(int fd) {
    return sync_with(fd, real_fdatasync);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = real_clock_gettime ? real_clock_gettime(clock, time) : (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && control != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = time->tv_sec * 1000000000LL + time->tv_nsec + control->clock_shift_ns;
        time->tv_sec = ns / 1000000000LL;
        time->tv_nsec = ns % 1000000000LL;
    }
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where != NULL)
        *where = now.tv_sec;
    return now.tv_sec;
}
