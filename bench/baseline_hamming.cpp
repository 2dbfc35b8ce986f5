// SPDX-License-Identifier: Apache-2.0
#include "baseline_hamming.hpp"

namespace kvcrush::bench {

void naive_hamming_8(const std::uint8_t* query,
                     const std::uint8_t* codes,
                     std::size_t count,
                     std::uint16_t* out) {
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = static_cast<std::uint16_t>(
            __builtin_popcount(static_cast<unsigned>(codes[i] ^ *query)));
    }
}

void naive_hamming_16(const std::uint16_t* query,
                      const std::uint16_t* codes,
                      std::size_t count,
                      std::uint16_t* out) {
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = static_cast<std::uint16_t>(
            __builtin_popcount(static_cast<unsigned>(codes[i] ^ *query)));
    }
}

void naive_hamming_32(const std::uint32_t* query,
                      const std::uint32_t* codes,
                      std::size_t count,
                      std::uint16_t* out) {
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = static_cast<std::uint16_t>(__builtin_popcount(codes[i] ^ *query));
    }
}

void naive_hamming_64(const std::uint64_t* query,
                      std::size_t words,
                      const std::uint64_t* codes,
                      std::size_t count,
                      std::uint16_t* out) {
    for (std::size_t i = 0; i < count; ++i) {
        int distance = 0;
        for (std::size_t w = 0; w < words; ++w) {
            distance += __builtin_popcountll(codes[i * words + w] ^ query[w]);
        }
        out[i] = static_cast<std::uint16_t>(distance);
    }
}

} // namespace kvcrush::bench
