/* The load of the benchmarks: clients and workers of one broker in one process, on plain TCP and epoll.
 *
 * It speaks ZMTP 3.0 itself, as it speaks NATS' and Gearman's protocols itself, so that every broker gets its bytes
 * from the same loop and none pays for the peers' library. Each client keeps `window` requests open; each worker
 * echoes. A body starts with 8 bytes that say which request it is: what comes back is checked against them.
 *
 * --durable 1 sets the flag DURABLE of each request; --rate N sends about N a second, a window at a time.
 * --pace N sends N a second whatever comes back, in turns over the clients, every 100 µs what is due then. A latency begins
 * when the request was due, not when it was sent, so a broker (or a load) that is late pays for all requests that wait.
 * With --presence they ask nothing: they register, and say that they live until the input ends.
 *
 * cc -O2 -pthread -o load load.c && ./load --protocol mdp03 --port 5555 --clients 16 --window 32 --workers 4
 * prints one JSON object. With --pid the CPU time of that process during the measurement is in it.
 *
 * Compiled with -DSECURE and -lsodium -lssl -lcrypto -lzmq it has further transports (load_secure.h): --transport curve,
 * tls (for NATS), zmq and zmq-curve (libzmq's sockets). --path connects to a Unix socket in place of a port.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST_PARTS = 16, MOST_THREADS = 8 };
enum { BUCKETS = 64 * 64 }; /* 64 buckets for each power of two of nanoseconds */
enum { TICK = 100000 };     /* --pace: nanoseconds from one sending to the next */
enum { PATIENCE = 5 };      /* --pace: seconds that the last answers may take */

typedef struct { const char *at; size_t size; } part;
typedef struct { char *at; size_t start, end, room; } buffer;

typedef struct {
    int fd;
    bool worker, ready, greeted, writing;
    int number;
    buffer in, out;
    char sid[16];          /* NATS: the inbox; ZMTP: the routing id */
    int64_t *sent;         /* when the request of each slot was sent; 0 = the slot is free */
    uint32_t *turn;        /* how often the slot was used */
    int next_slot;         /* --pace */
    void *secure;          /* what the transport keeps (load_secure.h) */
} connection;

/* What carries the bytes of `in` and `out`. Each function may be called when there is nothing to do. */
typedef struct {
    const char *name;
    void (*open)(connection *);    /* after connect(); NULL for plain TCP */
    ssize_t (*read)(connection *); /* append to `in`: the bytes; 0 at the end; -1 with errno */
    void (*write)(connection *);   /* send of `out` what can be sent now */
    bool (*unsent)(connection *);
    bool greets;                   /* the transport itself does the handshake of ZMTP, and calls `begin` */
} transport;

typedef struct {
    pthread_t thread;
    int epoll;
    uint64_t answered, errors, histogram[BUCKETS];
    /* --pace: requests sent since the start, those of them that are measured, and how late these were sent. */
    uint64_t paced, expected, lateness[BUCKETS];
} loop;

static struct {
    const char *protocol, *host, *service, *transport, *path, *server_key;
    int port, worker_port, clients, window, workers, capacity, body, threads, pid, presence, durable, rate, pace;
    double seconds, warmup;
    uint64_t count;
} options = { "mdp03", "127.0.0.1", "echo", "plain", "", "", 5555, 0, 16, 32, 4, 1000, 16, 2, 0, 0, 0, 0, 0, 3.0, 0.5, 0 };

static loop loops[MOST_THREADS];
static connection *connections;
static char *filling;
static char cipher[128]; /* TLS: its version and cipher */
static atomic_int welcomed, begun, running, measuring, stopping, opened, sent_off, beats_heard;
static _Atomic int64_t pace_start, pace_from, pace_until; /* --pace: the first request; the measured ones */

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0) fail("no clock: %s", strerror(errno));
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* ── buffers ─────────────────────────────────────────────────────────────────────────────────── */

