/* What is to be said and to be heard, as benchmarks/scripts.py writes it into a file. */

#ifndef SCRIPT_H
#define SCRIPT_H

#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>

/* A line of a command or of a first answer, its end included (RFC 1939, section 3; RFC 2449). */
enum { LONGEST_LINE = 512 };

struct blob {
    const char *octets;
    uint32_t size;
};

enum mode {
    EXACT = 0, /* the rest of the answer is `rest` */
    LINES = 1, /* it is `lines` lines, then a line with a dot */
};

struct step {
    const struct blob *command;
    const struct blob *status; /* how the first line of the answer begins */
    const struct blob *rest;
    uint32_t mode;
    uint32_t lines;
};

/* From the greeting, whose command is empty, to QUIT; USER and PASS are among the steps. */
struct session {
    struct step *steps;
    uint32_t count;
    uint32_t user, pass; /* which steps these are */
};

struct script {
    struct blob *blobs;
    struct session *sessions;
    uint32_t blob_count, count; /* of sessions */
};

/* Read the file; ends the program if it makes no sense. It stays in memory, shared by all. */
struct script read_script(const char *path);

/* The login of a session, without "USER " and the line's end; gives its length. */
int login_of(const struct session *session, const char **login);

/* Say why on standard error, and end with exit code 1. */
noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Memory that is zero, or the end of the program. */
void *allocate(size_t count, size_t size);

/* Raise the limit of open files as far as it may be; gives what it is then. */
uint64_t raise_descriptors(void);

#endif
