#include "script.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* What Linux lets a process have unless it is told otherwise (fs.nr_open). */
enum { MOST_DESCRIPTORS = 1024 * 1024 };

static const char MAGIC[] = "QLB1";

/* What is not yet read of the file. */
struct reading {
    const char *path;
    const char *at;
    size_t left;
};

noreturn void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);

    if (!memory)
        fail("out of memory");
    return memory;
}

uint64_t raise_descriptors(void)
{
    struct rlimit limit, more = {MOST_DESCRIPTORS, MOST_DESCRIPTORS};

    if (!setrlimit(RLIMIT_NOFILE, &more))
        return more.rlim_cur;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        fail("limit of open files: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max; /* all that those without privileges may have */
    if (setrlimit(RLIMIT_NOFILE, &limit))
        fail("limit of open files: %s", strerror(errno));
    return limit.rlim_cur;
}

static const char *take(struct reading *reading, size_t size)
{
    const char *taken = reading->at;

    if (size > reading->left)
        fail("%s: ends too early", reading->path);
    reading->at += size;
    reading->left -= size;
    return taken;
}

static uint32_t take_number(struct reading *reading)
{
    const unsigned char *octets = (const unsigned char *)take(reading, 4);

    return octets[0] | (uint32_t)octets[1] << 8 | (uint32_t)octets[2] << 16 |
           (uint32_t)octets[3] << 24;
}

/* How many things follow, each of which takes at least `least` octets. */
static uint32_t take_count(struct reading *reading, size_t least)
{
    uint32_t count = take_number(reading);

    if (count > reading->left / least)
        fail("%s: ends too early", reading->path);
    return count;
}

static const struct blob *take_blob(struct reading *reading, const struct script *script)
{
    uint32_t number = take_number(reading);

    if (number >= script->blob_count)
        fail("%s: there is no blob %u", reading->path, number);
    return &script->blobs[number];
}

static uint32_t lines_of(const struct reading *reading, const struct blob *blob)
{
    uint64_t lines = 0;
    bool good = blob->size > 0 && blob->size < 10;

    for (uint32_t i = 0; good && i < blob->size; i++) {
        good = blob->octets[i] >= '0' && blob->octets[i] <= '9';
        lines = lines * 10 + (uint64_t)(blob->octets[i] - '0');
    }
    if (!good)
        fail("%s: a number of lines is not decimal", reading->path);
    return (uint32_t)lines;
}

static bool begins(const struct blob *blob, const char *start)
{
    return blob->size >= strlen(start) && !memcmp(blob->octets, start, strlen(start));
}

static void take_step(struct reading *reading, const struct script *script, struct step *step)
{
    step->command = take_blob(reading, script);
    step->status = take_blob(reading, script);
    step->rest = take_blob(reading, script);
    step->mode = take_number(reading);
    if (step->command->size > LONGEST_LINE || step->status->size > LONGEST_LINE)
        fail("%s: a command or status is longer than %d octets", reading->path, LONGEST_LINE);
    if (step->mode == LINES)
        step->lines = lines_of(reading, step->rest);
    else if (step->mode != EXACT)
        fail("%s: there is no mode %u", reading->path, step->mode);
}

static void take_session(struct reading *reading, const struct script *script,
                         struct session *session)
{
    session->count = take_count(reading, 16);
    session->steps = allocate(session->count, sizeof *session->steps);
    for (uint32_t i = 0; i < session->count; i++) {
        take_step(reading, script, &session->steps[i]);
        if ((i == 0) != (session->steps[i].command->size == 0))
            fail("%s: a session begins with an empty command, and has no other", reading->path);
        if (!session->user && begins(session->steps[i].command, "USER "))
            session->user = i;
        if (!session->pass && begins(session->steps[i].command, "PASS "))
            session->pass = i;
    }
    if (!session->user || session->pass < session->user || session->pass + 1 >= session->count ||
        !begins(session->steps[session->count - 1].command, "QUIT\r\n"))
        fail("%s: a session has USER, then PASS, and QUIT in the end", reading->path);
}

static struct reading map(const char *path)
{
    struct reading reading = {.path = path};
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC);

    if (file < 0 || fstat(file, &status))
        fail("%s: %s", path, strerror(errno));
    reading.left = (size_t)status.st_size;
    reading.at = mmap(NULL, reading.left, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (reading.at == MAP_FAILED)
        fail("%s: %s", path, strerror(errno));
    close(file);
    return reading;
}

struct script read_script(const char *path)
{
    struct reading reading = map(path);
    struct script script;

    if (memcmp(take(&reading, strlen(MAGIC)), MAGIC, strlen(MAGIC)))
        fail("%s: no script of this generator", path);
    script.blob_count = take_count(&reading, 4);
    script.blobs = allocate(script.blob_count, sizeof *script.blobs);
    for (uint32_t i = 0; i < script.blob_count; i++) {
        script.blobs[i].size = take_number(&reading);
        script.blobs[i].octets = take(&reading, script.blobs[i].size);
    }
    script.count = take_count(&reading, 4);
    script.sessions = allocate(script.count, sizeof *script.sessions);
    for (uint32_t i = 0; i < script.count; i++)
        take_session(&reading, &script, &script.sessions[i]);
    if (!script.count || reading.left)
        fail("%s: no sessions, or octets after them", path);
    return script;
}

int login_of(const struct session *session, const char **login)
{
    const struct blob *command = session->steps[session->user].command;
    uint32_t start = strlen("USER "), end = command->size;

    while (end > start && (command->octets[end - 1] == '\n' || command->octets[end - 1] == '\r'))
        end--;
    *login = command->octets + start;
    return (int)(end - start);
}
