/* What TCP carries from one sender to each of many receivers, memory to memory.
 *
 *   tcp_limit send    ADDRESS PORT RECEIVERS CHUNK BYTES
 *   tcp_limit receive ADDRESS PORT CHUNK
 *
 * The sender writes CHUNK bytes at a time to whichever connections have room. It prints a line for
 * each receiver: bytes per second from the first write to that receiver's word that it has all.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_RECEIVERS = 64, PATIENCE_MS = 10000 };

static void fail(const char *what)
{
    fprintf(stderr, "tcp_limit: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void check(int result, const char *what)
{
    if (result < 0)
        fail(what);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static struct sockaddr_in place(char **argv)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
    inet_pton(AF_INET, argv[2], &at.sin_addr);
    return at;
}

static void accept_all(char **argv, struct pollfd *peers, int receivers)
{
    struct sockaddr_in at = place(argv);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    check(fd, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    check(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    check(listen(fd, MAX_RECEIVERS), "listen");
    for (int i = 0; i < receivers; i++) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        if (poll(&waiting, 1, PATIENCE_MS) <= 0)
            errno = ETIMEDOUT, fail("waiting for receivers");
        check(peers[i].fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK), "accept");
        peers[i].events = POLLOUT;
    }
    close(fd);
}

/* Write one chunk or what is left; when all is written, wait for the receiver's word. */
static void write_some(struct pollfd *peer, const char *data, size_t chunk, uint64_t *left)
{
    ssize_t wrote = send(peer->fd, data, *left < chunk ? *left : chunk, MSG_NOSIGNAL);
    if (wrote < 0 && errno != EAGAIN)
        fail("send");
    if (wrote > 0 && (*left -= wrote) == 0) {
        check(shutdown(peer->fd, SHUT_WR), "shutdown");
        peer->events = POLLIN;
    }
}

static void run_sender(char **argv)
{
    int receivers = atoi(argv[4]), open = receivers;
    size_t chunk = atoll(argv[5]);
    uint64_t total = atoll(argv[6]), left[MAX_RECEIVERS];
    struct pollfd peers[MAX_RECEIVERS] = {0};
    char *data = calloc(1, chunk), word;

    if (!data || receivers < 1 || receivers > MAX_RECEIVERS)
        errno = ERANGE, fail("arguments");
    accept_all(argv, peers, receivers);
    for (int i = 0; i < receivers; i++)
        left[i] = total;
    int64_t began = now_ns();
    while (open) {
        if (poll(peers, receivers, PATIENCE_MS) <= 0)
            errno = ETIMEDOUT, fail("poll");
        for (int i = 0; i < receivers; i++) {
            if (peers[i].revents & POLLOUT && left[i])
                write_some(&peers[i], data, chunk, &left[i]);
            else if (peers[i].revents & (POLLIN | POLLHUP | POLLERR)) {
                if (recv(peers[i].fd, &word, 1, 0) != 1)
                    fail("a receiver went away");
                printf("%.0f\n", total * 1e9 / (now_ns() - began));
                close(peers[i].fd);
                peers[i].fd = -1;
                open--;
            }
        }
    }
}

static void run_receiver(char **argv)
{
    struct sockaddr_in at = place(argv);
    size_t chunk = atoll(argv[4]);
    char *data = malloc(chunk);
    int64_t since = now_ns();
    int fd;
    ssize_t size;

    for (;;) {
        check(fd = socket(AF_INET, SOCK_STREAM, 0), "socket");
        if (data && !connect(fd, (struct sockaddr *)&at, sizeof at))
            break;
        if (now_ns() - since > PATIENCE_MS * 1000000LL)
            fail("connect");
        close(fd);
        usleep(10000);
    }
    while ((size = recv(fd, data, chunk, 0)) > 0)
        ;
    check(size, "recv");
    check(send(fd, "", 1, MSG_NOSIGNAL), "send");
}

int main(int argc, char **argv)
{
    if (argc == 7 && !strcmp(argv[1], "send"))
        run_sender(argv);
    else if (argc == 5 && !strcmp(argv[1], "receive"))
        run_receiver(argv);
    else {
        fprintf(stderr, "usage: see the head of tcp_limit.c\n");
        return 2;
    }
    return 0;
}
