// What tests use of POSIX and Windows has under other names. Put before each of them: see CMakeLists.txt.
#pragma once

#include <direct.h>
#include <stdlib.h>

inline int setenv(const char* name, const char* value, int) { return _putenv_s(name, value); }
inline int unsetenv(const char* name) { return _putenv_s(name, ""); }
