/* The C interface of the Rust library in rust/: Hugging Face tokenizers and chat templates. Used by hf.cc alone.
 *
 * Functions that return int give 0, 1 (the input is at fault) or 2 (the library failed inside); other than 0, `error`
 * holds the reason and `out` is untouched. Texts are UTF-8 with a size and no terminator; what a function wrote to
 * `out` or `error` belongs to the caller until the matching free. A tokenizer is immutable: any number of threads may
 * use it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct saif_hf_tokenizer saif_hf_tokenizer;

typedef struct {
  char* data;
  size_t size;
} saif_hf_text;

typedef struct {
  uint32_t* ids;
  size_t* begin; /* byte range of the text behind each id; null without SAIF_HF_OFFSETS */
  size_t* end;
  size_t size;
} saif_hf_ids;

/* A text of noncharacters at which an encoding without SAIF_HF_PARSE_SPECIAL splits as at a special token. Its own id
 * means nothing; recognise it by its byte range. */
#define SAIF_HF_MARKER "\xF4\x8F\xBF\xBF\xF4\x8F\xBF\xBEsaif\xF4\x8F\xBF\xBE\xF4\x8F\xBF\xBF"

/* Flags of saif_hf_encode. */
#define SAIF_HF_ADD_SPECIAL 1u   /* run the post-processor: BOS and the like */
#define SAIF_HF_PARSE_SPECIAL 2u /* special tokens spelled in the text become those tokens */
#define SAIF_HF_OFFSETS 4u

/* json: the text of a tokenizer.json */
int saif_hf_new(const char* json, size_t size, saif_hf_tokenizer** out, saif_hf_text* error);
void saif_hf_free(saif_hf_tokenizer* tokenizer);

int saif_hf_encode(const saif_hf_tokenizer* tokenizer, const char* text, size_t size, uint32_t flags, saif_hf_ids* out,
                   saif_hf_text* error);
/* Ids without a token are left out. */
int saif_hf_decode(const saif_hf_tokenizer* tokenizer, const uint32_t* ids, size_t size, int skip_special,
                   saif_hf_text* out, saif_hf_text* error);
/* One above the largest id. */
uint32_t saif_hf_end(const saif_hf_tokenizer* tokenizer);
/* 1 and the token's text, or 0 where the id has none. */
int saif_hf_piece(const saif_hf_tokenizer* tokenizer, uint32_t id, saif_hf_text* out);
/* The id of a token's text, or -1. */
int64_t saif_hf_id(const saif_hf_tokenizer* tokenizer, const char* text, size_t size);
/* Records {u32 id, u32 special (0 or 1), u32 size, bytes} of the added tokens, native byte order. */
int saif_hf_added_tokens(const saif_hf_tokenizer* tokenizer, saif_hf_text* out, saif_hf_text* error);
/* The "decoder" of the tokenizer as JSON, or null. */
int saif_hf_decoder(const saif_hf_tokenizer* tokenizer, saif_hf_text* out, saif_hf_text* error);

/* context: a JSON object with the variables that the template sees */
int saif_hf_render(const char* chat_template, size_t template_size, const char* context, size_t context_size,
                   saif_hf_text* out, saif_hf_text* error);

void saif_hf_text_free(saif_hf_text* text);
void saif_hf_ids_free(saif_hf_ids* ids);

#ifdef __cplusplus
}
#endif
