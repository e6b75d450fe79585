/* Passes over raw bytes at memory speed, and what is done for every line that may match: what passes.py, detect/hits.py,
   detect/guard.py, detect/predicate.py, parse/jsonlines.py and parse/web.py do in Python, for where a compiler was at hand.

   Every function gives what its twin in Python gives; tests compare the two on any bytes. All input is hostile: no offset
   that a caller names is used before it was held against the size of the block. Whoever calls holds the lock of the
   interpreter, which also guards what is static here. */

#ifndef BREACHWATCH_NATIVE_H
#define BREACHWATCH_NATIVE_H

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000 /* one binary for CPython 3.11 and all later ones */
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* find.c */
const uint8_t *find_bytes(const uint8_t *at, const uint8_t *end, const uint8_t *wanted, size_t size);

/* survey.c */
PyObject *survey(PyObject *module, PyObject *data);

/* access.c */
PyObject *access_parts(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *parts_of(const char *line, size_t size, unsigned long wanted);

/* remembered.c */
extern PyTypeObject *remembered_type;
extern PyType_Spec remembered_spec;
PyObject *recalled(PyObject *remembered, const uint8_t *line, size_t size);

/* narrow.c */
extern PyTypeObject *narrow_type;
extern PyType_Spec narrow_spec;
PyObject *narrowed(PyObject *narrow, const uint8_t *line, size_t size);

/* texts.c */
PyObject *record_texts(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* records.c */
int prepare_records(void);
PyObject *json_lines(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* plain.c */
void prepare_plain(void);
extern PyTypeObject *keywords_type;
extern PyType_Spec keywords_spec;
PyObject *plain_texts(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *searched(PyObject *keywords, const uint8_t *line, size_t size);

/* hits.c */
extern PyType_Spec hits_spec;

#endif
