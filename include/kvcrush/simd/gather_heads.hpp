// SPDX-License-Identifier: Apache-2.0
/// @file
/// From scores [tokens, heads] to rows of floats, one per head: eight heads of eight tokens are widened and
/// transposed in registers.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/detail/convert_avx.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <type_traits>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Heads that are cheapest to gather together.
inline constexpr std::size_t heads_gathered = 8;

/// Where gather_heads reads and writes; strides in elements.
template <Element T>
struct gather_heads_args {
    const T* scores;
    std::size_t head_stride;
    std::size_t token_stride;
    std::size_t num_heads;
    std::size_t num_tokens;
    float* rows;
    std::size_t row_stride;
};

namespace detail {

template <typename T>
inline void gather_some(const gather_heads_args<T>& args,
                        std::size_t first_head,
                        std::size_t first_token) noexcept {
    constexpr std::size_t block = 64; // its lines stay in L1 while the heads go by
    for (std::size_t begin = first_token; begin < args.num_tokens; begin += block) {
        const std::size_t end = args.num_tokens - begin < block ? args.num_tokens : begin + block;
        for (std::size_t h = first_head; h < args.num_heads; ++h) {
            for (std::size_t t = begin; t < end; ++t) {
                args.rows[h * args.row_stride + t] =
                    kvcrush::to_float(args.scores[h * args.head_stride + t * args.token_stride]);
            }
        }
    }
}

#if KVCRUSH_X86_DISPATCH

template <typename T>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 load_eight_avx2(const T* in) noexcept {
    if constexpr (std::is_same_v<T, float>) {
        return _mm256_loadu_ps(in);
    } else {
        return widen_avx2<T>(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
    }
}

template <typename T>
KVCRUSH_TARGET_AVX2 inline void gather_eight_avx2(const T* in,
                                                  std::size_t token_stride,
                                                  float* out,
                                                  std::size_t row_stride,
                                                  std::size_t num_tokens) noexcept {
    for (std::size_t t = 0; t + 8 <= num_tokens; t += 8, in += 8 * token_stride) {
        const __m256 r0 = load_eight_avx2(in);
        const __m256 r1 = load_eight_avx2(in + token_stride);
        const __m256 r2 = load_eight_avx2(in + 2 * token_stride);
        const __m256 r3 = load_eight_avx2(in + 3 * token_stride);
        const __m256 r4 = load_eight_avx2(in + 4 * token_stride);
        const __m256 r5 = load_eight_avx2(in + 5 * token_stride);
        const __m256 r6 = load_eight_avx2(in + 6 * token_stride);
        const __m256 r7 = load_eight_avx2(in + 7 * token_stride);
        const __m256 a0 = _mm256_unpacklo_ps(r0, r1);
        const __m256 a1 = _mm256_unpackhi_ps(r0, r1);
        const __m256 a2 = _mm256_unpacklo_ps(r2, r3);
        const __m256 a3 = _mm256_unpackhi_ps(r2, r3);
        const __m256 a4 = _mm256_unpacklo_ps(r4, r5);
        const __m256 a5 = _mm256_unpackhi_ps(r4, r5);
        const __m256 a6 = _mm256_unpacklo_ps(r6, r7);
        const __m256 a7 = _mm256_unpackhi_ps(r6, r7);
        const __m256 b0 = _mm256_shuffle_ps(a0, a2, 0x44);
        const __m256 b1 = _mm256_shuffle_ps(a0, a2, 0xEE);
        const __m256 b2 = _mm256_shuffle_ps(a1, a3, 0x44);
        const __m256 b3 = _mm256_shuffle_ps(a1, a3, 0xEE);
        const __m256 b4 = _mm256_shuffle_ps(a4, a6, 0x44);
        const __m256 b5 = _mm256_shuffle_ps(a4, a6, 0xEE);
        const __m256 b6 = _mm256_shuffle_ps(a5, a7, 0x44);
        const __m256 b7 = _mm256_shuffle_ps(a5, a7, 0xEE);
        _mm256_storeu_ps(out + t, _mm256_permute2f128_ps(b0, b4, 0x20));
        _mm256_storeu_ps(out + row_stride + t, _mm256_permute2f128_ps(b1, b5, 0x20));
        _mm256_storeu_ps(out + 2 * row_stride + t, _mm256_permute2f128_ps(b2, b6, 0x20));
        _mm256_storeu_ps(out + 3 * row_stride + t, _mm256_permute2f128_ps(b3, b7, 0x20));
        _mm256_storeu_ps(out + 4 * row_stride + t, _mm256_permute2f128_ps(b0, b4, 0x31));
        _mm256_storeu_ps(out + 5 * row_stride + t, _mm256_permute2f128_ps(b1, b5, 0x31));
        _mm256_storeu_ps(out + 6 * row_stride + t, _mm256_permute2f128_ps(b2, b6, 0x31));
        _mm256_storeu_ps(out + 7 * row_stride + t, _mm256_permute2f128_ps(b3, b7, 0x31));
    }
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// rows[h * row_stride + t] = scores[h * head_stride + t * token_stride], widened to float.
/// @note Fastest for a head_stride of 1 and multiples of heads_gathered heads. Row strides that are a multiple of 4 KB
///       make the rows fight for cache sets.
template <Element T>
void gather_heads(const gather_heads_args<T>& args, isa at_most = best()) noexcept {
    std::size_t head = 0;
#if KVCRUSH_X86_DISPATCH
    if (usable(at_most) >= isa::avx2 && args.head_stride == 1) {
        const std::size_t whole = args.num_tokens - args.num_tokens % 8;
        for (; head + heads_gathered <= args.num_heads && whole > 0; head += heads_gathered) {
            detail::gather_eight_avx2(args.scores + head,
                                      args.token_stride,
                                      args.rows + head * args.row_stride,
                                      args.row_stride,
                                      whole);
        }
        gather_heads_args<T> rest = args;
        rest.num_heads = head;
        detail::gather_some(rest, 0, whole);
    }
#else
    static_cast<void>(at_most);
#endif
    detail::gather_some(args, head, 0);
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
