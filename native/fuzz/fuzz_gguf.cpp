// Any bytes as a GGUF file, changed where its structure is.
#include "memory_file.h"
#include "open_bytes.h"

void run_input(const uint8_t* data, size_t size) {
    const MemoryFile file(data, size);
    open_and_use(file.path());
}
