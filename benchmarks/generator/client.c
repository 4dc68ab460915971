#include "client.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER = 64 * 1024, /* that is compared while it is in the cache */
    SHOWN = 120,        /* octets of what came that a fault tells */
};

enum { AGAIN = -1, END = 0 }; /* of what `receive` gives */

uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

/* Write octets to standard error so that a line of text remains one. */
static void show(const char *octets, size_t size)
{
    size_t shown = size < SHOWN ? size : SHOWN;

    fputc('\'', stderr);
    for (size_t i = 0; i < shown; i++) {
        unsigned char octet = (unsigned char)octets[i];

        if (octet == '\r')
            fputs("\\r", stderr);
        else if (octet == '\n')
            fputs("\\n", stderr);
        else if (octet < ' ' || octet > '~')
            fprintf(stderr, "\\x%02x", octet);
        else
            fputc(octet, stderr);
    }
    fputs(shown < size ? "'..." : "'", stderr);
}

static void show_step(const struct client *client)
{
    const struct session *session = client->session;
    uint32_t last = session->count - 1;
    uint32_t number = client->step < last ? client->step : last;
    const struct blob *command = session->steps[number].command;
    const char *login;
    int length = login_of(session, &login);

    show(login, (size_t)length);
    fputs(", ", stderr);
    if (!number)
        fputs("greeting", stderr);
    else if (number == session->pass)
        fputs("'PASS ***'", stderr);
    else
        show(command->octets, command->size);
}

/* End the program: the server did what the format tells. `came`, if any, is what it said. */
static noreturn void wrong(const struct client *client, const char *came, size_t size,
                           const char *format, ...) __attribute__((format(printf, 4, 5)));

static noreturn void wrong(const struct client *client, const char *came, size_t size,
                           const char *format, ...)
{
    va_list arguments;

    show_step(client);
    fputs(": the server ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    if (came) {
        fputs(": ", stderr);
        show(came, size);
    }
    fail("%s", "");
}

static void sample(struct samples *samples, uint64_t from)
{
    if (samples->count == samples->room) {
        samples->room = samples->room ? 2 * samples->room : 4096;
        samples->milliseconds =
            realloc(samples->milliseconds, samples->room * sizeof *samples->milliseconds);
        if (!samples->milliseconds)
            fail("out of memory");
    }
    samples->milliseconds[samples->count++] = (double)(now() - from) / 1e6;
}

static bool sampled(const struct traffic *traffic, uint64_t time)
{
    return time >= traffic->from && time < traffic->until;
}

/* OpenSSL has a ticket for us; 1: the reference is now ours. */
static int keep_ticket(SSL *tls, SSL_SESSION *ticket)
{
    struct client *client = SSL_get_app_data(tls);

    SSL_SESSION_free(client->ticket);
    client->ticket = ticket;
    return 1;
}

/* Whose the certificate is makes no difference: what is measured is the server's speed. */
static int take_any_certificate(X509_STORE_CTX *chain, void *unused)
{
    (void)chain;
    (void)unused;
    return 1;
}

void prepare(struct traffic *traffic)
{
    SSL_CTX *context;

    traffic->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (traffic->epoll < 0)
        fail("epoll: %s", strerror(errno));
    if (traffic->tls == PLAIN)
        return;
    context = traffic->context = SSL_CTX_new(TLS_client_method());
    if (!context)
        fail("no TLS context");
    SSL_CTX_set_cert_verify_callback(context, take_any_certificate, NULL);
    SSL_CTX_set_read_ahead(context, 1); /* else each record takes two reads */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF); /* the steps tell if it is early */
    if (traffic->tls == RESUMED) {
        SSL_CTX_set_session_cache_mode(context,
                                       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keep_ticket);
    }
}

void client_init(struct client *client, struct traffic *traffic, uint32_t number)
{
    client->traffic = traffic;
    client->connection = -1;
    client->source = number % traffic->sources;
}

static void await(struct client *client, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};

    if (events == client->events)
        return;
    if (epoll_ctl(client->traffic->epoll, client->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
                  client->connection, &event))
        fail("epoll: %s", strerror(errno));
    client->events = events;
}

/* Leave from the client's own address, with a port that is chosen when the other end is known. */
static void bind_source(const struct client *client)
{
    struct sockaddr_in source = {.sin_family = AF_INET};
    int on = 1;

    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + client->source);
    if (setsockopt(client->connection, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) ||
        bind(client->connection, (const struct sockaddr *)&source, sizeof source))
        fail("source address %u: %s", client->source, strerror(errno));
}

