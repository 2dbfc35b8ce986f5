// SPDX-License-Identifier: Apache-2.0
/// @file
/// The block formats of ggml, element by element: what the vector kernels have to reproduce bit for bit.
///
/// Six formats differ in three things: how the scale of a block is found, whether a minimum is stored, and how many
/// bits a code has. Everything else is common.
#pragma once

#include <kvcrush/core/finite_rows.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Channels of a block.
inline constexpr std::size_t ggml_block = 32;

enum class ggml_scale {
    magnitude, ///< d = largest |x| / 127, signed codes
    extreme, ///< d = signed element of largest |x| / minus half the number of codes: its code is 0
    range,   ///< d = (max - min) / largest code, min stored as well
    table,   ///< codes number the entries of a table, d fits them to the block by least squares
};

/// Storage, in this order: f16 d; f16 min (range only); 32 fifth bits (5-bit codes only), bit j being that of element
/// j; codes. Those of 4 and 5 bits share bytes: byte j holds element j in its low half and element j + 16 in its high
/// half. Little-endian.
template <ggml_scale Scale, unsigned Bits>
struct ggml_format {
    static constexpr ggml_scale scale = Scale;
    static constexpr unsigned bits = Bits;
    static constexpr bool has_min = Scale == ggml_scale::range;
    static constexpr bool has_fifth_bits = Bits == 5;
    static constexpr std::size_t fifth_bits_at = has_min ? 4 : 2;
    static constexpr std::size_t codes_at = fifth_bits_at + (has_fifth_bits ? 4 : 0);
    static constexpr std::size_t bytes = codes_at + (Bits == 8 ? ggml_block : ggml_block / 2);
    static constexpr int num_codes = 1 << Bits;

    /// What is taken off a stored code.
    static constexpr int zero_code = Scale == ggml_scale::extreme ? num_codes / 2 : 0;
    /// What is added to x / d before digits after the point are cut off.
    static constexpr float rounding = static_cast<float>(zero_code) + 0.5F;

    /// Every block of smaller magnitudes has an f16 scale and minimum. Others are looked at one by one. Of a table
    /// d is at most 7 times the first guess, largest |x| / 127: only codes of small elements are that far off.
    static constexpr float surely_held = Scale == ggml_scale::magnitude ? 65520.0F * 127.0F
                                         : Scale == ggml_scale::extreme
                                             ? 65520.0F * static_cast<float>(zero_code)
                                         : Scale == ggml_scale::range ? 65520.0F
                                                                      : 1e6F;
};

using ggml_q8_0 = ggml_format<ggml_scale::magnitude, 8>;
using ggml_q4_0 = ggml_format<ggml_scale::extreme, 4>;
using ggml_q5_0 = ggml_format<ggml_scale::extreme, 5>;
using ggml_q4_1 = ggml_format<ggml_scale::range, 4>;
using ggml_q5_1 = ggml_format<ggml_scale::range, 5>;
using ggml_iq4_nl = ggml_format<ggml_scale::table, 4>;

