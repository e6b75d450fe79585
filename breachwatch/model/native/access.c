/* Access lines of the usual shape, in parts. */

#include "native.h"

enum { ADDRESS, USER, STAMP, METHOD, PATH, QUERY, VERSION, STATUS, SIZE, REFERRER, AGENT, REST, PARTS };

typedef struct {
    const char *at, *end;
} Text;

static int is_digit(char byte) { return byte >= '0' && byte <= '9'; }

/* Which bytes end a part. */
enum { OF_WORD = 1, OF_USER = 2, OF_STAMP = 4, OF_PATH = 8, OF_QUERY = 16, OF_QUOTED = 32 };
static const uint8_t ends[256] = {
    [' '] = OF_WORD | OF_USER | OF_PATH | OF_QUERY,
    ['"'] = OF_USER | OF_STAMP | OF_PATH | OF_QUERY | OF_QUOTED,
    ['\\'] = OF_PATH | OF_QUERY | OF_QUOTED,
    ['?'] = OF_PATH,
    [']'] = OF_STAMP,
};

/* Up to and without the first byte that ends it. */
static Text run(Text *rest, uint8_t kind) {
    Text found = {rest->at, rest->at};
    while (found.end < rest->end && !(ends[(uint8_t)*found.end] & kind)) found.end++;
    rest->at = found.end;
    return found;
}

static Text digits(Text *rest, size_t most) {
    Text found = {rest->at, rest->at};
    while (found.end < rest->end && (size_t)(found.end - found.at) < most && is_digit(*found.end)) found.end++;
    rest->at = found.end;
    return found;
}

static int take(Text *rest, const char *wanted) {
    size_t size = strlen(wanted);
    if ((size_t)(rest->end - rest->at) < size || memcmp(rest->at, wanted, size) != 0) return 0;
    rest->at += size;
    return 1;
}

static size_t length(Text text) { return (size_t)(text.end - text.at); }

static int number(const char *at, size_t count) {
    int value = 0;
    for (size_t i = 0; i < count; i++) {
        if (!is_digit(at[i])) return -1;
        value = 10 * value + (at[i] - '0');
    }
    return value;
}

/* `17/May/2015:10:05:03 +0000`, a time there is in every zone. */
static int is_stamp(Text stamp) {
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const char *at = stamp.at;
    if (length(stamp) != 20 && length(stamp) != 26) return 0;
    if (at[2] != '/' || at[6] != '/' || at[11] != ':' || at[14] != ':' || at[17] != ':') return 0;
    int month = 0;
    while (month < 12 && memcmp(months + 3 * month, at + 3, 3) != 0) month++;
    int day = number(at, 2), year = number(at + 7, 4), hour = number(at + 12, 2);
    if (month == 12 || day < 1 || year < 2 || year > 9998 || hour < 0 || hour > 23) return 0;
    int leap = month == 1 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day > days[month] + leap) return 0;
    int minute = number(at + 15, 2);
    if (minute < 0 || minute > 59 || number(at + 18, 2) < 0) return 0;
    return length(stamp) == 20 || (at[20] == ' ' && (at[21] == '+' || at[21] == '-') && number(at + 22, 4) >= 0);
}

/* Four numbers up to 255 without leading zeros. */
static int is_ipv4(Text text) {
    for (int i = 0; i < 4; i++) {
        if (i && !take(&text, ".")) return 0;
        Text octet = digits(&text, 3);
        if (!length(octet) || number(octet.at, length(octet)) > 255 || (length(octet) > 1 && *octet.at == '0')) return 0;
    }
    return text.at == text.end;
}

/* A name or an address of any kind, and no list of them. */
static int is_word(Text text) {
    for (const char *at = text.at; at < text.end; at++)
        if (!is_digit(*at) && !(*at >= 'A' && *at <= 'Z') && !(*at >= 'a' && *at <= 'z') && memchr(".:_-", *at, 4) == NULL)
            return 0;
    return 1;
}

