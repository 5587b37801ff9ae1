/* A leaf's short way from the socket to frames, for builds with a C compiler: see core/wire/quick.py.
 *
 * Nothing here decides anything about the stream: a train that is not the next unit, whole and in
 * the clear, with nothing but data in it, is left where it was received, for core/reliability. What
 * is taken changes nothing but the reader; who called learns of it afterwards (UnitReader.next).
 *
 * The formats are those of core/wire/units.py and core/wire/frames.py.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#ifdef __linux__
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#endif

enum {
    UNIT_HEADER = 16,
    MAX_SYMBOLS = 64,
    KIND_DATA = 1,
    KIND_XOR = 3,
    KIND_POLL = 0x81,
    FRAME_HEADER = 8,
    DATA_PREFIX = 12,
    FRAME_DATA = 5,
    RAW = 1,
    MAGIC = 0x4A4C,
    LANDING_BYTES = 1 << 16,
};

/* Bytes that a header alone makes a leaf set aside (unit_frames.MADE_AT_ONCE). */
#define MADE_AT_ONCE (2 << 20)

static uint32_t
get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t
get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

/* A whole unit that lies in a buffer as it came. */
typedef struct {
    const uint8_t *start;
    Py_ssize_t size;    /* headers included, parity behind it not */
    Py_ssize_t segment; /* from one symbol to the next; the last may be shorter */
    int count;          /* symbols */
    int kind;
} Train;

/* Whether this is the unit, whole and in the clear, with nothing but parity behind it. */
static int
is_whole(const uint8_t *p, Py_ssize_t size, Py_ssize_t segment, uint32_t tag, uint64_t unit,
         Train *train)
{
    if (size <= UNIT_HEADER || segment <= UNIT_HEADER || get32(p) != tag)
        return 0;
    int kind = p[4], count = p[7];
    if ((kind != KIND_DATA && kind != KIND_POLL) || p[5] || p[6] || get64(p + 8) != unit)
        return 0;
    if (count < 1 || count > MAX_SYMBOLS || (count - 1) * segment + UNIT_HEADER >= size)
        return 0;
    for (int i = 1; i < count; i++) {
        const uint8_t *symbol = p + i * segment;
        if (symbol[6] != i || symbol[15] != (uint8_t)unit)
            return 0;
    }
    Py_ssize_t end = count * segment;
    for (Py_ssize_t at = end + 4; at < size; at += segment)
        if (p[at] != KIND_XOR)
            return 0;
    *train = (Train){p, size < end ? size : end, segment, count, kind};
    return 1;
}

static Py_ssize_t
payload_of(const Train *train)
{
    return train->size - (Py_ssize_t)train->count * UNIT_HEADER;
}

/* Frames out of units ---------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *landings; /* where landings go that are done with */
    PyObject *parse;    /* frames.parse_header, which says what is wrong with a header */
    PyObject *frames;   /* list: what receive_run completed */
    Py_ssize_t max_body;
    uint64_t next;      /* the unit behind the last that receive_run took */
    PyObject *room;     /* bytes: of the frame that has begun, as much as was made; NULL: none */
    Py_ssize_t filled;  /* bytes of it that have come, */
    Py_ssize_t total;   /* and that it has */
    int kind, flags;
    uint32_t sender;
    uint64_t sequence;
    uint8_t head[FRAME_HEADER + DATA_PREFIX]; /* a header that has come in part */
    Py_ssize_t head_size;
    int broken; /* memory was short in the middle of a unit: what follows means nothing */
} UnitReader;

static int
check_not_broken(UnitReader *self)
{
    if (self->broken)
        PyErr_SetString(PyExc_MemoryError, "there was no memory for a part of the stream");
    return self->broken ? -1 : 0;
}

static int
complete(UnitReader *self, PyObject *frames)
{
    PyObject *payload = self->room;
    self->room = NULL;
    PyObject *frame = Py_BuildValue("(iiIKNn)", self->kind, self->flags, self->sender,
                                    (unsigned long long)self->sequence, payload, self->total);
    if (frame == NULL)
        return -1;
    int failed = PyList_Append(frames, frame);
    Py_DECREF(frame);
    return failed;
}

