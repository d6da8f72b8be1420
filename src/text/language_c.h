/* The C interface of the Rust library in rust/: language identification. Used by language.cc alone. Any number of
 * threads may call these functions. */
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  char code[4]; /* ISO 639-1 in lower case, with a terminator */
  double probability;
} saif_language;

/* Both write at most `capacity` languages to `out` and return how many, or -1 when the library failed inside. */

/* Those in which the text may be, most probable first; the probabilities sum to 1. None for a text without letters, or
 * in a script that no known language uses. Bytes that are not UTF-8 count as no letters. */
int saif_language_identify(const char* text, size_t size, saif_language* out, size_t capacity);

/* All that are known, by code; their probabilities are 0. */
int saif_language_known(saif_language* out, size_t capacity);

#ifdef __cplusplus
}
#endif