static void open_connection(struct client *client)
{
    const struct traffic *traffic = client->traffic;
    int on = 1;

    client->connection = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->connection < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(client->connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (traffic->sources > 1)
        bind_source(client);
    if (connect(client->connection, (const struct sockaddr *)&traffic->server,
                sizeof traffic->server) &&
        errno != EINPROGRESS)
        wrong(client, NULL, 0, "could not be connected to (%s)", strerror(errno));
}

/* Go on with the TLS handshake; gives whether it is done. */
static bool shake(struct client *client)
{
    int done;

    ERR_clear_error();
    done = SSL_do_handshake(client->tls);
    if (done != 1) {
        switch (SSL_get_error(client->tls, done)) {
        case SSL_ERROR_WANT_READ:
            await(client, EPOLLIN);
            return false;
        case SSL_ERROR_WANT_WRITE:
            await(client, EPOLLIN | EPOLLOUT);
            return false;
        default:
            wrong(client, NULL, 0, "failed in the TLS handshake (%s)",
                  ERR_peek_error() ? ERR_reason_error_string(ERR_peek_error()) : "closed");
        }
    }
    await(client, EPOLLIN);
    client->shaking = false;
    client->traffic->handshakes++;
    if (SSL_session_reused(client->tls))
        client->traffic->resumed++;
    return true;
}

static void begin_tls(struct client *client)
{
    client->tls = SSL_new(client->traffic->context);
    if (!client->tls || !SSL_set_fd(client->tls, client->connection))
        fail("no TLS connection");
    SSL_set_app_data(client->tls, client);
    SSL_set_connect_state(client->tls);
    if (client->ticket)
        SSL_set_session(client->tls, client->ticket);
    client->shaking = true;
    shake(client);
}

void client_begin(struct client *client, const struct session *session)
{
    client->session = session;
    client->step = client->offset = client->filled = 0;
    client->events = 0;
    client->closing = client->held = client->after_line = false;
    client->connected = client->asked = now();
    open_connection(client);
    await(client, EPOLLIN);
    if (client->traffic->tls != PLAIN)
        begin_tls(client);
}

static void end_connection(struct client *client)
{
    if (client->tls) {
        /* OpenSSL forbids to resume what was not closed by both, which an EOF may precede. */
        SSL_set_shutdown(client->tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(client->tls);
        client->tls = NULL;
    }
    close(client->connection);
    client->connection = -1;
}

static ssize_t receive_plain(const struct client *client, char *buffer, size_t size)
{
    ssize_t count = recv(client->connection, buffer, size, 0);

    if (count >= 0)
        return count;
    if (errno == EAGAIN)
        return AGAIN;
    wrong(client, NULL, 0, "broke the connection (%s)", strerror(errno));
}

/* TLS is over. Some servers wait for our word of it before they close, others are gone. */
static ssize_t receive_end(struct client *client)
{
    char octet;
    ssize_t count = recv(client->connection, &octet, 1, 0);

    if (count > 0)
        wrong(client, NULL, 0, "went on after the end of TLS");
    if (count == 0 || errno != EAGAIN)
        return END;
    if (!client->closing)
        SSL_shutdown(client->tls);
    client->closing = true;
    return AGAIN;
}

static ssize_t receive_tls(struct client *client, char *buffer, size_t size)
{
    int count;

    if (client->closing)
        return receive_end(client);
    ERR_clear_error();
    count = SSL_read(client->tls, buffer, (int)size);
    if (count > 0)
        return count;
    switch (SSL_get_error(client->tls, count)) {
    case SSL_ERROR_WANT_READ:
        return AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return receive_end(client);
    default:
        wrong(client, NULL, 0, "broke the TLS connection (%s)",
              ERR_peek_error() ? ERR_reason_error_string(ERR_peek_error()) : strerror(errno));
    }
}

/* Say the command of the next step. The answers to all before have come: there is room for it. */
static void ask(struct client *client)
{
    const struct blob *command = client->session->steps[client->step].command;
    ssize_t sent;

    client->after_line = false;
    client->offset = client->filled = 0;
    client->asked = now();
    if (client->tls) {
        ERR_clear_error();
        sent = SSL_write(client->tls, command->octets, (int)command->size);
    } else
        sent = send(client->connection, command->octets, command->size, MSG_NOSIGNAL);
    if (sent != (ssize_t)command->size)
        wrong(client, NULL, 0, "did not take the command");
}

static void answered(struct client *client)
{
    struct traffic *traffic = client->traffic;
    const struct session *session = client->session;

    if (client->step == session->pass) {
        if (sampled(traffic, client->asked))
            sample(&traffic->pass, client->asked);
        if (sampled(traffic, client->connected))
            sample(&traffic->login, client->connected);
    }
    client->step++;
    if (client->step == session->count)
        return;
    if (traffic->hold && client->step == session->count - 1)
        client->held = true;
    else
        ask(client);
}

/* Take octets up to the end of the line; gives whether that has come. */
static bool take_line(struct client *client, const char *octets, size_t size, size_t *taken)
{
    char *start = client->line + client->filled;
    size_t room = LONGEST_LINE - client->filled;
    char *end = memccpy(start, octets, '\n', size < room ? size : room);

    *taken = end ? (size_t)(end - start) : size < room ? size : room;
    client->filled += (uint32_t)*taken;
    if (!end && client->filled == LONGEST_LINE)
        wrong(client, client->line, client->filled, "sent a line without an end");
    if (end && (client->filled < 2 || end[-2] != '\r'))
        wrong(client, client->line, client->filled, "ended a line without CR");
    return end;
}

static void compare_line(struct client *client, const struct step *step)
{
    if (client->filled < step->status->size ||
        memcmp(client->line, step->status->octets, step->status->size))
        wrong(client, client->line, client->filled, "refused, or said something else");
    client->after_line = true;
    client->filled = 0;
}

/* A line of an answer whose lines are counted; gives whether it is the last. */
static bool count_line(struct client *client, const struct step *step)
{
    bool last = client->filled == 3 && client->line[0] == '.';

    if (!last)
        client->offset++;
    if (client->offset > step->lines || (last && client->offset < step->lines))
        wrong(client, client->line, client->filled, "sent %s than %u lines",
              last ? "less" : "more", step->lines);
    client->filled = 0;
    return last;
}

static void compare_rest(struct client *client, const struct step *step, const char *octets,
                         size_t size)
{
    const char *expected = step->rest->octets + client->offset;
    size_t i = 0;

    if (memcmp(octets, expected, size)) {
        while (octets[i] == expected[i])
            i++;
        wrong(client, octets + i, size - i, "sent something else at octet %zu of %u (%s)",
              client->offset + i, step->rest->size, "from 0, after the first line");
    }
    client->offset += (uint32_t)size;
}

/* Compare some octets with what is expected; gives whether they end the answer. */
static bool compare(struct client *client, const char *octets, size_t size, size_t *taken)
{
    const struct step *step = &client->session->steps[client->step];

    if (!client->after_line) {
        if (!take_line(client, octets, size, taken))
            return false;
        compare_line(client, step);
        return step->mode == EXACT && step->rest->size == 0;
    }
    if (step->mode == LINES)
        return take_line(client, octets, size, taken) && count_line(client, step);
    *taken = step->rest->size - client->offset;
    if (*taken > size)
        *taken = size;
    compare_rest(client, step, octets, *taken);
    return client->offset == step->rest->size;
}

static void judge(struct client *client, const char *octets, size_t size)
{
    size_t taken;

    if (client->step == client->session->count || client->held)
        wrong(client, octets, size, client->held ? "spoke unasked" : "went on after QUIT");
    while (size) {
        bool done = compare(client, octets, size, &taken);

        octets += taken;
        size -= taken;
        if (!done)
            continue;
        if (size)
            wrong(client, octets, size, "sent %zu octets too many", size);
        answered(client);
    }
}

enum progress client_go_on(struct client *client)
{
    static char buffer[BUFFER];
    bool held = client->held;

    if (client->shaking && !shake(client))
        return GOING;
    do {
        ssize_t count = client->tls ? receive_tls(client, buffer, sizeof buffer)
                                    : receive_plain(client, buffer, sizeof buffer);

        if (count == AGAIN)
            break;
        if (count == END) {
            if (client->step < client->session->count)
                wrong(client, NULL, 0, "closed the connection");
            end_connection(client);
            return ENDED;
        }
        client->traffic->octets += (uint64_t)count;
        judge(client, buffer, (size_t)count);
    } while (client->tls && SSL_has_pending(client->tls));
    return client->held && !held ? HOLDS : GOING;
}

void client_quit(struct client *client)
{
    client->held = false;
    ask(client);
}

void client_check(const struct client *client, uint64_t time)
{
    if (client->connection >= 0 && !client->held && time > client->asked &&
        time - client->asked > PATIENCE)
        wrong(client, client->line, client->filled, "has not answered in full for %u seconds",
              (unsigned)(PATIENCE / SECOND));
}
