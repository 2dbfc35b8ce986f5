// SPDX-License-Identifier: Apache-2.0
/// @file
/// The fast Walsh-Hadamard transform of rows. Neighbouring channels first, then pairs at distance 2, 4, ...:
/// every rung forms the same sums and differences in this order and scales once at the end, so the rungs agree bit for
/// bit. Inside a vector a butterfly is one shuffle and one fused x * +-1 + y, whose product is exact. Up to 256 channels
/// (AVX2: 64) stay in registers; the distances beyond are passes over the row.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Channels that change their sign, bit c % 64 of word c / 64 for channel c of a row; nullptr for none.
struct hadamard_signs {
    const std::uint64_t* before = nullptr;
    const std::uint64_t* after = nullptr;
};

namespace detail {

/// A block of a row: `size` values, the first of which is channel `channel`.
struct hadamard_block {
    const float* from;
    float* values;
    std::size_t size;
    std::size_t channel;
    hadamard_signs signs;
    float scale;
};

/// The signs of the channels from `channel` on, up to the end of a word.
[[nodiscard]] inline std::uint64_t signs_from(const std::uint64_t* signs,
                                              std::size_t channel) noexcept {
    return signs[channel / 64] >> (channel % 64);
}

inline void flip_signs(float* values,
                       std::size_t size,
                       const std::uint64_t* signs,
                       std::size_t channel) noexcept {
    if (signs == nullptr) {
        return;
    }
    for (std::size_t i = 0; i < size; ++i) {
        const auto flip = static_cast<std::uint32_t>(signs_from(signs, channel + i) & 1U) << 31;
        values[i] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(values[i]) ^ flip);
    }
}

inline void hadamard_scalar(const hadamard_block& block) noexcept {
    float* const values = block.values;
    if (block.from != values) {
        std::copy_n(block.from, block.size, values);
    }
    flip_signs(values, block.size, block.signs.before, block.channel);
    for (std::size_t distance = 1; distance < block.size; distance *= 2) {
        for (std::size_t first = 0; first < block.size; first += 2 * distance) {
            for (std::size_t i = first; i < first + distance; ++i) {
                const float low = values[i];
                const float high = values[i + distance];
                values[i] = low + high;
                values[i + distance] = low - high;
            }
        }
    }
    for (std::size_t i = 0; i < block.size; ++i) {
        values[i] *= block.scale;
    }
    flip_signs(values, block.size, block.signs.after, block.channel);
}

#if KVCRUSH_X86_DISPATCH

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256
flip_signs_avx2(__m256 x, const std::uint64_t* signs, std::size_t channel) noexcept {
    if (signs == nullptr) {
        return x;
    }
    const __m256i bits = _mm256_set1_epi32(static_cast<int>(signs_from(signs, channel) & 0xFFU));
    const __m256i top = _mm256_sllv_epi32(bits, _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24));
    return _mm256_xor_ps(x, _mm256_and_ps(_mm256_castsi256_ps(top), _mm256_set1_ps(-0.0F)));
}

/// Distances 1, 2 and 4.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 hadamard_of_8(__m256 x) noexcept {
    x = _mm256_fmadd_ps(x, _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1), _mm256_permute_ps(x, 0xB1));
    x = _mm256_fmadd_ps(x, _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1), _mm256_permute_ps(x, 0x4E));
    return _mm256_fmadd_ps(
        x, _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1), _mm256_permute2f128_ps(x, x, 0x01));
}

/// Distance `Distance` vectors, from butterfly Is on. Recursion instead of a loop keeps the vectors in registers at -O2.
template <std::size_t Vectors, std::size_t Distance, std::size_t Is = 0>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void butterflies_avx2(__m256* x) noexcept {
    if constexpr (Is < Vectors / 2) {
        constexpr std::size_t first = Is / Distance * 2 * Distance + Is % Distance;
        const __m256 low = x[first];
        const __m256 high = x[first + Distance];
        x[first] = _mm256_add_ps(low, high);
        x[first + Distance] = _mm256_sub_ps(low, high);
        butterflies_avx2<Vectors, Distance, Is + 1>(x);
    } else if constexpr (2 * Distance < Vectors) {
        butterflies_avx2<Vectors, 2 * Distance>(x);
    }
}

template <std::size_t Vectors, std::size_t Is = 0>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
load_vectors_avx2(const hadamard_block& block, __m256* x) noexcept {
    if constexpr (Is < Vectors) {
        x[Is] = hadamard_of_8(flip_signs_avx2(
            _mm256_loadu_ps(block.from + 8 * Is), block.signs.before, block.channel + 8 * Is));
        load_vectors_avx2<Vectors, Is + 1>(block, x);
    }
}

