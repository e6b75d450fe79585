/* breachwatch.model._native */

#include "native.h"

static int add(PyObject *module, const char *name, PyObject *type) {
    if (type == NULL) return -1;
    int failed = PyModule_AddObjectRef(module, name, type);
    Py_DECREF(type);
    return failed;
}

static int fill(PyObject *module) {
    prepare_plain();
    if (prepare_records() < 0) return -1;
    PyObject *narrow = PyType_FromSpec(&narrow_spec);
    narrow_type = (PyTypeObject *)narrow;
    PyObject *remembered = PyType_FromSpec(&remembered_spec);
    remembered_type = (PyTypeObject *)remembered;
    PyObject *keywords = PyType_FromSpec(&keywords_spec);
    keywords_type = (PyTypeObject *)keywords;
    if (add(module, "Keywords", keywords) < 0) return -1;
    if (add(module, "Narrow", narrow) < 0 || add(module, "Remembered", remembered) < 0) return -1;
    if (add(module, "Hits", PyType_FromSpec(&hits_spec)) < 0) return -1;
    return PyModule_AddStringConstant(module, "SOURCE", SOURCE);
}

static PyMethodDef functions[] = {
    {"survey", survey, METH_O, "Line feeds in a block, and flags of what else is in it."},
    {"access_parts", (PyCFunction)(void (*)(void))access_parts, METH_FASTCALL, "Parts of an access line, by a mask."},
    {"record_texts", (PyCFunction)(void (*)(void))record_texts, METH_FASTCALL, "What keywords search in a record."},
    {"plain_texts", (PyCFunction)(void (*)(void))plain_texts, METH_FASTCALL, "The same of a plain record's line, folded."},
    {"json_lines", (PyCFunction)(void (*)(void))json_lines, METH_FASTCALL, "Records, texts and digests of some lines."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "breachwatch.model._native",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
