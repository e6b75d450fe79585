/* What a line must hold for rules to match it. */

#include "native.h"

/* A program is a node: 'E' or 'S' (every, some of the nodes that follow) or 'A' (one of the literals that follow), and a
   count of 16 bits. A literal: 'L' (anywhere) or 'V' (a JSON string that is no name: no colon follows), then a text: a
   length of 16 bits, bytes. Or 'F', the value of a field of a JSON record: a count of names, each a text that ends with
   a quote, and a count of tests, each '=', '<', '>' or '*' (is, begins with, ends with, holds) and a text. Numbers are
   little-endian. guard.py writes them. */
enum { DEEPEST = 50, LINE_ROOM = 65537, MANY_PLACES = 64 };

typedef struct {
    const uint8_t *at, *end;
} Code;

typedef struct {
    const uint8_t *at;
    size_t size;
} Text;

static int count_of(Code *code) {
    if (code->end - code->at < 2) return -1;
    int count = code->at[0] | code->at[1] << 8;
    code->at += 2;
    return count;
}

static Text text_of(Code *code) {
    int size = count_of(code);
    if (size < 0 || size > code->end - code->at) return (Text){NULL, 0};
    code->at += size;
    return (Text){code->at - size, (size_t)size};
}

/* 1 if the code goes on with so many texts, of which each has one of some marks before it if there are any. */
static int are_texts(Code *code, int count, const char *marks, size_t least) {
    for (int i = 0; i < count; i++) {
        if (*marks && (code->at == code->end || *code->at == 0 || strchr(marks, *code->at++) == NULL)) return 0;
        Text text = text_of(code);
        if (text.at == NULL || text.size < least) return 0;
    }
    return count >= 0;
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
        if (code->at == code->end) return 0;
        uint8_t sort = *code->at++;
        if (sort == 'F' ? !are_texts(code, count_of(code), "", 2) || !are_texts(code, count_of(code), "=<>*", 0)
                        : (sort != 'L' && sort != 'V') || !are_texts(code, 1, "", 1))
            return 0;
    }
    return 1;
}

static const uint8_t *find(const uint8_t *from, const uint8_t *end, Text wanted) {
    return find_bytes(from, end, wanted.at, wanted.size);
}

static const uint8_t *behind_blanks(const uint8_t *at, const uint8_t *end) {
    while (at < end && (*at == ' ' || (*at >= '\t' && *at <= '\r'))) at++;
    return at;
}

static int holds_value(const uint8_t *low, const uint8_t *end, Text wanted) {
    while ((low = find(low, end, wanted)) != NULL) {
        const uint8_t *next = behind_blanks(low + wanted.size, end);
        if (next < end && *next != ':') return 1;
        low++;
    }
    return 0;
}

/* The quote that ends a string whose inside begins here; NULL if none does. */
static const uint8_t *string_end(const uint8_t *at, const uint8_t *end) {
    const uint8_t *start = at;
    while ((at = memchr(at, '"', (size_t)(end - at))) != NULL) {
        const uint8_t *escape = at;
        while (escape > start && escape[-1] == '\\') escape--;
        if ((at - escape) % 2 == 0) return at;
        at++;
    }
    return NULL;
}

static int passes(Text value, uint8_t test, Text wanted) {
    if (test == '*') return find_bytes(value.at, value.at + value.size, wanted.at, wanted.size) != NULL;
    if (wanted.size > value.size || (test == '=' && wanted.size != value.size)) return 0;
    return memcmp(test == '>' ? value.at + value.size - wanted.size : value.at, wanted.at, wanted.size) == 0;
}

/* Whether one of the values that stand behind a name may pass one of the tests; what is no string may. */
static int may_pass(const uint8_t *low, const uint8_t *end, Text name, Code tests) {
    int places = 0;
    for (const uint8_t *at = low; (at = find(at, end, name)) != NULL; at++) {
        if (++places > MANY_PLACES) return 1; /* whoever wrote the line wants us to search for long */
        if (at == low || (at[-1] != '"' && at[-1] != '.')) continue;
        const uint8_t *colon = behind_blanks(at + name.size, end);
        if (colon == end || *colon != ':') continue;
        const uint8_t *start = behind_blanks(colon + 1, end);
        const uint8_t *stop = start < end && *start == '"' ? string_end(start + 1, end) : NULL;
        if (stop == NULL) return 1;
        Code left = tests;
        for (int i = count_of(&left); i > 0; i--) {
            uint8_t test = *left.at++;
            if (passes((Text){start + 1, (size_t)(stop - start - 1)}, test, text_of(&left))) return 1;
        }
    }
    return 0;
}

/* Moves behind names and tests; the field may pass if it is asked for. */
static int field_may_pass(Code *code, const uint8_t *low, const uint8_t *end, int is_asked) {
    Code names = *code, tests;
    for (int i = count_of(code); i > 0; i--) text_of(code);
    tests = *code;
    for (int i = count_of(code); i > 0; i--) {
        code->at++;
        text_of(code);
    }
    int found = 0;
    for (int i = is_asked ? count_of(&names) : 0; i > 0 && !found; i--) found = may_pass(low, end, text_of(&names), tests);
    return found;
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
        if (sort == 'F') {
            int one = field_may_pass(code, low, low + size, is_open);
            if (is_open) met = one;
            continue;
        }
        Text wanted = text_of(code);
        if (is_open) met = sort == 'V' ? holds_value(low, low + size, wanted) : find(low, low + size, wanted) != NULL;
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