template <bool Last, std::size_t Vectors, std::size_t Is = 0>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
store_vectors_avx2(const hadamard_block& block, const __m256* x) noexcept {
    if constexpr (Is < Vectors) {
        __m256 y = x[Is];
        if constexpr (Last) {
            y = flip_signs_avx2(_mm256_mul_ps(y, _mm256_set1_ps(block.scale)),
                                block.signs.after,
                                block.channel + 8 * Is);
        }
        _mm256_storeu_ps(block.values + 8 * Is, y);
        store_vectors_avx2<Last, Vectors, Is + 1>(block, x);
    }
}

/// A block of 8 * Vectors values; not yet scaled unless it is the Last step.
template <std::size_t Vectors, bool Last>
KVCRUSH_TARGET_AVX2 inline void hadamard_vectors_avx2(const hadamard_block& block) noexcept {
    __m256 x[Vectors];
    load_vectors_avx2<Vectors>(block, x);
    if constexpr (Vectors > 1) {
        butterflies_avx2<Vectors, 1>(x);
    }
    store_vectors_avx2<Last, Vectors>(block, x);
}

/// One pass over a block of more than 64 values.
template <bool Last>
KVCRUSH_TARGET_AVX2 inline void hadamard_pass_avx2(const hadamard_block& block,
                                                   std::size_t distance) noexcept {
    const __m256 scale = _mm256_set1_ps(block.scale);
    for (std::size_t first = 0; first < block.size; first += 2 * distance) {
        for (std::size_t i = first; i < first + distance; i += 8) {
            const __m256 low = _mm256_loadu_ps(block.values + i);
            const __m256 high = _mm256_loadu_ps(block.values + i + distance);
            __m256 sum = _mm256_add_ps(low, high);
            __m256 difference = _mm256_sub_ps(low, high);
            if constexpr (Last) {
                sum = flip_signs_avx2(
                    _mm256_mul_ps(sum, scale), block.signs.after, block.channel + i);
                difference = flip_signs_avx2(_mm256_mul_ps(difference, scale),
                                             block.signs.after,
                                             block.channel + i + distance);
            }
            _mm256_storeu_ps(block.values + i, sum);
            _mm256_storeu_ps(block.values + i + distance, difference);
        }
    }
}

KVCRUSH_TARGET_AVX2 inline void hadamard_avx2(const hadamard_block& block) noexcept {
    switch (block.size) {
    case 1:
    case 2:
    case 4: return hadamard_scalar(block);
    case 8: return hadamard_vectors_avx2<1, true>(block);
    case 16: return hadamard_vectors_avx2<2, true>(block);
    case 32: return hadamard_vectors_avx2<4, true>(block);
    case 64: return hadamard_vectors_avx2<8, true>(block);
    default: break;
    }
    for (std::size_t i = 0; i < block.size; i += 64) {
        hadamard_vectors_avx2<8, false>(
            {block.from + i, block.values + i, 64, block.channel + i, block.signs, block.scale});
    }
    std::size_t distance = 64;
    for (; 2 * distance < block.size; distance *= 2) {
        hadamard_pass_avx2<false>(block, distance);
    }
    hadamard_pass_avx2<true>(block, distance);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
flip_signs_avx512(__m512 x, const std::uint64_t* signs, std::size_t channel) noexcept {
    if (signs == nullptr) {
        return x;
    }
    const auto flip = static_cast<__mmask16>(signs_from(signs, channel));
    return _mm512_mask_xor_ps(x, flip, x, _mm512_set1_ps(-0.0F));
}

/// +1 where the bit of the lane is 0, -1 where it is 1.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
ones_with_signs(__mmask16 minus) noexcept {
    return _mm512_mask_blend_ps(minus, _mm512_set1_ps(1.0F), _mm512_set1_ps(-1.0F));
}

/// Distances 1, 2, 4 and 8.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512 hadamard_of_16(__m512 x) noexcept {
    x = _mm512_fmadd_ps(x, ones_with_signs(0xAAAA), _mm512_maskz_permute_ps(0xFFFF, x, 0xB1));
    x = _mm512_fmadd_ps(x, ones_with_signs(0xCCCC), _mm512_maskz_permute_ps(0xFFFF, x, 0x4E));
    x = _mm512_fmadd_ps(x, ones_with_signs(0xF0F0), _mm512_maskz_shuffle_f32x4(0xFFFF, x, x, 0xB1));
    return _mm512_fmadd_ps(
        x, ones_with_signs(0xFF00), _mm512_maskz_shuffle_f32x4(0xFFFF, x, x, 0x4E));
}

