/* Transports of load.c that need libraries: CURVE over our own sockets (libsodium), TLS for NATS (OpenSSL), and libzmq's
 * sockets, plain and with CURVE. `in` and `out` of a connection hold plain frames; what is encrypted is kept here.
 *
 * CURVE is that of RFC 26, with the bundles of docs/spec/zmtp-bundle.md where the broker offers them. The load checks
 * what it receives, and ends when a box does not open.
 */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <zmq.h>

/* ── CURVE ───────────────────────────────────────────────────────────────────────────────────── */

enum { KEY = 32, MAC = 16, LARGEST_HANDSHAKE = 1024, NAME_AND_NONCE = 16 };
enum { BUNDLE = 0x40, MOST_BUNDLED = 16384, LARGEST_BUNDLED = 4096 };
#define OFFER "\023X-Majordomus-Bundle\0\0\0\0011"
enum { GREETING, WELCOME, READY, OPEN };

typedef unsigned char byte;

typedef struct {
    int step;
    bool bundles;
    buffer in, out;               /* as on the network */
    byte public[KEY], secret[KEY]; /* the short-term pair */
    byte key[KEY];                /* of both directions, when the connection is open */
    byte server[KEY];             /* the server's short-term key */
    uint64_t sent, received;      /* the last nonces */
} curve;

static byte curve_server[KEY], curve_public[KEY], curve_secret[KEY]; /* the server's key; our long-term pair */

static void curve_keys(void)
{
    static bool made;
    size_t length;
    if (made) return;
    made = true;
    if (sodium_init() < 0) fail("no libsodium");
    if (sodium_hex2bin(curve_server, KEY, options.server_key, strlen(options.server_key), NULL, &length, NULL) || length != KEY)
        fail("--server-key wants the broker's public key, as 64 hexadecimal digits");
    crypto_box_keypair(curve_public, curve_secret);
}

static void short_nonce(byte nonce[24], const char *prefix, uint64_t number)
{
    memcpy(nonce, prefix, 16);
    for (int n = 0; n < 8; n++) nonce[16 + n] = number >> (56 - 8 * n);
}

static void put_command(curve *k, const byte *body, size_t size)
{
    put_frame(&k->out, 4, body, size);
}

static void put_hello(curve *k)
{
    byte hello[200] = "\5HELLO\1\0", nonce[24], zeros[64] = { 0 };
    short_nonce(nonce, "CurveZMQHELLO---", ++k->sent);
    memcpy(hello + 80, k->public, KEY);
    memcpy(hello + 112, nonce + 16, 8);
    if (crypto_box_easy(hello + 120, zeros, sizeof zeros, nonce, curve_server, k->secret)) fail("an unusable server key");
    put_command(k, hello, sizeof hello);
}

static void put_initiate(curve *k, connection *c, const byte *cookie)
{
    byte body[512] = "\10INITIATE", clear[256], nonce[24];
    const char metadata[] = OFFER "\013Socket-Type\0\0\0\6DEALER\10Identity\0\0\0\20";
    size_t size = 128 + sizeof metadata - 1 + 16;
    memcpy(clear, curve_public, KEY);
    memcpy(nonce, "VOUCH---", 8);
    randombytes_buf(nonce + 8, 16);
    memcpy(clear + KEY, nonce + 8, 16);
    byte vouched[2 * KEY];
    memcpy(vouched, k->public, KEY);
    memcpy(vouched + KEY, curve_server, KEY);
    if (crypto_box_easy(clear + 48, vouched, sizeof vouched, nonce, k->server, curve_secret)) fail("an unusable key");
    memcpy(clear + 128, metadata, sizeof metadata - 1);
    memcpy(clear + size - 16, c->sid, 16);
    memcpy(body + 9, cookie, 96);
    short_nonce(nonce, "CurveZMQINITIATE", ++k->sent);
    memcpy(body + 105, nonce + 16, 8);
    crypto_box_easy_afternm(body + 113, clear, size, nonce, k->key);
    put_command(k, body, 113 + size + MAC);
}

static void take_welcome(curve *k, connection *c, part body)
{
    byte nonce[24], clear[128];
    if (body.size != 168 || memcmp(body.at, "\7WELCOME", 8)) fail("connection %d: no WELCOME", c->number);
    memcpy(nonce, "WELCOME-", 8);
    memcpy(nonce + 8, body.at + 8, 16);
    if (crypto_box_open_easy(clear, (const byte *)body.at + 24, 144, nonce, curve_server, k->secret))
        fail("connection %d: the box of WELCOME does not open", c->number);
    memcpy(k->server, clear, KEY);
    if (crypto_box_beforenm(k->key, k->server, k->secret)) fail("an unusable key of the server");
    put_initiate(k, c, clear + KEY);
    k->step = READY;
}

