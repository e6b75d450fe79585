/* Passes over raw bytes at memory speed: what `passes.py` and `hits.py` do in Python, for where a compiler was at hand.

   Every function gives what its twin in Python gives; tests compare the two on any bytes. All input is hostile: no
   offset that a caller names is used before it was held against the size of the block. */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000 /* one binary for CPython 3.11 and all later ones */
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

/* -- what is in a block -------------------------------------------------------------------------------------------- */

enum { WIDTH = 32, ROUNDS = 255 /* a lane counts that far */ };
enum { ODD = 1, BRACE = 2, BACKSLASH = 4, OPENING = 8 }; /* the same in passes.py */

typedef uint8_t lanes __attribute__((vector_size(WIDTH)));

/* Line feeds; adds to `flags` what else was seen. `size` is not 0. */
FOR_EACH_PROCESSOR static uint64_t survey_bytes(const uint8_t *data, size_t size, int *flags) {
    uint64_t feeds = 0;
    lanes odd = {0}, brace = {0}, backslash = {0}, opening = {0};
    size_t at = 0, rounds = (size - 1) / WIDTH; /* the byte behind each lane is read too */
    while (rounds) {
        size_t some = rounds < ROUNDS ? rounds : ROUNDS;
        rounds -= some;
        lanes count = {0};
        for (size_t i = 0; i < some; i++, at += WIDTH) {
            lanes here, next;
            memcpy(&here, data + at, WIDTH);
            memcpy(&next, data + at + 1, WIDTH);
            lanes feed = (lanes)(here == '\n');
            count -= feed;
            odd |= here | (lanes)(here == 0);
            brace |= (lanes)(here == '{');
            backslash |= (lanes)(here == '\\');
            opening |= feed & (lanes)(next != '{');
        }
        for (int i = 0; i < WIDTH; i++) feeds += count[i];
    }
    int seen = data[0] == '{' ? 0 : OPENING;
    for (int i = 0; i < WIDTH; i++)
        seen |= (odd[i] & 0x80 ? ODD : 0) | (brace[i] ? BRACE : 0) | (backslash[i] ? BACKSLASH : 0) |
                (opening[i] ? OPENING : 0);
    for (; at < size; at++) {
        uint8_t byte = data[at];
        if (byte == '\n') {
            feeds++;
            if (at + 1 < size && data[at + 1] != '{') seen |= OPENING;
        }
        seen |= (byte == 0 || byte >= 0x80 ? ODD : 0) | (byte == '{' ? BRACE : 0) | (byte == '\\' ? BACKSLASH : 0);
    }
    *flags |= seen;
    return feeds;
}

static PyObject *survey(PyObject *module, PyObject *arg) {
    (void)module;
    Py_buffer data;
    if (PyObject_GetBuffer(arg, &data, PyBUF_SIMPLE) < 0) return NULL;
    int flags = 0;
    uint64_t feeds = data.len ? survey_bytes(data.buf, (size_t)data.len, &flags) : 0;
    PyBuffer_Release(&data);
    return Py_BuildValue("Ki", (unsigned long long)feeds, flags);
}

/* -- where patterns were found ------------------------------------------------------------------------------------- */

enum { SHIFT = 24, FIRST_ROOM = 1024 };
static const uint64_t NUMBERS = ((uint64_t)1 << SHIFT) - 1;

typedef struct {
    PyObject_HEAD
    uint64_t *found; /* offset behind the hit, then the number of the pattern in the lowest bits */
    size_t size, room;
    int is_full; /* there was no memory for a hit: `lines` says so, whoever called `note` may not listen */
} Hits;

static int keep(Hits *self, unsigned long long stop, unsigned long long number) {
    if (stop == 0 || stop >> (64 - SHIFT) || number > NUMBERS) {
        self->is_full = 1;
        PyErr_SetString(PyExc_OverflowError, "no such place, or no such pattern");
        return -1;
    }
    if (self->size == self->room) {
        size_t room = self->room ? 2 * self->room : FIRST_ROOM;
        uint64_t *more = realloc(self->found, room * sizeof *more);
        if (more == NULL) {
            self->is_full = 1;
            PyErr_NoMemory();
            return -1;
        }
        self->found = more;
        self->room = room;
    }
    self->found[self->size++] = (uint64_t)stop << SHIFT | number;
    return 0;
}

