#include "world_vocabulary.h"

#include <stdint.h>

/* The assembler takes the file as it is: as C text it would be several times as large, and slow to
 * compile. RWKV_WORLD_FILE is its path, from CMakeLists.txt. */
#if defined(__APPLE__)
#define SECTION ".section __TEXT,__const\n"
#define SYMBOL(name) "_" #name
#define HIDDEN ".private_extern "
#elif defined(_WIN32)
#define SECTION ".section .rdata,\"dr\"\n"
#define SYMBOL(name) #name
#define HIDDEN "# "
#else
#define SECTION ".section .rodata,\"a\"\n"
#define SYMBOL(name) #name
#define HIDDEN ".hidden "
#endif

#define BEGIN SYMBOL(rwkv_world_vocabulary)
#define END SYMBOL(rwkv_world_vocabulary_end)

__asm__(SECTION ".globl " BEGIN "\n" HIDDEN BEGIN "\n" BEGIN
                ":\n"
                ".incbin \"" RWKV_WORLD_FILE
                "\"\n"
                ".globl " END "\n" HIDDEN END "\n" END
                ":\n"
                ".byte 0\n"
                ".text\n");

extern const char rwkv_world_vocabulary_end[];

size_t rwkv_world_vocabulary_size(void) {
    /* Two symbols of one section: no array that C knows of. */
    return (size_t)((uintptr_t)rwkv_world_vocabulary_end - (uintptr_t)rwkv_world_vocabulary);
}
