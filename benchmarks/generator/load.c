/* The load generator: many clients at one server, in one thread that costs little.

   See benchmarks/scripts.py for what it does and prints, and for the file that it plays. */

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client.h"
#include "serve.h"

enum {
    EVENTS = 256,
    AT_ONCE = 200,            /* logins and ends that are under way when sessions are held */
    MOST_CLIENTS = 1000000,
    OTHER_DESCRIPTORS = 16,
    MOST_SOURCES = 250,
    MOST_SECONDS = 24 * 3600,
};

struct options {
    const char *script;
    uint16_t port;
    struct in_addr host;
    uint32_t clients, sources;
    double seconds, warmup, pace;
    uint64_t seed;
    enum tls tls;
};

/* What both ways to load a server need. */
struct load {
    const struct options *options;
    struct script script;
    struct traffic traffic;
    struct client *clients;
    uint64_t checked; /* when it was last seen to whom no answer comes */
};

static double cpu(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static uint64_t duration(double seconds)
{
    return (uint64_t)(seconds * (double)SECOND);
}

static double seconds_since(uint64_t time)
{
    return (double)(now() - time) / (double)SECOND;
}

/* splitmix64, by Sebastiano Vigna: any seed will do. Gives a number below `below`. */
static uint32_t choose(uint64_t *state, uint32_t below)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ z >> 31) % below);
}

static void set_up(struct load *load, const struct options *options)
{
    struct traffic *traffic = &load->traffic;

    load->options = options;
    load->script = read_script(options->script);
    if (raise_descriptors() < options->clients + OTHER_DESCRIPTORS)
        fail("the limit of open files is too low for %u clients", options->clients);
    traffic->server.sin_family = AF_INET;
    traffic->server.sin_addr = options->host;
    traffic->server.sin_port = htons(options->port);
    traffic->sources = options->sources;
    traffic->tls = options->tls;
    prepare(traffic);
    load->clients = allocate(options->clients, sizeof *load->clients);
    for (uint32_t i = 0; i < options->clients; i++)
        client_init(&load->clients[i], traffic, i);
    load->checked = now();
}

/* Wait for events, at most until some time and for a second; gives how many there are. */
static int next_events(struct load *load, struct epoll_event *events, uint64_t until)
{
    uint64_t time = now();
    uint64_t left = until > time ? until - time : 0;
    int count;

    if (left > SECOND)
        left = SECOND;
    count = epoll_wait(load->traffic.epoll, events, EVENTS, (int)((left + 999999) / 1000000));
    if (count < 0 && errno != EINTR)
        fail("epoll: %s", strerror(errno));
    time = now();
    if (time - load->checked > SECOND) {
        for (uint32_t i = 0; i < load->options->clients; i++)
            client_check(&load->clients[i], time);
        load->checked = time;
    }
    return count < 0 ? 0 : count;
}

static int compare_doubles(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;

    return (a > b) - (a < b);
}

static void print_latencies(const char *name, struct samples *samples)
{
    static const double parts[] = {0.5, 0.9, 0.99, 1};
    static const char *const names[] = {"p50", "p90", "p99", "max"};

    if (samples->count)
        qsort(samples->milliseconds, samples->count, sizeof(double), compare_doubles);
    printf(", \"%s\": {\"count\": %zu", name, samples->count);
    for (size_t i = 0; i < 4; i++) {
        size_t rank = (size_t)((double)samples->count * parts[i]); /* of so many, or one more */

        if ((double)rank < (double)samples->count * parts[i])
            rank++;
        printf(", \"%s\": %.3f", names[i], rank ? samples->milliseconds[rank - 1] : 0);
    }
    printf("}");
}

static void print_traffic(struct traffic *traffic)
{
    printf(", \"handshakes\": %" PRIu64 ", \"resumed\": %" PRIu64, traffic->handshakes,
           traffic->resumed);
    print_latencies("pass_ms", &traffic->pass);
    print_latencies("login_ms", &traffic->login);
    printf("}\n");
}

/* Clients that have a session again and again. */
struct round {
    struct load load;
    struct client **free; /* clients without a session */
    const struct session **idle; /* sessions without a client */
    uint32_t frees, idles;
    uint64_t random;
    uint64_t start, begun, due; /* of a paced round: sessions that were begun and were due */
    bool measuring;
    double cpu;
    uint64_t sessions, in_time, octets_in_time, postponed;
};

static void begin_session(struct round *round)
{
    uint32_t chosen = choose(&round->random, round->idles);
    const struct session *session = round->idle[chosen];

    round->idle[chosen] = round->idle[--round->idles];
    round->begun++;
    client_begin(round->free[--round->frees], session);
}

