// Counts the memory that a program holds: operator new and delete, and mmap and munmap, which CMake wraps
// (the linker's --wrap). What asks for more than it was allowed ends the program.
#pragma once

#include <cstddef>

namespace bounded {

// From now on no more than n bytes may be held beyond what is held now.
void allow(size_t n) noexcept;

// Ends that, and returns the most that was held beyond it.
size_t most_held() noexcept;

}  // namespace bounded
