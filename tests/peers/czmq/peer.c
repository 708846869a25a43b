/* A client and a worker of MDP/0.1 with CZMQ (RFC 7), for the acceptance tests:
 *
 *     peer client ENDPOINT SERVICE BODY…     prints each frame of the reply on a line
 *     peer worker ENDPOINT SERVICE           prints "ready" and echoes until SIGTERM
 *
 * SERVER_KEY, PUBLIC_KEY and SECRET_KEY, or PLAIN_USER and PLAIN_PASSWORD, are in the environment.
 */
#include <czmq.h>

static void secure(zsock_t *socket)
{
    const char *server = getenv("SERVER_KEY"), *user = getenv("PLAIN_USER");
    if (server) {
        zsock_set_curve_serverkey(socket, server);
        zsock_set_curve_publickey(socket, getenv("PUBLIC_KEY"));
        zsock_set_curve_secretkey(socket, getenv("SECRET_KEY"));
    } else if (user) {
        zsock_set_plain_username(socket, user);
        zsock_set_plain_password(socket, getenv("PLAIN_PASSWORD"));
    }
}

static zsock_t *connected(int type, const char *endpoint)
{
    zsock_t *socket = zsock_new(type);
    zsock_set_linger(socket, 500);
    secure(socket);
    if (zsock_connect(socket, "%s", endpoint)) {
        fprintf(stderr, "cannot connect to %s\n", endpoint);
        exit(1);
    }
    return socket;
}

static int client(const char *endpoint, const char *service, char **body, int count)
{
    zsock_t *socket = connected(ZMQ_REQ, endpoint);
    zmsg_t *message = zmsg_new();
    zsock_set_rcvtimeo(socket, 10000);
    zmsg_addstr(message, "MDPC01");
    zmsg_addstr(message, service);
    for (int n = 0; n < count; n++) zmsg_addstr(message, body[n]);
    zmsg_send(&message, socket);
    message = zmsg_recv(socket);
    if (!message) {
        fprintf(stderr, "no reply\n");
        return 1;
    }
    free(zmsg_popstr(message));
    free(zmsg_popstr(message));
    for (char *text; (text = zmsg_popstr(message)); free(text)) puts(text);
    zmsg_destroy(&message);
    zsock_destroy(&socket);
    return 0;
}

static void say(zsock_t *socket, const char *command, const char *service)
{
    zmsg_t *message = zmsg_new();
    zmsg_addstr(message, "");
    zmsg_addstr(message, "MDPW01");
    zmsg_addmem(message, command, 1);
    if (service) zmsg_addstr(message, service);
    zmsg_send(&message, socket);
}

static int worker(const char *endpoint, const char *service)
{
    zsock_t *socket = connected(ZMQ_DEALER, endpoint);
    zsock_set_rcvtimeo(socket, 500);
    say(socket, "\1", service);
    puts("ready");
    fflush(stdout);
    while (!zsys_interrupted) {
        zmsg_t *message = zmsg_recv(socket);
        if (!message) {
            say(socket, "\4", NULL);
            continue;
        }
        zframe_t *command, *address, *empty;
        free(zmsg_popstr(message));
        free(zmsg_popstr(message));
        command = zmsg_pop(message);
        if (*zframe_data(command) == 2) {
            address = zmsg_pop(message);
            empty = zmsg_pop(message);
            zmsg_prepend(message, &empty);
            zmsg_prepend(message, &address);
            zmsg_pushmem(message, "\3", 1);
            zmsg_pushstr(message, "MDPW01");
            zmsg_pushstr(message, "");
            zmsg_send(&message, socket);
        }
        zframe_destroy(&command);
        zmsg_destroy(&message);
    }
    say(socket, "\5", NULL);
    zsock_destroy(&socket);
    return 0;
}

int main(int count, char **words)
{
    if (count > 3 && streq(words[1], "client")) return client(words[2], words[3], words + 4, count - 4);
    if (count == 4 && streq(words[1], "worker")) return worker(words[2], words[3]);
    fprintf(stderr, "peer client|worker ENDPOINT SERVICE BODY…\n");
    return 2;
}