static void make_room(buffer *b, size_t size)
{
    if (b->room - b->end >= size) return;
    if (b->start) {
        memmove(b->at, b->at + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
    }
    while (b->room - b->end < size) {
        b->room = b->room ? 2 * b->room : options.presence ? 256 : 65536;
        b->at = realloc(b->at, b->room);
        if (!b->at) fail("out of memory");
    }
}

static void put(buffer *b, const void *from, size_t size)
{
    make_room(b, size);
    memcpy(b->at + b->end, from, size);
    b->end += size;
}

static void put_text(buffer *b, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    put(b, text, size);
}

/* ── ZMTP 3.0, mechanism NULL ────────────────────────────────────────────────────────────────── */

static void put_frame(buffer *b, int flags, const void *from, size_t size)
{
    unsigned char head[9] = { flags, size };
    if (size < 256) {
        put(b, head, 2);
    } else {
        head[0] |= 2;
        for (int at = 0; at < 8; at++) head[1 + at] = (uint64_t)size >> (56 - 8 * at);
        put(b, head, 9);
    }
    put(b, from, size);
}

static void put_greeting(connection *c)
{
    char greeting[64] = { [0] = '\xff', [9] = '\x7f', [10] = 3, [11] = 0, [12] = 'N', 'U', 'L', 'L' };
    char ready[64] = "\5READY\013Socket-Type\0\0\0\6DEALER\10Identity\0\0\0\20";
    put(&c->out, greeting, sizeof greeting);
    memcpy(ready + 41, c->sid, 16);
    put_frame(&c->out, 4, ready, 57);
}

/* One frame at `at`: its size with its head, 0 when more bytes are needed. */
static size_t take_frame(const char *at, size_t size, int *flags, part *body)
{
    if (size < 2) return 0;
    *flags = (unsigned char)at[0];
    uint64_t length = (unsigned char)at[1];
    size_t head = 2;
    if (*flags & 2) {
        if (size < 9) return 0;
        length = 0;
        for (int n = 1; n < 9; n++) length = length << 8 | (unsigned char)at[n];
        head = 9;
    }
    if (size - head < length) return 0;
    body->at = at + head;
    body->size = length;
    return head + length;
}

static void begin(connection *c);

/* Traffic begins when the other side is ready: it would take what comes earlier for part of the handshake. */
static void answer_command(connection *c, part body)
{
    if (body.size >= 6 && !memcmp(body.at, "\5READY", 6)) begin(c);
    if (body.size >= 7 && !memcmp(body.at, "\4PING", 5)) {
        char pong[64] = "\4PONG";
        size_t context = body.size - 7 < 16 ? body.size - 7 : 16;
        memcpy(pong + 5, body.at + 7, context);
        put_frame(&c->out, 4, pong, 5 + context);
    }
}

/* The next message; the number of its parts, 0 when it is not all there, -1 when commands alone were taken. */
static int take_message(connection *c, part *parts)
{
    buffer *in = &c->in;
    if (!c->greeted) {
        if (in->end - in->start < 64) return 0;
        in->start += 64;
        c->greeted = true;
    }
    size_t at = in->start;
    for (int count = 0; count < MOST_PARTS;) {
        int flags;
        size_t size = take_frame(in->at + at, in->end - at, &flags, &parts[count]);
        if (!size) return 0;
        at += size;
        if (flags & 4) {
            answer_command(c, parts[count]);
            in->start = at;
            return -1;
        }
        count++;
        if (!(flags & 1)) {
            in->start = at;
            return count;
        }
    }
    fail("a message of more than %d parts", MOST_PARTS);
    return 0;
}

/* ── requests: slots, times, and what was wrong ──────────────────────────────────────────────── */

static void put_mark(char *mark, connection *c, uint32_t slot, int64_t now)
{
    memcpy(mark, &slot, 4);
    memcpy(mark + 4, &c->turn[slot], 4);
    c->sent[slot] = now;
}

static void note(uint64_t *histogram, int64_t ns)
{
    int power = 63 - __builtin_clzll((uint64_t)ns | 64);
    int bucket = (power - 6) * 64 + (int)(((uint64_t)ns >> (power - 6)) & 63);
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

/* Whether a request counts: with --pace by when it was due, else by when its answer comes. */
static bool is_measured(int64_t sent)
{
    if (options.pace) return sent >= atomic_load_explicit(&pace_from, memory_order_relaxed);
    return atomic_load_explicit(&measuring, memory_order_relaxed);
}

static double bucket_ns(int bucket)
{
    return (double)((64ULL + bucket % 64) << (bucket / 64));
}

/* A reply: frees its slot and says which one; -1 for what is no answer to an open request. */
static int take_reply(loop *l, connection *c, part body, bool good)
{
    uint32_t slot, turn;
    if (!good || body.size != (size_t)options.body) {
        l->errors++;
        return -1;
    }
    memcpy(&slot, body.at, 4);
    memcpy(&turn, body.at + 4, 4);
    if (slot >= (uint32_t)options.window || turn != c->turn[slot] || !c->sent[slot]) {
        l->errors++;
        return -1;
    }
    if (is_measured(c->sent[slot])) {
        l->answered++;
        note(l->histogram, now_ns(CLOCK_MONOTONIC) - c->sent[slot]);
    }
    c->sent[slot] = 0;
    c->turn[slot]++;
    return slot;
}

/* ── the Majordomo dialects, and what passes a proxy ─────────────────────────────────────────── */

typedef struct {
    const char *name;
    bool delimited;
    const char *client, *worker, *request, *final;
    bool names_service;
    const char *ready, *assign, *reply, *heartbeat;
} dialect;

static const dialect dialects[] = {
    { "mdp01", true, "MDPC01", "MDPW01", "", "", true, "\1", "\2", "\3", "\4" },
    { "mdp02", false, "MDPC02", "MDPW02", "\1", "\3", true, "\1", "\2", "\4", "\5" },
    { "mdp02d", true, "MDPC02", "MDPW02", "\2", "\4", false, "\1", "\2", "\4", "\5" },
};
static const dialect *spoken;

static void legacy_head(connection *c, const char *half, const char *command)
{
    if (spoken->delimited) put_frame(&c->out, 1, "", 0);
    put_frame(&c->out, 1, half, 6);
    if (*command) put_frame(&c->out, 1, command, 1);
}

static void legacy_request(connection *c, const char *body)
{
    legacy_head(c, spoken->client, spoken->request);
    put_frame(&c->out, 1, options.service, strlen(options.service));
    put_frame(&c->out, 0, body, options.body);
}

static void legacy_worker_says(connection *c, const char *command, bool service)
{
    if (spoken->delimited) put_frame(&c->out, 1, "", 0);
    put_frame(&c->out, 1, spoken->worker, 6);
    put_frame(&c->out, service ? 1 : 0, command, 1);
    if (service) put_frame(&c->out, 0, options.service, strlen(options.service));
}

static void legacy_work(connection *c, part *parts, int count)
{
    int at = spoken->delimited ? 2 : 1;
    if (count != at + 4 || parts[at].at[0] != spoken->assign[0]) return; /* a heartbeat */
    legacy_head(c, spoken->worker, spoken->reply);
    put_frame(&c->out, 1, parts[at + 1].at, parts[at + 1].size);
    put_frame(&c->out, 1, "", 0);
    put_frame(&c->out, 0, parts[at + 3].at, parts[at + 3].size);
}

static int legacy_reply(loop *l, connection *c, part *parts, int count)
{
    int expected = spoken->delimited + 1 + (*spoken->final != 0) + spoken->names_service + 1;
    return take_reply(l, c, parts[count - 1], count == expected);
}

static size_t header_03(char *header, int command, int code, uint64_t id, uint32_t ttl, const char *service)
{
    size_t length = strlen(service);
    memcpy(header, "MDP\3", 4);
    header[4] = command;
    header[5] = 0;
    header[6] = code >> 8;
    header[7] = code;
    for (int n = 0; n < 8; n++) header[8 + n] = id >> (56 - 8 * n);
    for (int n = 0; n < 4; n++) header[16 + n] = ttl >> (24 - 8 * n);
    header[20] = length;
    memcpy(header + 21, service, length);
    header[21 + length] = 0;
    return 22 + length;
}

static void request_03(connection *c, const char *body)
{
    char header[300];
    uint32_t slot, turn;
    memcpy(&slot, body, 4);
    memcpy(&turn, body + 4, 4);
    uint64_t id = ((uint64_t)turn << 20 | slot) + 1;
    size_t size = header_03(header, 2, 0, id, 30000, options.service);
    if (options.durable) header[5] = 0x20; /* the flag DURABLE */
    put_frame(&c->out, 1, header, size);
    put_frame(&c->out, 0, body, options.body);
}

static void work_03(connection *c, part *parts, int count)
{
    if (parts[0].size < 22 || memcmp(parts[0].at, "MDP\3", 4)) fail("this is no MDP/0.3");
    int command = parts[0].at[4];
    if (command == 7 && !c->ready) {
        c->ready = true;
        atomic_fetch_add(&welcomed, 1);
    }
    if (command == 5) atomic_fetch_add(&beats_heard, 1);
    if (command == 6) {
        if (!options.presence) fail("worker %d was sent off", c->number);
        c->ready = false;
        atomic_fetch_add(&sent_off, 1);
    }
    if (command != 2) return;
    char header[300];
    size_t size = header_03(header, 4, 200, 0, 0, "");
    memcpy(header + 8, parts[0].at + 8, 8);
    put_frame(&c->out, count > 1, header, size);
    for (int n = 1; n < count; n++) put_frame(&c->out, n + 1 < count, parts[n].at, parts[n].size);
}

static int reply_03(loop *l, connection *c, part *parts, int count)
{
    if (parts[0].size < 22 || parts[0].at[4] != 4) return -1;
    int code = (unsigned char)parts[0].at[6] << 8 | (unsigned char)parts[0].at[7];
    if (code != 200 && l->errors < 3) fprintf(stderr, "load: status %d\n", code);
    return take_reply(l, c, parts[count - 1], code == 200 && count == 2);
}

static void proxy_work(connection *c, part *parts, int count)
{
    for (int n = 0; n < count; n++) put_frame(&c->out, n + 1 < count, parts[n].at, parts[n].size);
}

/* ── NATS ────────────────────────────────────────────────────────────────────────────────────── */

static void nats_hello(connection *c)
{
    put_text(&c->out, "CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1}\r\n");
    if (c->worker)
        put_text(&c->out, "SUB %s workers 1\r\nPING\r\n", options.service);
    else
        put_text(&c->out, "SUB _INBOX.%d 1\r\nPING\r\n", c->number);
}

static void nats_request(connection *c, const char *body)
{
    put_text(&c->out, "PUB %s _INBOX.%d %d\r\n", options.service, c->number, options.body);
    put(&c->out, body, options.body);
    put(&c->out, "\r\n", 2);
}

/* MSG subject sid [reply-to] size: the reply subject and the body. 0 when more bytes are needed. */
static size_t nats_message(const char *line, size_t length, size_t rest, part *reply, part *body)
{
    part words[5];
    int count = 0;
    for (size_t at = 0; at < length && count < 5;) {
        size_t end = at;
        while (end < length && line[end] != ' ') end++;
        words[count++] = (part){ line + at, end - at };
        at = end + 1;
    }
    size_t size = 0;
    part number = words[count - 1];
    for (size_t at = 0; at < number.size; at++) size = 10 * size + (number.at[at] - '0');
    if (rest < size + 2) return 0;
    *reply = count == 5 ? words[3] : (part){ "", 0 };
    *body = (part){ line + length + 2, size };
    return size + 2;
}

static void nats_answer(connection *c, part subject, part body)
{
    char head[300];
    memcpy(head, "PUB ", 4);
    memcpy(head + 4, subject.at, subject.size);
    int size = 4 + subject.size + sprintf(head + 4 + subject.size, " %zu\r\n", body.size);
    put(&c->out, head, size);
    put(&c->out, body.at, body.size);
    put(&c->out, "\r\n", 2);
}

/* ── Gearman ─────────────────────────────────────────────────────────────────────────────────── */

enum { CAN_DO = 1, PRE_SLEEP = 4, NOOP = 6, SUBMIT_JOB = 7, JOB_CREATED = 8, GRAB_JOB = 9, NO_JOB = 10,
       JOB_ASSIGN = 11, WORK_COMPLETE = 13 };

static void gearman_head(connection *c, int type, size_t size)
{
    uint32_t head[3] = { 0, htonl(type), htonl(size) };
    memcpy(head, "\0REQ", 4);
    put(&c->out, head, 12);
}

static void gearman_request(connection *c, const char *body)
{
    size_t length = strlen(options.service) + 1;
    gearman_head(c, SUBMIT_JOB, length + 1 + options.body);
    put(&c->out, options.service, length);
    put(&c->out, "", 1); /* no unique id: no two requests are one job */
    put(&c->out, body, options.body);
}

static void gearman_work(connection *c, int type, const char *at, size_t size)
{
    if (type == NOOP) gearman_head(c, GRAB_JOB, 0);
    if (type == NO_JOB) gearman_head(c, PRE_SLEEP, 0);
    if (type != JOB_ASSIGN) return;
    size_t handle = strlen(at) + 1, function = strlen(at + handle) + 1;
    size_t body = size - handle - function;
    gearman_head(c, WORK_COMPLETE, handle + body);
    put(&c->out, at, handle);
    put(&c->out, at + handle + function, body);
    gearman_head(c, GRAB_JOB, 0);
}

/* ── one connection ──────────────────────────────────────────────────────────────────────────── */

static bool is(const char *name) { return !strcmp(options.protocol, name); }
static bool is_zmtp(void) { return !is("nats") && !is("gearman"); }

static void send_request(connection *c, int slot, int64_t now)
{
    static _Thread_local char *body;
    if (!body) {
        body = malloc(options.body);
        if (!body) fail("out of memory");
        memcpy(body, filling, options.body);
    }
    put_mark(body, c, slot, now);
    if (spoken) legacy_request(c, body);
    else if (is_zmtp()) request_03(c, body);
    else if (is("nats")) nats_request(c, body);
    else gearman_request(c, body);
}

/* What a peer says once it may: a worker that it is there, a client its first requests. */
static void begin(connection *c)
{
    char header[300];
    atomic_fetch_add(&begun, 1);
    if (!c->worker && options.presence)
        put_frame(&c->out, 0, header, header_03(header, 8, 0, 0, 0, ""));
    if (!c->worker && !options.presence && !options.pace)
        for (int slot = 0; slot < options.window; slot++) send_request(c, slot, now_ns(CLOCK_MONOTONIC));
    if (!c->worker || is("nats") || is("proxy")) return;
    if (spoken) {
        legacy_worker_says(c, spoken->ready, true);
    } else if (is("mdp03")) {
        put_frame(&c->out, 0, header, header_03(header, 1, options.capacity, 0, 0, options.service));
    } else {
        gearman_head(c, CAN_DO, strlen(options.service));
        put(&c->out, options.service, strlen(options.service));
        gearman_head(c, PRE_SLEEP, 0);
    }
}

/* With --rate the one client sends its whole window when all have come back, and not before it is due. */
static void again_in_bursts(connection *c)
{
    static int back;
    static int64_t due;
    if (++back < options.window) return;
    back = 0;
    int64_t now = now_ns(CLOCK_MONOTONIC);
    due = due ? due + 1000000000LL * options.window / options.rate : now;
    if (due > now) usleep((due - now) / 1000);
    else due = now;
    for (int slot = 0; slot < options.window; slot++) send_request(c, slot, now_ns(CLOCK_MONOTONIC));
}

static void again(connection *c, int slot)
{
    if (options.pace) return;
    if (options.rate) {
        if (slot >= 0 && !atomic_load_explicit(&stopping, memory_order_relaxed)) again_in_bursts(c);
        return;
    }
    if (slot >= 0 && !atomic_load_explicit(&stopping, memory_order_relaxed))
        send_request(c, slot, now_ns(CLOCK_MONOTONIC));
}

static void read_zmtp(loop *l, connection *c)
{
    part parts[MOST_PARTS];
    int count;
    while ((count = take_message(c, parts)) != 0) {
        if (count < 0) continue;
        if (c->worker || options.presence) {
            if (spoken) legacy_work(c, parts, count);
            else if (is("proxy")) proxy_work(c, parts, count);
            else work_03(c, parts, count);
        } else if (spoken) {
            again(c, legacy_reply(l, c, parts, count));
        } else if (is("proxy")) {
            again(c, take_reply(l, c, parts[count - 1], count == 2));
        } else {
            again(c, reply_03(l, c, parts, count));
        }
    }
}

static void read_nats(loop *l, connection *c)
{
    buffer *in = &c->in;
    for (;;) {
        char *line = in->at + in->start, *end = memchr(line, '\n', in->end - in->start);
        if (!end) return;
        size_t length = end - line - 1, taken = length + 2;
        if (!memcmp(line, "MSG ", 4)) {
            part reply, body;
            size_t more = nats_message(line, length, in->end - in->start - taken, &reply, &body);
            if (!more) return;
            taken += more;
            if (c->worker) nats_answer(c, reply, body);
            else again(c, take_reply(l, c, body, true));
        } else if (!memcmp(line, "PING", 4)) {
            put_text(&c->out, "PONG\r\n");
        } else if (!memcmp(line, "-ERR", 4)) {
            fail("%.*s", (int)length, line);
        }
        in->start += taken;
    }
}

static void read_gearman(loop *l, connection *c)
{
    buffer *in = &c->in;
    while (in->end - in->start >= 12) {
        uint32_t head[3];
        memcpy(head, in->at + in->start, 12);
        size_t size = ntohl(head[2]);
        if (in->end - in->start - 12 < size) return;
        const char *at = in->at + in->start + 12;
        int type = ntohl(head[1]);
        if (c->worker) {
            gearman_work(c, type, at, size);
        } else if (type == WORK_COMPLETE) {
            size_t handle = strlen(at) + 1;
            again(c, take_reply(l, c, (part){ at + handle, size - handle }, true));
        } else if (type != JOB_CREATED) {
            l->errors++;
        }
        in->start += 12 + size;
    }
}

static void send_buffer(int fd, buffer *out)
{
    while (out->end > out->start) {
        ssize_t sent = send(fd, out->at + out->start, out->end - out->start,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) return;
        if (sent < 0) fail("send: %s", strerror(errno));
        out->start += sent;
    }
    out->start = out->end = 0;
}

static ssize_t receive_buffer(int fd, buffer *in)
{
    if (in->start == in->end) in->start = in->end = 0;
    make_room(in, options.presence ? 256 : 65536);
    ssize_t got = recv(fd, in->at + in->end, in->room - in->end, MSG_DONTWAIT);
    if (got > 0) in->end += got;
    return got;
}

static ssize_t plain_read(connection *c) { return receive_buffer(c->fd, &c->in); }
static void plain_write(connection *c) { send_buffer(c->fd, &c->out); }
static bool plain_unsent(connection *c) { return c->out.end > c->out.start; }

#ifdef SECURE
#include "load_secure.h"
#endif

static const transport transports[] = {
    { "plain", NULL, plain_read, plain_write, plain_unsent, false },
#ifdef SECURE
    { "curve", curve_open, curve_read, curve_write, curve_unsent, true },
    { "tls", tls_open, tls_read, tls_write, plain_unsent, false },
    { "zmq", zmq_open, zmq_read, zmq_write, plain_unsent, true },
    { "zmq-curve", zmq_open, zmq_read, zmq_write, plain_unsent, true },
#endif
};
static const transport *carrier;

static void write_out(loop *l, connection *c)
{
    carrier->write(c);
    bool full = carrier->unsent(c);
    if (full == c->writing) return;
    struct epoll_event event = { EPOLLIN | (full ? EPOLLOUT : 0), { .ptr = c } };
    epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &event);
    c->writing = full;
}

static void read_in(loop *l, connection *c)
{
    ssize_t got = carrier->read(c);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        if (atomic_load(&running)) fail("the broker closed connection %d: %s", c->number, got ? strerror(errno) : "end");
        return;
    }
    if (is_zmtp()) read_zmtp(l, c);
    else if (is("nats")) read_nats(l, c);
    else read_gearman(l, c);
}

