/* Both ends of a proxy, which send and read faster than any proxy does.
 *
 * cc -O2 -pthread -o proxy_ends proxy_ends.c -lzmq
 * ./proxy_ends pull-push|xsub-xpub|router-dealer FRONTEND-URL BACKEND-URL MESSAGES BYTES
 *
 * Prints the messages a second that came through (for router-dealer: answers to as many requests,
 * 1,000 at a time), and how many came: a publisher drops what its subscriber is too slow for.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

enum { WINDOW = 1000, WAITING = 10000, LARGEST = 65536, SILENCE = 1500 };

static long messages;
static int size;
static char body[LARGEST];

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void *connected(void *context, int kind, const char *url, int hwm)
{
    void *made = zmq_socket(context, kind);
    int silence = SILENCE, keep = 1;
    zmq_setsockopt(made, ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(made, ZMQ_RCVHWM, &hwm, sizeof hwm);
    zmq_setsockopt(made, ZMQ_RCVTIMEO, &silence, sizeof silence);
    if (kind == ZMQ_SUB)
        zmq_setsockopt(made, ZMQ_SUBSCRIBE, "", 0);
    if (kind == ZMQ_XPUB)
        zmq_setsockopt(made, ZMQ_XPUB_NODROP, &keep, sizeof keep);
    if (zmq_connect(made, url)) {
        perror(url);
        exit(1);
    }
    return made;
}

static void *send_all(void *socket)
{
    for (long n = 0; n < messages; n++)
        zmq_send(socket, body, size, 0);
    return NULL;
}

static void *answer_all(void *socket)
{
    char address[256], request[LARGEST];
    for (;;) {
        int length = zmq_recv(socket, address, sizeof address, 0);
        int bytes = length < 0 ? -1 : zmq_recv(socket, request, sizeof request, 0);
        if (bytes < 0)
            return NULL;
        zmq_send(socket, address, length, ZMQ_SNDMORE);
        zmq_send(socket, request, bytes, 0);
    }
}

int main(int count, char **words)
{
    struct timespec settle = {0, 500000000};
    void *context = zmq_ctx_new(), *sender, *reader;
    long sent = 0, got = 0;
    double begin, end = 0;
    pthread_t other;
    if (count != 6 || (messages = atol(words[4])) < 1 || (size = atoi(words[5])) > LARGEST) {
        fprintf(stderr, "usage: proxy_ends PATTERN FRONTEND-URL BACKEND-URL MESSAGES BYTES\n");
        return 2;
    }
    if (!strcmp(words[1], "router-dealer")) {
        sender = reader = connected(context, ZMQ_DEALER, words[2], 0);
        pthread_create(&other, NULL, answer_all, connected(context, ZMQ_DEALER, words[3], 0));
        nanosleep(&settle, NULL);
        begin = now();
        while (got < messages) {
            for (; sent < messages && sent - got < WINDOW; sent++)
                zmq_send(sender, body, size, 0);
            if (zmq_recv(reader, body, size, 0) < 0)
                break;
            got++;
            end = now();
        }
    } else {
        int pull = !strcmp(words[1], "pull-push");
        reader = connected(context, pull ? ZMQ_PULL : ZMQ_SUB, words[3], 0);
        sender = connected(context, pull ? ZMQ_PUSH : ZMQ_XPUB, words[2], WAITING);
        nanosleep(&settle, NULL);
        begin = now();
        pthread_create(&other, NULL, send_all, sender);
        while (got < messages && zmq_recv(reader, body, size, 0) >= 0) {
            got++;
            end = now();
        }
    }
    printf("%.0f %ld\n", got / (end - begin), got);
    return got ? 0 : 1;
}
