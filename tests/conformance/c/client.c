/* A client of a service provider, in C: it knows joinleaf_spi.h and the address of a procedure table.
 *
 * Each function plays one session from both ends, in one thread and without blocking where several
 * sockets take part. It writes what happened into `log`, a line for each, and returns 1; or it
 * writes the line that failed and returns 0. No wait is longer than PATIENCE.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "joinleaf_spi.h"

#define PATIENCE_MS 20000
#define RATE 92000U
/* Event objects belong to the client. This one has none and asks for the records instead. */
#define NO_EVENT ((WSAEVENT)4)
#define ALL (FD_READ | FD_WRITE | FD_ACCEPT | FD_CONNECT | FD_CLOSE)

typedef struct {
    const WSPPROC_TABLE *p;
    char *log;
    size_t room, used;
    int error;
} Client;

typedef struct {
    const char *name;
    SOCKET s;
    LONG seen;
} Watched;

static void say(Client *c, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(c->log + c->used, c->room - c->used, format, arguments);
    va_end(arguments);
    if (n > 0 && (size_t)n < c->room - c->used) c->used += (size_t)n;
}

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            say(c, "line %d: %s; error %d\n", __LINE__, #condition, c->error);                    \
            return 0;                                                                             \
        }                                                                                         \
    } while (0)

static void nap(void) {
    struct timespec moment = {0, 1000000};
    nanosleep(&moment, NULL);
}

/* Copy the records of several sockets until one of them has the bit; order of first sight is logged. */
static int wait_for(Client *c, Watched *all, int count, int index, LONG bit) {
    static const struct { LONG bit; int cell; const char *name; } shown[] = {
        {FD_ACCEPT, FD_ACCEPT_BIT, "FD_ACCEPT"},
        {FD_CONNECT, FD_CONNECT_BIT, "FD_CONNECT"},
        {FD_CLOSE, FD_CLOSE_BIT, "FD_CLOSE"},
    };
    for (int tries = 0; tries < PATIENCE_MS; tries++) {
        for (int i = 0; i < count; i++) {
            WSANETWORKEVENTS record;
            memset(&record, 0, sizeof record);
            if (all[i].s == INVALID_SOCKET) continue;
            CHECK(c->p->lpWSPEnumNetworkEvents(all[i].s, 0, &record, &c->error) == 0);
            all[i].seen |= record.lNetworkEvents;
            for (size_t k = 0; k < sizeof shown / sizeof *shown; k++)
                if (record.lNetworkEvents & shown[k].bit)
                    say(c, "%s %s %d\n", all[i].name, shown[k].name,
                        record.iErrorCode[shown[k].cell]);
        }
        if (all[index].seen & bit) {
            all[index].seen &= ~bit;
            return 1;
        }
        nap();
    }
    say(c, "%s never saw event %#x\n", all[index].name, (unsigned)bit);
    return 0;
}

typedef struct {
    const char *expected, *answer;
    int calls, right;
} Door;

static int condition(LPWSABUF caller_id, LPWSABUF caller_data, LPQOS sqos, LPQOS gqos,
                     LPWSABUF callee_id, LPWSABUF callee_data, GROUP *g, DWORD_PTR context) {
    Door *door = (Door *)context;
    size_t length = strlen(door->answer);
    door->calls++;
    door->right = caller_id && caller_id->len && callee_id && callee_id->len && g && !gqos && sqos &&
                  sqos->SendingFlowspec.TokenRate == RATE && caller_data &&
                  caller_data->len == strlen(door->expected) &&
                  memcmp(caller_data->buf, door->expected, caller_data->len) == 0 &&
                  callee_data->len >= length;
    if (!door->right) return CF_REJECT;
    memcpy(callee_data->buf, door->answer, length);
    callee_data->len = (ULONG)length;
    return CF_ACCEPT;
}

