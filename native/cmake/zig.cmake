# Cross-compiles by the clang of zig, which brings the headers and libraries of Windows, macOS and of Linux's C
# libraries, old and new: PyPI's package ziglang. RWKV_ZIG_TARGET says for what, as in
#     cmake -S native -B build/windows --toolchain cmake/zig.cmake -D RWKV_ZIG_TARGET=x86_64-windows-gnu
# Programs for Windows are run by wine, if it is there: Debian's package wine64.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES RWKV_ZIG_TARGET RWKV_ZIG_TOOLS)
if(NOT "${RWKV_ZIG_TARGET}" MATCHES "^(x86_64|aarch64)-(windows|macos|linux)")
  message(FATAL_ERROR "RWKV_ZIG_TARGET: expected something like x86_64-windows-gnu, aarch64-macos or "
    "x86_64-linux-gnu.2.17, got '${RWKV_ZIG_TARGET}'")
endif()
set(CMAKE_SYSTEM_PROCESSOR ${CMAKE_MATCH_1})
if(CMAKE_MATCH_2 STREQUAL "windows")
  set(CMAKE_SYSTEM_NAME Windows)
elseif(CMAKE_MATCH_2 STREQUAL "macos")
  set(CMAKE_SYSTEM_NAME Darwin)
  set(CMAKE_INSTALL_NAME_TOOL true)  # which CMake asks for, and then has nothing to do with
else()
  set(CMAKE_SYSTEM_NAME Linux)
endif()

# CMake wants compilers and archivers that are one program each.
if(NOT RWKV_ZIG_TOOLS)
  execute_process(
    COMMAND python3 -c "import ziglang; print(ziglang.__path__[0] + '/zig')"
    OUTPUT_VARIABLE zig OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_VARIABLE why)
  if(NOT EXISTS "${zig}")
    message(FATAL_ERROR "zig: expected python3 to have the package ziglang: ${why}. Try pip install ziglang")
  endif()
  set(RWKV_ZIG_TOOLS ${CMAKE_BINARY_DIR}/zig-tools)
  # Without names for a debugger, among which are the folders of this machine. zig compiles its C++ library for
  # the first program that is linked, with and without these, so every program says the same, those by which CMake
  # gets to know the compiler, too. These are not optimised, which to zig means checks of undefined behaviour.
  set(options "-target ${RWKV_ZIG_TARGET} -s -fno-sanitize=undefined")
  foreach(tool IN ITEMS "cc ${options}" "c++ ${options}" ar ranlib)
    string(REGEX MATCH "^[^ ]+" name ${tool})
    set(script ${RWKV_ZIG_TOOLS}/${name})
    file(CONFIGURE OUTPUT ${script} CONTENT "#!/bin/sh\nexec '${zig}' ${tool} \"$@\"\n" @ONLY)
    file(CHMOD ${script} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
      WORLD_READ WORLD_EXECUTE)
  endforeach()
endif()
set(CMAKE_C_COMPILER ${RWKV_ZIG_TOOLS}/cc)
set(CMAKE_CXX_COMPILER ${RWKV_ZIG_TOOLS}/c++)
set(CMAKE_AR ${RWKV_ZIG_TOOLS}/ar CACHE FILEPATH "")
set(CMAKE_RANLIB ${RWKV_ZIG_TOOLS}/ranlib CACHE FILEPATH "")

if(CMAKE_SYSTEM_NAME STREQUAL "Windows")
  find_program(RWKV_WINE NAMES wine64 wine HINTS /usr/lib/wine)
  if(RWKV_WINE)  # with a folder of its own for what stands for the disk of a Windows
    set(CMAKE_CROSSCOMPILING_EMULATOR env WINEDEBUG=-all WINEPREFIX=${CMAKE_BINARY_DIR}/wine ${RWKV_WINE})
  endif()
endif()
set(RWKV_DOTPROD_OPTION -mcpu=generic+v8_2a+dotprod)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