static PyObject *noted(Hits *self, PyObject *number, PyObject *stop) {
    unsigned long long to = PyLong_AsUnsignedLongLong(stop);
    if (to == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
    unsigned long long which = PyLong_AsUnsignedLongLong(number);
    if (which == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
    if (keep(self, to, which) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *hits_note(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 5) return PyErr_Format(PyExc_TypeError, "note takes 5 arguments, not %zd", count);
    return noted((Hits *)self, args[0], args[2]);
}

static PyObject *hits_add(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) return PyErr_Format(PyExc_TypeError, "add takes 2 arguments, not %zd", count);
    return noted((Hits *)self, args[1], args[0]);
}

static int by_place(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static void sort(uint64_t *found, size_t size) {
    for (size_t i = 1; i < size; i++)
        if (found[i - 1] > found[i]) {
            qsort(found, size, sizeof *found, by_place);
            return;
        }
}

/* Offset behind the last line feed in data[least:stop], or `least`. */
static size_t line_start(const uint8_t *data, size_t least, size_t stop) {
#ifdef __GLIBC__
    const uint8_t *feed = memrchr(data + least, '\n', stop - least);
    return feed ? (size_t)(feed - data) + 1 : least;
#else
    while (stop > least && data[stop - 1] != '\n') stop--;
    return stop;
#endif
}

/* The number of the one pattern in these hits, or a frozenset of the numbers. */
static PyObject *hit_of(const uint64_t *found, size_t size) {
    uint64_t first = found[0] & NUMBERS;
    size_t i = 1;
    while (i < size && (found[i] & NUMBERS) == first) i++;
    if (i == size) return PyLong_FromUnsignedLongLong(first);
    PyObject *numbers = PyList_New(0);
    if (numbers == NULL) return NULL;
    uint64_t last = NUMBERS + 1;
    for (i = 0; i < size; i++) {
        uint64_t number = found[i] & NUMBERS;
        if (number == last) continue;
        last = number;
        PyObject *item = PyLong_FromUnsignedLongLong(number);
        if (item == NULL || PyList_Append(numbers, item) < 0) {
            Py_XDECREF(item);
            Py_DECREF(numbers);
            return NULL;
        }
        Py_DECREF(item);
    }
    PyObject *set = PyFrozenSet_New(numbers);
    Py_DECREF(numbers);
    return set;
}

/* Appends (start, end, hit) for each line that holds a hit. */
static int append_lines(PyObject *lines, const uint64_t *found, size_t count, const uint8_t *data, size_t size) {
    size_t i = 0, end = 0;
    while (i < count) {
        size_t stop = (size_t)(found[i] >> SHIFT);
        size_t start = line_start(data, end, stop - 1);
        const uint8_t *feed = memchr(data + stop - 1, '\n', size - (stop - 1));
        end = feed ? (size_t)(feed - data) + 1 : size;
        size_t first = i;
        while (i < count && found[i] >> SHIFT <= end) i++;
        PyObject *hit = hit_of(found + first, i - first);
        if (hit == NULL) return -1;
        PyObject *line = Py_BuildValue("(nnN)", (Py_ssize_t)start, (Py_ssize_t)end, hit);
        if (line == NULL) return -1;
        int failed = PyList_Append(lines, line);
        Py_DECREF(line);
        if (failed < 0) return -1;
    }
    return 0;
}

static PyObject *hits_lines(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    Hits *self = (Hits *)object;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "lines takes 2 arguments, not %zd", count);
    size_t found = self->size;
    self->size = 0;
    if (self->is_full) {
        self->is_full = 0;
        return PyErr_NoMemory();
    }
    Py_buffer data, weights;
    if (PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0) return NULL;
    if (PyObject_GetBuffer(args[1], &weights, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    sort(self->found, found);
    uint64_t work = 0;
    PyObject *lines = NULL, *result = NULL;
    size_t known = (size_t)weights.len / sizeof(uint32_t);
    int is_sound = found == 0 || self->found[found - 1] >> SHIFT <= (uint64_t)data.len;
    for (size_t i = 0; i < found && is_sound; i++) {
        uint64_t number = self->found[i] & NUMBERS;
        if (number >= known)
            is_sound = 0;
        else
            work += ((const uint32_t *)weights.buf)[number];
    }
    if (!is_sound)
        PyErr_SetString(PyExc_ValueError, "a hit lies outside the block, or has a number without a weight");
    else if ((lines = PyList_New(0)) != NULL && append_lines(lines, self->found, found, data.buf, (size_t)data.len) == 0)
        result = Py_BuildValue("(OK)", lines, (unsigned long long)work);
    Py_XDECREF(lines);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&data);
    return result;
}

static void hits_free(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free(((Hits *)object)->found);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef hits_methods[] = {
    {"note", (PyCFunction)(void (*)(void))hits_note, METH_FASTCALL, "A hit as Hyperscan tells of it."},
    {"add", (PyCFunction)(void (*)(void))hits_add, METH_FASTCALL, "A hit: the offset behind it, and the pattern."},
    {"lines", (PyCFunction)(void (*)(void))hits_lines, METH_FASTCALL, "Lines with hits, and their work; forgets them."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot hits_slots[] = {
    {Py_tp_methods, hits_methods},
    {Py_tp_dealloc, (void *)hits_free},
    {Py_tp_doc, "Where patterns were found in a block."},
    {0, NULL},
};

static PyType_Spec hits_spec = {
    .name = "breachwatch.model._native.Hits",
    .basicsize = sizeof(Hits),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = hits_slots,
};

/* -- the module ---------------------------------------------------------------------------------------------------- */

static int fill(PyObject *module) {
    PyObject *hits = PyType_FromSpec(&hits_spec);
    if (hits == NULL) return -1;
    int failed = PyModule_AddObjectRef(module, "Hits", hits);
    Py_DECREF(hits);
    return failed < 0 ? -1 : PyModule_AddStringConstant(module, "SOURCE", SOURCE);
}

static PyMethodDef functions[] = {
    {"survey", survey, METH_O, "Line feeds in a block, and flags of what else is in it."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "breachwatch.model._native",
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
