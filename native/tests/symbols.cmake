# Checks symbols with nm: see CMakeLists.txt for the arguments.
#   - each kernel level's object file exports one symbol, rwkv_kernels_<level>
#   - the shared library exports every function that the header declares, and nothing else

# The names of the symbols that a file defines and shows to others.
function(exported_symbols file options result)
  execute_process(COMMAND ${NM} ${options} ${file}
    OUTPUT_VARIABLE lines RESULT_VARIABLE failed ERROR_VARIABLE error)
  if(failed)
    message(FATAL_ERROR "${NM} ${file}: ${error}")
  endif()
  # "0000000000001234 T name" for each; of macOS, the name begins with one more underscore.
  string(REGEX MATCHALL "[0-9a-fA-F]+ [A-Za-z] [^\n]+" lines "${lines}")
  list(TRANSFORM lines REPLACE "^[0-9a-fA-F]+ [A-Za-z] " "")
  if(APPLE)
    list(TRANSFORM lines REPLACE "^_" "")
  endif()
  list(SORT lines)
  set(${result} "${lines}" PARENT_SCOPE)
endfunction()

set(levels 0)
foreach(object IN LISTS OBJECTS)
  # kernels/<level>.c; block_type.c, panel16.c and columns.c are what levels share, for every processor.
  if(NOT object MATCHES "/kernels/([a-z0-9_]+)\\.c\\.[a-z]+$")
    continue()
  endif()
  set(level ${CMAKE_MATCH_1})
  if(level MATCHES "^(block_type|panel16|columns)$")
    continue()
  endif()
  math(EXPR levels "${levels} + 1")
  exported_symbols(${object} "-g;--defined-only" symbols)
  if(NOT symbols STREQUAL "rwkv_kernels_${level}")
    message(SEND_ERROR "${object}: expected to export rwkv_kernels_${level} alone, got: ${symbols}")
  endif()
endforeach()
if(levels LESS 1)
  message(SEND_ERROR "expected object files of kernel levels, got: ${OBJECTS}")
endif()

file(READ ${HEADER} text)
string(REGEX REPLACE "/\\*([^*]|\\*+[^*/])*\\*+/" "" text "${text}") # comments
string(REGEX MATCHALL "${MACRO}[^;(]*[ *\n]rwkv_[a-z0-9_]+\\(" declared "${text}")
list(TRANSFORM declared REPLACE "^.*[ *\n](rwkv_[a-z0-9_]+)\\($" "\\1")
list(SORT declared)
list(LENGTH declared n_declared)
if(n_declared LESS 19)
  message(SEND_ERROR "${HEADER}: expected the C API, found the functions ${declared}")
endif()

exported_symbols(${LIBRARY} "-D;-g;--defined-only" exported)
set(missing ${declared})
list(REMOVE_ITEM missing ${exported})
set(surplus ${exported})
list(REMOVE_ITEM surplus ${declared})
if(missing)
  message(SEND_ERROR "${LIBRARY}: declared in the header and not exported: ${missing}")
endif()
if(surplus)
  message(SEND_ERROR "${LIBRARY}: exported and not declared in the header: ${surplus}")
endif()
message(STATUS "${levels} kernel levels, ${n_declared} functions")
