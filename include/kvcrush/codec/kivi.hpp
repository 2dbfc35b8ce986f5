// SPDX-License-Identifier: Apache-2.0
/// @file
/// KIVI: keys quantised along tokens, channel by channel, values along channels, token by token.
///
/// Keys have channels that are large for every token, values do not. So each channel of the keys gets a range of its own,
/// over some tokens, and each token of the values some ranges over its channels. Codes and metadata of both:
///
///     min = f16(least x), scale = f16((largest x - min) / (2^bits - 1)), code = round((x - min) / scale), ties to even,
///     within [0, 2^bits - 1]; x is read as scale * code + min
/// with the rounded min and scale. Where all x are equal, scale and codes are 0.
///
/// Deviations from the paper and the authors' code: x - min uses the rounded min, so that its rounding is not added to
/// that of the code; a range of 0 is stored as it is (theirs divides 0 by 0); rows outside the range of f16 are refused.
/// Theirs keeps a full-precision window of its own for keys, which is emptied when it is full, and one for values, which
/// gives its oldest token away at every step. In kv_sequence keys and values of a token leave the window together, when
/// they are told to and their group is full: the window is never shorter than it is set to, and a group's tokens long
/// at most beyond it.
/// @see KIVI, arXiv:2402.02750
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/core/finite_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/convert.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// The largest code: 3 or 15.
[[nodiscard]] constexpr unsigned kivi_levels(std::size_t bits) noexcept {
    return (1U << bits) - 1U;
}

/// What rounds to an infinite f16. Ranges of smaller values fit f16 as well: a third of twice the largest of them at
/// most.
inline constexpr float kivi_limit = 65520.0F;

/// Scale and min of one range, as stored and as read.
struct kivi_range {
    f16 stored_scale;
    f16 stored_min;
    float scale;
    float min;

    kivi_range(float least, float largest, std::size_t bits) noexcept : stored_min(to_f16(least)) {
        min = to_float(stored_min);
        // Rounding may lift min above the largest value.
        const float range = largest > least ? (std::max)(largest - min, 0.0F) : 0.0F;
        stored_scale = to_f16(range / static_cast<float>(kivi_levels(bits)));
        scale = to_float(stored_scale);
    }
};

/// A code from (x - min) / scale. Adding 2^23 rounds to an integer, ties to even, which then are the low bits.
[[nodiscard]] inline unsigned kivi_code(float quotient, float highest) noexcept {
    const float clamped = (std::min)((std::max)(quotient, 0.0F), highest);
    return std::bit_cast<std::uint32_t>(clamped + 0x1p23F) & 0xFU;
}

inline void
require_kivi(std::string_view name, std::size_t bits, std::string_view what, std::size_t together) {
    require(bits == 2 || bits == 4, name, ": bits is ", bits, "; it must be 2 or 4");
    require(together > 0 && together <= 256 && together % (8 / bits) == 0,
            name,
            ": ",
            what,
            " is ",
            together,
            "; ",
            bits,
            " bits need a multiple of ",
            8 / bits,
            ", 256 at most");
}

} // namespace detail

/// Keys of `tokens` tokens together, each channel in a range of its own.
///
/// Storage: dim f16 scales, dim f16 mins, then tokens * bits / 8 rows of dim bytes. Byte c of row r holds channel c of
/// 8 / bits consecutive tokens, the first in the low bits: the authors' packing, with channels side by side.
/// bits + 32 / tokens bits per element.
///
/// Error on Gaussian rows: 0.006 of the squared norm with 4 bits, 0.15 with 2; far less on keys, whose channels differ.
/// Not to be rotated. Defaults of the authors' scripts: 2 bits, groups of 32; they advise 4 bits where query heads share
/// a kv head.
/// @see the deviations at the top of this file
struct kivi_key_codec {
    static constexpr std::string_view name = "kivi_key";

    std::size_t bits = 4;
    std::size_t tokens = 32;

    static constexpr auto parameters() {
        using self = kivi_key_codec;
        return parameter_list{
            parameter{"bits", &self::bits, "bits per channel, 2 or 4"},
            parameter{"tokens", &self::tokens, "tokens that share the range of a channel"}};
    }
    /// @throws std::invalid_argument unless bits is 2 or 4 and a channel's codes fill whole bytes
    void validate() const { detail::require_kivi(name, bits, "tokens", tokens); }
    /// @throws std::invalid_argument if dim is 0
    void validate_for(std::size_t dim) const {
        detail::require(dim > 0, name, ": rows have 0 channels; they must have at least 1");
    }

    [[nodiscard]] constexpr std::size_t group_size() const noexcept { return tokens; }
    [[nodiscard]] constexpr std::size_t group_bytes(std::size_t dim) const noexcept {
        return 2 * sizeof(f16) * dim + tokens * bits / 8 * dim;
    }

