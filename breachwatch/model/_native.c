/* Passes over raw bytes at memory speed: what passes.py, detect/hits.py and parse/web.py do in Python, for where a
   compiler was at hand.

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
enum { ODD = 1, RECORD = 2, BACKSLASH = 4, OTHER = 8 }; /* the same in passes.py */

typedef uint8_t lanes __attribute__((vector_size(WIDTH)));

/* What the first byte of a line says. */
static int first_byte(uint8_t byte) {
    return byte == '{' ? RECORD : byte <= 0x20 || byte >= 0x80 ? RECORD | OTHER : OTHER;
}

/* Line feeds; adds to `flags` what else was seen. `size` is not 0. */
FOR_EACH_PROCESSOR static uint64_t survey_bytes(const uint8_t *data, size_t size, int *flags) {
    uint64_t feeds = 0;
    lanes odd = {0}, record = {0}, backslash = {0}, other = {0};
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
            backslash |= (lanes)(here == '\\');
            lanes brace = (lanes)(next == '{');
            record |= feed & (brace | (lanes)(next - 0x21 >= 0x5f)); /* up to 0x20, from 0x80 on */
            other |= feed & ~brace;
        }
        for (int i = 0; i < WIDTH; i++) feeds += count[i];
    }
    int seen = first_byte(data[0]);
    for (int i = 0; i < WIDTH; i++)
        seen |= (odd[i] & 0x80 ? ODD : 0) | (record[i] ? RECORD : 0) | (backslash[i] ? BACKSLASH : 0) |
                (other[i] ? OTHER : 0);
    for (; at < size; at++) {
        uint8_t byte = data[at];
        if (byte == '\n') {
            feeds++;
            if (at + 1 < size) seen |= first_byte(data[at + 1]);
        }
        seen |= (byte == 0 || byte >= 0x80 ? ODD : 0) | (byte == '\\' ? BACKSLASH : 0);
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

/* -- access lines of the usual shape ------------------------------------------------------------------------------- */

enum { ADDRESS, USER, STAMP, METHOD, PATH, QUERY, VERSION, STATUS, SIZE, REFERRER, AGENT, REST, PARTS };

typedef struct {
    const char *at, *end;
} Text;

static int is_digit(char byte) { return byte >= '0' && byte <= '9'; }

/* Which bytes end a part. */
enum { OF_WORD = 1, OF_USER = 2, OF_STAMP = 4, OF_PATH = 8, OF_QUERY = 16, OF_QUOTED = 32 };
static const uint8_t ends[256] = {
    [' '] = OF_WORD | OF_USER | OF_PATH | OF_QUERY,
    ['"'] = OF_USER | OF_STAMP | OF_PATH | OF_QUERY | OF_QUOTED,
    ['\\'] = OF_PATH | OF_QUERY | OF_QUOTED,
    ['?'] = OF_PATH,
    [']'] = OF_STAMP,
};

/* Up to and without the first byte that ends it. */
static Text run(Text *rest, uint8_t kind) {
    Text found = {rest->at, rest->at};
    while (found.end < rest->end && !(ends[(uint8_t)*found.end] & kind)) found.end++;
    rest->at = found.end;
    return found;
}

static Text digits(Text *rest, size_t most) {
    Text found = {rest->at, rest->at};
    while (found.end < rest->end && (size_t)(found.end - found.at) < most && is_digit(*found.end)) found.end++;
    rest->at = found.end;
    return found;
}

static int take(Text *rest, const char *wanted) {
    size_t size = strlen(wanted);
    if ((size_t)(rest->end - rest->at) < size || memcmp(rest->at, wanted, size) != 0) return 0;
    rest->at += size;
    return 1;
}

static size_t length(Text text) { return (size_t)(text.end - text.at); }

static int number(const char *at, size_t count) {
    int value = 0;
    for (size_t i = 0; i < count; i++) {
        if (!is_digit(at[i])) return -1;
        value = 10 * value + (at[i] - '0');
    }
    return value;
}

/* `17/May/2015:10:05:03 +0000`, a time there is in every zone. */
static int is_stamp(Text stamp) {
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const char *at = stamp.at;
    if (length(stamp) != 20 && length(stamp) != 26) return 0;
    if (at[2] != '/' || at[6] != '/' || at[11] != ':' || at[14] != ':' || at[17] != ':') return 0;
    int month = 0;
    while (month < 12 && memcmp(months + 3 * month, at + 3, 3) != 0) month++;
    int day = number(at, 2), year = number(at + 7, 4), hour = number(at + 12, 2);
    if (month == 12 || day < 1 || year < 2 || year > 9998 || hour < 0 || hour > 23) return 0;
    int leap = month == 1 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day > days[month] + leap) return 0;
    int minute = number(at + 15, 2);
    if (minute < 0 || minute > 59 || number(at + 18, 2) < 0) return 0;
    return length(stamp) == 20 || (at[20] == ' ' && (at[21] == '+' || at[21] == '-') && number(at + 22, 4) >= 0);
}

