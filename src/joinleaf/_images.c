/* What a unit looks like on the wire, for builds with a C compiler: the same as the functions of these
 * names in core/wire/units.py, which say what the formats are and check the arguments.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#ifdef _MSC_VER
#define restrict __restrict
#endif

enum {
    UNIT_HEADER = 16,
    MAX_SYMBOLS = 64,
    KIND_REPAIR = 2,
    KIND_XOR = 3,
    PARITY = 0x80,
    BEHIND = 40, /* bits for the parts of a parity symbol behind its first */
};

static void
put32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void
put_header(uint8_t *p, uint32_t tag, int kind, int epoch, int index, int count, uint64_t unit)
{
    put32(p, tag);
    p[4] = (uint8_t)kind;
    p[5] = (uint8_t)epoch;
    p[6] = (uint8_t)index;
    p[7] = (uint8_t)count;
    put32(p + 8, (uint32_t)(unit >> 32));
    put32(p + 12, (uint32_t)unit);
}

static void
combine(uint8_t *restrict to, const uint8_t *restrict from, Py_ssize_t size)
{
    Py_ssize_t at = 0;
    for (; at + 8 <= size; at += 8) {
        uint64_t a, b;
        memcpy(&a, to + at, 8);
        memcpy(&b, from + at, 8);
        a ^= b;
        memcpy(to + at, &a, 8);
    }
    for (; at < size; at++)
        to[at] ^= from[at];
}

static PyObject *
write_unit(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *given;
    Py_ssize_t each, total;
    unsigned int tag;
    int epoch, kind;
    unsigned long long unit;
    if (!PyArg_ParseTuple(args, "OnnIiKi", &given, &total, &each, &tag, &epoch, &unit, &kind))
        return NULL;
    Py_ssize_t count = each > 0 ? (total + each - 1) / each : 0;
    if (total < 1 || count < 1 || count > MAX_SYMBOLS) {
        PyErr_SetString(PyExc_ValueError, "a unit has 1 to 64 symbols");
        return NULL;
    }
    PyObject *parts = PySequence_Fast(given, "the parts of a unit are no sequence");
    if (parts == NULL)
        return NULL;
    PyObject *image = PyBytes_FromStringAndSize(NULL, total + count * UNIT_HEADER);
    if (image == NULL) {
        Py_DECREF(parts);
        return NULL;
    }
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(image);
    Py_ssize_t done = 0, room = 0; /* room: in the symbol that has begun */
    int index = 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(parts); i++) {
        Py_buffer view;
        if (PyObject_GetBuffer(PySequence_Fast_GET_ITEM(parts, i), &view, PyBUF_SIMPLE) < 0)
            goto failed;
        const uint8_t *from = view.buf;
        Py_ssize_t left = view.len;
        if (left > total - done) {
            PyBuffer_Release(&view);
            goto changed;
        }
        done += left;
        while (left > 0) {
            if (!room) {
                put_header(to, tag, kind, epoch, index++, (int)count, unit);
                to += UNIT_HEADER;
                room = each;
            }
            Py_ssize_t part = left < room ? left : room;
            memcpy(to, from, (size_t)part);
            to += part;
            from += part;
            left -= part;
            room -= part;
        }
        PyBuffer_Release(&view);
    }
    if (done != total)
        goto changed;
    Py_DECREF(parts);
    return image;
changed:
    PyErr_SetString(PyExc_ValueError, "the parts are not as long as was said");
failed:
    Py_DECREF(parts);
    Py_DECREF(image);
    return NULL;
}

static PyObject *
with_parity(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer image;
    Py_ssize_t segment;
    int guard, epoch;
    unsigned int tag;
    unsigned long long unit;
    if (!PyArg_ParseTuple(args, "y*niIiK", &image, &segment, &guard, &tag, &epoch, &unit))
        return NULL;
    PyObject *train = NULL;
    Py_ssize_t count = segment > UNIT_HEADER ? image.len / segment : 0;
    if (guard < 1 || count < 2 * guard || count > BEHIND + 1 || count * segment != image.len) {
        PyErr_SetString(PyExc_ValueError, "no full symbols that so many parity symbols can cover");
        goto done;
    }
    train = PyBytes_FromStringAndSize(NULL, image.len + guard * segment);
    if (train == NULL)
        goto done;
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(train);
    memcpy(to, image.buf, (size_t)image.len);
    for (int first = 0; first < guard; first++) {
        uint8_t *symbol = to + image.len + first * segment;
        uint64_t behind = 0;
        memcpy(symbol, to + first * segment, (size_t)segment);
        for (Py_ssize_t index = first + guard; index < count; index += guard) {
            behind |= (uint64_t)1 << (index - first - 1);
            combine(symbol + UNIT_HEADER, to + index * segment + UNIT_HEADER,
                    segment - UNIT_HEADER);
        }
        put_header(symbol, tag, KIND_XOR, epoch, PARITY | first, (int)count,
                   (uint64_t)unit << BEHIND | behind);
    }
done:
    PyBuffer_Release(&image);
    return train;
}

static PyObject *
as_repair(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer image;
    Py_ssize_t segment;
    if (!PyArg_ParseTuple(args, "y*n", &image, &segment))
        return NULL;
    PyObject *repair = NULL;
    if (segment <= UNIT_HEADER)
        PyErr_SetString(PyExc_ValueError, "a symbol is longer than its header");
    else
        repair = PyBytes_FromStringAndSize(image.buf, image.len);
    if (repair != NULL) {
        uint8_t *to = (uint8_t *)PyBytes_AS_STRING(repair);
        for (Py_ssize_t at = 4; at < image.len; at += segment)
            to[at] = KIND_REPAIR;
    }
    PyBuffer_Release(&image);
    return repair;
}

static PyObject *
exclusive_or(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *payloads, *payload;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "On", &payloads, &size))
        return NULL;
    PyObject *each = PyObject_GetIter(payloads);
    if (each == NULL)
        return NULL;
    PyObject *combined = PyBytes_FromStringAndSize(NULL, size);
    if (combined != NULL)
        memset(PyBytes_AS_STRING(combined), 0, (size_t)size);
    while (combined != NULL && (payload = PyIter_Next(each)) != NULL) {
        Py_buffer view;
        int failed = PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE);
        Py_DECREF(payload);
        if (!failed && view.len > size) {
            PyErr_SetString(PyExc_OverflowError, "a payload is longer than was said");
            failed = -1;
            PyBuffer_Release(&view);
        }
        if (failed) {
            Py_CLEAR(combined);
            break;
        }
        combine((uint8_t *)PyBytes_AS_STRING(combined), view.buf, view.len);
        PyBuffer_Release(&view);
    }
    Py_DECREF(each);
    if (PyErr_Occurred())
        Py_CLEAR(combined);
    return combined;
}

static PyMethodDef functions[] = {
    {"write_unit", write_unit, METH_VARARGS, NULL},
    {"with_parity", with_parity, METH_VARARGS, NULL},
    {"as_repair", as_repair, METH_VARARGS, NULL},
    {"exclusive_or", exclusive_or, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "joinleaf._images",
    .m_size = 0,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__images(void)
{
    return PyModuleDef_Init(&definition);
}
