// SPDX-License-Identifier: Apache-2.0
/// @file
/// Centred pooling along a sequence, stride 1. All rungs agree bit for bit.
///
/// Maximum: passes over the output double the window, from in[i, i + p) to in[i, i + 2p); two
/// overlapping windows of the largest power of two that fits then make up any kernel. Average: adds
/// each window in ascending order, so that no error drifts along the sequence.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// The larger one, NaN being the lowest; never NaN.
inline float max_of(float a, float b) noexcept {
    const float known =
        b > -std::numeric_limits<float>::infinity() ? b : -std::numeric_limits<float>::infinity();
    return a > known ? a : known;
}

/// out[i] = max(a[i], b[i]), ascending: out may be a, and b may lie ahead of it.
inline void
pair_max_scalar(const float* a, const float* b, float* out, std::size_t count) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = max_of(a[i], b[i]);
    }
}

/// The same descending: a and b may lie behind out.
inline void
pair_max_down_scalar(const float* a, const float* b, float* out, std::size_t count) noexcept {
    for (std::size_t i = count; i-- > 0;) {
        out[i] = max_of(a[i], b[i]);
    }
}

/// out[i] = sum of in[i .. i + kernel) / divisor
inline void window_mean_scalar(
    const float* in, std::size_t kernel, float divisor, float* out, std::size_t count) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        float sum = 0.0F;
        for (std::size_t k = 0; k < kernel; ++k) {
            sum += in[i + k];
        }
        out[i] = sum / divisor;
    }
}

#if KVCRUSH_X86_DISPATCH

/// Like max_of: the vector maximum returns its second operand where one is NaN.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 max_of(__m256 a, __m256 b) noexcept {
    return _mm256_max_ps(a,
                         _mm256_max_ps(b, _mm256_set1_ps(-std::numeric_limits<float>::infinity())));
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512 max_of(__m512 a, __m512 b) noexcept {
    // The mask of all lanes avoids a warning in GCC 12's own header (gcc.gnu.org/PR105593).
    const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    return _mm512_maskz_max_ps(0xFFFF, a, _mm512_maskz_max_ps(0xFFFF, b, lowest));
}

KVCRUSH_TARGET_AVX2 inline void
pair_max_avx2(const float* a, const float* b, float* out, std::size_t count) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        _mm256_storeu_ps(out + i, max_of(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i)));
    }
    pair_max_scalar(a + i, b + i, out + i, count - i);
}

KVCRUSH_TARGET_AVX2 inline void
pair_max_down_avx2(const float* a, const float* b, float* out, std::size_t count) noexcept {
    std::size_t i = count;
    for (; i >= 8; i -= 8) {
        const __m256 larger = max_of(_mm256_loadu_ps(a + i - 8), _mm256_loadu_ps(b + i - 8));
        _mm256_storeu_ps(out + i - 8, larger);
    }
    pair_max_down_scalar(a, b, out, i);
}

KVCRUSH_TARGET_AVX2 inline void window_mean_avx2(
    const float* in, std::size_t kernel, float divisor, float* out, std::size_t count) noexcept {
    const __m256 divisors = _mm256_set1_ps(divisor);
    std::size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m256 a = _mm256_setzero_ps();
        __m256 b = a;
        for (std::size_t k = 0; k < kernel; ++k) {
            a = _mm256_add_ps(a, _mm256_loadu_ps(in + i + k));
            b = _mm256_add_ps(b, _mm256_loadu_ps(in + i + 8 + k));
        }
        _mm256_storeu_ps(out + i, _mm256_div_ps(a, divisors));
        _mm256_storeu_ps(out + i + 8, _mm256_div_ps(b, divisors));
    }
    window_mean_scalar(in + i, kernel, divisor, out + i, count - i);
}

KVCRUSH_TARGET_AVX512 inline void
pair_max_avx512(const float* a, const float* b, float* out, std::size_t count) noexcept {
    std::size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        _mm512_storeu_ps(out + i, max_of(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i)));
    }
    const __mmask16 lanes = first_lanes_avx512(count - i);
    _mm512_mask_storeu_ps(
        out + i,
        lanes,
        max_of(_mm512_maskz_loadu_ps(lanes, a + i), _mm512_maskz_loadu_ps(lanes, b + i)));
}

KVCRUSH_TARGET_AVX512 inline void
pair_max_down_avx512(const float* a, const float* b, float* out, std::size_t count) noexcept {
    std::size_t i = count;
    for (; i >= 16; i -= 16) {
        const __m512 larger = max_of(_mm512_loadu_ps(a + i - 16), _mm512_loadu_ps(b + i - 16));
        _mm512_storeu_ps(out + i - 16, larger);
    }
    const __mmask16 lanes = first_lanes_avx512(i);
    _mm512_mask_storeu_ps(
        out, lanes, max_of(_mm512_maskz_loadu_ps(lanes, a), _mm512_maskz_loadu_ps(lanes, b)));
}

