// Bytes as a source of choices: which call, which object, which number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

class Program {
  public:
    Program(const uint8_t* data, size_t size) : at_(data), left_(size) {}

    bool ended() const { return left_ == 0; }

    uint8_t byte() {
        if (left_ == 0) return 0;
        --left_;
        return *at_++;
    }
    size_t below(size_t n) { return byte() % n; }

    template <class Number>
    Number raw() {
        uint8_t bytes[sizeof(Number)];
        for (uint8_t& b : bytes) b = byte();
        Number number;
        std::memcpy(&number, bytes, sizeof number);
        return number;
    }

    // Mostly sensible ones.
    double real() {
        constexpr double kInfinity = std::numeric_limits<double>::infinity();
        constexpr double kOdd[] = {0,
                                   1,
                                   0.5,
                                   0.85,
                                   2,
                                   1e-7,
                                   1e6,
                                   1000,
                                   5e-324,
                                   1e300,
                                   -1,
                                   -0.0,
                                   -1e6,
                                   -kInfinity,
                                   kInfinity,
                                   -5e-324,
                                   std::numeric_limits<double>::quiet_NaN()};
        const size_t i = below(std::size(kOdd) + 2);
        if (i == std::size(kOdd)) return raw<double>();
        return i < std::size(kOdd) ? kOdd[i] : byte() / 255.0;
    }
    int32_t token(size_t n_vocab) {
        const uint8_t b = byte();
        if (b == 255) return raw<int32_t>();
        return b > 240 ? static_cast<int32_t>(n_vocab) : static_cast<int32_t>(b % n_vocab);
    }
    std::vector<int32_t> tokens(size_t n_vocab) {
        const uint8_t n = byte();
        std::vector<int32_t> result(n < 240 ? n % 8 : n / 3);
        for (int32_t& t : result) t = token(n_vocab);
        return result;
    }
    std::vector<float> floats(size_t n) {
        std::vector<float> result(n);
        const size_t n_odd = below(8);
        for (size_t i = 0; i < n_odd && n > 0; ++i) {
            result[byte() % n] = static_cast<float>(real());
        }
        return result;
    }
    std::string text() {
        std::string result(below(12), '\0');
        for (char& c : result) c = static_cast<char>(byte());
        return result;
    }

  private:
    const uint8_t* at_;
    size_t left_;
};
