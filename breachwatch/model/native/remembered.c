/* What was found of access lines with the same parts. */

#include "native.h"

typedef struct {
    PyObject_HEAD
    PyObject *table; /* a dict: parts, rules */
    unsigned long wanted;
    Py_ssize_t times;
} Remembered;

/* The rules that are remembered for the parts of a line: a new reference; NULL without an error if there are none. */
PyObject *recalled(PyObject *remembered, const uint8_t *line, size_t size) {
    Remembered *self = (Remembered *)remembered;
    if (PyDict_Size(self->table) == 0) return NULL;
    while (size && (line[size - 1] == '\n' || line[size - 1] == '\r')) size--;
    PyObject *parts = parts_of((const char *)line, size, self->wanted);
    if (parts == NULL) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) PyErr_Clear(); /* no text: whoever reads it says so */
        return NULL;
    }
    PyObject *rules = PyDict_GetItemWithError(self->table, parts);
    Py_DECREF(parts);
    if (rules == NULL) return NULL;
    self->times++;
    return Py_NewRef(rules);
}

static PyObject *remembered_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    PyObject *table;
    unsigned long wanted;
    if (names != NULL && PyDict_Size(names)) return PyErr_Format(PyExc_TypeError, "Remembered takes no names");
    if (!PyArg_ParseTuple(args, "kO!", &wanted, &PyDict_Type, &table)) return NULL;
    Remembered *self = (Remembered *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL) return NULL;
    self->table = Py_NewRef(table);
    self->wanted = wanted;
    return (PyObject *)self;
}

static PyObject *remembered_times(PyObject *self, void *context) {
    (void)context;
    return PyLong_FromSsize_t(((Remembered *)self)->times);
}

static void remembered_free(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(((Remembered *)object)->table);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyGetSetDef remembered_values[] = {
    {"times", remembered_times, NULL, "Lines of which something was known.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot remembered_slots[] = {
    {Py_tp_new, (void *)remembered_new},
    {Py_tp_dealloc, (void *)remembered_free},
    {Py_tp_getset, remembered_values},
    {Py_tp_doc, "A mask of parts, and a dict that says which rules lines with the same ones match."},
    {0, NULL},
};

PyTypeObject *remembered_type;

PyType_Spec remembered_spec = {
    .name = "breachwatch.model._native.Remembered",
    .basicsize = sizeof(Remembered),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = remembered_slots,
};
