/* What the languages leave to compilers, as GCC, Clang and clang-cl have it. C and C++. */
#ifndef RWKV_COMPILER_H
#define RWKV_COMPILER_H

/* A function that becomes a part of each that calls it: kernels are written once for several types
 * and shapes, which are constants where they are called. */
#define INLINE static inline __attribute__((always_inline))

/* For loops over the rows of a tile, whose sums are to stay in registers. */
#define UNROLL _Pragma("GCC unroll 16")

/* The arguments of the function are compared with its pattern, as printf's: which of them that is,
 * and which is the first to compare. The build says so where a compiler's printf is not ours. */
#if !defined(RWKV_PRINTF)
#define RWKV_PRINTF printf
#endif
#define RWKV_LIKE_PRINTF(pattern, first) __attribute__((format(RWKV_PRINTF, pattern, first)))

#ifdef __cplusplus
namespace rwkv {

// The product of two numbers; false if it is not one of their type, and then *product is nothing.
template <class Integer>
[[nodiscard]] inline bool multiply(Integer a, Integer b, Integer* product) noexcept {
    return !__builtin_mul_overflow(a, b, product);
}

// For a loop that waits for another thread: the core's other hardware thread goes first.
inline void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

}  // namespace rwkv
#endif

#endif /* RWKV_COMPILER_H */