/// What the codes of iq4_nl stand for.
inline constexpr std::array<std::int8_t, 16> ggml_table{
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// Entry k + 1 of the table is at least as near as entry k from here on.
inline constexpr auto ggml_table_borders = [] {
    std::array<float, 15> borders{};
    for (std::size_t k = 0; k < borders.size(); ++k) {
        borders[k] = 0.5F * static_cast<float>(ggml_table[k] + ggml_table[k + 1]);
    }
    return borders;
}();

/// Blocks of smaller magnitudes are zeros to iq4_nl: their squares would vanish.
inline constexpr float ggml_table_least = 1e-15F;

/// The same float, rounded: keeps compilers from fusing a product with the sum that follows, which would round once
/// where ggml's formulas round twice, on some machines and not on others.
[[nodiscard]] inline float rounded_product(float product) noexcept {
#if defined(__GNUC__) && defined(__SSE__)
    __asm__("" : "+x"(product));
    return product;
#elif defined(__GNUC__) && defined(__aarch64__)
    __asm__("" : "+w"(product));
    return product;
#else
    volatile float stored = product;
    return stored;
#endif
}

struct ggml_block_scale {
    float d = 0.0F;
    float min = 0.0F;
    /// 1 / d of the unrounded d; 0 where d is 0 or so small that there is no inverse (f16 holds it as 0, too).
    float inverse = 0.0F;
};

/// The least with a finite inverse: that of 2^-128 is 2^128.
inline constexpr float ggml_least_factor = 0x1.000008p-128F;

[[nodiscard]] inline float ggml_inverse(float d) noexcept {
    return std::abs(d) < ggml_least_factor ? 0.0F : 1.0F / d;
}

template <typename Format>
[[nodiscard]] ggml_block_scale ggml_scale_of(const float* x) noexcept {
    ggml_block_scale scale;
    if constexpr (Format::has_min) {
        scale.min = x[0];
        float largest = x[0];
        for (std::size_t j = 1; j < ggml_block; ++j) {
            scale.min = x[j] < scale.min ? x[j] : scale.min;
            largest = x[j] > largest ? x[j] : largest;
        }
        scale.d = (largest - scale.min) / static_cast<float>(Format::num_codes - 1);
    } else {
        float magnitude = 0.0F;
        float extreme = 0.0F;
        for (std::size_t j = 0; j < ggml_block; ++j) {
            if (std::abs(x[j]) > magnitude) {
                magnitude = std::abs(x[j]);
                extreme = x[j];
            }
        }
        if constexpr (Format::scale == ggml_scale::magnitude) {
            scale.d = magnitude / 127.0F;
        } else if constexpr (Format::scale == ggml_scale::extreme) {
            scale.d = extreme / static_cast<float>(-Format::zero_code);
        } else {
            scale.d = magnitude < ggml_table_least ? 0.0F : extreme / -127.0F;
        }
    }
    scale.inverse = ggml_inverse(scale.d);
    return scale;
}

template <typename Format>
[[nodiscard]] std::uint8_t ggml_code_of(float x, const ggml_block_scale& scale) noexcept {
    if constexpr (Format::scale == ggml_scale::magnitude) {
        // The cast is roundf's: to nearest, halves away from 0.
        return static_cast<std::uint8_t>(static_cast<std::int8_t>(std::round(x * scale.inverse)));
    } else if constexpr (Format::scale == ggml_scale::table) {
        const float value = x * scale.inverse;
        std::uint8_t code = 0;
        for (const float border : ggml_table_borders) {
            code = static_cast<std::uint8_t>(code + (value >= border ? 1 : 0));
        }
        return code;
    } else {
        const float from_min = Format::has_min ? x - scale.min : x;
        const float code = rounded_product(from_min * scale.inverse) + Format::rounding;
        return static_cast<std::uint8_t>((std::min)(Format::num_codes - 1, static_cast<int>(code)));
    }
}

/// The factor that fits the table's entries to a block, elements weighted by their squares.
[[nodiscard]] inline float ggml_fitted_scale(const float* x, const std::uint8_t* codes) noexcept {
    float with_x = 0.0F;
    float squares = 0.0F;
    for (std::size_t j = 0; j < ggml_block; ++j) {
        const auto entry = static_cast<float>(ggml_table[codes[j]]);
        const float weighted = x[j] * x[j] * entry;
        with_x += rounded_product(weighted * x[j]);
        squares += rounded_product(weighted * entry);
    }
    return with_x / squares;
}

/// Scale and codes of a block.
template <typename Format>
[[nodiscard]] ggml_block_scale ggml_quantise(const float* x, std::uint8_t* codes) noexcept {
    ggml_block_scale scale = ggml_scale_of<Format>(x);
    for (std::size_t j = 0; j < ggml_block; ++j) {
        codes[j] = ggml_code_of<Format>(x[j], scale);
    }
    if constexpr (Format::scale == ggml_scale::table) {
        scale.d = scale.d == 0.0F ? 0.0F : ggml_fitted_scale(x, codes);
    }
    return scale;
}

/// Whether scale and minimum of a block are finite as f16. @param x finite
template <typename Format>
[[nodiscard]] bool ggml_holds(const float* x) noexcept {
    ggml_block_scale scale;
    if constexpr (Format::scale == ggml_scale::table) {
        std::array<std::uint8_t, ggml_block> codes{};
        scale = ggml_quantise<Format>(x, codes.data());
    } else {
        scale = ggml_scale_of<Format>(x);
    }
    constexpr float limit = 65520.0F; // rounds to infinity; a fitted scale may be NaN
    return magnitude_below(scale.d, limit) && magnitude_below(scale.min, limit);
}

inline void store_f16(float value, std::byte* out) noexcept {
    const std::uint16_t bits = to_f16(value).bits;
    out[0] = static_cast<std::byte>(bits & 0xFFU);
    out[1] = static_cast<std::byte>(bits >> 8);
}

[[nodiscard]] inline float load_f16(const std::byte* in) noexcept {
    const unsigned bits = std::to_integer<unsigned>(in[0]) | std::to_integer<unsigned>(in[1]) << 8;
    return to_float(f16{static_cast<std::uint16_t>(bits)});
}

/// @param x  such that ggml_holds()
template <typename Format>
void ggml_encode_scalar(const float* x, std::size_t num_blocks, std::byte* out) noexcept {
    for (std::size_t b = 0; b < num_blocks; ++b, x += ggml_block, out += Format::bytes) {
        std::array<std::uint8_t, ggml_block> codes{};
        const ggml_block_scale scale = ggml_quantise<Format>(x, codes.data());
        store_f16(scale.d, out);
        if constexpr (Format::has_min) {
            store_f16(scale.min, out + 2);
        }
        if constexpr (Format::bits == 8) {
            std::memcpy(out + Format::codes_at, codes.data(), codes.size());
        } else {
            for (std::size_t j = 0; j < ggml_block / 2; ++j) {
                const unsigned both = (codes[j] & 0xFU) | (codes[j + 16] & 0xFU) << 4;
                out[Format::codes_at + j] = static_cast<std::byte>(both);
            }
        }
        if constexpr (Format::has_fifth_bits) {
            for (std::size_t byte = 0; byte < 4; ++byte) {
                unsigned fifths = 0;
                for (std::size_t j = 0; j < 8; ++j) {
                    fifths |= static_cast<unsigned>(codes[8 * byte + j] >> 4) << j;
                }
                out[Format::fifth_bits_at + byte] = static_cast<std::byte>(fifths);
            }
        }
    }
}

/// Code j of a block, what is taken off it included, or its entry in the table.
template <typename Format>
[[nodiscard]] int ggml_level(const std::byte* block, std::size_t j) noexcept {
    const std::byte* const codes = block + Format::codes_at;
    if constexpr (Format::bits == 8) {
        return static_cast<std::int8_t>(std::to_integer<std::uint8_t>(codes[j]));
    } else {
        const auto both = std::to_integer<unsigned>(codes[j % 16]);
        unsigned code = j < 16 ? both & 0xFU : both >> 4;
        if constexpr (Format::has_fifth_bits) {
            const auto fifths = std::to_integer<unsigned>(block[Format::fifth_bits_at + j / 8]);
            code |= (fifths >> (j % 8) & 1U) << 4;
        }
        return Format::scale == ggml_scale::table ? ggml_table[code]
                                                  : static_cast<int>(code) - Format::zero_code;
    }
}

/// Products of an f16 and a code are exact, so a minimum may be added in either way of rounding.
template <typename Format>
void ggml_decode_scalar(const std::byte* in, std::size_t num_blocks, float* out) noexcept {
    for (std::size_t b = 0; b < num_blocks; ++b, in += Format::bytes, out += ggml_block) {
        const float d = load_f16(in);
        for (std::size_t j = 0; j < ggml_block; ++j) {
            out[j] = d * static_cast<float>(ggml_level<Format>(in, j));
        }
        if constexpr (Format::has_min) {
            const float min = load_f16(in + 2);
            for (std::size_t j = 0; j < ggml_block; ++j) {
                out[j] += min;
            }
        }
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
