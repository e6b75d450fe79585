/* What a line must hold for rules to match it. */

#include "native.h"

/* A program is a node: 'E' or 'S' (every, some of the nodes that follow) or 'A' (one of the literals that follow), and a
   count of 16 bits. A literal: 'L' (anywhere) or 'V' (a JSON string that is no name: no colon follows), a length of 16
   bits, bytes. Numbers are little-endian. guard.py writes them. */
enum { DEEPEST = 50, LINE_ROOM = 65537 };

typedef struct {
    const uint8_t *at, *end;
} Code;

static int count_of(Code *code) {
    if (code->end - code->at < 2) return -1;
    int count = code->at[0] | code->at[1] << 8;
    code->at += 2;
    return count;
}

/* 1 if the code is one whole node, which `meets` may run. */
static int is_node(Code *code, int depth) {
    if (depth > DEEPEST || code->at == code->end) return 0;
    uint8_t kind = *code->at++;
    int count = count_of(code);
    if (count < 0 || (kind != 'E' && kind != 'S' && kind != 'A')) return 0;
    for (int i = 0; i < count; i++) {
        if (kind != 'A') {
            if (!is_node(code, depth + 1)) return 0;
            continue;
        }
        if (code->at == code->end || (*code->at != 'L' && *code->at != 'V')) return 0;
        code->at++;
        int size = count_of(code);
        if (size < 1 || size > code->end - code->at) return 0;
        code->at += size;
    }
    return 1;
}

static int holds_value(const uint8_t *low, size_t size, const uint8_t *wanted, size_t length) {
    const uint8_t *end = low + size;
    while ((low = memmem(low, (size_t)(end - low), wanted, length)) != NULL) {
        const uint8_t *next = low + length;
        while (next < end && (*next == ' ' || (*next >= '\t' && *next <= '\r'))) next++;
        if (next < end && *next != ':') return 1;
        low++;
    }
    return 0;
}

/* Whether a line in lower case holds what the node asks for; moves behind the node. Nothing is searched unless asked. */
static int meets(Code *code, const uint8_t *low, size_t size, int is_asked) {
    uint8_t kind = *code->at++;
    int count = count_of(code), met = kind == 'E';
    for (int i = 0; i < count; i++) {
        int is_open = is_asked && met == (kind == 'E');
        if (kind != 'A') {
            int one = meets(code, low, size, is_open);
            if (is_open) met = one;
            continue;
        }
        uint8_t sort = *code->at++;
        size_t length = (size_t)count_of(code);
        if (is_open) met = sort == 'V' ? holds_value(low, size, code->at, length) : memmem(low, size, code->at, length) != NULL;
        code->at += length;
    }
    return met;
}

typedef struct {
    PyObject_HEAD
    PyObject *rules;    /* a tuple */
    PyObject *programs; /* a tuple of bytes, as many */
} Narrow;

/* Those of the rules whose program a line meets: a tuple. */
PyObject *narrowed(PyObject *narrow, const uint8_t *line, size_t size) {
    Narrow *self = (Narrow *)narrow;
    static uint8_t room[LINE_ROOM]; /* the interpreter's lock is held */
    uint8_t *low = size <= sizeof room ? room : malloc(size);
    if (low == NULL) return PyErr_NoMemory();
    for (size_t i = 0; i < size; i++) low[i] = line[i] | (line[i] >= 'A' && line[i] <= 'Z' ? 0x20 : 0);
    Py_ssize_t count = PyTuple_Size(self->rules), kept = 0;
    uint8_t is_kept[256];
    for (Py_ssize_t i = 0; i < count; i++) {
        char *bytes;
        Py_ssize_t length;
        PyBytes_AsStringAndSize(PyTuple_GetItem(self->programs, i), &bytes, &length);
        Code code = {(const uint8_t *)bytes, (const uint8_t *)bytes + length};
        kept += is_kept[i] = (uint8_t)meets(&code, low, size, 1);
    }
    if (low != room) free(low);
    if (kept == count) return Py_NewRef(self->rules);
    PyObject *found = PyTuple_New(kept);
    for (Py_ssize_t i = 0, place = 0; found != NULL && i < count; i++)
        if (is_kept[i]) PyTuple_SetItem(found, place++, Py_NewRef(PyTuple_GetItem(self->rules, i)));
    return found;
}

static PyObject *narrow_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    PyObject *rules, *programs;
    if (names != NULL && PyDict_Size(names)) return PyErr_Format(PyExc_TypeError, "Narrow takes no names");
    if (!PyArg_ParseTuple(args, "O!O!", &PyTuple_Type, &rules, &PyTuple_Type, &programs)) return NULL;
    Py_ssize_t count = PyTuple_Size(rules);
    if (count > 256 || count != PyTuple_Size(programs))
        return PyErr_Format(PyExc_ValueError, "%zd rules, %zd programs", count, PyTuple_Size(programs));
    for (Py_ssize_t i = 0; i < count; i++) {
        char *bytes;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(programs, i), &bytes, &length) < 0) return NULL;
        Code code = {(const uint8_t *)bytes, (const uint8_t *)bytes + length};
        if (!is_node(&code, 0) || code.at != code.end) return PyErr_Format(PyExc_ValueError, "program %zd is none", i);
    }
    Narrow *self = (Narrow *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->rules = Py_NewRef(rules);
    self->programs = Py_NewRef(programs);
    return (PyObject *)self;
}

static PyObject *narrow_call(PyObject *self, PyObject *args, PyObject *names) {
    Py_buffer line;
    if (names != NULL && PyDict_Size(names)) return PyErr_Format(PyExc_TypeError, "a Narrow takes no names");
    if (!PyArg_ParseTuple(args, "y*", &line)) return NULL;
    PyObject *found = narrowed(self, line.buf, (size_t)line.len);
    PyBuffer_Release(&line);
    return found;
}

static void narrow_free(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(((Narrow *)object)->rules);
    Py_XDECREF(((Narrow *)object)->programs);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyType_Slot narrow_slots[] = {
    {Py_tp_new, (void *)narrow_new},
    {Py_tp_call, (void *)narrow_call},
    {Py_tp_dealloc, (void *)narrow_free},
    {Py_tp_doc, "Rules, and a program for each that says which lines it may match."},
    {0, NULL},
};

PyTypeObject *narrow_type;

PyType_Spec narrow_spec = {
    .name = "breachwatch.model._native.Narrow",
    .basicsize = sizeof(Narrow),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = narrow_slots,
};