static SOCKET open_bound(Client *c, const struct sockaddr *name, int length, DWORD flags,
                         struct sockaddr_storage *bound, int *bound_length) {
    SOCKET s = c->p->lpWSPSocket(name->sa_family, SOCK_SEQPACKET, 0, NULL, 0, flags, &c->error);
    if (s == INVALID_SOCKET) return s;
    *bound_length = sizeof *bound;
    if (c->p->lpWSPBind(s, name, length, &c->error) ||
        c->p->lpWSPGetSockName(s, (struct sockaddr *)bound, bound_length, &c->error) ||
        c->p->lpWSPListen(s, 5, &c->error) ||
        c->p->lpWSPEventSelect(s, NO_EVENT, ALL, &c->error))
        return INVALID_SOCKET;
    return s;
}

static void ask_for(QOS *qos) {
    memset(qos, 0xFF, sizeof *qos);
    qos->SendingFlowspec.TokenRate = RATE;
    qos->SendingFlowspec.TokenBucketSize = RATE;
    qos->SendingFlowspec.ServiceType = SERVICETYPE_BESTEFFORT;
    qos->ReceivingFlowspec.ServiceType = SERVICETYPE_BESTEFFORT;
    qos->ProviderSpecific.len = 0;
    qos->ProviderSpecific.buf = NULL;
}

static int send_text(Client *c, SOCKET s, const char *text) {
    WSABUF parts[2] = {{2, (char *)text}, {(ULONG)strlen(text) - 2, (char *)text + 2}};
    DWORD sent = 0;
    CHECK(c->p->lpWSPSend(s, parts, 2, &sent, 0, NULL, NULL, NULL, &c->error) == 0);
    CHECK(sent == strlen(text));
    return 1;
}

static int receive_text(Client *c, SOCKET s, const char *text) {
    char memory[64];
    WSABUF part = {sizeof memory, memory};
    DWORD received = 0, flags = 0;
    CHECK(c->p->lpWSPRecv(s, &part, 1, &received, &flags, NULL, NULL, NULL, &c->error) == 0);
    CHECK(received == strlen(text) && memcmp(memory, text, received) == 0);
    return 1;
}