static void beat(connection *c)
{
    char header[64];
    if (!is_zmtp() || is("proxy")) return;
    if (spoken) legacy_worker_says(c, spoken->heartbeat, false);
    else put_frame(&c->out, 0, header, header_03(header, 5, 0xFFFF, 0, 0, ""));
}

/* Heartbeats of the connections from `first` on, spread over the interval; a little early, for a turn may be late. */
static void beat_in_turn(loop *l, int first, int count, double interval, int64_t *last, int *next)
{
    int64_t now = now_ns(CLOCK_MONOTONIC);
    if (!*last) *last = now;
    int due = count * ((now - *last) / (0.9e9 * interval));
    if (due > count) due = count;
    if (due < 1) return;
    for (*last = now; due > 0; due--) {
        connection *c = &connections[first + (*next = (*next + 1) % count)];
        if (!c->ready) continue;
        beat(c);
        write_out(l, c);
    }
}

static void beat_all_in_turn(loop *l)
{
    static int64_t worker_last, client_last;
    static int worker_next, client_next;
    int workers = atomic_load(&opened), clients = workers - options.workers;
    if (clients > 0) beat_in_turn(l, options.workers, clients, 30, &client_last, &client_next);
    beat_in_turn(l, 0, clients > 0 ? options.workers : workers, 2.5, &worker_last, &worker_next);
}

