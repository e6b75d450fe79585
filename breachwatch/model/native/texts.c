/* What keywords search in a record. */

#include "native.h"

static const long long MAX_QUICK = 1000000000000000000; /* the same in values.py */

/* 1 if the name begins with one of the prefixes; -1: error. */
static int is_own(PyObject *name, PyObject *prefixes) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(prefixes); i++) {
        Py_ssize_t begins = PyUnicode_Tailmatch(name, PyTuple_GetItem(prefixes, i), 0, PY_SSIZE_T_MAX, -1);
        if (begins) return (int)begins;
    }
    return 0;
}

/* A value as text, if it is short text or a small whole number: a new reference. NULL without an error: it is neither. */
static PyObject *quick_text(PyObject *value, Py_ssize_t most) {
    if (PyUnicode_CheckExact(value)) return PyUnicode_GetLength(value) <= most ? Py_NewRef(value) : NULL;
    if (!PyLong_CheckExact(value)) return NULL;
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow || number <= -MAX_QUICK || number >= MAX_QUICK) return NULL;
    return PyObject_Str(value);
}

static int extend(PyObject *texts, PyObject *value, Py_ssize_t most, PyObject *others) {
    PyObject *text = quick_text(value, most), *done;
    if (text != NULL) {
        int failed = PyList_Append(texts, text);
        Py_DECREF(text);
        return failed;
    }
    if (PyErr_Occurred()) return -1;
    Py_INCREF(value);
    PyObject *more = PyObject_CallFunctionObjArgs(others, value, NULL);
    Py_DECREF(value);
    if (more == NULL) return -1;
    done = PyObject_CallMethod(texts, "extend", "(O)", more);
    Py_DECREF(more);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

PyObject *record_texts(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 4 || !PyDict_Check(args[0]) || !PyTuple_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "record_texts takes a dict, a tuple of prefixes, a length, and a function");
    Py_ssize_t most = PyLong_AsSsize_t(args[2]), place = 0;
    if (most == -1 && PyErr_Occurred()) return NULL;
    PyObject *texts = PyList_New(0), *name, *value;
    while (texts != NULL && PyDict_Next(args[0], &place, &name, &value)) {
        int own = PyUnicode_Check(name) ? is_own(name, args[1]) : 0;
        if (own < 0 || (!own && extend(texts, value, most, args[3]) < 0)) Py_CLEAR(texts);
    }
    return texts;
}