static void take_ready(curve *k, connection *c, part body)
{
    byte nonce[24], clear[LARGEST_HANDSHAKE];
    if (body.size >= 6 && !memcmp(body.at, "\5ERROR", 6)) fail("connection %d was refused", c->number);
    if (body.size < 30 || body.size > sizeof clear || memcmp(body.at, "\5READY", 6)) fail("connection %d: no READY", c->number);
    memcpy(nonce, "CurveZMQREADY---", 16);
    memcpy(nonce + 16, body.at + 6, 8);
    if (crypto_box_open_easy_afternm(clear, (const byte *)body.at + 14, body.size - 14, nonce, k->key))
        fail("connection %d: the box of READY does not open", c->number);
    k->received = 1;
    k->bundles = memmem(clear, body.size - 14 - MAC, OFFER, sizeof OFFER - 1);
    k->step = OPEN;
    begin(c);
}

/* One MESSAGE: a frame of `in`. */
static void take_box(curve *k, connection *c, part body)
{
    byte nonce[24];
    if (body.size < NAME_AND_NONCE + MAC + 1 || memcmp(body.at, "\7MESSAGE", 8)) fail("connection %d: no MESSAGE", c->number);
    size_t size = body.size - NAME_AND_NONCE - MAC;
    short_nonce(nonce, "CurveZMQMESSAGES", ++k->received);
    if (memcmp(nonce + 16, body.at + 8, 8)) fail("connection %d: a nonce is not the next one", c->number);
    byte *clear = (byte *)body.at + NAME_AND_NONCE; /* in place */
    if (crypto_box_open_easy_afternm(clear, clear, size + MAC, nonce, k->key)) fail("connection %d: a box does not open", c->number);
    if (clear[0] == BUNDLE) put(&c->in, clear + 1, size - 1);
    else put_frame(&c->in, clear[0] & 2 ? 4 : clear[0] & 1, clear + 1, size - 1);
}

static void curve_open(connection *c)
{
    byte greeting[64] = { [0] = 0xff, [9] = 0x7f, [10] = 3, [12] = 'C', 'U', 'R', 'V', 'E' };
    curve *k = c->secure = calloc(1, sizeof *k);
    if (!k) fail("out of memory");
    curve_keys();
    crypto_box_keypair(k->public, k->secret);
    put(&k->out, greeting, sizeof greeting);
}

static ssize_t curve_read(connection *c)
{
    curve *k = c->secure;
    ssize_t got = receive_buffer(c->fd, &k->in);
    size_t size;
    part body;
    int flags;
    if (got <= 0) return got;
    if (k->step == GREETING) {
        if (k->in.end - k->in.start < 64) return got;
        if (strncmp(k->in.at + k->in.start + 12, "CURVE", 20)) fail("the broker does not speak CURVE");
        k->in.start += 64;
        put_hello(k);
        k->step = WELCOME;
    }
    if (c->in.start == c->in.end) c->in.start = c->in.end = 0;
    while ((size = take_frame(k->in.at + k->in.start, k->in.end - k->in.start, &flags, &body)) != 0) {
        if (k->step == WELCOME) take_welcome(k, c, body);
        else if (k->step == READY) take_ready(k, c, body);
        else take_box(k, c, body);
        k->in.start += size;
    }
    return got;
}

/* One MESSAGE: `flags` and these bytes in a box. */
static void put_box(curve *k, int flags, const char *from, size_t text)
{
    byte nonce[24], head[9] = { 0 };
    size_t size = NAME_AND_NONCE + MAC + 1 + text, head_size = 2;
    head[1] = size;
    if (size > 255) {
        head[0] = 2;
        head_size = 9;
        for (int n = 0; n < 8; n++) head[1 + n] = (uint64_t)size >> (56 - 8 * n);
    }
    make_room(&k->out, head_size + size);
    byte *at = (byte *)k->out.at + k->out.end;
    memcpy(at, head, head_size);
    at += head_size;
    short_nonce(nonce, "CurveZMQMESSAGEC", ++k->sent);
    memcpy(at, "\7MESSAGE", 8);
    memcpy(at + 8, nonce + 16, 8);
    at += NAME_AND_NONCE;
    at[0] = flags;
    memcpy(at + 1, from, text);
    crypto_box_easy_afternm(at, at, 1 + text, nonce, k->key);
    k->out.end += head_size + size;
}

/* Small frames of `out` go into bundles, if the broker takes them; any other frame becomes a MESSAGE of its own. */
static void curve_write(connection *c)
{
    curve *k = c->secure;
    buffer *out = &c->out;
    size_t size, bundled = 0;
    part body;
    int flags;
    while (k->step == OPEN) {
        char *at = out->at + out->start + bundled;
        size = take_frame(at, out->end - out->start - bundled, &flags, &body);
        if (size && k->bundles && body.size <= LARGEST_BUNDLED && bundled + size <= MOST_BUNDLED) {
            bundled += size;
            continue;
        }
        if (bundled) {
            put_box(k, BUNDLE, out->at + out->start, bundled);
            out->start += bundled;
            bundled = 0;
            continue;
        }
        if (!size) break;
        put_box(k, flags & 4 ? 2 : flags & 1, body.at, body.size);
        out->start += size;
    }
    if (out->start == out->end) out->start = out->end = 0;
    send_buffer(c->fd, &k->out);
}

static bool curve_unsent(connection *c)
{
    curve *k = c->secure;
    return k->out.end > k->out.start;
}

