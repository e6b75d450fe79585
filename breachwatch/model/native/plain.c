/* Plain records: JSON objects of one level, of printable ASCII with no escape but short ones in values, whole numbers, and
   names that come once. Most lines of logs are; whoever meets another one decodes it. */

#include "native.h"

enum { MOST_NAMES = 64, SLOTS = 256, MOST_DIGITS = 17, SHORT_LINE = 4096, MOST_TEXTS = 32 };

typedef struct {
    const uint8_t *at, *end;
} Span;

/* The names seen so far, by a hash: no plain record holds one twice, for only the last would count. */
typedef struct {
    Span names[MOST_NAMES];
    uint8_t slots[SLOTS]; /* 0: free; else one more than the place of a name */
    unsigned count;
} Names;

/* The byte in lower case; 0: it ends a text, or is in none of a plain record. */
static inline uint8_t low(uint8_t byte) {
    if (byte < 0x20 || byte > 0x7e || byte == '"' || byte == '\\') return 0;
    return byte >= 'A' && byte <= 'Z' ? byte + ('a' - 'A') : byte;
}

static uint8_t lows[256];

/* Never behind a line feed or a NUL, one of which ends the line. */
static inline const uint8_t *behind_blanks(const uint8_t *at) {
    while (*at == ' ' || *at == '\t' || *at == '\r') at++;
    return at;
}

/* What a short escape stands for; 0: it is none. */
static inline uint8_t escaped(uint8_t letter) {
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *found = letter ? strchr(letters, letter) : NULL;
    return found ? (uint8_t)meant[found - letters] : 0;
}

/* Copies a text in lower case; `at` is behind its opening quote. Gives where it ends, on the closing one; NULL: no. */
static inline const uint8_t *copied(const uint8_t *at, uint8_t **out) {
    uint8_t byte, *to = *out;
    for (;; at += 2) {
        while ((byte = lows[*at]) != 0) *to++ = byte, at++;
        if (*at != '\\' || (*to++ = escaped(at[1])) == 0) break;
    }
    *out = to;
    return *at == '"' ? at : NULL;
}

static int is_new(Names *names, Span name) {
    uint32_t hash = 2166136261u;
    for (const uint8_t *at = name.at; at < name.end; at++) hash = (hash ^ *at) * 16777619u;
    size_t size = (size_t)(name.end - name.at);
    unsigned slot = (hash ^ hash >> 15) % SLOTS;
    for (; names->slots[slot]; slot = (slot + 1) % SLOTS) {
        Span other = names->names[names->slots[slot] - 1];
        if ((size_t)(other.end - other.at) == size && memcmp(other.at, name.at, size) == 0) return 0;
    }
    if (names->count == MOST_NAMES) return 0;
    names->names[names->count] = name;
    names->slots[slot] = (uint8_t)++names->count;
    return 1;
}

/* A whole number as Python writes it; true, false, null. Gives where it ends; NULL: it is something else. */
static const uint8_t *behind_word(const uint8_t *at) {
    static const char *words[] = {"true", "false", "null"};
    for (unsigned i = 0; i < 3; i++)
        if (strncmp((const char *)at, words[i], strlen(words[i])) == 0) return at + strlen(words[i]);
    const uint8_t *digits = at + (*at == '-'), *end = digits;
    while (*end >= '0' && *end <= '9') end++;
    if (end == digits || end - digits > MOST_DIGITS || (*digits == '0' && (end - digits > 1 || *at == '-'))) return NULL;
    return end; /* a fraction or an exponent behind it is no comma */
}

/* 1 if the name begins with one of the prefixes; -1: error. */
static int is_own(Span name, PyObject *prefixes) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(prefixes); i++) {
        Py_ssize_t size;
        const char *prefix = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(prefixes, i), &size);
        if (prefix == NULL) return -1;
        if (name.end - name.at >= size && memcmp(name.at, prefix, (size_t)size) == 0) return 1;
    }
    return 0;
}

/* Writes the texts of a plain record to `out`, which has room for as many bytes as the line has. Gives how many that are;
   -1: the record is not plain, or there is an error. A line feed or a NUL is at the end. */
static Py_ssize_t write_texts(const uint8_t *at, const uint8_t *end, PyObject *prefixes, Py_ssize_t most, uint8_t *out) {
    uint8_t *start = out;
    Names names;
    memset(names.slots, 0, sizeof names.slots);
    names.count = 0;
    at = behind_blanks(at);
    if (*at++ != '{') return -1;
    at = behind_blanks(at);
    if (*at == '}') return behind_blanks(at + 1) == end ? 0 : -1;
    for (;; at = behind_blanks(at + 1)) {
        uint8_t *text = out;
        Span name = {at + 1, NULL};
        if (*at != '"' || (name.end = copied(at + 1, &out)) == NULL || name.end - name.at != out - text) return -1;
        if (!is_new(&names, name)) return -1;
        out = text; /* only values are searched */
        int own = is_own(name, prefixes);
        if (own < 0) return -1;
        at = behind_blanks(name.end + 1);
        if (*at++ != ':') return -1;
        at = behind_blanks(at);
        int is_null = *at == 'n';
        if (*at == '"') {
            if ((at = copied(at + 1, &out)) == NULL || out - text > most) return -1;
            at++;
        } else {
            const uint8_t *word = at;
            if ((at = behind_word(word)) == NULL) return -1;
            memcpy(out, word, (size_t)(at - word));
            out += at - word;
        }
        if (own || is_null)
            out = text;
        else
            *out++ = 0;
        at = behind_blanks(at);
        if (*at == '}') break;
        if (*at != ',') return -1;
    }
    if (behind_blanks(at + 1) != end) return -1;
    return out > start ? out - start - 1 : 0; /* a NUL is between them, not behind the last */
}

