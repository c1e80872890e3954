// Changes GGUF files where their structure is, for libFuzzer.
#pragma once

#include <cstddef>
#include <cstdint>

// libFuzzer's LLVMFuzzerCustomMutator for one file.
size_t mutate_gguf(uint8_t* data, size_t size, size_t most, unsigned seed);

// The same for a byte and several files, one of which is changed.
size_t mutate_gguf_parts(uint8_t* data, size_t size, size_t most, unsigned seed);