    /// @param rows  [tokens, dim]
    /// @return false, with nothing written, if a value is NaN, infinite or too large for f16 (65520)
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(rows.size() == tokens * dim && bytes.size() == group_bytes(dim));
        static_cast<void>(at_most);
        if (!detail::all_below(rows, detail::kivi_limit)) {
            return false;
        }
        for (std::size_t first = 0; first < dim; first += block) {
            encode_channels(rows.data() + first, dim, (std::min)(block, dim - first), first, bytes);
        }
        return true;
    }

    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(bytes.size() == group_bytes(dim) && rows.size() == tokens * dim);
        static_cast<void>(at_most);
        for (std::size_t first = 0; first < dim; first += block) {
            decode_channels(bytes, dim, (std::min)(block, dim - first), first, rows.data() + first);
        }
    }

private:
    /// Channels that are worked on together: loops of a fixed length, which compilers turn into vector code.
    static constexpr std::size_t block = 32;

    /// Copies `width` of at most `block` elements.
    template <typename T>
    static void copy_block(const T* from, std::size_t width, T* to) noexcept {
        if (width == block) {
            std::memcpy(to, from, block * sizeof(T));
        } else {
            std::memcpy(to, from, width * sizeof(T));
        }
    }

    void encode_channels(const float* rows,
                         std::size_t dim,
                         std::size_t width,
                         std::size_t first,
                         std::span<std::byte> bytes) const noexcept {
        float row[block] = {};
        float least[block] = {};
        float largest[block] = {};
        copy_block(rows, width, least);
        copy_block(rows, width, largest);
        for (std::size_t t = 1; t < tokens; ++t) {
            copy_block(rows + t * dim, width, row);
            for (std::size_t c = 0; c < block; ++c) {
                least[c] = row[c] < least[c] ? row[c] : least[c];
                largest[c] = row[c] > largest[c] ? row[c] : largest[c];
            }
        }
        float min[block];
        float divisor[block];
        f16 stored_scale[block];
        f16 stored_min[block];
        for (std::size_t c = 0; c < block; ++c) {
            const detail::kivi_range range(least[c], largest[c], bits);
            stored_scale[c] = range.stored_scale;
            stored_min[c] = range.stored_min;
            min[c] = range.min;
            divisor[c] = range.scale;
        }
        std::memcpy(bytes.data() + first * sizeof(f16), stored_scale, width * sizeof(f16));
        std::memcpy(bytes.data() + (dim + first) * sizeof(f16), stored_min, width * sizeof(f16));

        const std::size_t per_byte = 8 / bits;
        const auto highest = static_cast<float>(detail::kivi_levels(bits));
        for (std::size_t r = 0; r < tokens / per_byte; ++r) {
            unsigned packed[block] = {};
            for (std::size_t k = 0; k < per_byte; ++k) {
                copy_block(rows + (r * per_byte + k) * dim, width, row);
                for (std::size_t c = 0; c < block; ++c) {
                    const float quotient =
                        divisor[c] == 0.0F ? 0.0F : (row[c] - min[c]) / divisor[c];
                    packed[c] |= detail::kivi_code(quotient, highest) << (bits * k);
                }
            }
            std::byte codes[block];
            for (std::size_t c = 0; c < block; ++c) {
                codes[c] = static_cast<std::byte>(packed[c]);
            }
            std::memcpy(bytes.data() + code_row(dim, r) + first, codes, width);
        }
    }

    void decode_channels(std::span<const std::byte> bytes,
                         std::size_t dim,
                         std::size_t width,
                         std::size_t first,
                         float* rows) const noexcept {
        f16 halves[block] = {};
        float scale[block];
        float min[block];
        copy_block(bytes.data() + first * sizeof(f16), width, halves);
        simd::to_float<f16>(halves, scale);
        copy_block(bytes.data() + (dim + first) * sizeof(f16), width, halves);
        simd::to_float<f16>(halves, min);
        const std::size_t per_byte = 8 / bits;
        const unsigned mask = detail::kivi_levels(bits);
        std::uint8_t codes[block] = {};
        float row[block];
        for (std::size_t r = 0; r < tokens / per_byte; ++r) {
            std::memcpy(codes, bytes.data() + code_row(dim, r) + first, width);
            for (std::size_t k = 0; k < per_byte; ++k) {
                for (std::size_t c = 0; c < block; ++c) {
                    const unsigned code = codes[c] >> (bits * k) & mask;
                    row[c] = scale[c] * static_cast<float>(static_cast<int>(code)) + min[c];
                }
                copy_block(row, width, rows + (r * per_byte + k) * dim);
            }
        }
    }

    /// Copies `width` f16 out of bytes that need not be aligned.
    static void copy_block(const std::byte* from, std::size_t width, f16* to) noexcept {
        std::memcpy(to, from, width * sizeof(f16));
    }

    /// Where a row of codes begins.
    [[nodiscard]] static constexpr std::size_t code_row(std::size_t dim, std::size_t r) noexcept {
        return 2 * sizeof(f16) * dim + r * dim;
    }
};
static_assert(Codec<kivi_key_codec>);