static void end_session(struct round *round, struct client *client)
{
    round->idle[round->idles++] = client->session;
    round->free[round->frees++] = client;
    round->sessions++;
}

/* Begin what is due: all that may be, or as the pace says. Gives when there will be more. */
static uint64_t begin_sessions(struct round *round, uint64_t time)
{
    double pace = round->load.options->pace;
    uint64_t due;

    if (pace == 0) {
        while (round->frees)
            begin_session(round);
        return UINT64_MAX;
    }
    due = 1 + (uint64_t)((double)(time - round->start) / (double)SECOND * pace);
    while (round->frees && round->begun < due)
        begin_session(round);
    if (round->begun < due) {
        round->postponed += due - (round->due > round->begun ? round->due : round->begun);
        round->due = due;
        return UINT64_MAX; /* once one is free */
    }
    return round->start + duration((double)due / pace);
}

/* The warm-up is over: count from here. */
static void begin_measuring(struct round *round)
{
    struct traffic *traffic = &round->load.traffic;

    round->measuring = true;
    round->sessions = round->postponed = 0;
    traffic->octets = traffic->handshakes = traffic->resumed = 0;
    round->cpu = cpu();
}

static void set_up_round(struct round *round, const struct options *options)
{
    struct traffic *traffic = &round->load.traffic;

    set_up(&round->load, options);
    if (round->load.script.count < options->clients)
        fail("%s: %u sessions are too few for %u clients", options->script,
             round->load.script.count, options->clients);
    round->free = allocate(options->clients, sizeof *round->free);
    round->idle = allocate(round->load.script.count, sizeof *round->idle);
    for (uint32_t i = 0; i < options->clients; i++)
        round->free[round->frees++] = &round->load.clients[i];
    for (uint32_t i = 0; i < round->load.script.count; i++)
        round->idle[round->idles++] = &round->load.script.sessions[i];
    round->random = options->seed;
    round->start = now();
    traffic->from = round->start + duration(options->warmup);
    traffic->until = traffic->from + duration(options->seconds);
}

static void play(struct round *round)
{
    struct traffic *traffic = &round->load.traffic;
    struct epoll_event events[EVENTS];
    uint64_t time = round->start;
    uint32_t clients = round->load.options->clients;

    if (traffic->from == round->start)
        begin_measuring(round);
    while (time < traffic->until || round->frees < clients) {
        uint64_t next = UINT64_MAX, mark;
        int count;

        if (time < traffic->until)
            next = begin_sessions(round, time);
        mark = !round->measuring ? traffic->from : time < traffic->until ? traffic->until : next;
        count = next_events(&round->load, events, next < mark ? next : mark);
        time = now();
        if (!round->measuring && time >= traffic->from)
            begin_measuring(round);
        for (int i = 0; i < count; i++)
            if (client_go_on(events[i].data.ptr) == ENDED)
                end_session(round, events[i].data.ptr);
        if (time < traffic->until) {
            round->in_time = round->sessions;
            round->octets_in_time = traffic->octets;
        }
    }
}

static int run(const struct options *options)
{
    struct round round = {.measuring = false};
    struct traffic *traffic = &round.load.traffic;

    set_up_round(&round, options);
    play(&round);
    printf("{\"seconds\": %g, \"in_time\": %" PRIu64 ", \"octets_in_time\": %" PRIu64,
           options->seconds, round.in_time, round.octets_in_time);
    printf(", \"elapsed\": %.6f, \"cpu\": %.6f", seconds_since(traffic->from),
           cpu() - round.cpu);
    printf(", \"sessions\": %" PRIu64 ", \"octets\": %" PRIu64 ", \"postponed\": %" PRIu64,
           round.sessions, traffic->octets, round.postponed);
    print_traffic(traffic);
    return 0;
}

/* Let all clients go from one state to the next, at most so many at a time. */
static void bring_all(struct load *load, enum progress goal, void (*begin)(struct load *, uint32_t))
{
    struct epoll_event events[EVENTS];
    uint32_t begun = 0, done = 0;

    while (done < load->options->clients) {
        int count;

        while (begun < load->options->clients && begun - done < AT_ONCE)
            begin(load, begun++);
        count = next_events(load, events, UINT64_MAX);
        for (int i = 0; i < count; i++)
            if (client_go_on(events[i].data.ptr) == goal)
                done++;
    }
}

static void begin_holding(struct load *load, uint32_t number)
{
    client_begin(&load->clients[number], &load->script.sessions[number % load->script.count]);
}

static void end_holding(struct load *load, uint32_t number)
{
    client_quit(&load->clients[number]);
}