/* Room for so many bytes more of the frame. */
static int
make_room(UnitReader *self, Py_ssize_t more)
{
    Py_ssize_t have = PyBytes_GET_SIZE(self->room);
    if (self->filled + more <= have)
        return 0;
    Py_ssize_t wanted = have > self->total / 2 ? self->total : 2 * have;
    if (wanted < self->filled + more)
        wanted = self->filled + more;
    return _PyBytes_Resize(&self->room, wanted);
}

/* A whole header is there: begin its frame. */
static int
begin(UnitReader *self, PyObject *frames)
{
    self->kind = self->head[4];
    self->flags = self->head[5];
    self->total = get32(self->head);
    self->sender = 0;
    self->sequence = 0;
    if (self->kind == FRAME_DATA) {
        self->total -= DATA_PREFIX;
        self->sender = get32(self->head + FRAME_HEADER);
        self->sequence = get64(self->head + FRAME_HEADER + 4);
    }
    self->head_size = 0;
    self->filled = 0;
    self->room = PyBytes_FromStringAndSize(
        NULL, self->total < MADE_AT_ONCE ? self->total : MADE_AT_ONCE);
    if (self->room == NULL)
        return -1;
    return self->total ? 0 : complete(self, frames);
}

/* Whether a header is one of data for all, and within the bounds. */
static int
is_data(const UnitReader *self, const uint8_t *head)
{
    Py_ssize_t size = get32(head);
    return head[4] == FRAME_DATA && !(head[5] & ~RAW) && (head[6] << 8 | head[7]) == MAGIC &&
           size >= DATA_PREFIX && size <= self->max_body;
}

/* As frames.parse_header, which raises if this is none. */
static int
check_header(UnitReader *self)
{
    if (is_data(self, self->head))
        return 0;
    PyObject *view = PyByteArray_FromStringAndSize((char *)self->head, FRAME_HEADER);
    if (view == NULL)
        return -1;
    PyObject *parsed =
        PyObject_CallFunction(self->parse, "Nnn", view, (Py_ssize_t)0, self->max_body);
    Py_XDECREF(parsed);
    return parsed == NULL ? -1 : 0;
}

/* Take in bytes of the stream. */
static int
feed(UnitReader *self, const uint8_t *p, Py_ssize_t size, PyObject *frames)
{
    while (size > 0) {
        Py_ssize_t part;
        if (self->room != NULL) {
            part = self->total - self->filled < size ? self->total - self->filled : size;
            if (make_room(self, part) < 0)
                return -1;
            memcpy(PyBytes_AS_STRING(self->room) + self->filled, p, (size_t)part);
            self->filled += part;
            if (self->filled == self->total && complete(self, frames) < 0)
                return -1;
        } else {
            int short_of = self->head_size < FRAME_HEADER;
            Py_ssize_t whole = short_of || self->head[4] != FRAME_DATA
                                   ? FRAME_HEADER
                                   : FRAME_HEADER + DATA_PREFIX;
            part = whole - self->head_size < size ? whole - self->head_size : size;
            memcpy(self->head + self->head_size, p, (size_t)part);
            self->head_size += part;
            if (short_of && self->head_size == FRAME_HEADER && check_header(self) < 0)
                return -1;
            if (self->head_size == FRAME_HEADER + DATA_PREFIX ||
                (self->head_size == FRAME_HEADER && self->head[4] != FRAME_DATA)) {
                if (begin(self, frames) < 0)
                    return -1;
            }
        }
        p += part;
        size -= part;
    }
    return 0;
}

/* Where one is in the bytes of the stream that a train carries. */
typedef struct {
    const uint8_t *p;
    Py_ssize_t room; /* up to the end of the symbol */
    Py_ssize_t each; /* bytes of the stream in a symbol */
} Cursor;