/* libzmq's descriptor is edge-triggered, and a send may take its edge. */
static bool again_readable(connection *c)
{
#ifdef SECURE
    return carrier->open == zmq_open && zmq_readable(c);
#else
    (void)c;
    return false;
#endif
}

/* ── --pace ──────────────────────────────────────────────────────────────────────────────────── */

/* How many threads have clients, and which of them this one is; -1 for the one that has the workers alone. */
static int pacing_threads(void) { return options.threads == 1 ? 1 : options.threads - 1; }
static int pacing_place(loop *l) { return options.threads == 1 ? 0 : (int)(l - loops) - 1; }

/* When the request of this thread with this number is due: at the last tick before its place in an even flow. */
static int64_t due_time(uint64_t number)
{
    double each = 1e9 * pacing_threads() / options.pace;
    return atomic_load(&pace_start) + (int64_t)(number * each) / TICK * TICK;
}

/* Send what is due. A client whose next slot is still open keeps the others waiting too; their latencies count that. */
static void send_due(loop *l)
{
    int place = pacing_place(l), threads = pacing_threads();
    int clients = (options.clients - place + threads - 1) / threads;
    int64_t now = now_ns(CLOCK_MONOTONIC), due;
    uint64_t first = l->paced;
    while ((due = due_time(l->paced)) <= now && due < atomic_load(&pace_until)) {
        connection *c = &connections[options.workers + place + threads * (int)(l->paced % clients)];
        if (c->sent[c->next_slot]) break;
        if (is_measured(due)) {
            l->expected++;
            note(l->lateness, now_ns(CLOCK_MONOTONIC) - due);
        }
        send_request(c, c->next_slot, due);
        c->next_slot = (c->next_slot + 1) % options.window;
        l->paced++;
    }
    for (int n = 0; n < clients && (uint64_t)n < l->paced - first; n++)
        write_out(l, &connections[options.workers + place + threads * (int)((first + n) % clients)]);
}

