/* The least that can stand between two ends: zmq_proxy, which decides nothing.
 *
 * cc -O2 -o proxy proxy.c -lzmq && ./proxy FRONTEND-URL BACKEND-URL [router-dealer|pull-push|xsub-xpub]
 */
#include <stdio.h>
#include <string.h>
#include <zmq.h>

int main(int count, char **words)
{
    const char *pattern = count == 4 ? words[3] : "router-dealer";
    int front = ZMQ_ROUTER, back = ZMQ_DEALER;
    void *context = zmq_ctx_new(), *frontend, *backend;
    if (!strcmp(pattern, "pull-push"))
        front = ZMQ_PULL, back = ZMQ_PUSH;
    else if (!strcmp(pattern, "xsub-xpub"))
        front = ZMQ_XSUB, back = ZMQ_XPUB;
    frontend = zmq_socket(context, front);
    backend = zmq_socket(context, back);
    if (count < 3 || count > 4 || zmq_bind(frontend, words[1]) || zmq_bind(backend, words[2])) {
        fprintf(stderr, "usage: proxy FRONTEND-URL BACKEND-URL [PATTERN] (%s)\n", zmq_strerror(zmq_errno()));
        return 2;
    }
    zmq_proxy(frontend, backend, NULL);
    return 1;
}