/* The twin of `_PLAIN` in web.py, and of what `plain_parts` there asks of it. */
static int split_access(Text rest, Text *parts) {
    memset(parts, 0, PARTS * sizeof *parts);
    parts[ADDRESS] = run(&rest, OF_WORD);
    if (!length(parts[ADDRESS]) || !take(&rest, " - ")) return 0;
    parts[USER] = run(&rest, OF_USER);
    if (!length(parts[USER]) || !take(&rest, " [")) return 0;
    parts[STAMP] = run(&rest, OF_STAMP);
    if (!is_stamp(parts[STAMP]) || !take(&rest, "] \"")) return 0;
    parts[METHOD] = (Text){rest.at, rest.at};
    while (rest.at < rest.end && *rest.at >= 'A' && *rest.at <= 'Z' && length(parts[METHOD]) < 32)
        parts[METHOD].end = ++rest.at;
    if (!length(parts[METHOD]) || !take(&rest, " ") || rest.at == rest.end || *rest.at != '/') return 0;
    parts[PATH] = run(&rest, OF_PATH);
    if (take(&rest, "?")) parts[QUERY] = run(&rest, OF_QUERY);
    if (!take(&rest, " HTTP/")) return 0;
    parts[VERSION] = digits(&rest, 1);
    if (!length(parts[VERSION])) return 0;
    if (take(&rest, ".")) {
        if (!length(digits(&rest, 1))) return 0;
        parts[VERSION].end = rest.at;
    }
    if (!take(&rest, "\" ")) return 0;
    parts[STATUS] = digits(&rest, 3);
    if (length(parts[STATUS]) != 3 || !take(&rest, " ")) return 0;
    parts[SIZE] = digits(&rest, 18);
    if (!length(parts[SIZE])) {
        if (!take(&rest, "-")) return 0;
        parts[SIZE] = (Text){rest.at - 1, rest.at};
    }
    if (take(&rest, " \"")) {
        parts[REFERRER] = run(&rest, OF_QUOTED);
        if (!take(&rest, "\" \"")) return 0;
        parts[AGENT] = run(&rest, OF_QUOTED);
        if (!take(&rest, "\"")) return 0;
        if (rest.at < rest.end && *rest.at == ' ') {
            parts[REST] = rest;
            rest.at = rest.end;
        }
    }
    int is_nobody = length(parts[USER]) == 1 && *parts[USER].at == '-';
    return rest.at == rest.end && (is_ipv4(parts[ADDRESS]) || (is_nobody && is_word(parts[ADDRESS])));
}

/* Some parts of a line, by a mask: a new tuple; NULL without an error if it has another shape. */
PyObject *parts_of(const char *line, size_t size, unsigned long wanted) {
    Text parts[PARTS];
    if (memchr(line, 0, size) != NULL || !split_access((Text){line, line + size}, parts)) return NULL;
    Py_ssize_t many = 0;
    for (int i = 0; i < PARTS; i++) many += wanted >> i & 1;
    PyObject *found = PyTuple_New(many);
    for (int i = 0, place = 0; found != NULL && i < PARTS; i++) {
        if (!(wanted >> i & 1)) continue;
        PyObject *part = parts[i].at ? PyUnicode_DecodeUTF8(parts[i].at, (Py_ssize_t)length(parts[i]), NULL)
                                     : Py_NewRef(Py_None);
        if (part == NULL || PyTuple_SetItem(found, place++, part) < 0) Py_CLEAR(found);
    }
    return found;
}

PyObject *access_parts(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "access_parts takes 2 arguments, not %zd", count);
    unsigned long wanted = PyLong_AsUnsignedLong(args[1]);
    if (wanted == (unsigned long)-1 && PyErr_Occurred()) return NULL;
    Py_ssize_t size;
    const char *data = PyUnicode_AsUTF8AndSize(args[0], &size);
    if (data == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return NULL;
        PyErr_Clear(); /* half of a surrogate pair: no line of the usual shape */
        Py_RETURN_NONE;
    }
    PyObject *found = parts_of(data, (size_t)size, wanted);
    return found == NULL && !PyErr_Occurred() ? Py_NewRef(Py_None) : found;
}
