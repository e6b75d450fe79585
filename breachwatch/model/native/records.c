/* Lines of JSON as what an event is made of. */

#include "native.h"

enum { MAX_LINE_BYTES = 65536, MAX_DEPTH = 64, MOST_DIGITS = 24 }; /* the first two as in parse/event.py, parse/jsonlines.py */

/* Brackets that open: a record is nested no deeper than there are of them. */
static size_t brackets(const uint8_t *at, size_t size) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += (at[i] | ('{' ^ '[')) == '{';
    return count;
}

/* How lines are read: the file's path; what decodes them; a hash object, and its methods, which are looked up once; the
   host, and names in a record that say when and where it was written, or of what kind it is; the log sources that are known
   by the three fields that name them. */
typedef struct {
    PyObject *path, *decode, *seed, *copy, *update, *hexdigest, *host, *telling, *sources;
} Reading;

static const char *NAMES[] = {"product", "category", "service", "log.file.path", "log.offset", "host.name"};
enum { SOURCE_NAMES = 3, PATH = 3, OFFSET, HOST, NAME_COUNT };
static PyObject *names[NAME_COUNT];

int prepare_records(void) {
    for (int i = 0; i < NAME_COUNT; i++)
        if (names[i] == NULL && (names[i] = PyUnicode_InternFromString(NAMES[i])) == NULL) return -1;
    return 0;
}

/* The hex digest of an offset and a line, after what was hashed before: a new reference. */
static PyObject *name_of(const Reading *how, long long offset, const uint8_t *line, size_t size) {
    char head[MOST_DIGITS];
    int length = snprintf(head, sizeof head, "%lld:0:", offset) + 1; /* and a NUL */
    PyObject *hashed = PyBytes_FromStringAndSize(NULL, length + (Py_ssize_t)size), *digest, *done = NULL, *name = NULL;
    if (hashed == NULL) return NULL;
    char *to = PyBytes_AsString(hashed);
    memcpy(to, head, (size_t)length);
    memcpy(to + length, line, size);
    if ((digest = PyObject_CallFunctionObjArgs(how->copy, how->seed, NULL)) != NULL)
        done = PyObject_CallFunctionObjArgs(how->update, digest, hashed, NULL);
    if (done != NULL) name = PyObject_CallFunctionObjArgs(how->hexdigest, digest, NULL);
    Py_XDECREF(done);
    Py_XDECREF(digest);
    Py_DECREF(hashed);
    return name;
}

/* What `decode` makes of a line: a dict, a new reference. NULL without an error: something else, or it refuses. */
static PyObject *record_of(PyObject *decode, const uint8_t *line, size_t size) {
    PyObject *data = PyBytes_FromStringAndSize((const char *)line, (Py_ssize_t)size), *record;
    if (data == NULL) return NULL;
    record = PyObject_CallFunctionObjArgs(decode, data, NULL);
    Py_DECREF(data);
    if (record == NULL && PyErr_ExceptionMatches(PyExc_Exception)) PyErr_Clear(); /* whoever reads the line says why */
    if (record != NULL && !PyDict_CheckExact(record)) Py_CLEAR(record);
    return record;
}

/* Says in a record where it stands. */
static int place_record(PyObject *record, PyObject *path, long long offset) {
    PyObject *number = PyLong_FromLongLong(offset);
    int failed = number == NULL || PyDict_SetItem(record, names[PATH], path) < 0 ||
                 PyDict_SetItem(record, names[OFFSET], number) < 0;
    Py_XDECREF(number);
    return failed ? -1 : 0;
}

/* The log source of a record, where that is known: a borrowed reference; NULL without an error if not. */
static PyObject *source_of(PyObject *record, PyObject *sources) {
    PyObject *key = PyTuple_New(SOURCE_NAMES), *found = NULL;
    for (int i = 0; key != NULL && i < SOURCE_NAMES; i++) {
        PyObject *value = PyDict_GetItemWithError(record, names[i]);
        if (value == NULL && PyErr_Occurred()) Py_CLEAR(key);
        if (key != NULL) PyTuple_SetItem(key, i, Py_NewRef(value == NULL ? Py_None : value));
    }
    if (key != NULL) found = PyDict_GetItemWithError(sources, key);
    Py_XDECREF(key);
    if (found == NULL && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_TypeError)) PyErr_Clear(); /* a list names nothing */
    return found;
}

