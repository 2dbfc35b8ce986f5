// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's blocks with AVX2 and F16C, up to four blocks at a time: their reductions share shuffles, and their scales
/// are four lanes of one division. The scales of the AVX-512 rung come from here, too.
#pragma once

#include <kvcrush/codec/detail/ggml_format.hpp>
#include <kvcrush/config.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace detail {

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline float
load_f16_avx2(const std::byte* in) noexcept {
    std::uint16_t bits = 0;
    std::memcpy(&bits, in, sizeof bits);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

/// What a reduction keeps.
enum class ggml_order { least, largest, signed_bits, unsigned_bits };

/// The two reductions of a format. Bits as signed numbers are largest for the largest positive float, as unsigned ones
/// for the most negative one; where all signs are equal, both find the largest magnitude. NaN is above infinity.
template <typename Format>
struct ggml_orders {
    static constexpr ggml_order first =
        Format::has_min ? ggml_order::least : ggml_order::signed_bits;
    static constexpr ggml_order second = Format::has_min ? ggml_order::largest
                                         : Format::scale == ggml_scale::magnitude
                                             ? ggml_order::signed_bits
                                             : ggml_order::unsigned_bits;
};

template <ggml_order Order>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 extremes_avx2(__m256 a,
                                                                       __m256 b) noexcept {
    const __m256i a_bits = _mm256_castps_si256(a);
    const __m256i b_bits = _mm256_castps_si256(b);
    switch (Order) {
    case ggml_order::least: return _mm256_min_ps(a, b);
    case ggml_order::largest: return _mm256_max_ps(a, b);
    case ggml_order::signed_bits: return _mm256_castsi256_ps(_mm256_max_epi32(a_bits, b_bits));
    case ggml_order::unsigned_bits: break;
    }
    return _mm256_castsi256_ps(_mm256_max_epu32(a_bits, b_bits));
}

/// Of lanes b and b + 4.
template <ggml_order Order>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m128 extreme_of_lanes_avx2(__m256 v) noexcept {
    const __m256 swapped = _mm256_permute2f128_ps(v, v, 1);
    return _mm256_castps256_ps128(extremes_avx2<Order>(v, swapped));
}

template <ggml_order Order>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256
extreme_of_block_avx2(const __m256* v) noexcept {
    return extremes_avx2<Order>(extremes_avx2<Order>(v[0], v[1]), extremes_avx2<Order>(v[2], v[3]));
}

/// Lane b is the extreme of all lanes of v[b].
template <ggml_order Order>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m128
extreme_of_each_avx2(const __m256* v) noexcept {
    const __m256 ab =
        extremes_avx2<Order>(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
    const __m256 cd =
        extremes_avx2<Order>(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
    return extreme_of_lanes_avx2<Order>(
        extremes_avx2<Order>(_mm256_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0)),
                             _mm256_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2))));
}

/// The first element of the magnitude of `extreme`: blocks that have it with both signs come here.
KVCRUSH_COLD inline float first_of_magnitude(const float* x, float extreme) noexcept {
    std::size_t j = 0;
    while (std::abs(x[j]) != std::abs(extreme)) {
        ++j;
    }
    return x[j];
}

/// Scales of four blocks.
struct ggml_scales_avx2 {
    alignas(16) float min[4] = {};
    alignas(16) float inverse[4] = {};
    __m128 d;
    __m128 smallest;

    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void invert() noexcept {
        const __m128 one = _mm_set1_ps(1.0F);
        const __m128 magnitude = _mm_andnot_ps(_mm_set1_ps(-0.0F), d);
        const __m128 counts = _mm_cmpge_ps(magnitude, _mm_set1_ps(ggml_least_factor));
        const __m128 quotient = _mm_div_ps(one, _mm_blendv_ps(one, d, counts));
        _mm_store_ps(inverse, _mm_and_ps(counts, quotient));
    }

