/* What is in a block: one pass that counts lines and sees what else there is. */

#include "native.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

enum { WIDTH = 32, ROUNDS = 255 /* a lane counts that far */ };
enum { ODD = 1, RECORD = 2, BACKSLASH = 4, OTHER = 8 }; /* the same in passes.py */

typedef uint8_t lanes __attribute__((vector_size(WIDTH)));
typedef int8_t signs __attribute__((vector_size(WIDTH)));

/* What the first byte of a line says. */
static int first_byte(uint8_t byte) {
    return byte == '{' ? RECORD : byte <= 0x20 || byte >= 0x80 ? RECORD | OTHER : OTHER;
}

/* Line feeds; adds to `flags` what else was seen. `size` is not 0. */
FOR_EACH_PROCESSOR static uint64_t survey_bytes(const uint8_t *data, size_t size, int *flags) {
    uint64_t feeds = 0;
    lanes odd = {0}, record = {0}, backslash = {0}, other = {0};
    size_t at = 0, rounds = (size - 1) / WIDTH; /* the byte behind each lane is read too */
    while (rounds) {
        size_t some = rounds < ROUNDS ? rounds : ROUNDS;
        rounds -= some;
        lanes count = {0};
        for (size_t i = 0; i < some; i++, at += WIDTH) {
            lanes here, next;
            memcpy(&here, data + at, WIDTH);
            memcpy(&next, data + at + 1, WIDTH);
            lanes feed = (lanes)(here == '\n');
            count -= feed;
            odd |= (lanes)((signs)here <= 0); /* NUL, and from 0x80 on */
            backslash |= (lanes)(here == '\\');
            lanes brace = (lanes)(next == '{');
            record |= feed & (brace | (lanes)((signs)next <= 0x20)); /* from 0x80 on too */
            other |= feed & ~brace;
        }
        for (int i = 0; i < WIDTH; i++) feeds += count[i];
    }
    int seen = first_byte(data[0]);
    for (int i = 0; i < WIDTH; i++)
        seen |= (odd[i] ? ODD : 0) | (record[i] ? RECORD : 0) | (backslash[i] ? BACKSLASH : 0) |
                (other[i] ? OTHER : 0);
    for (; at < size; at++) {
        uint8_t byte = data[at];
        if (byte == '\n') {
            feeds++;
            if (at + 1 < size) seen |= first_byte(data[at + 1]);
        }
        seen |= (byte == 0 || byte >= 0x80 ? ODD : 0) | (byte == '\\' ? BACKSLASH : 0);
    }
    *flags |= seen;
    return feeds;
}

PyObject *survey(PyObject *module, PyObject *arg) {
    (void)module;
    Py_buffer data;
    if (PyObject_GetBuffer(arg, &data, PyBUF_SIMPLE) < 0) return NULL;
    int flags = 0;
    uint64_t feeds = data.len ? survey_bytes(data.buf, (size_t)data.len, &flags) : 0;
    PyBuffer_Release(&data);
    return Py_BuildValue("Ki", (unsigned long long)feeds, flags);
}