/* Of a record without any of the telling names: its log source, once its host is written into it; None of any other one, or
   if that is not known. A new reference. */
static PyObject *source_if_silent(const Reading *how, PyObject *record) {
    PyObject *key, *value;
    Py_ssize_t place = 0;
    while (PyDict_Next(record, &place, &key, &value)) {
        int tells = PySet_Contains(how->telling, key);
        if (tells) return tells < 0 ? NULL : Py_NewRef(Py_None);
    }
    PyObject *source = source_of(record, how->sources);
    if (source == NULL) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    Py_INCREF(source);
    if (PyDict_SetItem(record, names[HOST], how->host) < 0) Py_CLEAR(source);
    return source;
}

/* (record, text, name, log source or None) of a line without its line feed; None: it takes more to read it. A new
   reference. */
static PyObject *read_line(const Reading *how, const uint8_t *line, size_t size, long long offset) {
    if (size && line[size - 1] == '\r') size--;
    if (size == 0 || line[size - 1] == '\r' || size > MAX_LINE_BYTES || brackets(line, size) >= MAX_DEPTH)
        return Py_NewRef(Py_None);
    PyObject *record = record_of(how->decode, line, size), *text = NULL, *name = NULL, *source = NULL, *read = NULL;
    if (record == NULL) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    if (place_record(record, how->path, offset) == 0) source = source_if_silent(how, record);
    if (source != NULL) text = PyUnicode_DecodeUTF8((const char *)line, (Py_ssize_t)size, NULL);
    if (text != NULL) name = name_of(how, offset, line, size);
    if (name != NULL) read = PyTuple_Pack(4, record, text, name, source);
    Py_XDECREF(source);
    Py_XDECREF(name);
    Py_XDECREF(text);
    Py_DECREF(record);
    return read;
}

/* Where a line begins and where the next one does, by the first items of a tuple; -1: error. */
static int place_of(PyObject *item, Py_ssize_t size, Py_ssize_t *start, Py_ssize_t *end) {
    if (!PyTuple_Check(item) || PyTuple_Size(item) < 2) {
        PyErr_SetString(PyExc_TypeError, "a place is a tuple that begins with two offsets");
        return -1;
    }
    *start = PyLong_AsSsize_t(PyTuple_GetItem(item, 0));
    *end = PyLong_AsSsize_t(PyTuple_GetItem(item, 1));
    if (PyErr_Occurred()) return -1;
    if (*start >= 0 && *start < *end && *end <= size) return 0;
    PyErr_SetString(PyExc_ValueError, "a line lies outside the block");
    return -1;
}

/* What is read of the lines at some places: a new list. */
static PyObject *read_lines(PyObject *block, PyObject *places, long long base, const Reading *how) {
    char *data;
    Py_ssize_t size, start, end;
    if (PyBytes_AsStringAndSize(block, &data, &size) < 0) return NULL;
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < PyList_Size(places); i++) {
        PyObject *read = NULL;
        if (place_of(PyList_GetItem(places, i), size, &start, &end) == 0)
            read = read_line(how, (uint8_t *)data + start, (size_t)(end - 1 - start), base + start);
        if (read == NULL || PyList_Append(found, read) < 0) Py_CLEAR(found);
        Py_XDECREF(read);
    }
    return found;
}

PyObject *json_lines(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 9 || !PyBytes_Check(args[0]) || !PyList_Check(args[1]) || !PyFrozenSet_Check(args[7]) || !PyDict_Check(args[8]))
        return PyErr_Format(PyExc_TypeError, "json_lines takes bytes, a list of places, path, offset, a function, a hash "
                                             "object, host, a frozenset of names, and a dict of log sources");
    long long base = PyLong_AsLongLong(args[3]);
    if (base == -1 && PyErr_Occurred()) return NULL;
    PyObject *type = (PyObject *)Py_TYPE(args[5]), *found = NULL;
    Reading how = {
        .path = args[2], .decode = args[4], .seed = args[5], .host = args[6], .telling = args[7], .sources = args[8],
        .copy = PyObject_GetAttrString(type, "copy"), .update = PyObject_GetAttrString(type, "update"),
        .hexdigest = PyObject_GetAttrString(type, "hexdigest"),
    };
    if (how.copy != NULL && how.update != NULL && how.hexdigest != NULL) found = read_lines(args[0], args[1], base, &how);
    Py_XDECREF(how.copy);
    Py_XDECREF(how.update);
    Py_XDECREF(how.hexdigest);
    return found;
}
