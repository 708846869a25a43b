/* The least that can stand between clients and workers: zmq_proxy, which decides nothing.
 *
 * cc -O2 -o proxy proxy.c -lzmq && ./proxy CLIENTS-URL WORKERS-URL
 */
#include <stdio.h>
#include <zmq.h>

int main(int count, char **words)
{
    void *context = zmq_ctx_new();
    void *clients = zmq_socket(context, ZMQ_ROUTER);
    void *workers = zmq_socket(context, ZMQ_DEALER);
    if (count != 3 || zmq_bind(clients, words[1]) || zmq_bind(workers, words[2])) {
        fprintf(stderr, "usage: proxy CLIENTS-URL WORKERS-URL (%s)\n", zmq_strerror(zmq_errno()));
        return 2;
    }
    zmq_proxy(clients, workers, NULL);
    return 1;
}