KVCRUSH_TARGET_AVX512 inline void window_mean_avx512(
    const float* in, std::size_t kernel, float divisor, float* out, std::size_t count) noexcept {
    const __m512 divisors = _mm512_set1_ps(divisor);
    std::size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        __m512 a = _mm512_setzero_ps();
        __m512 b = a;
        for (std::size_t k = 0; k < kernel; ++k) {
            a = _mm512_add_ps(a, _mm512_loadu_ps(in + i + k));
            b = _mm512_add_ps(b, _mm512_loadu_ps(in + i + 16 + k));
        }
        _mm512_storeu_ps(out + i, _mm512_div_ps(a, divisors));
        _mm512_storeu_ps(out + i + 16, _mm512_div_ps(b, divisors));
    }
    window_mean_scalar(in + i, kernel, divisor, out + i, count - i);
}

#endif // KVCRUSH_X86_DISPATCH

inline void
pair_max(const float* a, const float* b, float* out, std::size_t count, isa rung) noexcept {
    switch (rung) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return pair_max_avx512(a, b, out, count);
    case isa::avx2: return pair_max_avx2(a, b, out, count);
#endif
    default: return pair_max_scalar(a, b, out, count);
    }
}

inline void
pair_max_down(const float* a, const float* b, float* out, std::size_t count, isa rung) noexcept {
    switch (rung) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return pair_max_down_avx512(a, b, out, count);
    case isa::avx2: return pair_max_down_avx2(a, b, out, count);
#endif
    default: return pair_max_down_scalar(a, b, out, count);
    }
}

inline void window_mean(const float* in,
                        std::size_t kernel,
                        float divisor,
                        float* out,
                        std::size_t count,
                        isa rung) noexcept {
    switch (rung) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return window_mean_avx512(in, kernel, divisor, out, count);
    case isa::avx2: return window_mean_avx2(in, kernel, divisor, out, count);
#endif
    default: return window_mean_scalar(in, kernel, divisor, out, count);
    }
}

} // namespace detail

/// The largest value within kernel / 2 of each position; windows are cut at both ends.
///
///     out[i] = max of in[j] for |i - j| <= kernel / 2
/// NaN counts as -inf, also where it is alone.
/// @param[out] out  [in.size()], not overlapping `in`
/// @pre   kernel is odd
/// @note  O(n log(kernel)); 1 + log2(kernel) passes over `out`
inline void max_pool(std::span<const float> in,
                     std::span<float> out,
                     std::size_t kernel,
                     isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(kernel % 2 == 1 && out.size() == in.size());
    const std::size_t size = in.size();
    if (size == 0) {
        return;
    }
    const isa rung = usable(at_most);
    const std::size_t reach = (std::min)(kernel / 2, size - 1);
    const std::size_t window = 2 * reach + 1;
    if (reach == 0) {
        return detail::pair_max(in.data(), in.data(), out.data(), size, rung);
    }
    // After the pass for p, out[i] is the maximum of in[i, min(i + 2p, size)).
    detail::pair_max(in.data(), in.data() + 1, out.data(), size - 1, rung);
    out[size - 1] = detail::max_of(in[size - 1], in[size - 1]);
    std::size_t covered = 2;
    for (; 2 * covered <= window; covered *= 2) {
        if (covered < size) {
            detail::pair_max(out.data(), out.data() + covered, out.data(), size - covered, rung);
        }
    }
    // in[i - reach, i + reach] is covered by what starts at its begin and what ends at its end.
    const std::size_t second = window - covered;
    detail::pair_max_down(out.data(), out.data() + second, out.data() + reach, size - reach, rung);
    float largest = -std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < reach; ++i) {
        largest = detail::max_of(in[i], largest);
    }
    for (std::size_t i = 0; i < reach; ++i) {
        if (i + reach < size) {
            largest = detail::max_of(in[i + reach], largest);
        }
        out[i] = largest;
    }
}

/// The mean around each position. Always divides by the kernel, as if zeros stood beyond both ends.
///
///     out[i] = sum of in[j] for |i - j| <= kernel / 2, over kernel
/// NaN and infinities reach every window that holds them.
/// @param[out] out  [in.size()], not overlapping `in`
/// @pre   kernel is odd
/// @note  O(n * min(kernel, n))
inline void avg_pool(std::span<const float> in,
                     std::span<float> out,
                     std::size_t kernel,
                     isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(kernel % 2 == 1 && out.size() == in.size());
    const std::size_t size = in.size();
    const std::size_t reach = kernel / 2;
    const float divisor = static_cast<float>(kernel);
    const std::size_t whole = size > 2 * reach ? size - 2 * reach : 0;
    const std::size_t begin = whole > 0 ? reach : size;
    detail::window_mean(in.data(), kernel, divisor, out.data() + begin, whole, usable(at_most));
    for (std::size_t i = 0; i < size; ++i) {
        if (i == begin) {
            i += whole; // those are done
        }
        if (i < size) {
            const std::size_t first = i < reach ? 0 : i - reach;
            const std::size_t count = (std::min)(size - first, i - first + reach + 1);
            detail::window_mean_scalar(in.data() + first, count, divisor, out.data() + i, 1);
        }
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