/* Hold until standard input ends. Until then no server has anything to say. */
static void keep_holding(struct load *load)
{
    struct epoll_event events[EVENTS], input = {.events = EPOLLIN};
    char buffer[256];
    bool ended;

    /* What cannot be waited for, as a file, is at its end. */
    ended = epoll_ctl(load->traffic.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input) != 0;
    while (!ended) {
        int count = next_events(load, events, UINT64_MAX);

        for (int i = 0; i < count; i++)
            if (events[i].data.ptr)
                client_go_on(events[i].data.ptr);
            else
                ended = read(STDIN_FILENO, buffer, sizeof buffer) <= 0;
    }
    epoll_ctl(load->traffic.epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
}

static int hold(const struct options *options)
{
    struct load load = {.traffic.hold = true, .traffic.until = UINT64_MAX};
    uint64_t start = now();
    double elapsed;

    set_up(&load, options);
    bring_all(&load, HOLDS, begin_holding);
    elapsed = seconds_since(start);
    printf("holding %u\n", options->clients);
    fflush(stdout);
    keep_holding(&load);
    bring_all(&load, ENDED, end_holding);
    printf("{\"elapsed\": %.6f, \"sessions\": %u, \"octets\": %" PRIu64 ", \"cpu\": %.6f", elapsed,
           options->clients, load.traffic.octets, cpu());
    print_traffic(&load.traffic);
    return 0;
}

static noreturn void usage(const char *what)
{
    fprintf(stderr,
            "load: %s\n"
            "load run --script FILE --port P --clients N --seconds S [--warmup S] [--seed K]\n"
            "         [--tls full|resumed] [--pace PER_SECOND] [--host ADDRESS] [--sources N]\n"
            "load hold --script FILE --port P --clients N [--tls full|resumed]\n"
            "         [--host ADDRESS] [--sources N]\n"
            "load serve --script FILE --port P\n",
            what);
    exit(2);
}

static double number(const char *option, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= least && value <= most))
        usage(option);
    return value;
}

static enum tls tls(const char *text)
{
    if (!strcmp(text, "full"))
        return FULL;
    if (strcmp(text, "resumed"))
        usage("--tls");
    return RESUMED;
}

static const struct option OPTIONS[] = {
    {"script", required_argument, NULL, 's'},  {"port", required_argument, NULL, 'p'},
    {"clients", required_argument, NULL, 'n'}, {"seconds", required_argument, NULL, 't'},
    {"warmup", required_argument, NULL, 'w'},  {"seed", required_argument, NULL, 'k'},
    {"tls", required_argument, NULL, 'l'},     {"pace", required_argument, NULL, 'a'},
    {"host", required_argument, NULL, 'h'},    {"sources", required_argument, NULL, 'o'},
    {NULL, 0, NULL, 0},
};

static void parse_one(struct options *options, int option)
{
    switch (option) {
    case 's':
        options->script = optarg;
        break;
    case 'p':
        options->port = (uint16_t)number("--port", optarg, 1, UINT16_MAX);
        break;
    case 'n':
        options->clients = (uint32_t)number("--clients", optarg, 1, MOST_CLIENTS);
        break;
    case 't':
        options->seconds = number("--seconds", optarg, 0.001, MOST_SECONDS);
        break;
    case 'w':
        options->warmup = number("--warmup", optarg, 0, MOST_SECONDS);
        break;
    case 'k':
        options->seed = (uint64_t)number("--seed", optarg, 0, UINT32_MAX);
        break;
    case 'l':
        options->tls = tls(optarg);
        break;
    case 'a':
        options->pace = number("--pace", optarg, 0.001, 1e6);
        break;
    case 'h':
        if (inet_pton(AF_INET, optarg, &options->host) != 1)
            usage("--host: no IPv4 address");
        break;
    case 'o':
        options->sources = (uint32_t)number("--sources", optarg, 1, MOST_SOURCES);
        break;
    default:
        usage("no such option, or nothing after it");
    }
}

int main(int count, char **arguments)
{
    struct options options = {.sources = 1, .host.s_addr = htonl(INADDR_LOOPBACK)};
    const char *command = count > 1 ? arguments[1] : "";
    int option;

    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    if (count < 2)
        usage("run, hold or serve?");
    while ((option = getopt_long(count - 1, arguments + 1, "", OPTIONS, NULL)) != -1)
        parse_one(&options, option);
    if (optind != count - 1)
        usage("too much on the command line");
    if (!options.script || !options.port)
        usage("--script and --port are needed");
    if (!strcmp(command, "serve"))
        serve(options.script, options.port);
    if (!options.clients)
        usage("--clients is needed");
    if (!strcmp(command, "hold"))
        return hold(&options);
    if (strcmp(command, "run"))
        usage("run, hold or serve?");
    if (options.seconds == 0)
        usage("--seconds is needed");
    return run(&options);
}
