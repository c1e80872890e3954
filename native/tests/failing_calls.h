// Lets chosen calls of the library fail: its allocations, and the system calls that CMakeLists.txt
// wraps (the linker's --wrap). The n-th call from arm(n) on fails, once.
#pragma once

#include <cstddef>

namespace failing {

// Which calls count.
enum Calls : unsigned {
    kMemory = 1,     // operator new, mmap
    kReading = 2,    // open, fstat, pread
    kWriting = 4,    // open, openat, write, fsync, close, renameat
    kShrinking = 8,  // pread, which finds the end of the file
    kChanging = 16,  // pread, which succeeds and finds other bytes
};

// From now on the n-th of these calls (1: the next) fails; 0: none does, they are only counted.
void arm(unsigned calls, size_t n) noexcept;

// Ends it, and returns how many of them there were.
size_t disarm() noexcept;

// What is open and mapped by the library now: to see that nothing is left.
size_t mapped_bytes() noexcept;
size_t open_files() noexcept;

// The order of calls that put a file in its place: 's' fsync, 'r' rename; since arm().
const char* order_of_writes() noexcept;

}  // namespace failing