    /// @param first, second  results of the reductions of the format
    /// @return false if a magnitude is not below surely_held; ranges are not looked at
    template <typename Format>
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline bool
    find(const float* x, std::size_t num_blocks, __m128 first, __m128 second) noexcept {
        if constexpr (Format::has_min) {
            of_range<Format>(x, num_blocks, first, second);
            return true;
        } else {
            const __m128 sign = _mm_set1_ps(-0.0F);
            const __m128 first_magnitude = _mm_andnot_ps(sign, first);
            const __m128 second_magnitude = _mm_andnot_ps(sign, second);
            // As integers, in which NaN is above all others whatever compilers assume.
            const __m128i limit = _mm_castps_si128(_mm_set1_ps(Format::surely_held));
            const __m128i held =
                _mm_and_si128(_mm_cmplt_epi32(_mm_castps_si128(first_magnitude), limit),
                              _mm_cmplt_epi32(_mm_castps_si128(second_magnitude), limit));
            if (_mm_movemask_epi8(held) != 0xFFFF) {
                return false;
            }
            if constexpr (Format::scale == ggml_scale::magnitude) {
                d = _mm_div_ps(first, _mm_set1_ps(127.0F));
            } else {
                const __m128 larger = _mm_cmpgt_ps(first_magnitude, second_magnitude);
                __m128 extreme = _mm_blendv_ps(second, first, larger);
                const int both_signs = _mm_movemask_ps(_mm_and_ps(
                    _mm_cmpeq_ps(first_magnitude, second_magnitude), _mm_xor_ps(first, second)));
                if (both_signs != 0) [[unlikely]] {
                    alignas(16) float extremes[4];
                    _mm_store_ps(extremes, extreme);
                    for (std::size_t b = 0; b < num_blocks; ++b) {
                        extremes[b] = first_of_magnitude(x + b * ggml_block, extremes[b]);
                    }
                    extreme = _mm_load_ps(extremes);
                }
                d = of_extreme<Format>(extreme);
            }
            invert();
            return true;
        }
    }

    template <typename Format>
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 static inline __m128
    of_extreme(__m128 extreme) noexcept {
        if constexpr (Format::scale == ggml_scale::table) {
            const __m128 magnitude = _mm_andnot_ps(_mm_set1_ps(-0.0F), extreme);
            const __m128 large = _mm_cmpge_ps(magnitude, _mm_set1_ps(ggml_table_least));
            return _mm_and_ps(large, _mm_div_ps(extreme, _mm_set1_ps(-127.0F)));
        } else {
            // A power of two: the product is the quotient. Zeros of either sign count as +0.
            return _mm_mul_ps(_mm_add_ps(extreme, _mm_setzero_ps()),
                              _mm_set1_ps(-1.0F / static_cast<float>(Format::zero_code)));
        }
    }

    template <typename Format>
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
    of_range(const float* x, std::size_t num_blocks, __m128 least, __m128 largest) noexcept {
        // Zeros of different signs are equal: the difference must not be -0, and the first one is the minimum.
        const __m128 range = _mm_add_ps(_mm_sub_ps(largest, least), _mm_setzero_ps());
        d = _mm_div_ps(range, _mm_set1_ps(static_cast<float>(Format::num_codes - 1)));
        invert();
        _mm_store_ps(min, least);
        if (_mm_movemask_ps(_mm_cmpeq_ps(least, _mm_setzero_ps())) != 0) {
            for (std::size_t b = 0; b < num_blocks; ++b) {
                min[b] = min[b] == 0.0F
                             ? *std::find(x + b * ggml_block, x + (b + 1) * ggml_block, 0.0F)
                             : min[b];
            }
            least = _mm_load_ps(min);
        }
        smallest = least;
    }

    /// Products of a block are added in its order, as ggml does: one block per lane.
    /// @param weighted_x, squares  [4, 32]
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void fit(const float* weighted_x,
                                                               const float* squares) noexcept {
        __m128 with_x = _mm_setzero_ps();
        __m128 with_entry = _mm_setzero_ps();
        for (std::size_t j = 0; j < ggml_block; j += 4) {
            with_x = add_in_order(with_x, weighted_x + j);
            with_entry = add_in_order(with_entry, squares + j);
        }
        // The lanes of missing blocks may have no products.
        const __m128 zero = _mm_or_ps(_mm_cmpeq_ps(d, _mm_setzero_ps()),
                                      _mm_cmpeq_ps(with_entry, _mm_setzero_ps()));
        d = _mm_andnot_ps(zero,
                          _mm_div_ps(with_x, _mm_blendv_ps(with_entry, _mm_set1_ps(1.0F), zero)));
    }

    /// Four products of each of four blocks.
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 static inline __m128
    add_in_order(__m128 sums, const float* products) noexcept {
        __m128 a = _mm_loadu_ps(products);
        __m128 b = _mm_loadu_ps(products + ggml_block);
        __m128 c = _mm_loadu_ps(products + 2 * ggml_block);
        __m128 e = _mm_loadu_ps(products + 3 * ggml_block);
        _MM_TRANSPOSE4_PS(a, b, c, e);
        return _mm_add_ps(_mm_add_ps(_mm_add_ps(_mm_add_ps(sums, a), b), c), e);
    }

