// Any bytes as a ggmf file (or as any other: the first bytes choose the reader).
#include "memory_file.h"
#include "open_bytes.h"

void run_input(const uint8_t* data, size_t size) {
    const MemoryFile file(data, size);
    open_and_use(file.path());
}
