// SPDX-License-Identifier: Apache-2.0
/// @file
/// Masks for the end of a float array.
#pragma once

#include <kvcrush/config.hpp>

#include <algorithm>
#include <cstddef>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// The first `count` of 8 lanes, as maskload and maskstore want them.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i
first_lanes_avx2(std::size_t count) noexcept {
    const int lanes = static_cast<int>((std::min)(count, std::size_t{8}));
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/// The first `count` of 16 lanes.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __mmask16
first_lanes_avx512(std::size_t count) noexcept {
    const auto lanes = static_cast<unsigned>((std::min)(count, std::size_t{16}));
    return static_cast<__mmask16>((1U << lanes) - 1U);
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush

#endif // KVCRUSH_X86_DISPATCH
