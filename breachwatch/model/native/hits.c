/* Where patterns were found in a block, and the lines that they are in. */

#include "native.h"

enum { SHIFT = 24, FIRST_ROOM = 1024, FEW = 7, SLOTS = 1024 };
static const uint64_t NUMBERS = ((uint64_t)1 << SHIFT) - 1;

/* A hit that was made, and the few numbers it was made of, in ascending order. */
typedef struct {
    PyObject *hit;
    uint32_t count, numbers[FEW];
} Made;

typedef struct {
    PyObject_HEAD
    uint64_t *found; /* offset behind the hit, then the number of the pattern in the lowest bits */
    size_t size, room;
    Made *made; /* SLOTS of them, once there are any */
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

/* The number of the one pattern in these hits, or a frozenset of the numbers. A new reference. */
static PyObject *new_hit(const uint64_t *found, size_t size) {
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

/* The numbers in these hits, each once and in order; 0 if there are more than FEW. */
static uint32_t few_numbers(const uint64_t *found, size_t size, uint32_t *numbers) {
    uint32_t count = 0;
    for (size_t i = 0; i < size; i++) {
        uint32_t number = (uint32_t)(found[i] & NUMBERS), place = count;
        while (place && numbers[place - 1] >= number) place--;
        if (place < count && numbers[place] == number) continue;
        if (count == FEW) return 0;
        memmove(numbers + place + 1, numbers + place, (count++ - place) * sizeof *numbers);
        numbers[place] = number;
    }
    return count;
}

/* The same as `new_hit`, of which the last ones that were made are kept: lines have the same hits again and again. */
static PyObject *hit_of(Hits *self, const uint64_t *found, size_t size) {
    uint32_t numbers[FEW], count = few_numbers(found, size, numbers);
    if (count == 0) return new_hit(found, size);
    if (self->made == NULL && (self->made = calloc(SLOTS, sizeof *self->made)) == NULL) return PyErr_NoMemory();
    uint32_t key = count;
    for (uint32_t i = 0; i < count; i++) key = (key ^ numbers[i]) * 0x9e3779b1u;
    Made *slot = self->made + (key >> 16) % SLOTS;
    if (slot->hit != NULL && slot->count == count && memcmp(slot->numbers, numbers, count * sizeof *numbers) == 0)
        return Py_NewRef(slot->hit);
    PyObject *hit = new_hit(found, size), *old = slot->hit;
    if (hit == NULL) return NULL;
    *slot = (Made){.hit = Py_NewRef(hit), .count = count};
    memcpy(slot->numbers, numbers, count * sizeof *numbers);
    Py_XDECREF(old);
    return hit;
}

static PyObject *entry_with(PyObject *rules, PyObject *other) {
    PyObject *entry = rules == NULL ? NULL : PyTuple_Pack(2, rules, other);
    Py_XDECREF(rules);
    return entry;
}

/* What is known of lines with a hit, for one of them: its entry, with the rules that it may match where a Narrow says so,
   or those that it matches, and True, where a Remembered or Keywords do; None where nothing is known. A new reference. */
static PyObject *entry_of(PyObject *known, PyObject *hit, const uint8_t *line, size_t size) {
    PyObject *entry = PyDict_GetItemWithError(known, hit);
    if (entry == NULL) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    if (!PyTuple_Check(entry) || PyTuple_Size(entry) != 2)
        return PyErr_Format(PyExc_TypeError, "an entry is a tuple of two");
    PyObject *narrow = PyTuple_GetItem(entry, 1);
    if (Py_TYPE(narrow) == narrow_type) return entry_with(narrowed(narrow, line, size), Py_None);
    if (Py_TYPE(narrow) != remembered_type && Py_TYPE(narrow) != keywords_type) return Py_NewRef(entry);
    PyObject *rules = (Py_TYPE(narrow) == keywords_type ? searched : recalled)(narrow, line, size);
    return rules != NULL || PyErr_Occurred() ? entry_with(rules, Py_True) : Py_NewRef(entry);
}

static int is_dismissed(PyObject *entry) {
    PyObject *rules = entry == Py_None ? entry : PyTuple_GetItem(entry, 0);
    if (!PyTuple_Check(rules) || PyTuple_Size(rules)) return 0;
    PyObject *narrow = PyTuple_GetItem(entry, 1);
    return narrow == Py_None || narrow == Py_True;
}

/* Counts a line whose rules are known by these rules: 1, or 0 if it is none or nobody counts them; -1: error. */
static int is_told(PyObject *tally, PyObject *entry) {
    if (tally == NULL || entry == Py_None || PyTuple_GetItem(entry, 1) != Py_True) return 0;
    PyObject *rules = PyTuple_GetItem(entry, 0), *before = PyDict_GetItemWithError(tally, rules);
    if (before == NULL && PyErr_Occurred()) return -1;
    Py_ssize_t times = before == NULL ? 0 : PyLong_AsSsize_t(before);
    PyObject *after = times == -1 && PyErr_Occurred() ? NULL : PyLong_FromSsize_t(times + 1);
    int failed = after == NULL || PyDict_SetItem(tally, rules, after) < 0;
    Py_XDECREF(after);
    return failed ? -1 : 1;
}

/* (start, end, hit, entry); of a line whose rules are known, where these are asked for: (start, end, rules, True, None).
   Takes over hit and entry. */
static PyObject *new_line(size_t start, size_t end, PyObject *hit, PyObject *entry, int gives_judged) {
    int is_judged = gives_judged && entry != Py_None && PyTuple_GetItem(entry, 1) == Py_True;
    PyObject *first = PyLong_FromSize_t(start), *second = PyLong_FromSize_t(end);
    PyObject *line = first == NULL || second == NULL ? NULL : PyTuple_New(is_judged ? 5 : 4);
    if (line == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        Py_DECREF(hit);
        Py_DECREF(entry);
        return NULL;
    }
    PyTuple_SetItem(line, 0, first);
    PyTuple_SetItem(line, 1, second);
    if (!is_judged) {
        PyTuple_SetItem(line, 2, hit);
        PyTuple_SetItem(line, 3, entry);
        return line;
    }
    PyTuple_SetItem(line, 2, Py_NewRef(PyTuple_GetItem(entry, 0)));
    PyTuple_SetItem(line, 3, Py_NewRef(Py_True));
    PyTuple_SetItem(line, 4, Py_NewRef(Py_None));
    Py_DECREF(hit);
    Py_DECREF(entry);
    return line;
}

/* Appends each line that holds a hit and may match, unless it is counted; the number of those that do not match, or -1. */
static Py_ssize_t append_lines(Hits *self, size_t count, PyObject *lines, const uint8_t *data, size_t size,
                               PyObject *known, PyObject *tally, int gives_judged) {
    const uint64_t *found = self->found;
    Py_ssize_t dismissed = 0;
    size_t i = 0, end = 0;
    while (i < count) {
        size_t stop = (size_t)(found[i] >> SHIFT);
        size_t start = line_start(data, end, stop - 1);
        const uint8_t *feed = memchr(data + stop - 1, '\n', size - (stop - 1));
        end = feed ? (size_t)(feed - data) + 1 : size;
        size_t first = i;
        while (i < count && found[i] >> SHIFT <= end) i++;
        PyObject *hit = hit_of(self, found + first, i - first);
        if (hit == NULL) return -1;
        PyObject *entry = entry_of(known, hit, data + start, end - start);
        if (entry == NULL || is_dismissed(entry)) {
            Py_DECREF(hit);
            if (entry == NULL) return -1;
            Py_DECREF(entry);
            dismissed++;
            continue;
        }
        int told = is_told(tally, entry);
        if (told) {
            Py_DECREF(hit);
            Py_DECREF(entry);
            if (told < 0) return -1;
            continue;
        }
        PyObject *line = new_line(start, end, hit, entry, gives_judged);
        if (line == NULL) return -1;
        int failed = PyList_Append(lines, line);
        Py_DECREF(line);
        if (failed < 0) return -1;
    }
    return dismissed;
}

static PyObject *hits_lines(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    Hits *self = (Hits *)object;
    PyObject *tally = count >= 4 && args[3] != Py_None ? args[3] : NULL;
    int gives_judged = count == 5 && PyObject_IsTrue(args[4]) == 1;
    if (count < 3 || count > 5 || !PyDict_Check(args[2]) || (tally != NULL && !PyDict_Check(tally)))
        return PyErr_Format(PyExc_TypeError, "lines takes data, weights, a dict, another one or None, and a bool");
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
    Py_ssize_t dismissed = 0;
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
    else if ((lines = PyList_New(0)) != NULL &&
             (dismissed = append_lines(self, found, lines, data.buf, (size_t)data.len, args[2], tally,
                                       gives_judged)) >= 0)
        result = Py_BuildValue("(OKn)", lines, (unsigned long long)work, dismissed);
    Py_XDECREF(lines);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&data);
    return result;
}

static void hits_free(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    Hits *self = (Hits *)object;
    free(self->found);
    for (size_t i = 0; self->made != NULL && i < SLOTS; i++) Py_XDECREF(self->made[i].hit);
    free(self->made);
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

PyType_Spec hits_spec = {
    .name = "breachwatch.model._native.Hits",
    .basicsize = sizeof(Hits),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = hits_slots,
};
