// SPDX-License-Identifier: Apache-2.0
/// @file
/// The loop of native_hamming.cpp and popcnt_hamming.cpp. In an unnamed namespace: the two must not share a copy.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace kvcrush::bench {
namespace {

template <typename Code, std::size_t Words>
[[gnu::noinline]] void fixed_width_loop(const void* query_of,
                                        const void* codes_of,
                                        std::size_t count,
                                        std::uint16_t* __restrict out) {
    const auto* query = static_cast<const Code*>(query_of);
    const auto* codes = static_cast<const Code*>(codes_of);
    for (std::size_t i = 0; i < count; ++i) {
        unsigned distance = 0;
        for (std::size_t w = 0; w < Words; ++w) {
            const auto differing = static_cast<Code>(codes[i * Words + w] ^ query[w]);
            distance += static_cast<unsigned>(std::popcount(differing));
        }
        out[i] = static_cast<std::uint16_t>(distance);
    }
}

bool fixed_width(
    std::size_t bits, const void* query, const void* codes, std::size_t count, std::uint16_t* out) {
    switch (bits) {
    case 8: fixed_width_loop<std::uint8_t, 1>(query, codes, count, out); return true;
    case 16: fixed_width_loop<std::uint16_t, 1>(query, codes, count, out); return true;
    case 32: fixed_width_loop<std::uint32_t, 1>(query, codes, count, out); return true;
    case 64: fixed_width_loop<std::uint64_t, 1>(query, codes, count, out); return true;
    case 128: fixed_width_loop<std::uint64_t, 2>(query, codes, count, out); return true;
    case 192: fixed_width_loop<std::uint64_t, 3>(query, codes, count, out); return true;
    case 256: fixed_width_loop<std::uint64_t, 4>(query, codes, count, out); return true;
    case 320: fixed_width_loop<std::uint64_t, 5>(query, codes, count, out); return true;
    case 512: fixed_width_loop<std::uint64_t, 8>(query, codes, count, out); return true;
    case 576: fixed_width_loop<std::uint64_t, 9>(query, codes, count, out); return true;
    case 1024: fixed_width_loop<std::uint64_t, 16>(query, codes, count, out); return true;
    case 2048: fixed_width_loop<std::uint64_t, 32>(query, codes, count, out); return true;
    case 4096: fixed_width_loop<std::uint64_t, 64>(query, codes, count, out); return true;
    default: return false;
    }
}

} // namespace
} // namespace kvcrush::bench
