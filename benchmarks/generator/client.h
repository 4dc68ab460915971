/* One connection that plays a session, and what all connections have in common.

   Every octet is compared as it comes; the first wrong one ends the program. */

#ifndef CLIENT_H
#define CLIENT_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "script.h"

#define SECOND UINT64_C(1000000000) /* times are in nanoseconds */

/* How long an answer may take. */
#define PATIENCE (20 * SECOND)

enum tls { PLAIN, FULL, RESUMED };

struct samples {
    double *milliseconds;
    size_t count, room;
};

struct traffic {
    struct sockaddr_in server;
    uint32_t sources; /* addresses to connect from */
    enum tls tls;
    bool hold; /* sessions stop before QUIT */
    int epoll; /* its events bear the client */
    SSL_CTX *context;
    uint64_t from, until; /* logins and connections that begin then are sampled */
    struct samples pass, login;
    uint64_t octets, handshakes, resumed;
};

struct client {
    struct traffic *traffic;
    const struct session *session;
    int connection; /* -1: none */
    uint32_t source;
    uint32_t events; /* of epoll that are waited for */
    SSL *tls;
    SSL_SESSION *ticket; /* to resume with */
    bool shaking;        /* the TLS handshake is not done */
    bool closing;        /* TLS is over, TCP not yet */
    bool held;
    bool after_line;     /* the answer's first line has come */
    uint32_t step;       /* whose answer is awaited; past the last: the end of the connection */
    uint32_t offset;     /* octets of the rest that have come, or lines */
    uint32_t filled;     /* octets in `line` */
    uint64_t connected;  /* when the connection, and the last command, was begun */
    uint64_t asked;
    char line[LONGEST_LINE]; /* the line that is coming */
};

enum progress { GOING, HOLDS, ENDED };

uint64_t now(void);

/* Make the epoll and the TLS context; the server, sources, tls and hold are already there. */
void prepare(struct traffic *traffic);

/* Number `number` of the clients of this traffic. */
void client_init(struct client *client, struct traffic *traffic, uint32_t number);

/* Connect and begin. */
void client_begin(struct client *client, const struct session *session);

/* Do what is to be done once epoll has said something. HOLDS is said once. */
enum progress client_go_on(struct client *client);

/* Let a session that is held say QUIT. */
void client_quit(struct client *client);

/* Fail if this client has waited for too long. */
void client_check(const struct client *client, uint64_t time);

#endif