void prepare_plain(void) {
    for (unsigned byte = 0; byte < 256; byte++) lows[byte] = low((uint8_t)byte);
}

PyObject *plain_texts(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 3 || !PyBytes_Check(args[0]) || !PyTuple_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "plain_texts takes bytes, a tuple of prefixes, and a length");
    char *line, here[SHORT_LINE];
    Py_ssize_t size, most = PyLong_AsSsize_t(args[2]);
    if ((most == -1 && PyErr_Occurred()) || PyBytes_AsStringAndSize(args[0], &line, &size) < 0) return NULL;
    char *out = size <= SHORT_LINE ? here : PyMem_Malloc((size_t)size);
    if (out == NULL) return PyErr_NoMemory();
    const uint8_t *at = (const uint8_t *)line;
    Py_ssize_t written = write_texts(at, at + size, args[1], most, (uint8_t *)out);
    PyObject *texts = NULL;
    if (written >= 0)
        texts = PyUnicode_FromStringAndSize(out, written);
    else if (!PyErr_Occurred())
        texts = Py_NewRef(Py_None);
    if (out != here) PyMem_Free(out);
    return texts;
}

/* What was found of lines of plain records with the same ones of some texts in them. */
typedef struct {
    PyObject_HEAD
    PyObject *table; /* a dict: which of the texts, as bits of a number; rules */
    PyObject *prefixes, *texts;
    Py_ssize_t most;
} Keywords;

/* Which of the texts a line of at most SHORT_LINE bytes holds, as a number: a new reference. NULL without an error: the
   record is not plain. */
static PyObject *held(Keywords *self, const uint8_t *line, size_t size) {
    uint8_t here[SHORT_LINE];
    if (size > SHORT_LINE) return NULL;
    Py_ssize_t written = write_texts(line, line + size, self->prefixes, self->most, here);
    if (written < 0) return NULL;
    unsigned long bits = 0;
    for (Py_ssize_t i = 0; i < PyTuple_Size(self->texts); i++) {
        char *text;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(self->texts, i), &text, &length) < 0) return NULL;
        if (find_bytes(here, here + written, (const uint8_t *)text, (size_t)length)) bits |= 1ul << i;
    }
    return PyLong_FromUnsignedLong(bits);
}

/* The rules that are known for a line, which ends with its line feed: a new reference; NULL without an error: none are. */
PyObject *searched(PyObject *keywords, const uint8_t *line, size_t size) {
    Keywords *self = (Keywords *)keywords;
    if (size == 0 || line[size - 1] != '\n') return NULL;
    PyObject *bits = held(self, line, size - 1);
    PyObject *rules = bits == NULL ? NULL : PyDict_GetItemWithError(self->table, bits);
    Py_XDECREF(bits);
    Py_XINCREF(rules);
    return rules;
}

static PyObject *keywords_held(PyObject *self, PyObject *line) {
    char *at;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(line, &at, &size) < 0) return NULL;
    PyObject *bits = held((Keywords *)self, (const uint8_t *)at, (size_t)size);
    return bits == NULL && !PyErr_Occurred() ? Py_NewRef(Py_None) : bits;
}

static PyObject *keywords_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    PyObject *prefixes, *texts, *table;
    Py_ssize_t most;
    if (names != NULL && PyDict_Size(names)) return PyErr_Format(PyExc_TypeError, "Keywords takes no names");
    if (!PyArg_ParseTuple(args, "O!nO!O!", &PyTuple_Type, &prefixes, &most, &PyTuple_Type, &texts, &PyDict_Type, &table))
        return NULL;
    int is_sound = PyTuple_Size(texts) <= MOST_TEXTS;
    for (Py_ssize_t i = 0; i < PyTuple_Size(texts) && is_sound; i++) {
        PyObject *text = PyTuple_GetItem(texts, i);
        is_sound = PyBytes_Check(text) && PyBytes_Size(text) > 0;
    }
    if (!is_sound) return PyErr_Format(PyExc_TypeError, "Keywords takes few texts of bytes, none of them empty");
    Keywords *self = (Keywords *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->prefixes = Py_NewRef(prefixes);
    self->texts = Py_NewRef(texts);
    self->table = Py_NewRef(table);
    self->most = most;
    return (PyObject *)self;
}

static void keywords_free(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Keywords *self = (Keywords *)object;
    Py_XDECREF(self->prefixes);
    Py_XDECREF(self->texts);
    Py_XDECREF(self->table);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef keywords_methods[] = {
    {"held", keywords_held, METH_O, "Which of the texts a line without its line feed holds, as bits; None: not known."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot keywords_slots[] = {
    {Py_tp_new, (void *)keywords_new},
    {Py_tp_dealloc, (void *)keywords_free},
    {Py_tp_methods, keywords_methods},
    {Py_tp_doc, "Prefixes of names that are not searched, the longest value, texts, and a dict: which of them, rules."},
    {0, NULL},
};

PyTypeObject *keywords_type;

PyType_Spec keywords_spec = {
    .name = "breachwatch.model._native.Keywords",
    .basicsize = sizeof(Keywords),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = keywords_slots,
};
