/* Arguments and file names in UTF-8, as the library takes them, on Windows too: there main() and fopen() have
 * them in a code page that lacks most letters, and files in folders that are deep are not found. */
#ifndef UTF8_H
#define UTF8_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <windows.h>
/* after it */
#include <shellapi.h>

/* The program's arguments, NULL if there is no memory for them. */
static char** utf8_arguments(int argc, char** argv) {
    int n = 0;
    wchar_t** const wide = CommandLineToArgvW(GetCommandLineW(), &n);
    char** const out = wide == NULL || n != argc ? NULL : calloc((size_t)argc + 1, sizeof *out);
    (void)argv;
    for (int i = 0; out != NULL && i < argc; ++i) {
        const int n_bytes = WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, NULL, 0, NULL, NULL);
        out[i] = malloc((size_t)n_bytes);
        if (out[i] == NULL) return NULL;
        WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, out[i], n_bytes, NULL, NULL);
    }
    LocalFree(wide);
    return out;
}

static FILE* utf8_fopen(const char* path, const char* mode) {
    enum { LONGEST = 32768, PREFIX = 4 };
    static wchar_t wide[LONGEST];
    static wchar_t full[PREFIX + LONGEST];
    wchar_t wide_mode[8];
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, LONGEST) == 0 ||
        MultiByteToWideChar(CP_UTF8, 0, mode, -1, wide_mode, 8) == 0 ||
        GetFullPathNameW(wide, LONGEST, full + PREFIX, NULL) == 0) {
        errno = ENOENT;
        return NULL;
    }
    if (full[PREFIX] == L'\\') return _wfopen(full + PREFIX, wide_mode); /* a share, or a device */
    memcpy(full, L"\\\\?\\", PREFIX * sizeof *full); /* what allows more than 260 characters */
    return _wfopen(full, wide_mode);
}

#else

static char** utf8_arguments(int argc, char** argv) {
    (void)argc;
    return argv;
}

static FILE* utf8_fopen(const char* path, const char* mode) { return fopen(path, mode); }

#endif

#endif /* UTF8_H */
