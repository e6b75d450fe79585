/* Where some bytes first stand in others. */

#include "native.h"

#ifdef __SSE2__

#include <emmintrin.h>

enum { PLACES = 16 };

/* The first place among PLACES from `at` on, of which the last has `size` bytes behind it; NULL if there is none. */
static inline const uint8_t *find_here(const uint8_t *at, const uint8_t *wanted, size_t size, __m128i first, __m128i last) {
    __m128i begins = _mm_cmpeq_epi8(first, _mm_loadu_si128((const __m128i *)at));
    __m128i ends = _mm_cmpeq_epi8(last, _mm_loadu_si128((const __m128i *)(at + size - 1)));
    unsigned both = (unsigned)_mm_movemask_epi8(_mm_and_si128(begins, ends));
    for (; both; both &= both - 1) {
        const uint8_t *place = at + __builtin_ctz(both);
        if (memcmp(place, wanted, size) == 0) return place;
    }
    return NULL;
}

/* The first place of `wanted`, or NULL. Places are compared by their first and last byte, many at a time: on what rules
   look for in lines of logs that is several times as fast as memmem. */
const uint8_t *find_bytes(const uint8_t *at, const uint8_t *end, const uint8_t *wanted, size_t size) {
    size_t places = (size_t)(end - at) - size + 1;
    if (size < 2 || (size_t)(end - at) < size || places < PLACES) return memmem(at, (size_t)(end - at), wanted, size);
    __m128i first = _mm_set1_epi8((char)wanted[0]), last = _mm_set1_epi8((char)wanted[size - 1]);
    const uint8_t *behind = at + places, *found;
    for (; behind - at >= PLACES; at += PLACES)
        if ((found = find_here(at, wanted, size, first, last)) != NULL) return found;
    return at == behind ? NULL : find_here(behind - PLACES, wanted, size, first, last); /* some were looked at before */
}

#else

const uint8_t *find_bytes(const uint8_t *at, const uint8_t *end, const uint8_t *wanted, size_t size) {
    return memmem(at, (size_t)(end - at), wanted, size);
}

#endif
