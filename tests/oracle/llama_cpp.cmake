# How `hatch run llama:test` compiles llama.cpp: for minutes of one job, not for speed.
#
# CMake reads it at the beginning of llama-cpp-python's own project (CMAKE_PROJECT_llama_cpp_INCLUDE),
# so that these variables come before its options. Only the library is built, without AMX, whose path
# crashes on quantised RWKV-7 prompts, and without what packs weights anew or uses OpenMP.

set(LLAMA_BUILD_COMMON OFF)
set(LLAVA_BUILD OFF)
set(LLAMA_OPENSSL OFF)
set(LLAMA_ALL_WARNINGS OFF)
set(GGML_ALL_WARNINGS OFF)
set(GGML_NATIVE OFF)
set(GGML_OPENMP OFF)
set(GGML_LLAMAFILE OFF)
set(GGML_CPU_REPACK OFF)
if(CMAKE_HOST_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  foreach(feature AVX AVX2 FMA F16C BMI2)
    set(GGML_${feature} ON)
  endforeach()
endif()

# The kernels are C, and optimised a little; the rest only builds graphs.
set(CMAKE_BUILD_TYPE Release)
set(CMAKE_C_FLAGS_RELEASE "-O1 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELEASE "-O0 -DNDEBUG")