static int wait_until_due(loop *l, struct epoll_event *events, int most)
{
    int64_t wait = due_time(l->paced) - now_ns(CLOCK_MONOTONIC);
    if (wait < 0 || wait > TICK) wait = TICK; /* late: a client waits for a slot, which an answer frees */
    struct timespec time = { 0, wait };
    return epoll_pwait2(l->epoll, events, most, &time, NULL);
}

static bool is_pacing(loop *l)
{
    return options.pace && pacing_place(l) >= 0 && pacing_place(l) < options.clients && atomic_load(&pace_start);
}

/* ── the loop ────────────────────────────────────────────────────────────────────────────────── */

static void *serve(void *of)
{
    loop *l = of;
    struct epoll_event events[256];
    int64_t next_beat = now_ns(CLOCK_MONOTONIC) + 1000000000;
    if (options.pace) prctl(PR_SET_TIMERSLACK, 1UL);
    while (atomic_load_explicit(&running, memory_order_relaxed)) {
        int count = is_pacing(l) ? wait_until_due(l, events, 256)
                                 : epoll_wait(l->epoll, events, 256, options.presence ? 10 : options.pace ? 1 : 100);
        for (int n = 0; n < count; n++) {
            connection *c = events[n].data.ptr;
            if (events[n].events & ~EPOLLOUT) read_in(l, c);
            write_out(l, c);
            while (again_readable(c)) {
                read_in(l, c);
                write_out(l, c);
            }
        }
        if (is_pacing(l)) send_due(l);
        if (options.presence) beat_all_in_turn(l);
        if (options.presence || now_ns(CLOCK_MONOTONIC) < next_beat) continue;
        next_beat += 1000000000;
        for (int n = 0; l == &loops[0] && n < options.workers; n++) {
            if (!connections[n].fd) continue;
            beat(&connections[n]);
            write_out(l, &connections[n]);
        }
    }
    return NULL;
}

