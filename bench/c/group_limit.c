/* What the network carries of one multicast stream, without Python and without repair.
 *
 *   group_limit send    GROUP PORT ADDRESS FILE RECEIVERS SEGMENT WINDOW BYTES
 *   group_limit receive GROUP PORT ADDRESS FILE INDEX
 *
 * One call sends a train of segments (UDP_SEGMENT), one call receives one (UDP_GRO). ADDRESS is
 * the own address whose interface is used. FILE is memory that all share: through it receivers
 * tell how far they are, so that the sender is never more than WINDOW bytes ahead of the slowest;
 * a protocol would need packets for that. The sender prints a line for each receiver: bytes per
 * second from the first send to its last datagram, and which share of the bytes was lost.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#define SOL_UDP_ 17

enum { MAX_RECEIVERS = 63, TRAIN_SEGMENTS = 64, TRAIN_BYTES = 62000, BUFFER_BYTES = 8 << 20 };

static const uint64_t END = UINT64_MAX;             /* the unit that says: that was all */
static const int64_t PATIENCE_NS = 10000000000LL;   /* without progress: give up */
static const int64_t NUDGE_NS = 20000000LL;         /* all that was under way got lost: go on */

/* One cache line each, so that receivers do not disturb each other. */
struct slot {
    _Alignas(64) _Atomic uint64_t units; /* the highest unit seen, plus one; 0: not ready */
    uint64_t bytes;
    int64_t done_ns;
    _Atomic int done;
};
_Static_assert(sizeof(struct slot) * MAX_RECEIVERS <= 4096, "one page");

static void fail(const char *what)
{
    fprintf(stderr, "group_limit: %s: %s\n", what, strerror(errno));
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

static int open_socket(const char *address, int sends)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), one = 1, size = BUFFER_BYTES;
    struct ip_mreqn via = {0};
    check(fd, "socket");
    if (setsockopt(fd, SOL_SOCKET, sends ? SO_SNDBUFFORCE : SO_RCVBUFFORCE, &size, sizeof size))
        setsockopt(fd, SOL_SOCKET, sends ? SO_SNDBUF : SO_RCVBUF, &size, sizeof size);
    check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), "SO_REUSEADDR");
    inet_pton(AF_INET, address, &via.imr_address);
    if (sends)
        check(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &via, sizeof via), "IP_MULTICAST_IF");
    return fd;
}

static struct sockaddr_in group_at(const char *group, const char *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    inet_pton(AF_INET, group, &at.sin_addr);
    return at;
}

/* Wait until `ahead` more units fit; 0 if nobody moved for a while. */
static int wait_for_room(struct slot *slots, int receivers, uint64_t unit, uint64_t window)
{
    int64_t since = now_ns();
    for (;;) {
        uint64_t slowest = UINT64_MAX;
        for (int i = 0; i < receivers; i++) {
            uint64_t units = atomic_load(&slots[i].units);
            slowest = units < slowest ? units : slowest;
        }
        if (unit + 1 < slowest + window)
            return 1;
        if (now_ns() - since > NUDGE_NS)
            return 0;
        sched_yield();
    }
}

static void wait_for_receivers(struct slot *slots, int receivers)
{
    int64_t since = now_ns();
    for (int i = 0; i < receivers; i++)
        while (!atomic_load(&slots[i].units)) {
            if (now_ns() - since > PATIENCE_NS)
                errno = ETIMEDOUT, fail("waiting for receivers");
            usleep(1000);
        }
    usleep(200000); /* until switches know the members, too */
}

static void send_train(int fd, char *train, size_t size, int segment, uint64_t unit)
{
    for (size_t at = 0; at < size; at += segment)
        memcpy(train + at, &unit, sizeof unit);
    check(send(fd, train, size, 0), "send");
}

static void end_all(int fd, char *train, struct slot *slots, int receivers, int segment)
{
    int64_t since = now_ns();
    for (int i = 0; i < receivers; i++)
        while (!atomic_load(&slots[i].done)) {
            if (now_ns() - since > PATIENCE_NS)
                errno = ETIMEDOUT, fail("waiting for the end");
            send_train(fd, train, sizeof(uint64_t), segment, END);
            usleep(1000);
        }
}

static void run_sender(char **argv, struct slot *slots)
{
    int fd = open_socket(argv[4], 1), receivers = atoi(argv[6]), segment = atoi(argv[7]);
    uint64_t window = atoll(argv[8]), total = atoll(argv[9]);
    int segments = TRAIN_BYTES / segment > 1 ? TRAIN_BYTES / segment : 1;
    segments = segments < TRAIN_SEGMENTS ? segments : TRAIN_SEGMENTS;
    size_t size = (size_t)segment * segments;
    uint64_t units = (total + size - 1) / size;
    static char train[65536];
    struct sockaddr_in to = group_at(argv[2], argv[3]);

    check(connect(fd, (struct sockaddr *)&to, sizeof to), "connect");
    if (segments > 1)
        check(setsockopt(fd, SOL_UDP_, UDP_SEGMENT, &segment, sizeof segment), "UDP_SEGMENT");
    wait_for_receivers(slots, receivers);
    int64_t began = now_ns();
    for (uint64_t unit = 0; unit < units; unit++) {
        wait_for_room(slots, receivers, unit, window / size + 1);
        send_train(fd, train, size, segment, unit);
    }
    end_all(fd, train, slots, receivers, segment);
    for (int i = 0; i < receivers; i++)
        printf("%.0f %.6f\n", slots[i].bytes * 1e9 / (slots[i].done_ns - began),
               1.0 - slots[i].bytes / (double)(units * size));
}

static void run_receiver(char **argv, struct slot *slot)
{
    int fd = open_socket(argv[4], 0), one = 1;
    static char buffer[65536];
    struct sockaddr_in at = group_at(argv[2], argv[3]);
    struct ip_mreqn member = {.imr_multiaddr = at.sin_addr};
    struct timeval patience = {.tv_sec = PATIENCE_NS / 1000000000};

    check(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    inet_pton(AF_INET, argv[4], &member.imr_address);
    check(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &member, sizeof member), "joining");
    check(setsockopt(fd, SOL_UDP_, UDP_GRO, &one, sizeof one), "UDP_GRO");
    check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), "SO_RCVTIMEO");
    atomic_store(&slot->units, 1);
    for (;;) {
        uint64_t unit;
        ssize_t size = recv(fd, buffer, sizeof buffer, 0);
        check(size, "recv");
        memcpy(&unit, buffer, sizeof unit);
        if (unit == END)
            break;
        slot->bytes += size;
        slot->done_ns = now_ns();
        if (unit + 1 > atomic_load(&slot->units))
            atomic_store(&slot->units, unit + 1);
    }
    atomic_store(&slot->done, 1);
}

int main(int argc, char **argv)
{
    int sends = argc == 10 && !strcmp(argv[1], "send");
    if (!sends && (argc != 7 || strcmp(argv[1], "receive"))) {
        fprintf(stderr, "usage: see the head of group_limit.c\n");
        return 2;
    }
    int number = atoi(argv[6]), file = open(argv[5], O_RDWR);
    check(file, argv[5]);
    if (number < 0 || number > MAX_RECEIVERS - !sends)
        errno = ERANGE, fail("receivers");
    struct slot *slots = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (slots == MAP_FAILED)
        fail("mmap");
    if (sends)
        run_sender(argv, slots);
    else
        run_receiver(argv, &slots[number]);
    return 0;
}