/* A c_root invites one leaf and admits another, talks to both, and sees them go. */
int rooted(const WSPPROC_TABLE *table, const struct sockaddr *root_name, int root_length,
           const struct sockaddr *leaf_name, int leaf_length, char *log, int room) {
    Client client = {table, log, (size_t)room, 0, 0}, *c = &client;
    enum { ROOT, LISTENER, LEG, MEMBER, ASKER, ASKED_LEG, COUNT };
    Watched all[COUNT] = {
        {"root", INVALID_SOCKET, 0},  {"listener", INVALID_SOCKET, 0},
        {"leg", INVALID_SOCKET, 0},   {"member", INVALID_SOCKET, 0},
        {"asker", INVALID_SOCKET, 0}, {"asker's leg", INVALID_SOCKET, 0},
    };
    struct sockaddr_storage root_address, leaf_address, peer;
    int root_size, leaf_size, peer_size = sizeof peer;
    const DWORD leaf = WSA_FLAG_MULTIPOINT_C_LEAF | WSA_FLAG_MULTIPOINT_D_LEAF;
    const DWORD root = WSA_FLAG_MULTIPOINT_C_ROOT | WSA_FLAG_MULTIPOINT_D_ROOT;
    QOS qos, agreed;
    DWORD count = 0;

    all[LISTENER].s = open_bound(c, leaf_name, leaf_length, leaf, &leaf_address, &leaf_size);
    CHECK(all[LISTENER].s != INVALID_SOCKET);
    all[ROOT].s = open_bound(c, root_name, root_length, root, &root_address, &root_size);
    CHECK(all[ROOT].s != INVALID_SOCKET);

    /* The invitation. */
    char invite[] = "come", thanks[16] = "untouched";
    WSABUF caller = {4, invite}, callee = {sizeof thanks, thanks};
    Door invited = {"come", "gladly", 0, 0};
    ask_for(&qos);
    all[LEG].s = table->lpWSPJoinLeaf(all[ROOT].s, (struct sockaddr *)&leaf_address, leaf_size,
                                      &caller, &callee, &qos, NULL, JL_BOTH, &c->error);
    CHECK(all[LEG].s != INVALID_SOCKET && all[LEG].s != all[ROOT].s);
    memset(invite, 'x', sizeof invite); /* caller data are by value */
    CHECK(table->lpWSPJoinLeaf(all[ROOT].s, NULL, 0, NULL, NULL, NULL, NULL, 0, &c->error) ==
          INVALID_SOCKET);
    CHECK(c->error == WSAEALREADY); /* before bad parameters are looked at */
    SOCKET leg = all[LEG].s;
    all[LEG].s = INVALID_SOCKET; /* not usable yet */
    CHECK(wait_for(c, all, COUNT, LISTENER, FD_ACCEPT));
    all[MEMBER].s = table->lpWSPAccept(all[LISTENER].s, (struct sockaddr *)&peer, &peer_size,
                                       condition, (DWORD_PTR)&invited, &c->error);
    CHECK(all[MEMBER].s != INVALID_SOCKET && invited.calls == 1 && invited.right);
    CHECK(((struct sockaddr *)&peer)->sa_family == root_name->sa_family);
    CHECK(wait_for(c, all, COUNT, ROOT, FD_CONNECT));
    all[LEG].s = leg;
    CHECK(callee.len == 6 && memcmp(thanks, "gladly", 6) == 0);
    CHECK(table->lpWSPIoctl(leg, SIO_GET_QOS, NULL, 0, &agreed, sizeof agreed, &count, NULL, NULL,
                            NULL, &c->error) == 0);
    CHECK(agreed.SendingFlowspec.TokenRate == RATE);

    /* A leaf asks. */
    char plea[] = "please", welcome[16] = "untouched";
    WSABUF asking = {6, plea}, answer = {sizeof welcome, welcome};
    Door door = {"please", "welcome", 0, 0};
    all[ASKER].s = table->lpWSPSocket(root_name->sa_family, SOCK_SEQPACKET, 0, NULL, 0, leaf,
                                      &c->error);
    CHECK(all[ASKER].s != INVALID_SOCKET);
    CHECK(table->lpWSPEventSelect(all[ASKER].s, NO_EVENT, ALL, &c->error) == 0);
    CHECK(table->lpWSPJoinLeaf(all[ASKER].s, (struct sockaddr *)&root_address, root_size, &asking,
                               &answer, &qos, NULL, JL_BOTH, &c->error) == all[ASKER].s);
    CHECK(wait_for(c, all, COUNT, ROOT, FD_ACCEPT));
    all[ASKED_LEG].s = table->lpWSPAccept(all[ROOT].s, NULL, NULL, condition, (DWORD_PTR)&door,
                                          &c->error);
    CHECK(all[ASKED_LEG].s != INVALID_SOCKET && door.calls == 1 && door.right);
    CHECK(wait_for(c, all, COUNT, ASKER, FD_CONNECT));
    CHECK(answer.len == 7 && memcmp(welcome, "welcome", 7) == 0);

    /* Data: the root to both, one leaf to the root. */
    CHECK(send_text(c, all[ROOT].s, "to every leaf"));
    CHECK(wait_for(c, all, COUNT, MEMBER, FD_READ));
    CHECK(receive_text(c, all[MEMBER].s, "to every leaf"));
    CHECK(wait_for(c, all, COUNT, ASKER, FD_READ));
    CHECK(receive_text(c, all[ASKER].s, "to every leaf"));
    CHECK(send_text(c, all[ASKER].s, "to the root"));
    CHECK(wait_for(c, all, COUNT, ROOT, FD_READ));
    CHECK(receive_text(c, all[ROOT].s, "to the root"));
    say(c, "data\n");

    /* One leaf leaves, the other is sent away. */
    CHECK(table->lpWSPCloseSocket(all[ASKER].s, &c->error) == 0);
    all[ASKER].s = INVALID_SOCKET;
    CHECK(wait_for(c, all, COUNT, ASKED_LEG, FD_CLOSE));
    CHECK(table->lpWSPCloseSocket(all[LEG].s, &c->error) == 0);
    all[LEG].s = INVALID_SOCKET;
    CHECK(wait_for(c, all, COUNT, MEMBER, FD_CLOSE));
    WSABUF rest = {sizeof thanks, thanks};
    DWORD flags = 0;
    CHECK(table->lpWSPRecv(all[MEMBER].s, &rest, 1, &count, &flags, NULL, NULL, NULL, &c->error) ==
          SOCKET_ERROR);
    CHECK(c->error == WSAEDISCON);
    for (int i = 0; i < COUNT; i++)
        if (all[i].s != INVALID_SOCKET)
            CHECK(table->lpWSPCloseSocket(all[i].s, &c->error) == 0);
    CHECK(table->lpWSPCloseSocket(all[ROOT].s, &c->error) == SOCKET_ERROR);
    CHECK(c->error == WSAENOTSOCK);
    return 1;
}