/* Four numbers up to 255 without leading zeros. */
static int is_ipv4(Text text) {
    for (int i = 0; i < 4; i++) {
        if (i && !take(&text, ".")) return 0;
        Text octet = digits(&text, 3);
        if (!length(octet) || number(octet.at, length(octet)) > 255 || (length(octet) > 1 && *octet.at == '0')) return 0;
    }
    return text.at == text.end;
}

/* The twin of `_PLAIN` in web.py, and of what `usual_parts` there asks of it. */
static int split_access(Text rest, Text *parts) {
    memset(parts, 0, PARTS * sizeof *parts);
    parts[ADDRESS] = run(&rest, OF_WORD);
    if (!length(parts[ADDRESS]) || !take(&rest, " - ")) return 0;
    parts[USER] = run(&rest, OF_USER);
    if (!length(parts[USER]) || !take(&rest, " [")) return 0;
    parts[STAMP] = run(&rest, OF_STAMP);
    if (!is_stamp(parts[STAMP]) || !take(&rest, "] \"")) return 0;
    parts[METHOD] = (Text){rest.at, rest.at};
    while (rest.at < rest.end && *rest.at >= 'A' && *rest.at <= 'Z' && length(parts[METHOD]) < 32)
        parts[METHOD].end = ++rest.at;
    if (!length(parts[METHOD]) || !take(&rest, " ") || rest.at == rest.end || *rest.at != '/') return 0;
    parts[PATH] = run(&rest, OF_PATH);
    if (take(&rest, "?")) parts[QUERY] = run(&rest, OF_QUERY);
    if (!take(&rest, " HTTP/")) return 0;
    parts[VERSION] = digits(&rest, 1);
    if (!length(parts[VERSION])) return 0;
    if (take(&rest, ".")) {
        if (!length(digits(&rest, 1))) return 0;
        parts[VERSION].end = rest.at;
    }
    if (!take(&rest, "\" ")) return 0;
    parts[STATUS] = digits(&rest, 3);
    if (length(parts[STATUS]) != 3 || !take(&rest, " ")) return 0;
    parts[SIZE] = digits(&rest, 18);
    if (!length(parts[SIZE])) {
        if (!take(&rest, "-")) return 0;
        parts[SIZE] = (Text){rest.at - 1, rest.at};
    }
    if (take(&rest, " \"")) {
        parts[REFERRER] = run(&rest, OF_QUOTED);
        if (!take(&rest, "\" \"")) return 0;
        parts[AGENT] = run(&rest, OF_QUOTED);
        if (!take(&rest, "\"")) return 0;
        if (rest.at < rest.end && *rest.at == ' ') {
            parts[REST] = rest;
            rest.at = rest.end;
        }
    }
    int is_nobody = length(parts[USER]) == 1 && *parts[USER].at == '-';
    return rest.at == rest.end && (is_nobody || is_ipv4(parts[ADDRESS]));
}

static PyObject *access_parts(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "access_parts takes 2 arguments, not %zd", count);
    unsigned long wanted = PyLong_AsUnsignedLong(args[1]);
    if (wanted == (unsigned long)-1 && PyErr_Occurred()) return NULL;
    Py_ssize_t size;
    const char *data = PyUnicode_AsUTF8AndSize(args[0], &size);
    if (data == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return NULL;
        PyErr_Clear(); /* half of a surrogate pair: no line of the usual shape */
        Py_RETURN_NONE;
    }
    Text parts[PARTS];
    if (memchr(data, 0, (size_t)size) != NULL || !split_access((Text){data, data + size}, parts)) Py_RETURN_NONE;
    Py_ssize_t many = 0;
    for (int i = 0; i < PARTS; i++) many += wanted >> i & 1;
    PyObject *found = PyTuple_New(many);
    for (int i = 0, place = 0; found != NULL && i < PARTS; i++) {
        if (!(wanted >> i & 1)) continue;
        PyObject *part = parts[i].at ? PyUnicode_DecodeUTF8(parts[i].at, (Py_ssize_t)length(parts[i]), NULL)
                                     : Py_NewRef(Py_None);
        if (part == NULL || PyTuple_SetItem(found, place++, part) < 0) Py_CLEAR(found);
    }
    return found;
}

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
    {"access_parts", (PyCFunction)(void (*)(void))access_parts, METH_FASTCALL, "Parts of an access line, by a mask."},
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
