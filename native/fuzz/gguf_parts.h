// Several GGUF files in one input.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

// The pieces that begin with "GGUF", at most `most`; what comes before the first belongs to it.
inline std::vector<std::string_view> gguf_parts(std::string_view bytes, size_t most) {
    std::vector<std::string_view> parts;
    while (parts.size() + 1 < most) {
        const size_t next = bytes.find("GGUF", std::min<size_t>(4, bytes.size()));
        if (next == std::string_view::npos) break;
        parts.push_back(bytes.substr(0, next));
        bytes.remove_prefix(next);
    }
    parts.push_back(bytes);
    return parts;
}