static Cursor
cursor_at(const Train *train, Py_ssize_t at)
{
    Py_ssize_t each = train->segment - UNIT_HEADER, within = at % each;
    return (Cursor){train->start + at / each * train->segment + UNIT_HEADER + within, each - within,
                    each};
}

static void
pass(Cursor *cursor, Py_ssize_t size)
{
    cursor->p += size;
    cursor->room -= size;
    if (!cursor->room) {
        cursor->p += UNIT_HEADER;
        cursor->room = cursor->each;
    }
}

static void
take_bytes(Cursor *cursor, uint8_t *to, Py_ssize_t size)
{
    while (size > 0) {
        Py_ssize_t part = cursor->room < size ? cursor->room : size;
        memcpy(to, cursor->p, (size_t)part);
        to += part;
        size -= part;
        pass(cursor, part);
    }
}

/* A big-endian number of 1 to 4 bytes; negative where Py_ssize_t has no room for it. */
static Py_ssize_t
take_number(Cursor *cursor, int size)
{
    uint8_t bytes[4] = {0};
    take_bytes(cursor, bytes + 4 - size, size);
    return get32(bytes);
}

/* The messages in a MessagePack array of byte strings, as a list; Py_None: it is none. */
static PyObject *
messages_in(Cursor cursor, Py_ssize_t size)
{
    if (size < 1)
        Py_RETURN_NONE;
    Py_ssize_t count = take_number(&cursor, 1), width = count == 0xDC ? 2 : count == 0xDD ? 4 : 0;
    size -= 1 + width;
    if (size < 0 || (!width && (count & 0xF0) != 0x90))
        Py_RETURN_NONE;
    count = width ? take_number(&cursor, (int)width) : count & 0x0F;
    if (count < 0 || count > size / 2)
        Py_RETURN_NONE;
    PyObject *messages = PyList_New(count);
    if (messages == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (size < 2)
            goto none;
        Py_ssize_t kind = take_number(&cursor, 1), length;
        int digits = kind == 0xC4 ? 1 : kind == 0xC5 ? 2 : kind == 0xC6 ? 4 : 0;
        size -= 1 + digits;
        if (!digits || size < 0)
            goto none;
        length = take_number(&cursor, digits);
        if (length < 0 || length > size)
            goto none;
        size -= length;
        PyObject *message = PyBytes_FromStringAndSize(NULL, length);
        if (message == NULL) {
            Py_DECREF(messages);
            return NULL;
        }
        take_bytes(&cursor, (uint8_t *)PyBytes_AS_STRING(message), length);
        PyList_SET_ITEM(messages, i, message);
    }
    if (!size)
        return messages;
none:
    Py_DECREF(messages);
    Py_RETURN_NONE;
}

/* Take a batch that begins here and ends in the same train; its bytes, 0: there is none. */
static Py_ssize_t
take_batch(UnitReader *self, const Train *train, Py_ssize_t at, Py_ssize_t end, PyObject *frames)
{
    uint8_t head[FRAME_HEADER + DATA_PREFIX];
    if (end - at < (Py_ssize_t)sizeof head)
        return 0;
    Cursor cursor = cursor_at(train, at);
    take_bytes(&cursor, head, sizeof head);
    Py_ssize_t size = (Py_ssize_t)get32(head) - DATA_PREFIX;
    if (!is_data(self, head) || head[5] || size > end - at - (Py_ssize_t)sizeof head)
        return 0;
    PyObject *messages = messages_in(cursor, size);
    if (messages == NULL)
        return -1;
    if (messages == Py_None) { /* in Python it is said what is wrong */
        Py_DECREF(messages);
        return 0;
    }
    PyObject *frame =
        Py_BuildValue("(iiIKNn)", FRAME_DATA, 0, get32(head + FRAME_HEADER),
                      (unsigned long long)get64(head + FRAME_HEADER + 4), messages, size);
    if (frame == NULL)
        return -1;
    int failed = PyList_Append(frames, frame);
    Py_DECREF(frame);
    return failed ? -1 : (Py_ssize_t)sizeof head + size;
}

