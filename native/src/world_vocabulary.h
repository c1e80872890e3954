/* The text of data/rwkv_vocab_v20230424.txt, in the library itself: a program finds it wherever the
 * library is, linked as it may be. */
#ifndef RWKV_WORLD_VOCABULARY_H
#define RWKV_WORLD_VOCABULARY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

extern const char rwkv_world_vocabulary[];
size_t rwkv_world_vocabulary_size(void);

#ifdef __cplusplus
}
#endif

#endif /* RWKV_WORLD_VOCABULARY_H */