    /// d, and the minimum, of each block.
    template <typename Format, std::size_t Blocks>
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void store(std::byte* out) const noexcept {
        const auto scales = static_cast<std::uint64_t>(
            _mm_cvtsi128_si64(_mm_cvtps_ph(d, _MM_FROUND_TO_NEAREST_INT)));
        std::uint64_t minima = 0;
        if constexpr (Format::has_min) {
            minima = static_cast<std::uint64_t>(
                _mm_cvtsi128_si64(_mm_cvtps_ph(smallest, _MM_FROUND_TO_NEAREST_INT)));
        }
#    pragma GCC unroll 4
        for (std::size_t b = 0; b < Blocks; ++b) {
            const auto scale = static_cast<std::uint16_t>(scales >> (16 * b));
            std::memcpy(out + b * Format::bytes, &scale, sizeof scale);
            if constexpr (Format::has_min) {
                const auto minimum = static_cast<std::uint16_t>(minima >> (16 * b));
                std::memcpy(out + b * Format::bytes + 2, &minimum, sizeof minimum);
            }
        }
    }
};

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 rounded_product_avx2(__m256 a,
                                                                              __m256 b) noexcept {
    __m256 product = _mm256_mul_ps(a, b);
    __asm__("" : "+x"(product));
    return product;
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 magnitudes_avx2(__m256 x) noexcept {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), x);
}

/// 32 integers of 32 bits as bytes, in order; they must fit, as signed ones if Signed.
template <bool Signed>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i
narrow_to_bytes_avx2(const __m256i* v) noexcept {
    const __m256i low = _mm256_packs_epi32(v[0], v[1]);
    const __m256i high = _mm256_packs_epi32(v[2], v[3]);
    const __m256i mixed = Signed ? _mm256_packs_epi16(low, high) : _mm256_packus_epi16(low, high);
    return _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/// Entries of ggml_table and the borders between them, found by 2 x rounded down: cells of 32 such units hold up to
/// two borders. Borders are multiples of a half, so nothing is lost.
struct ggml_byte_cells {
    std::array<std::int8_t, 16> code;  ///< below the borders
    std::array<std::int8_t, 16> first; ///< units from the start of the cell; 32 for none
    std::array<std::int8_t, 16> second;
};
inline constexpr ggml_byte_cells ggml_cells_of_16 = [] {
    ggml_byte_cells cells{};
    for (int cell = 0; cell < 16; ++cell) {
        const auto at = static_cast<std::size_t>(cell);
        cells.first[at] = 32;
        cells.second[at] = 32;
        for (const float border : ggml_table_borders) {
            const int units = static_cast<int>(2.0F * border) + 256 - 32 * cell;
            if (units <= 0) {
                ++cells.code[at];
            } else if (units < 32) {
                (cells.first[at] == 32 ? cells.first : cells.second)[at] =
                    static_cast<std::int8_t>(units);
            }
        }
    }
    return cells;
}();

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i
byte_table_avx2(const std::array<std::int8_t, 16>& table) noexcept {
    return _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(table.data())));
}