/* Bytes of a frame that has begun, or begins here; no more than there are. */
static Py_ssize_t
rest_of_frame(const UnitReader *self, const Train *train, Py_ssize_t at, Py_ssize_t end)
{
    Py_ssize_t size = end - at;
    if (self->room != NULL)
        size = self->total - self->filled;
    else if (self->head_size)
        size = 1;
    else if (size >= FRAME_HEADER) {
        Cursor cursor = cursor_at(train, at);
        size = FRAME_HEADER + take_number(&cursor, 4);
    }
    return size < end - at ? size : end - at;
}

static int
feed_train(UnitReader *self, const Train *train, PyObject *frames)
{
    Py_ssize_t at = 0, end = payload_of(train);
    while (at < end) {
        Py_ssize_t size = 0;
        if (self->room == NULL && !self->head_size)
            size = take_batch(self, train, at, end, frames);
        if (size < 0)
            goto failed;
        at += size;
        if (size)
            continue;
        size = rest_of_frame(self, train, at, end);
        for (Cursor cursor = cursor_at(train, at); size > 0;) {
            Py_ssize_t part = cursor.room < size ? cursor.room : size;
            if (feed(self, cursor.p, part, frames) < 0)
                goto failed;
            at += part;
            size -= part;
            pass(&cursor, part);
        }
    }
    return 0;
failed:
    self->broken = 1;
    return -1;
}

/* Whether every frame that begins in a unit is data for all, and within the bounds. */
static int
is_only_data(const UnitReader *self, const Train *train)
{
    Py_ssize_t end = payload_of(train);
    if (self->room != NULL && self->kind != FRAME_DATA)
        return 0; /* a control frame ends here */
    Py_ssize_t at = self->room != NULL ? self->total - self->filled : -self->head_size;
    while (at < end) {
        uint8_t head[FRAME_HEADER];
        Py_ssize_t old = at < 0 ? -at : 0;
        if (old > FRAME_HEADER)
            old = FRAME_HEADER;
        if (end - at < FRAME_HEADER)
            return 1; /* it is looked at when the rest has come */
        memcpy(head, self->head, (size_t)old);
        Cursor cursor = cursor_at(train, at + old);
        take_bytes(&cursor, head + old, FRAME_HEADER - old);
        if (!is_data(self, head))
            return 0;
        at += FRAME_HEADER + (Py_ssize_t)get32(head);
    }
    return 1;
}

/* Take a train if it is the unit; -1: error, 0: not taken. */
static int
take_train(UnitReader *self, const uint8_t *p, Py_ssize_t size, Py_ssize_t segment, uint32_t tag,
           uint64_t unit, Train *train)
{
    if (!is_whole(p, size, segment, tag, unit, train) || !is_only_data(self, train))
        return 0;
    if (feed_train(self, train, self->frames) < 0)
        return -1;
    self->next = unit + 1;
    return 1;
}

static PyObject *
reader_take_train(UnitReader *self, PyObject *args)
{
    Py_buffer view;
    Py_ssize_t size, segment;
    unsigned int tag;
    unsigned long long unit;
    Train train;
    if (!PyArg_ParseTuple(args, "y*nnIK", &view, &size, &segment, &tag, &unit))
        return NULL;
    int taken = -1;
    if (size < 0 || size > view.len)
        PyErr_SetString(PyExc_ValueError, "more than the view has");
    else if (check_not_broken(self) == 0)
        taken = take_train(self, view.buf, size, segment, tag, unit, &train);
    PyBuffer_Release(&view);
    if (taken < 0)
        return NULL;
    return PyLong_FromLong(taken ? train.kind : 0);
}

static int
feed_buffer(UnitReader *self, PyObject *object, PyObject *frames)
{
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0)
        return -1;
    int failed = feed(self, view.buf, view.len, frames);
    PyBuffer_Release(&view);
    return failed;
}

