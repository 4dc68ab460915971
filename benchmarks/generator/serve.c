#define _GNU_SOURCE /* accept4 */

#include "serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "script.h"

enum { BACKLOG = 4096, EVENTS = 256, PARTS = 3 };

struct server {
    int epoll, listening;
    const struct session **sessions; /* in the order of their USER lines */
    uint32_t count;
    struct blob *counted; /* for each blob the lines that it asks for, made when they are needed */
    const struct blob *blobs;
};

struct connection {
    const struct session *session; /* once it is known; before, any: all begin alike */
    int socket;
    uint32_t step; /* whose command is awaited */
    uint32_t filled;
    bool writing; /* `answer` has parts to be sent yet */
    struct iovec answer[PARTS];
    char command[LONGEST_LINE];
};

static const struct blob *user_of(const struct session *session)
{
    return session->steps[session->user].command;
}

static int compare_blobs(const struct blob *one, const struct blob *other)
{
    uint32_t least = one->size < other->size ? one->size : other->size;
    int order = memcmp(one->octets, other->octets, least);

    return order ? order : (one->size > other->size) - (one->size < other->size);
}

static int compare_sessions(const void *one, const void *other)
{
    return compare_blobs(user_of(*(const struct session *const *)one),
                         user_of(*(const struct session *const *)other));
}

static int find_session(const void *user, const void *session)
{
    return compare_blobs(user, user_of(*(const struct session *const *)session));
}

/* Any lines, of the number that a step tells, with the one that ends them. */
static const struct blob *counted_lines(struct server *server, const struct step *step)
{
    struct blob *blob = &server->counted[step->rest - server->blobs];

    if (!blob->octets) {
        char *at = allocate(step->lines + 1, sizeof "1234567890 unique-id\r\n");

        blob->octets = at;
        for (uint32_t i = 1; i <= step->lines; i++)
            at += sprintf(at, "%u unique-%u\r\n", i, i % 100);
        at += sprintf(at, ".\r\n");
        blob->size = (uint32_t)(at - blob->octets);
    }
    return blob;
}

static struct iovec part(const char *octets, size_t size)
{
    return (struct iovec){.iov_base = (char *)(uintptr_t)octets, .iov_len = size};
}

static void await(const struct server *server, struct connection *connection, int operation,
                  uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};

    if (epoll_ctl(server->epoll, operation, connection->socket, &event))
        fail("epoll: %s", strerror(errno));
}

/* Send what has not been sent; gives whether the connection is still good. */
static bool write_answer(const struct server *server, struct connection *connection)
{
    ssize_t sent = writev(connection->socket, connection->answer, PARTS);
    bool left = false;

    if (sent < 0 && errno != EAGAIN)
        return false;
    for (int i = 0; i < PARTS && sent >= 0; i++) {
        struct iovec *each = &connection->answer[i];
        size_t gone = (size_t)sent < each->iov_len ? (size_t)sent : each->iov_len;

        each->iov_base = (char *)each->iov_base + gone;
        each->iov_len -= gone;
        sent -= (ssize_t)gone;
    }
    for (int i = 0; i < PARTS; i++)
        left = left || connection->answer[i].iov_len;
    if (left != connection->writing)
        await(server, connection, EPOLL_CTL_MOD, left ? EPOLLOUT : EPOLLIN);
    connection->writing = left;
    return left || connection->step < connection->session->count;
}

/* Give the answer to the step whose command has come. */
static bool answer(struct server *server, struct connection *connection)
{
    const struct step *step = &connection->session->steps[connection->step++];
    const struct blob *status = step->status;
    const struct blob *rest = step->mode == LINES ? counted_lines(server, step) : step->rest;
    bool whole = status->size && status->octets[status->size - 1] == '\n';

    connection->filled = 0;
    connection->answer[0] = part(status->octets, status->size);
    connection->answer[1] = part("\r\n", whole ? 0 : 2);
    connection->answer[2] = part(rest->octets, rest->size);
    return write_answer(server, connection);
}

/* Read a command and answer it; gives whether the connection is still good. */
static bool read_command(struct server *server, struct connection *connection)
{
    struct blob came = {.octets = connection->command};
    ssize_t count = recv(connection->socket, connection->command + connection->filled,
                         LONGEST_LINE - connection->filled, 0);

    if (count <= 0)
        return count < 0 && errno == EAGAIN;
    connection->filled += (uint32_t)count;
    if (connection->command[connection->filled - 1] != '\n')
        return connection->filled < LONGEST_LINE;
    came.size = connection->filled;
    if (connection->step == connection->session->user) {
        const struct session **found = bsearch(&came, server->sessions, server->count,
                                               sizeof *server->sessions, find_session);

        if (!found)
            return false;
        connection->session = *found;
    }
    if (compare_blobs(&came, connection->session->steps[connection->step].command))
        return false;
    return answer(server, connection);
}

static void go_on(struct server *server, struct connection *connection)
{
    bool good = connection->writing ? write_answer(server, connection)
                                    : read_command(server, connection);

    if (good)
        return;
    close(connection->socket);
    free(connection);
}

/* Accept all that have come, and greet them. */
static void accept_connections(struct server *server)
{
    int socket;

    while ((socket = accept4(server->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = allocate(1, sizeof *connection);

        connection->socket = socket;
        connection->session = server->sessions[0];
        await(server, connection, EPOLL_CTL_ADD, EPOLLIN);
        if (!answer(server, connection)) {
            close(socket);
            free(connection);
        }
    }
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
        fail("accept: %s", strerror(errno));
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* Accepted connections inherit TCP_NODELAY. */
    if (listening < 0 || setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        setsockopt(listening, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
        bind(listening, (const struct sockaddr *)&address, sizeof address) ||
        listen(listening, BACKLOG))
        fail("port %u: %s", port, strerror(errno));
    return listening;
}

static void set_up(struct server *server, const char *path, uint16_t port)
{
    struct script script = read_script(path);
    struct epoll_event event = {.events = EPOLLIN};

    raise_descriptors();
    server->count = script.count;
    server->blobs = script.blobs;
    server->counted = allocate(script.blob_count, sizeof *server->counted);
    server->sessions = allocate(script.count, sizeof *server->sessions);
    for (uint32_t i = 0; i < script.count; i++)
        server->sessions[i] = &script.sessions[i];
    qsort(server->sessions, server->count, sizeof *server->sessions, compare_sessions);
    server->listening = listen_on(port);
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server->epoll < 0 || epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->listening, &event))
        fail("epoll: %s", strerror(errno));
}

noreturn void serve(const char *script, uint16_t port)
{
    struct server server;
    struct epoll_event events[EVENTS];

    set_up(&server, script, port);
    puts("listening");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(server.epoll, events, EVENTS, -1);

        if (count < 0 && errno != EINTR)
            fail("epoll: %s", strerror(errno));
        for (int i = 0; i < count; i++)
            if (events[i].data.ptr)
                go_on(&server, events[i].data.ptr);
            else
                accept_connections(&server);
    }
}
