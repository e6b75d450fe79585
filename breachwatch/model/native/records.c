/* Lines of JSON as what an event is made of. */

#include "native.h"

enum { MAX_LINE_BYTES = 65536, MAX_DEPTH = 64, MOST_DIGITS = 24 }; /* the first two as in parse/event.py, parse/jsonlines.py */

/* Brackets that open: a record is nested no deeper than there are of them. */
static size_t brackets(const uint8_t *at, size_t size) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += (at[i] | ('{' ^ '[')) == '{';
    return count;
}

/* How lines are read: the file's path, what decodes them, a hash object, and its methods, which are looked up once. */
typedef struct {
    PyObject *path, *decode, *seed, *copy, *update, *hexdigest;
} Reading;

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
    static PyObject *path_key, *offset_key;
    if (path_key == NULL) path_key = PyUnicode_InternFromString("log.file.path");
    if (offset_key == NULL) offset_key = PyUnicode_InternFromString("log.offset");
    PyObject *number = PyLong_FromLongLong(offset);
    int failed = path_key == NULL || offset_key == NULL || number == NULL || PyDict_SetItem(record, path_key, path) < 0 ||
                 PyDict_SetItem(record, offset_key, number) < 0;
    Py_XDECREF(number);
    return failed ? -1 : 0;
}

/* (record, text, name) of a line without its line feed: a new reference; None: it takes more to read it. */
static PyObject *read_line(const Reading *how, const uint8_t *line, size_t size, long long offset) {
    if (size && line[size - 1] == '\r') size--;
    if (size == 0 || line[size - 1] == '\r' || size > MAX_LINE_BYTES || brackets(line, size) >= MAX_DEPTH)
        return Py_NewRef(Py_None);
    PyObject *record = record_of(how->decode, line, size);
    if (record == NULL) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    PyObject *text = PyUnicode_DecodeUTF8((const char *)line, (Py_ssize_t)size, NULL);
    PyObject *name = text == NULL ? NULL : name_of(how, offset, line, size);
    PyObject *read = name == NULL || place_record(record, how->path, offset) < 0 ? NULL : PyTuple_Pack(3, record, text, name);
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
    if (count != 6 || !PyBytes_Check(args[0]) || !PyList_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "json_lines takes bytes, places, path, offset, a function, and a hash object");
    long long base = PyLong_AsLongLong(args[3]);
    if (base == -1 && PyErr_Occurred()) return NULL;
    PyObject *type = (PyObject *)Py_TYPE(args[5]), *found = NULL;
    Reading how = {args[2], args[4], args[5], PyObject_GetAttrString(type, "copy"), PyObject_GetAttrString(type, "update"),
                   PyObject_GetAttrString(type, "hexdigest")};
    if (how.copy != NULL && how.update != NULL && how.hexdigest != NULL) found = read_lines(args[0], args[1], base, &how);
    Py_XDECREF(how.copy);
    Py_XDECREF(how.update);
    Py_XDECREF(how.hexdigest);
    return found;
}