static int
feed_parts(UnitReader *self, PyObject *unit, PyObject *frames)
{
    PyObject *parts = PyObject_CallMethod(unit, "payloads", NULL);
    if (parts == NULL)
        return -1;
    PyObject *fast = PySequence_Fast(parts, "payloads are no sequence");
    Py_DECREF(parts);
    if (fast == NULL)
        return -1;
    int failed = 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast) && !failed; i++)
        failed = feed_buffer(self, PySequence_Fast_GET_ITEM(fast, i), frames);
    Py_DECREF(fast);
    if (failed)
        return -1;
    PyObject *freed = PyObject_CallMethod(self->landings, "free", "O", unit);
    Py_XDECREF(freed);
    return freed == NULL ? -1 : 0;
}

static PyObject *
reader_take(UnitReader *self, PyObject *unit)
{
    if (check_not_broken(self) < 0)
        return NULL;
    PyObject *frames = PyList_New(0);
    if (frames == NULL)
        return NULL;
    int failed = PyBytes_Check(unit) ? feed_buffer(self, unit, frames)
                                     : feed_parts(self, unit, frames);
    if (failed) {
        self->broken |= PyErr_ExceptionMatches(PyExc_MemoryError);
        Py_DECREF(frames);
        return NULL;
    }
    return frames;
}

static int
reader_init(UnitReader *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"max_body", "landings", NULL};
    Py_ssize_t max_body;
    PyObject *landings;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nO", names, &max_body, &landings))
        return -1;
    PyObject *module = PyImport_ImportModule("joinleaf.core.wire.frames");
    PyObject *parse = module ? PyObject_GetAttrString(module, "parse_header") : NULL;
    Py_XDECREF(module);
    PyObject *frames = parse ? PyList_New(0) : NULL;
    if (frames == NULL) {
        Py_XDECREF(parse);
        return -1;
    }
    self->max_body = max_body;
    Py_XSETREF(self->landings, Py_NewRef(landings));
    Py_XSETREF(self->parse, parse);
    Py_XSETREF(self->frames, frames);
    return 0;
}

static int
reader_traverse(UnitReader *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->landings);
    Py_VISIT(self->parse);
    Py_VISIT(self->frames);
    return 0;
}

static int
reader_clear(UnitReader *self)
{
    Py_CLEAR(self->landings);
    Py_CLEAR(self->parse);
    Py_CLEAR(self->frames);
    Py_CLEAR(self->room);
    return 0;
}

static void
reader_dealloc(UnitReader *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    reader_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
reader_in_frame(UnitReader *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->room != NULL);
}

static PyObject *
reader_next(UnitReader *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->next);
}

static PyObject *
reader_taken(UnitReader *self, PyObject *Py_UNUSED(none))
{
    PyObject *fresh = PyList_New(0), *frames = self->frames;
    if (fresh == NULL)
        return NULL;
    self->frames = fresh;
    return frames;
}

static PyMethodDef reader_methods[] = {
    {"take", (PyCFunction)reader_take, METH_O, NULL},
    {"take_train", (PyCFunction)reader_take_train, METH_VARARGS, NULL},
    {"taken", (PyCFunction)reader_taken, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef reader_attributes[] = {
    {"in_frame", (getter)reader_in_frame, NULL, NULL, NULL},
    {"next", (getter)reader_next, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_init, reader_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_attributes},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "joinleaf._trains.UnitReader",
    .basicsize = sizeof(UnitReader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = reader_slots,
};

/* Trains out of a socket -------------------------------------------------------------------- */

typedef struct {
    PyTypeObject *reader;
} State;

#ifdef __linux__

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* Whether a datagram comes from the host that is wanted, whatever its port: there may be several
 * sessions of one host in a group, and their tags tell them apart. No host: anybody. */
static int
is_wanted(const struct sockaddr_storage *from, const void *host, Py_ssize_t size)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)from;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)from;
    if (from->ss_family == AF_INET && size == sizeof four->sin_addr)
        return memcmp(&four->sin_addr, host, sizeof four->sin_addr) == 0;
    if (from->ss_family == AF_INET6 && size == sizeof six->sin6_addr)
        return memcmp(&six->sin6_addr, host, sizeof six->sin6_addr) == 0;
    return !size;
}