template <std::size_t Vectors, std::size_t Distance, std::size_t Is = 0>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void butterflies_avx512(__m512* x) noexcept {
    if constexpr (Is < Vectors / 2) {
        constexpr std::size_t first = Is / Distance * 2 * Distance + Is % Distance;
        const __m512 low = x[first];
        const __m512 high = x[first + Distance];
        x[first] = _mm512_add_ps(low, high);
        x[first + Distance] = _mm512_sub_ps(low, high);
        butterflies_avx512<Vectors, Distance, Is + 1>(x);
    } else if constexpr (2 * Distance < Vectors) {
        butterflies_avx512<Vectors, 2 * Distance>(x);
    }
}

template <std::size_t Vectors, std::size_t Is = 0>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
load_vectors_avx512(const hadamard_block& block, __m512* x) noexcept {
    if constexpr (Is < Vectors) {
        x[Is] = hadamard_of_16(flip_signs_avx512(
            _mm512_loadu_ps(block.from + 16 * Is), block.signs.before, block.channel + 16 * Is));
        load_vectors_avx512<Vectors, Is + 1>(block, x);
    }
}

template <bool Last, std::size_t Vectors, std::size_t Is = 0>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
store_vectors_avx512(const hadamard_block& block, const __m512* x) noexcept {
    if constexpr (Is < Vectors) {
        __m512 y = x[Is];
        if constexpr (Last) {
            y = flip_signs_avx512(_mm512_mul_ps(y, _mm512_set1_ps(block.scale)),
                                  block.signs.after,
                                  block.channel + 16 * Is);
        }
        _mm512_storeu_ps(block.values + 16 * Is, y);
        store_vectors_avx512<Last, Vectors, Is + 1>(block, x);
    }
}

template <std::size_t Vectors, bool Last>
KVCRUSH_TARGET_AVX512 inline void hadamard_vectors_avx512(const hadamard_block& block) noexcept {
    __m512 x[Vectors];
    load_vectors_avx512<Vectors>(block, x);
    if constexpr (Vectors > 1) {
        butterflies_avx512<Vectors, 1>(x);
    }
    store_vectors_avx512<Last, Vectors>(block, x);
}

KVCRUSH_TARGET_AVX512 inline void hadamard_avx512(const hadamard_block& block) noexcept {
    switch (block.size) {
    case 1:
    case 2:
    case 4:
    case 8: return hadamard_avx2(block);
    case 16: return hadamard_vectors_avx512<1, true>(block);
    case 32: return hadamard_vectors_avx512<2, true>(block);
    case 64: return hadamard_vectors_avx512<4, true>(block);
    case 128: return hadamard_vectors_avx512<8, true>(block);
    case 256: return hadamard_vectors_avx512<16, true>(block);
    default: break;
    }
    for (std::size_t i = 0; i < block.size; i += 256) {
        hadamard_vectors_avx512<16, false>(
            {block.from + i, block.values + i, 256, block.channel + i, block.signs, block.scale});
    }
    std::size_t distance = 256;
    for (; 2 * distance < block.size; distance *= 2) {
        hadamard_pass_avx2<false>(block, distance);
    }
    hadamard_pass_avx2<true>(block, distance);
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Makes of each block of `block` neighbouring channels x of each row S_after H S_before x / sqrt(block), H being the
/// Walsh-Hadamard matrix in its natural order and S diagonal matrices of signs. Orthogonal; the inverse is the same with
/// `before` and `after` exchanged.
///
/// @param[in]  in     rows [any number, dim]. NaN and infinity spread over their block; sums may overflow to infinity
/// @param[out] out    as many rows; may be `in`, and must not overlap it otherwise
/// @param      block  a power of two that divides dim
/// @note O(rows * dim * log2 block) additions
inline void hadamard(std::span<const float> in,
                     std::span<float> out,
                     std::size_t dim,
                     std::size_t block,
                     hadamard_signs signs = {},
                     isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(std::has_single_bit(block) && dim > 0 && dim % block == 0);
    KVCRUSH_ASSERT(in.size() % dim == 0 && out.size() == in.size());
    const float scale = 1.0F / std::sqrt(static_cast<float>(block));
    const isa rung = usable(at_most);
    for (std::size_t row = 0; row < in.size(); row += dim) {
        for (std::size_t channel = 0; channel < dim; channel += block) {
            const std::size_t first = row + channel;
            const detail::hadamard_block work{
                in.data() + first, out.data() + first, block, channel, signs, scale};
            switch (rung) {
#if KVCRUSH_X86_DISPATCH
            case isa::avx512: detail::hadamard_avx512(work); break;
            case isa::avx2: detail::hadamard_avx2(work); break;
#endif
            default: detail::hadamard_scalar(work);
            }
        }
    }
}

/// The same in place.
inline void hadamard(std::span<float> rows,
                     std::size_t dim,
                     std::size_t block,
                     hadamard_signs signs = {},
                     isa at_most = best()) noexcept {
    hadamard(rows, rows, dim, block, signs, at_most);
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