/// Codes of 32 values of magnitudes up to 127 and a little, as bytes.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i
ggml_table_codes_avx2(const __m256* values) noexcept {
    __m256i units[4];
#    pragma GCC unroll 4
    for (std::size_t v = 0; v < 4; ++v) {
        const __m256 down = _mm256_floor_ps(_mm256_add_ps(values[v], values[v]));
        units[v] = _mm256_add_epi32(_mm256_cvttps_epi32(down), _mm256_set1_epi32(256));
    }
    const __m256i low = _mm256_packs_epi32(units[0], units[1]);
    const __m256i high = _mm256_packs_epi32(units[2], units[3]);
    const __m256i cell = _mm256_packus_epi16(_mm256_srli_epi16(low, 5), _mm256_srli_epi16(high, 5));
    const __m256i below_32 = _mm256_set1_epi16(31);
    const __m256i within =
        _mm256_packus_epi16(_mm256_and_si256(low, below_32), _mm256_and_si256(high, below_32));
    const __m256i code = _mm256_shuffle_epi8(byte_table_avx2(ggml_cells_of_16.code), cell);
    const __m256i first = _mm256_shuffle_epi8(byte_table_avx2(ggml_cells_of_16.first), cell);
    const __m256i second = _mm256_shuffle_epi8(byte_table_avx2(ggml_cells_of_16.second), cell);
    // One more for each border that is not above; comparisons give -1 where it is.
    const __m256i above =
        _mm256_add_epi8(_mm256_cmpgt_epi8(first, within), _mm256_cmpgt_epi8(second, within));
    const __m256i mixed = _mm256_add_epi8(_mm256_add_epi8(code, _mm256_set1_epi8(2)), above);
    return _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/// Codes of a block, as bytes.
template <typename Format>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i
ggml_codes_avx2(const __m256* channels, float min, float inverse) noexcept {
    const __m256 scale = _mm256_set1_ps(inverse);
    if constexpr (Format::scale == ggml_scale::table) {
        __m256 values[4];
#    pragma GCC unroll 4
        for (std::size_t v = 0; v < 4; ++v) {
            values[v] = _mm256_mul_ps(channels[v], scale);
        }
        return ggml_table_codes_avx2(values);
    } else {
        __m256i codes[4];
#    pragma GCC unroll 4
        for (std::size_t v = 0; v < 4; ++v) {
            if constexpr (Format::scale == ggml_scale::magnitude) {
                // Halves go away from 0, and what is just below a half must not: so less than a half is added.
                const __m256 value = rounded_product_avx2(channels[v], scale);
                const __m256 sign = _mm256_and_ps(value, _mm256_set1_ps(-0.0F));
                const __m256 step = _mm256_or_ps(sign, _mm256_set1_ps(0x1.FFFFFEp-2F));
                codes[v] = _mm256_cvttps_epi32(_mm256_add_ps(value, step));
            } else {
                const __m256 from_min =
                    Format::has_min ? _mm256_sub_ps(channels[v], _mm256_set1_ps(min)) : channels[v];
                const __m256 product = rounded_product_avx2(from_min, scale);
                codes[v] =
                    _mm256_cvttps_epi32(_mm256_add_ps(product, _mm256_set1_ps(Format::rounding)));
            }
        }
        const __m256i bytes = narrow_to_bytes_avx2<Format::bits == 8>(codes);
        if constexpr (Format::bits == 8) {
            return bytes;
        } else {
            return _mm256_min_epu8(bytes,
                                   _mm256_set1_epi8(static_cast<char>(Format::num_codes - 1)));
        }
    }
}

template <typename Format>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
ggml_store_codes_avx2(__m256i codes, std::byte* block) noexcept {
    auto* const out = block + Format::codes_at;
    if constexpr (Format::bits == 8) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), codes);
        return;
    }
    if constexpr (Format::has_fifth_bits) {
        // Bit 4 of each byte becomes its sign; what crosses into the next byte lies below that.
        const auto fifths =
            static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_slli_epi16(codes, 3)));
        std::memcpy(block + Format::fifth_bits_at, &fifths, sizeof fifths);
        codes = _mm256_and_si256(codes, _mm256_set1_epi8(15));
    }
    const __m128i low = _mm256_castsi256_si128(codes);
    const __m128i high = _mm256_extracti128_si256(codes, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_or_si128(low, _mm_slli_epi16(high, 4)));
}

/// Eight signed bytes as floats.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 floats_of_bytes_avx2(__m128i v) noexcept {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v));
}

/// 32 signed bytes as floats.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
floats_of_bytes_avx2(__m256i bytes, __m256* floats) noexcept {
    const __m128i low = _mm256_castsi256_si128(bytes);
    const __m128i high = _mm256_extracti128_si256(bytes, 1);
    floats[0] = floats_of_bytes_avx2(low);
    floats[1] = floats_of_bytes_avx2(_mm_unpackhi_epi64(low, low));
    floats[2] = floats_of_bytes_avx2(high);
    floats[3] = floats_of_bytes_avx2(_mm_unpackhi_epi64(high, high));
}