static int control(Client *c, SOCKET s, DWORD code, int value) {
    CHECK(c->p->lpWSPIoctl(s, code, &value, sizeof value, NULL, 0, NULL, NULL, NULL, NULL,
                           &c->error) == 0);
    return 1;
}

static SOCKET member(Client *c, const struct sockaddr_in *group, u_short port, DWORD role) {
    struct sockaddr_in any;
    const DWORD flags = WSA_FLAG_MULTIPOINT_C_LEAF | WSA_FLAG_MULTIPOINT_D_LEAF;
    SOCKET s = c->p->lpWSPSocket(AF_INET, SOCK_DGRAM, IPPROTO_UDP, NULL, 0, flags, &c->error);
    if (s == INVALID_SOCKET) return s;
    memset(&any, 0, sizeof any);
    any.sin_family = AF_INET;
    any.sin_port = port;
    if (c->p->lpWSPBind(s, (struct sockaddr *)&any, sizeof any, &c->error) ||
        !control(c, s, SIO_MULTICAST_SCOPE, 4) || !control(c, s, SIO_MULTIPOINT_LOOPBACK, 1))
        return INVALID_SOCKET;
    SOCKET joined = c->p->lpWSPJoinLeaf(s, (const struct sockaddr *)group, sizeof *group, NULL,
                                        NULL, NULL, NULL, role, &c->error);
    if (joined != INVALID_SOCKET && joined != s) say(c, "another handle\n");
    return joined;
}

/* IP multicast: a sender and a receiver, plain send and receive on the sockets that joined. */
int multicast(const WSPPROC_TABLE *table, const struct sockaddr_in *group, char *log, int room) {
    Client client = {table, log, (size_t)room, 0, 0}, *c = &client;
    SOCKET receiver = member(c, group, group->sin_port, JL_RECEIVER_ONLY);
    CHECK(receiver != INVALID_SOCKET);
    SOCKET sender = member(c, group, 0, JL_SENDER_ONLY);
    CHECK(sender != INVALID_SOCKET);
    say(c, "joined\n");
    CHECK(table->lpWSPJoinLeaf(sender, (const struct sockaddr *)group, sizeof *group, NULL, NULL,
                               NULL, NULL, JL_SENDER_ONLY, &c->error) == INVALID_SOCKET);
    CHECK(c->error == WSAEISCONN);
    for (int i = 0; i < 3; i++) {
        fd_set readable = {1, {receiver}};
        timeval patience = {PATIENCE_MS / 1000, 0};
        CHECK(send_text(c, sender, "to the group"));
        CHECK(table->lpWSPSelect(0, &readable, NULL, NULL, &patience, &c->error) == 1);
        CHECK(receive_text(c, receiver, "to the group"));
    }
    say(c, "data\n");
    WSABUF part = {1, log};
    DWORD sent;
    CHECK(table->lpWSPSend(receiver, &part, 1, &sent, 0, NULL, NULL, NULL, &c->error) ==
          SOCKET_ERROR);
    CHECK(c->error == WSAENOTCONN);
    fd_set readable = {1, {sender}};
    timeval moment = {0, 50000};
    CHECK(table->lpWSPSelect(0, &readable, NULL, NULL, &moment, &c->error) == 0);
    CHECK(table->lpWSPCloseSocket(sender, &c->error) == 0);
    CHECK(table->lpWSPCloseSocket(receiver, &c->error) == 0);
    CHECK(table->lpWSPCloseSocket(receiver, &c->error) == SOCKET_ERROR);
    CHECK(c->error == WSAENOTSOCK);
    return 1;
}