/// Values of one token, every `channels` channels in a range of their own.
///
/// Storage of a block of channels: f16 scale, f16 min, then n = channels * bits / 8 bytes, byte j holding the channels
/// j, j + n, ..., the first in the low bits. bits + 32 / channels bits per element. With 4 bits and 32 channels this is the
/// block of ggml's q4_1, which differs in how it rounds.
///
/// Error on Gaussian rows: 0.006 of the squared norm with 4 bits and 32 channels, 0.01 with 128 channels. Defaults of
/// the authors' scripts: 2 bits, 32 channels.
/// @see the deviations at the top of this file
struct kivi_value_codec {
    static constexpr std::string_view name = "kivi_value";

    std::size_t bits = 4;
    std::size_t channels = 32;

    static constexpr auto parameters() {
        using self = kivi_value_codec;
        return parameter_list{
            parameter{"bits", &self::bits, "bits per channel, 2 or 4"},
            parameter{"channels", &self::channels, "channels that share a range"}};
    }
    /// @throws std::invalid_argument unless bits is 2 or 4 and the codes of a range fill whole bytes
    void validate() const { detail::require_kivi(name, bits, "channels", channels); }
    /// @throws std::invalid_argument unless dim is a multiple of channels
    void validate_for(std::size_t dim) const {
        detail::require(dim > 0 && dim % channels == 0,
                        name,
                        ": rows have ",
                        dim,
                        " channels; they must have a multiple of ",
                        channels);
    }

    [[nodiscard]] static constexpr std::size_t group_size() noexcept { return 1; }
    [[nodiscard]] constexpr std::size_t group_bytes(std::size_t dim) const noexcept {
        return dim / channels * block_bytes();
    }

    /// @return false, with nothing written, if a value is NaN, infinite or too large for f16 (65520)
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(rows.size() == dim && bytes.size() == group_bytes(dim));
        static_cast<void>(at_most);
        if (!detail::all_below(rows, detail::kivi_limit)) {
            return false;
        }
        for (std::size_t b = 0; b < dim / channels; ++b) {
            encode_block(rows.data() + b * channels, bytes.data() + b * block_bytes());
        }
        return true;
    }

    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(bytes.size() == group_bytes(dim) && rows.size() == dim);
        static_cast<void>(at_most);
        for (std::size_t b = 0; b < dim / channels; ++b) {
            decode_block(bytes.data() + b * block_bytes(), rows.data() + b * channels);
        }
    }

private:
    [[nodiscard]] constexpr std::size_t code_bytes() const noexcept { return channels * bits / 8; }
    [[nodiscard]] constexpr std::size_t block_bytes() const noexcept {
        return 2 * sizeof(f16) + code_bytes();
    }

    void encode_block(const float* row, std::byte* bytes) const noexcept {
        float least = row[0];
        float largest = row[0];
        for (std::size_t c = 1; c < channels; ++c) {
            least = row[c] < least ? row[c] : least;
            largest = row[c] > largest ? row[c] : largest;
        }
        const detail::kivi_range range(least, largest, bits);
        std::memcpy(bytes, &range.stored_scale, sizeof(f16));
        std::memcpy(bytes + sizeof(f16), &range.stored_min, sizeof(f16));
        std::byte* const codes = bytes + 2 * sizeof(f16);
        const std::size_t count = code_bytes();
        const auto highest = static_cast<float>(detail::kivi_levels(bits));
        for (std::size_t j = 0; j < count; ++j) {
            unsigned packed = 0;
            for (std::size_t k = 0; k < 8 / bits; ++k) {
                const float quotient =
                    range.scale == 0.0F ? 0.0F : (row[j + k * count] - range.min) / range.scale;
                packed |= detail::kivi_code(quotient, highest) << (bits * k);
            }
            codes[j] = static_cast<std::byte>(packed);
        }
    }

    void decode_block(const std::byte* bytes, float* row) const noexcept {
        f16 stored_scale;
        f16 stored_min;
        std::memcpy(&stored_scale, bytes, sizeof(f16));
        std::memcpy(&stored_min, bytes + sizeof(f16), sizeof(f16));
        const float scale = to_float(stored_scale);
        const float min = to_float(stored_min);
        const std::byte* const codes = bytes + 2 * sizeof(f16);
        const std::size_t count = code_bytes();
        const unsigned mask = detail::kivi_levels(bits);
        for (std::size_t k = 0; k < 8 / bits; ++k) {
            for (std::size_t j = 0; j < count; ++j) {
                const unsigned code = std::to_integer<unsigned>(codes[j]) >> (bits * k) & mask;
                row[j + k * count] = scale * static_cast<float>(static_cast<int>(code)) + min;
            }
        }
    }
};
static_assert(Codec<kivi_value_codec>);

} // namespace v0
} // namespace kvcrush