/// `Blocks` blocks, 1 to 4; the last one fills the lanes of those that are missing.
/// @return false, with nothing written, if a magnitude is not below surely_held; of ranges, that must be known before
template <typename Format, std::size_t Blocks>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline bool
ggml_encode_few_avx2(const float* x, std::byte* out) noexcept {
    using order = ggml_orders<Format>;
    __m256 first[4];
    __m256 second[4];
#    pragma GCC unroll 4
    for (std::size_t b = 0; b < 4; ++b) {
        const float* const block = x + (std::min)(b, Blocks - 1) * ggml_block;
        __m256 channels[4];
#    pragma GCC unroll 4
        for (std::size_t v = 0; v < 4; ++v) {
            channels[v] = _mm256_loadu_ps(block + 8 * v);
            if constexpr (Format::scale == ggml_scale::magnitude) {
                channels[v] = magnitudes_avx2(channels[v]);
            }
        }
        first[b] = extreme_of_block_avx2<order::first>(channels);
        second[b] = extreme_of_block_avx2<order::second>(channels);
    }
    ggml_scales_avx2 scales;
    if (!scales.template find<Format>(x,
                                      Blocks,
                                      extreme_of_each_avx2<order::first>(first),
                                      extreme_of_each_avx2<order::second>(second))) {
        return false;
    }

    alignas(32) float weighted_x[4 * ggml_block] = {};
    alignas(32) float squares[4 * ggml_block] = {};
#    pragma GCC unroll 4
    for (std::size_t b = 0; b < Blocks; ++b) {
        __m256 channels[4];
#    pragma GCC unroll 4
        for (std::size_t v = 0; v < 4; ++v) {
            channels[v] = _mm256_loadu_ps(x + b * ggml_block + 8 * v);
        }
        const __m256i codes = ggml_codes_avx2<Format>(channels, scales.min[b], scales.inverse[b]);
        ggml_store_codes_avx2<Format>(codes, out + b * Format::bytes);
        if constexpr (Format::scale == ggml_scale::table) {
            __m256 entries[4];
            floats_of_bytes_avx2(_mm256_shuffle_epi8(byte_table_avx2(ggml_table), codes), entries);
#    pragma GCC unroll 4
            for (std::size_t v = 0; v < 4; ++v) {
                const std::size_t at = b * ggml_block + 8 * v;
                const __m256 square = _mm256_mul_ps(channels[v], channels[v]);
                const __m256 weighted = _mm256_mul_ps(square, entries[v]);
                _mm256_store_ps(weighted_x + at, rounded_product_avx2(weighted, channels[v]));
                _mm256_store_ps(squares + at, rounded_product_avx2(weighted, entries[v]));
            }
        }
    }
    if constexpr (Format::scale == ggml_scale::table) {
        scales.fit(weighted_x, squares);
    }
    scales.store<Format, Blocks>(out);
    return true;
}

/// @return false, with nothing written, if a row of up to 4 blocks has a magnitude that is not below surely_held; of
///         longer rows, and of ranges, that must be known before
template <typename Format>
KVCRUSH_TARGET_AVX2 inline bool
ggml_encode_avx2(const float* x, std::size_t num_blocks, std::byte* out) noexcept {
    bool stored = true;
    for (; num_blocks >= 4; num_blocks -= 4, x += 4 * ggml_block, out += 4 * Format::bytes) {
        stored = ggml_encode_few_avx2<Format, 4>(x, out);
    }
    switch (num_blocks) {
    case 3: return ggml_encode_few_avx2<Format, 3>(x, out);
    case 2: return ggml_encode_few_avx2<Format, 2>(x, out);
    case 1: return ggml_encode_few_avx2<Format, 1>(x, out);
    default: return stored;
    }
}

/// What the codes of a block stand for, without d and min, as signed bytes.
template <typename Format>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i
ggml_levels_avx2(const std::byte* block) noexcept {
    const std::byte* const codes = block + Format::codes_at;
    if constexpr (Format::bits == 8) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    } else {
        const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
        __m256i code =
            _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(both, 4), both), _mm256_set1_epi8(15));
        if constexpr (Format::has_fifth_bits) {
            std::int32_t fifths = 0;
            std::memcpy(&fifths, block + Format::fifth_bits_at, sizeof fifths);
            // Each byte gets the byte its bit is in, and keeps that bit.
            const __m256i source =
                _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
            const __m256i own_bit =
                _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ULL));
            const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(fifths), source);
            const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, own_bit), own_bit);
            code = _mm256_or_si256(code, _mm256_and_si256(set, _mm256_set1_epi8(16)));
        }
        if constexpr (Format::scale == ggml_scale::table) {
            return _mm256_shuffle_epi8(byte_table_avx2(ggml_table), code);
        } else {
            return _mm256_sub_epi8(code, _mm256_set1_epi8(static_cast<char>(Format::zero_code)));
        }
    }
}

template <typename Format>
KVCRUSH_TARGET_AVX2 inline void
ggml_decode_avx2(const std::byte* in, std::size_t num_blocks, float* out) noexcept {
    for (std::size_t b = 0; b < num_blocks; ++b, in += Format::bytes, out += ggml_block) {
        const __m256 d = _mm256_set1_ps(load_f16_avx2(in));
        __m256 values[4];
        floats_of_bytes_avx2(ggml_levels_avx2<Format>(in), values);
#    pragma GCC unroll 4
        for (std::size_t v = 0; v < 4; ++v) {
            values[v] = _mm256_mul_ps(d, values[v]);
            if constexpr (Format::has_min) {
                values[v] = _mm256_add_ps(values[v], _mm256_set1_ps(load_f16_avx2(in + 2)));
            }
            _mm256_storeu_ps(out + 8 * v, values[v]);
        }
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush

#endif // KVCRUSH_X86_DISPATCH
