// SPDX-License-Identifier: Apache-2.0
/// @file
/// How fast this machine reads and writes, over the same bytes and in the same run as what is measured.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <cstdint>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush::bench {

/// Reads `in_bytes` and writes `out_bytes`, spread evenly, with as little arithmetic as possible: the limit for a
/// kernel that turns codes into distances.
inline std::uint64_t probe_read_write_scalar(const std::byte* in,
                                             std::size_t in_bytes,
                                             std::byte* out,
                                             std::size_t out_bytes) {
    const auto* words = reinterpret_cast<const std::uint64_t*>(in);
    auto* results = reinterpret_cast<std::uint64_t*>(out);
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < in_bytes / 8; ++i) {
        sum ^= words[i];
    }
    for (std::size_t i = 0; i < out_bytes / 8; ++i) {
        results[i] = sum;
    }
    return sum;
}

#if KVCRUSH_X86_DISPATCH
KVCRUSH_TARGET_AVX512 inline std::uint64_t probe_read_write_avx512(const std::byte* in,
                                                                   std::size_t in_bytes,
                                                                   std::byte* out,
                                                                   std::size_t out_bytes) {
    constexpr std::size_t line = 64;
    const std::size_t in_lines = in_bytes / line;
    const std::size_t out_lines = out_bytes / line;
    __m512i a = _mm512_setzero_si512();
    __m512i b = _mm512_setzero_si512();
    __m512i c = _mm512_setzero_si512();
    __m512i d = _mm512_setzero_si512();
    std::size_t written = 0;
    // Four lines are read per step; the lines to write follow in proportion.
    const std::size_t steps = in_lines / 4;
    for (std::size_t i = 0; i < steps; ++i) {
        const std::byte* from = in + i * 4 * line;
        a = _mm512_xor_si512(a, _mm512_loadu_si512(from));
        b = _mm512_xor_si512(b, _mm512_loadu_si512(from + line));
        c = _mm512_xor_si512(c, _mm512_loadu_si512(from + 2 * line));
        d = _mm512_xor_si512(d, _mm512_loadu_si512(from + 3 * line));
        for (const std::size_t due = (i + 1) * out_lines / steps; written < due; ++written) {
            _mm512_storeu_si512(out + written * line, a);
        }
    }
    a = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
    alignas(64) std::uint64_t lanes[8];
    _mm512_store_si512(lanes, a);
    return lanes[0] ^ lanes[7];
}
#endif

inline std::uint64_t
probe_read_write(const std::byte* in, std::size_t in_bytes, std::byte* out, std::size_t out_bytes) {
#if KVCRUSH_X86_DISPATCH
    if (simd::best() == simd::isa::avx512) {
        return probe_read_write_avx512(in, in_bytes, out, out_bytes);
    }
#endif
    return probe_read_write_scalar(in, in_bytes, out, out_bytes);
}

} // namespace kvcrush::bench