/* One train or datagram; its size, -1 with errno. */
static Py_ssize_t
receive_one(int fd, uint8_t *to, struct sockaddr_storage *from, Py_ssize_t *segment)
{
    union {
        char bytes[64];
        struct cmsghdr align;
    } control;
    struct iovec place = {to, LANDING_BYTES};
    struct msghdr message = {.msg_name = from,
                             .msg_namelen = sizeof *from,
                             .msg_iov = &place,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t size;
    memset(from, 0, sizeof(struct sockaddr_in6));
    do
        size = recvmsg(fd, &message, MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    *segment = size > 0 ? size : 1;
    if (size >= 0)
        for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each;
             each = CMSG_NXTHDR(&message, each))
            if (each->cmsg_level == SOL_UDP && each->cmsg_type == UDP_GRO) {
                int gro;
                memcpy(&gro, CMSG_DATA(each), sizeof gro);
                if (gro > 0)
                    *segment = gro;
            }
    return size;
}

static int
is_nothing(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == ECONNREFUSED ||
           error == ECONNRESET || error == ECONNABORTED || error == EPIPE;
}

static PyObject *
receive_run(PyObject *module, PyObject *args)
{
    State *state = PyModule_GetState(module);
    UnitReader *reader;
    Py_buffer host, view;
    int fd, most, most_in_frame, foreign = 0, most_foreign;
    Py_ssize_t short_bytes, wire = 0, size = 0, segment = 1;
    unsigned int tag;
    unsigned long long unit;
    if (!PyArg_ParseTuple(args, "O!iy*w*IKiini", state->reader, &reader, &fd, &host, &view, &tag,
                          &unit, &most, &most_in_frame, &short_bytes, &most_foreign))
        return NULL;
    int polled = 0, failed = check_not_broken(reader), error = 0;
    unsigned long long first = unit;
    if (!failed && view.len < LANDING_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the view has no room for a train");
        failed = -1;
    }
    while (!failed) {
        int limit = PyList_GET_SIZE(reader->frames) ? most : most_in_frame;
        if (unit - first >= (unsigned)limit) {
            size = 0; /* more may be there */
            break;
        }
        struct sockaddr_storage from;
        size = receive_one(fd, view.buf, &from, &segment);
        if (size < 0) {
            error = errno;
            break;
        }
        if (!is_wanted(&from, host.buf, host.len)) {
            size = -1;
            if (++foreign >= most_foreign)
                break;
            continue;
        }
        Train train;
        int taken = take_train(reader, view.buf, size, segment, tag, unit, &train);
        if (taken < 0)
            failed = -1;
        if (taken <= 0)
            break;
        unit++;
        wire += size;
        polled |= train.kind == KIND_POLL;
        if (size < short_bytes) {
            size = 0;
            break;
        }
    }
    PyBuffer_Release(&view);
    PyBuffer_Release(&host);
    if (failed)
        return NULL;
    if (error && !is_nothing(error)) {
        if (unit == first) {
            errno = error;
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        size = 0; /* it is met again, or it is over */
    }
    return Py_BuildValue("(nOinn)", wire, polled ? Py_True : Py_False, foreign, size, segment);
}
#endif

static PyMethodDef functions[] = {
#ifdef __linux__
    {"receive_run", receive_run, METH_VARARGS, NULL},
#endif
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->reader = (PyTypeObject *)PyType_FromModuleAndSpec(module, &reader_spec, NULL);
    if (state->reader == NULL)
        return -1;
    return PyModule_AddObjectRef(module, "UnitReader", (PyObject *)state->reader);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->reader);
    return 0;
}

static int
module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->reader);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "joinleaf._trains",
    .m_size = sizeof(State),
    .m_methods = functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC
PyInit__trains(void)
{
    return PyModuleDef_Init(&definition);
}