/* ── TLS: after the line INFO of NATS, which is plain ────────────────────────────────────────── */

static SSL_CTX *tls_context;

static void tls_open(connection *c)
{
    char byte_read = 0;
    if (!is("nats")) fail("TLS is for nats alone");
    while (byte_read != '\n')
        if (recv(c->fd, &byte_read, 1, 0) != 1) fail("no INFO");
    if (!tls_context) {
        tls_context = SSL_CTX_new(TLS_client_method()); /* it makes its certificate itself: nothing to verify it with */
        if (!tls_context) fail("no TLS");
        SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
    SSL *tls = c->secure = SSL_new(tls_context);
    if (!tls || !SSL_set_fd(tls, c->fd) || SSL_connect(tls) != 1) fail("TLS: %s", ERR_error_string(ERR_get_error(), NULL));
    snprintf(cipher, sizeof cipher, "%s %s", SSL_get_version(tls), SSL_get_cipher(tls));
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK)) fail("fcntl: %s", strerror(errno));
}

static bool tls_wants(connection *c, int result)
{
    int error = SSL_get_error(c->secure, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

/* All that is there: what TLS has decrypted already makes no descriptor readable. */
static ssize_t tls_read(connection *c)
{
    buffer *in = &c->in;
    ssize_t all = 0;
    if (in->start == in->end) in->start = in->end = 0;
    for (;;) {
        make_room(in, 65536);
        int got = SSL_read(c->secure, in->at + in->end, in->room - in->end);
        if (got > 0) {
            in->end += got;
            all += got;
            continue;
        }
        if (!tls_wants(c, got)) return 0;
        if (all) return all;
        errno = EAGAIN;
        return -1;
    }
}

static void tls_write(connection *c)
{
    buffer *out = &c->out;
    while (out->end > out->start) {
        int sent = SSL_write(c->secure, out->at + out->start, out->end - out->start);
        if (sent <= 0) {
            if (tls_wants(c, sent)) return;
            fail("TLS: a write has failed");
        }
        out->start += sent;
    }
    out->start = out->end = 0;
}

/* ── libzmq ──────────────────────────────────────────────────────────────────────────────────── */

static void *zmq_sockets; /* the context */

static void zmq_open(connection *c)
{
    char url[200];
    int none = 0;
    size_t size = sizeof c->fd;
    if (!zmq_sockets) zmq_sockets = zmq_ctx_new();
    void *made = c->secure = zmq_socket(zmq_sockets, ZMQ_DEALER);
    if (!made) fail("libzmq: %s", zmq_strerror(errno));
    zmq_setsockopt(made, ZMQ_ROUTING_ID, c->sid, sizeof c->sid);
    zmq_setsockopt(made, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(made, ZMQ_SNDHWM, &none, sizeof none);
    zmq_setsockopt(made, ZMQ_RCVHWM, &none, sizeof none);
    if (strstr(options.transport, "curve")) {
        curve_keys();
        if (zmq_setsockopt(made, ZMQ_CURVE_SERVERKEY, curve_server, KEY) || zmq_setsockopt(made, ZMQ_CURVE_PUBLICKEY, curve_public, KEY)
            || zmq_setsockopt(made, ZMQ_CURVE_SECRETKEY, curve_secret, KEY))
            fail("this libzmq has no CURVE");
    }
    if (*options.path) snprintf(url, sizeof url, "ipc://%s", options.path);
    else snprintf(url, sizeof url, "tcp://%s:%d", options.host, options.port);
    if (zmq_connect(made, url)) fail("%s: %s", url, zmq_strerror(errno));
    if (zmq_getsockopt(made, ZMQ_FD, &c->fd, &size)) fail("libzmq: %s", zmq_strerror(errno));
}

static bool zmq_readable(connection *c)
{
    int events = 0;
    size_t size = sizeof events;
    zmq_getsockopt(c->secure, ZMQ_EVENTS, &events, &size);
    return events & ZMQ_POLLIN;
}

static ssize_t zmq_read(connection *c)
{
    ssize_t all = 0;
    if (c->in.start == c->in.end) c->in.start = c->in.end = 0;
    for (int n = 0; n < 1024; n++) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        int got = zmq_msg_recv(&message, c->secure, ZMQ_DONTWAIT);
        if (got < 0) break;
        put_frame(&c->in, zmq_msg_more(&message) ? 1 : 0, zmq_msg_data(&message), got);
        all += 1 + got;
        zmq_msg_close(&message);
    }
    if (all) return all;
    errno = EAGAIN;
    return -1;
}

static void zmq_write(connection *c)
{
    buffer *out = &c->out;
    size_t taken;
    part body;
    int flags;
    while ((taken = take_frame(out->at + out->start, out->end - out->start, &flags, &body)) != 0) {
        if (zmq_send(c->secure, body.at, body.size, ZMQ_DONTWAIT | (flags & 1 ? ZMQ_SNDMORE : 0)) < 0)
            fail("libzmq: %s", zmq_strerror(errno));
        out->start += taken;
    }
    out->start = out->end = 0;
}