/* ── all of them ─────────────────────────────────────────────────────────────────────────────── */

/* Thousands of connections from one address to one port make the kernel search long for a free port. */
static void bind_source(connection *c)
{
    int on = 1;
    struct sockaddr_in address = { .sin_family = AF_INET };
    address.sin_addr.s_addr = htonl(0x7F000002 + c->number / 4000);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(c->fd, (struct sockaddr *)&address, sizeof address)) fail("bind: %s", strerror(errno));
}

static int port_of(connection *c)
{
    return c->worker && options.worker_port ? options.worker_port : options.port;
}

static void connect_unix(connection *c)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(options.path) >= sizeof address.sun_path) fail("too long a path");
    strcpy(address.sun_path, options.path);
    c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect: %s", strerror(errno));
}

static void connect_tcp(connection *c)
{
    int on = 1;
    struct sockaddr_in address = { .sin_family = AF_INET };
    address.sin_port = htons(port_of(c));
    inet_pton(AF_INET, options.host, &address.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    if (options.presence) bind_source(c);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static bool is_libzmq(void) { return !strncmp(options.transport, "zmq", 3); }

static void open_connection(connection *c, loop *l)
{
    if (*options.path && !is_libzmq()) connect_unix(c);
    else if (!is_libzmq()) connect_tcp(c);
    c->sent = calloc(options.window, sizeof *c->sent);
    c->turn = calloc(options.window, sizeof *c->turn);
    if (getentropy(c->sid, sizeof c->sid)) fail("no randomness");
    c->sid[0] |= 1;
    c->greeted = carrier->greets;
    if (carrier->open) carrier->open(c);
    if (is_zmtp() && !carrier->greets) put_greeting(c);
    else if (is("nats")) nats_hello(c);
    if (!is_zmtp() || is_libzmq()) begin(c);
    c->writing = true; /* the loop writes what is there, and owns the connection from here on */
    struct epoll_event event = { EPOLLIN | EPOLLOUT, { .ptr = c } };
    epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event);
}

static void wait_for_welcome(int count)
{
    bool told = is("mdp03");
    for (int n = 0; n < 6000; n++) {
        if (told ? atomic_load(&welcomed) >= count : n >= 60) return;
        usleep(5000);
    }
    fail("%d of %d were welcomed within 30 s", atomic_load(&welcomed), count);
}

static double percentile(const uint64_t *histogram, uint64_t total, double share)
{
    uint64_t seen = 0;
    for (int n = 0; n < BUCKETS; n++) {
        seen += histogram[n];
        if (seen && seen >= share * total) return bucket_ns(n) / 1000;
    }
    return 0;
}

static double own_cpu(void)
{
    return now_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9;
}

static double broker_cpu(void)
{
    clockid_t clock;
    if (!options.pid) return 0;
    if (clock_getcpuclockid(options.pid, &clock)) fail("no process %d", options.pid);
    return now_ns(clock) / 1e9;
}

static uint64_t answered_so_far(void)
{
    uint64_t answered = 0;
    for (int n = 0; n < options.threads; n++) answered += loops[n].answered;
    return answered;
}

/* --pace: begin, and say when the measured requests begin and end. The first is due when all clients are ready. */
static void begin_pacing(void)
{
    for (int n = 0; n < 6000 && atomic_load(&begun) < options.clients + options.workers; n++) usleep(5000);
    usleep(300000);
    int64_t start = now_ns(CLOCK_MONOTONIC) + 10 * TICK;
    atomic_store(&pace_from, start + (int64_t)(options.warmup * 1e9) / TICK * TICK);
    atomic_store(&pace_until, atomic_load(&pace_from) + (int64_t)(options.seconds * 1e9) / TICK * TICK);
    atomic_store(&pace_start, start);
}

static uint64_t expected_so_far(void)
{
    uint64_t expected = 0;
    for (int n = 0; n < options.threads; n++) expected += loops[n].expected;
    return expected;
}

/* --pace: what was due in the measured time is waited for, however late it comes. */
static void await_paced(void)
{
    for (int n = 0; n < PATIENCE * 1000; n++) {
        bool sent = true;
        for (int at = 0; at < options.threads; at++)
            if (is_pacing(&loops[at]) && due_time(loops[at].paced) < atomic_load(&pace_until)) sent = false;
        if (sent && answered_so_far() >= expected_so_far()) return;
        usleep(1000);
    }
    fail("not every request was answered %d s after the end", PATIENCE);
}

static void measure(void)
{
    if (options.pace) begin_pacing();
    usleep(options.warmup * 1e6);
    double cpu = broker_cpu(), own = own_cpu();
    int64_t start = now_ns(CLOCK_MONOTONIC), end;
    atomic_store(&measuring, 1);
    do {
        usleep(options.count ? 1000 : options.seconds * 1e6);
        end = now_ns(CLOCK_MONOTONIC);
    } while (options.count && answered_so_far() < options.count && end - start < options.seconds * 1e9);
    atomic_store(&measuring, 0);
    cpu = broker_cpu() - cpu;
    own = own_cpu() - own;
    atomic_store(&stopping, 1);
    usleep(200000);
    if (options.pace) await_paced();
    atomic_store(&running, 0);
    static uint64_t histogram[BUCKETS], lateness[BUCKETS];
    uint64_t errors = 0, answered = 0, expected = expected_so_far();
    for (int n = 0; n < options.threads; n++) {
        pthread_join(loops[n].thread, NULL);
        answered += loops[n].answered;
        errors += loops[n].errors;
        for (int at = 0; at < BUCKETS; at++) {
            histogram[at] += loops[n].histogram[at];
            lateness[at] += loops[n].lateness[at];
        }
    }
    double seconds = (end - start) / 1e9;
    printf("{\"protocol\": \"%s\", \"clients\": %d, \"window\": %d, \"workers\": %d, \"body\": %d, "
           "\"requests\": %llu, \"errors\": %llu, \"seconds\": %.6f, \"per_second\": %.1f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"most_us\": %.1f, \"load_cpu\": %.6f, \"broker_cpu\": %.6f, "
           "\"pace\": %d, \"late_p50_us\": %.1f, \"late_p999_us\": %.1f, "
           "\"transport\": \"%s\", \"cipher\": \"%s\"}\n",
           options.protocol, options.clients, options.window, options.workers, options.body,
           (unsigned long long)answered, (unsigned long long)errors, seconds, answered / seconds,
           percentile(histogram, answered, 0.5), percentile(histogram, answered, 0.99),
           percentile(histogram, answered, 0.999), percentile(histogram, answered, 1), own, cpu, options.pace,
           percentile(lateness, expected, 0.5),
           percentile(lateness, expected, 0.999), options.transport, cipher);
}

/* Presence: says when all are there, measures, reports, and stays until the input ends. */
static void attend(void)
{
    char ignored[16];
    wait_for_welcome(options.clients + options.workers);
    printf("registered\n");
    fflush(stdout);
    usleep(options.warmup * 1e6);
    double cpu = broker_cpu(), own = own_cpu();
    int heard = atomic_load(&beats_heard);
    int64_t start = now_ns(CLOCK_MONOTONIC);
    usleep(options.seconds * 1e6);
    printf("{\"workers\": %d, \"clients\": %d, \"seconds\": %.3f, \"broker_cpu\": %.6f, \"load_cpu\": %.6f, "
           "\"sent_off\": %d, \"heartbeats_heard\": %d}\n",
           options.workers, options.clients, (now_ns(CLOCK_MONOTONIC) - start) / 1e9, broker_cpu() - cpu,
           own_cpu() - own, atomic_load(&sent_off), atomic_load(&beats_heard) - heard);
    fflush(stdout);
    while (read(0, ignored, sizeof ignored) > 0) {}
}

static void read_options(int count, char **words)
{
    struct { const char *name; const char **text; int *number; double *seconds; } known[] = {
        { "--protocol", &options.protocol, 0, 0 }, { "--host", &options.host, 0, 0 },
        { "--service", &options.service, 0, 0 }, { "--transport", &options.transport, 0, 0 },
        { "--path", &options.path, 0, 0 }, { "--server-key", &options.server_key, 0, 0 }, { "--port", 0, &options.port, 0 },
        { "--worker-port", 0, &options.worker_port, 0 }, { "--clients", 0, &options.clients, 0 },
        { "--window", 0, &options.window, 0 }, { "--workers", 0, &options.workers, 0 },
        { "--capacity", 0, &options.capacity, 0 }, { "--body", 0, &options.body, 0 },
        { "--threads", 0, &options.threads, 0 }, { "--pid", 0, &options.pid, 0 },
        { "--presence", 0, &options.presence, 0 }, { "--durable", 0, &options.durable, 0 }, { "--rate", 0, &options.rate, 0 },
        { "--pace", 0, &options.pace, 0 },
        { "--seconds", 0, 0, &options.seconds }, { "--warmup", 0, 0, &options.warmup },
    };
    for (int n = 1; n < count; n += 2) {
        bool found = false;
        if (n + 1 == count) fail("%s wants a value", words[n]);
        if (!strcmp(words[n], "--count")) {
            options.count = strtoull(words[n + 1], NULL, 10);
            continue;
        }
        for (size_t at = 0; at < sizeof known / sizeof *known; at++) {
            if (strcmp(words[n], known[at].name)) continue;
            found = true;
            if (known[at].text) *known[at].text = words[n + 1];
            if (known[at].number) *known[at].number = atoi(words[n + 1]);
            if (known[at].seconds) *known[at].seconds = atof(words[n + 1]);
        }
        if (!found) fail("no option %s", words[n]);
    }
    if (options.rate && options.clients != 1) fail("a rate is that of one client");
    if (options.pace && options.presence + options.rate + (options.count > 0)) fail("a pace is that of a plain measurement");
    if (options.body < 8) fail("a body has at least 8 bytes");
    if (options.threads < 1 || options.threads > MOST_THREADS) fail("1 to %d threads", MOST_THREADS);
    if (strlen(options.service) > 200) fail("too long a name");
    if (options.presence) options.threads = 1;
    if (options.presence && strcmp(options.protocol, "mdp03")) fail("presence is MDP/0.3");
    for (size_t n = 0; n < sizeof dialects / sizeof *dialects; n++)
        if (is(dialects[n].name)) spoken = &dialects[n];
    for (size_t n = 0; n < sizeof transports / sizeof *transports; n++)
        if (!strcmp(transports[n].name, options.transport)) carrier = &transports[n];
    if (!carrier) fail("no transport %s", options.transport);
    if (!spoken && !is("mdp03") && !is("proxy") && !is("nats") && !is("gearman")) fail("no protocol %s", options.protocol);
}

/* With several threads the first serves the workers, the others the clients. */
static loop *loop_of(int number, bool worker)
{
    if (worker || options.threads == 1) return &loops[0];
    return &loops[1 + (number - options.workers) % (options.threads - 1)];
}

int main(int count, char **words)
{
    struct rlimit descriptors;
    read_options(count, words);
    getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    setrlimit(RLIMIT_NOFILE, &descriptors);
    int all = options.clients + options.workers;
    connections = calloc(all, sizeof *connections);
    filling = malloc(options.body);
    memset(filling, 'x', options.body);
    atomic_store(&running, 1);
    for (int n = 0; n < options.threads; n++) {
        loops[n].epoll = epoll_create1(0);
        pthread_create(&loops[n].thread, NULL, serve, &loops[n]);
    }
    for (int n = 0; n < all; n++) {
        if (n == options.workers || (options.presence && n % 200 == 0)) wait_for_welcome(n);
        connections[n].number = n;
        connections[n].worker = n < options.workers;
        open_connection(&connections[n], loop_of(n, connections[n].worker));
        atomic_store(&opened, n + 1);
    }
    if (options.presence) attend();
    else measure();
    return 0;
}
