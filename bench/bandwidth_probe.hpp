// SPDX-License-Identifier: Apache-2.0
/// @file
/// How fast this machine reads and writes, over the same bytes and in the same run as what is measured.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush::bench {

/// Reads `in_bytes` and writes `out_bytes`, spread evenly, with as little arithmetic as possible: the limit for a
/// kernel that turns codes into distances. One of the two is a multiple of the other, give or take a line.
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
/// No division and no counter of bytes in the loops: either would be slower than the memory it measures.
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
    const std::byte* const in_end = in + in_lines * line;
    const std::byte* const out_end = out + out_lines * line;
    const std::size_t step = out_lines == 0 ? 0 : in_lines / out_lines * line;
    if (step >= 4 * line) {
        for (; out < out_end; out += line) {
            const std::byte* const end = in + step;
            for (; in + 4 * line <= end; in += 4 * line) {
                a = _mm512_xor_si512(a, _mm512_loadu_si512(in));
                b = _mm512_xor_si512(b, _mm512_loadu_si512(in + line));
                c = _mm512_xor_si512(c, _mm512_loadu_si512(in + 2 * line));
                d = _mm512_xor_si512(d, _mm512_loadu_si512(in + 3 * line));
            }
            for (; in < end; in += line) {
                a = _mm512_xor_si512(a, _mm512_loadu_si512(in));
            }
            _mm512_storeu_si512(out, a);
        }
    } else if (step == 2 * line) {
        for (; out + 2 * line <= out_end; out += 2 * line, in += 4 * line) {
            a = _mm512_xor_si512(a, _mm512_loadu_si512(in));
            b = _mm512_xor_si512(b, _mm512_loadu_si512(in + line));
            _mm512_storeu_si512(out, a);
            c = _mm512_xor_si512(c, _mm512_loadu_si512(in + 2 * line));
            d = _mm512_xor_si512(d, _mm512_loadu_si512(in + 3 * line));
            _mm512_storeu_si512(out + line, c);
        }
    } else {
        const std::size_t writes = in_lines == 0 ? 0 : out_lines / in_lines;
        for (; writes > 0 && in + 2 * line <= in_end; in += 2 * line) {
            a = _mm512_xor_si512(a, _mm512_loadu_si512(in));
            b = _mm512_xor_si512(b, _mm512_loadu_si512(in + line));
            _mm512_storeu_si512(out, a);
            _mm512_storeu_si512(out + line, b);
            out += 2 * line;
            for (std::size_t i = 1; i < writes; ++i, out += 2 * line) {
                _mm512_storeu_si512(out, a);
                _mm512_storeu_si512(out + line, b);
            }
        }
    }
    for (; in < in_end; in += line) {
        a = _mm512_xor_si512(a, _mm512_loadu_si512(in));
    }
    for (; out < out_end; out += line) {
        _mm512_storeu_si512(out, a);
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
