// SPDX-License-Identifier: Apache-2.0
/// @file
/// Codes of sixteen rows side by side, so that one instruction works on all of them: no sum runs across lanes, one scale
/// serves a lane, and what is loaded once serves all query heads of a group.
///
/// A tile holds what its rows hold: first the heads of all (norm or scale, as their codec writes them), then blocks of 32
/// channels. The 512 codes of a block are eight vectors of 64, in each of which four codes side by side are multiplied
/// with the same four numbers:
///     keys    vector v: channels 4 v to 4 v + 3 of the block;       code 4 t + i is row t, channel i of them
///     values  vector v: channels 16 (v / 4) to 16 (v / 4) + 15, rows 4 (v % 4) to 4 (v % 4) + 3;
///             code 4 c + i is channel c of them, row i of them
/// Codes of 8, 4 and 2 bits lie 1, 2 and 4 vectors in 64 bytes, the first one in the low bits; those of 3 and 5 bits as 2
/// and 4 bits and, behind these, 64 bytes with the topmost bit of vector v in bit v.
#pragma once

#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/config.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

namespace kvcrush {
inline namespace v0 {

namespace detail {

/// work(bits), with bits, 2 to 5 or 8, as a constant.
template <typename Work>
void with_tile_bits(std::size_t bits, Work&& work) noexcept {
    if (bits == 8) {
        work(std::integral_constant<std::size_t, 8>{});
    } else {
        with_codebook_bits(bits, std::forward<Work>(work));
    }
}

/// Eight codes, a byte each, in two little-endian numbers.
struct eight_codes {
    std::uint32_t first;
    std::uint32_t last;
};

/// A number of four codes of Bits bits, one behind the other, as a byte each.
template <std::size_t Bits>
[[nodiscard]] constexpr std::uint32_t spread_codes(std::uint32_t packed) noexcept {
    constexpr std::uint32_t one = (1U << Bits) - 1U;
    constexpr std::uint32_t two = (1U << 2 * Bits) - 1U;
    const std::uint32_t halves = (packed & two) | (packed & ~two) << (16 - 2 * Bits);
    return (halves & one * 0x10001U) | (halves & (one << Bits) * 0x10001U) << (8 - Bits);
}
/// The other way.
template <std::size_t Bits>
[[nodiscard]] constexpr std::uint32_t gather_codes(std::uint32_t four) noexcept {
    const std::uint32_t halves = (four & 0x00FF00FFU) | (four & 0xFF00FF00U) >> (8 - Bits);
    return (halves & 0xFFFFU) | halves >> 16 << 2 * Bits;
}
static_assert(spread_codes<5>(gather_codes<5>(0x1F001F1EU)) == 0x1F001F1EU);
static_assert(spread_codes<2>(gather_codes<2>(0x03000201U)) == 0x03000201U);

/// Codes of eight channels, from a multiple of eight on: they lie in Bits bytes.
template <std::size_t Bits>
[[nodiscard]] eight_codes read_codes(const std::byte* codes, std::size_t channel) noexcept {
    // In one load or two, since an odd number of bytes goes through memory a second time.
    using whole = std::conditional_t < Bits < 4, std::uint16_t,
          std::conditional_t<Bits<8, std::uint32_t, std::uint64_t>>;
    codes += Bits * channel / 8;
    whole low;
    std::memcpy(&low, codes, sizeof low);
    std::uint64_t packed = low;
    if constexpr (Bits > sizeof low) {
        packed |= std::to_integer<std::uint64_t>(codes[sizeof low]) << 8 * sizeof low;
    }
    constexpr auto four = static_cast<std::uint32_t>((std::uint64_t{1} << 4 * Bits) - 1U);
    return {spread_codes<Bits>(static_cast<std::uint32_t>(packed) & four),
            spread_codes<Bits>(static_cast<std::uint32_t>(packed >> 4 * Bits))};
}
template <std::size_t Bits>
void write_codes(eight_codes eight, std::size_t channel, std::byte* codes) noexcept {
    const std::uint64_t packed =
        gather_codes<Bits>(eight.first) | std::uint64_t{gather_codes<Bits>(eight.last)} << 4 * Bits;
    std::memcpy(codes + Bits * channel / 8, &packed, Bits);
}

/// Four vectors of four bytes, as columns instead of rows.
[[nodiscard]] inline std::array<std::uint32_t, 4>
transposed_bytes(const std::array<std::uint32_t, 4>& rows) noexcept {
    constexpr std::uint32_t even = 0x00FF00FFU;
    const std::uint32_t even_01 = (rows[0] & even) | (rows[1] & even) << 8;
    const std::uint32_t odd_01 = (rows[0] >> 8 & even) | (rows[1] & ~even);
    const std::uint32_t even_23 = (rows[2] & even) | (rows[3] & even) << 8;
    const std::uint32_t odd_23 = (rows[2] >> 8 & even) | (rows[3] & ~even);
    return {(even_01 & 0xFFFFU) | even_23 << 16,
            (odd_01 & 0xFFFFU) | odd_23 << 16,
            even_01 >> 16 | (even_23 & 0xFFFF0000U),
            odd_01 >> 16 | (odd_23 & 0xFFFF0000U)};
}

/// A block of a tile, in numbers of four codes.
template <std::size_t Bits>
struct tile_block {
    /// Bits of a code that lie together; one more, if there is any, lies behind those of the block.
    static constexpr std::size_t main_bits = Bits & ~std::size_t{1};
    static constexpr std::size_t in_64 = 8 / main_bits;

    std::array<std::uint32_t, 16 * Bits> words{};

    /// Onto zeros. @param lane  a quarter of the byte's number
    void add(std::size_t vector, std::size_t lane, std::uint32_t four) noexcept {
        words[vector / in_64 * 16 + lane] |= (four & main_mask) << vector % in_64 * main_bits;
        if constexpr (main_bits != Bits) {
            words[main_bits * 16 + lane] |= (four >> main_bits & ones) << vector;
        }
    }
    void clear(std::size_t vector, std::size_t lane, std::uint32_t bytes) noexcept {
        words[vector / in_64 * 16 + lane] &= ~((bytes & main_mask) << vector % in_64 * main_bits);
        if constexpr (main_bits != Bits) {
            words[main_bits * 16 + lane] &= ~((bytes & ones) << vector);
        }
    }
    [[nodiscard]] std::uint32_t read(std::size_t vector, std::size_t lane) const noexcept {
        std::uint32_t four =
            words[vector / in_64 * 16 + lane] >> vector % in_64 * main_bits & main_mask;
        if constexpr (main_bits != Bits) {
            four |= (words[main_bits * 16 + lane] >> vector & ones) << main_bits;
        }
        return four;
    }

    /// Codes of eight channels of a row, from a multiple of eight on.
    void put(tile_role role, std::size_t slot, std::size_t channel, eight_codes eight) noexcept {
        if (role == tile_role::keys) {
            for (std::size_t half = 0; half < 2; ++half) {
                clear(channel / 4 + half, slot, ~0U);
                add(channel / 4 + half, slot, half == 0 ? eight.first : eight.last);
            }
            return;
        }
        const std::size_t vector = channel / 16 * 4 + slot / 4;
        const std::size_t shift = 8 * (slot % 4);
        for (std::size_t i = 0; i < 8; ++i) {
            const std::uint32_t four = i < 4 ? eight.first : eight.last;
            clear(vector, channel % 16 + i, 0xFFU << shift);
            add(vector, channel % 16 + i, (four >> 8 * (i % 4) & 0xFFU) << shift);
        }
    }
    [[nodiscard]] eight_codes
    get(tile_role role, std::size_t slot, std::size_t channel) const noexcept {
        if (role == tile_role::keys) {
            return {read(channel / 4, slot), read(channel / 4 + 1, slot)};
        }
        const std::size_t vector = channel / 16 * 4 + slot / 4;
        const std::size_t shift = 8 * (slot % 4);
        eight_codes eight{};
        for (std::size_t i = 0; i < 4; ++i) {
            eight.first |= (read(vector, channel % 16 + i) >> shift & 0xFFU) << 8 * i;
            eight.last |= (read(vector, channel % 16 + 4 + i) >> shift & 0xFFU) << 8 * i;
        }
        return eight;
    }

    /// All rows at once, onto zeros.
    /// @param rows      codes of the block's first channel of row 0, those of the others `stride` bytes apart
    /// @param channels  16 or 32
    void
    fill(tile_role role, const std::byte* rows, std::size_t stride, std::size_t channels) noexcept {
        for (std::size_t c = 0; c < channels; c += 8) {
            for (std::size_t t = 0; t < 16; t += 4) {
                std::array<std::uint32_t, 4> first;
                std::array<std::uint32_t, 4> last;
                for (std::size_t i = 0; i < 4; ++i) {
                    const eight_codes eight = read_codes<Bits>(rows + (t + i) * stride, c);
                    first[i] = eight.first;
                    last[i] = eight.last;
                }
                const bool across = role == tile_role::values;
                if (across) {
                    first = transposed_bytes(first);
                    last = transposed_bytes(last);
                }
                for (std::size_t i = 0; i < 4; ++i) {
                    if (across) {
                        add(c / 16 * 4 + t / 4, c % 16 + i, first[i]);
                        add(c / 16 * 4 + t / 4, c % 16 + 4 + i, last[i]);
                    } else {
                        add(c / 4, t + i, first[i]);
                        add(c / 4 + 1, t + i, last[i]);
                    }
                }
            }
        }
    }

private:
    static constexpr std::uint32_t ones = 0x01010101U;
    static constexpr std::uint32_t main_mask = ((1U << main_bits) - 1U) * ones;
};

} // namespace detail

/// How the rows of one codec lie in tiles. A row goes into a tile and comes out again as the bytes that its codec wrote.
struct code_tile {
    static constexpr std::size_t num_rows = 16;
    static constexpr std::size_t block_channels = 32;

    tile_role role = tile_role::keys;
    std::size_t bits = 4;
    /// Bytes that a row's codec writes before the codes.
    std::size_t head_bytes = 2;
    std::size_t dim = 0;

    /// Whether rows of so many channels can lie in tiles: values are added up sixteen channels at a time.
    [[nodiscard]] static constexpr bool suits(std::size_t dim) noexcept {
        return dim > 0 && dim % 16 == 0;
    }
    [[nodiscard]] static constexpr std::size_t num_blocks(std::size_t dim) noexcept {
        return (dim + block_channels - 1) / block_channels;
    }
    [[nodiscard]] static constexpr std::size_t block_bytes(std::size_t bits) noexcept {
        return 64 * bits;
    }
    /// A tile. As much as its rows one by one, where dim is a multiple of 32.
    [[nodiscard]] constexpr std::size_t bytes() const noexcept {
        return num_rows * head_bytes + num_blocks(dim) * block_bytes(bits);
    }
    [[nodiscard]] constexpr std::size_t row_bytes() const noexcept {
        return head_bytes + bits * dim / 8;
    }

    /// Writes a row over what its place held. O(dim)
    /// @param row   [row_bytes()], as its codec encoded it
    /// @param slot  which of the tile's rows, below num_rows
    void put(std::span<const std::byte> row, std::size_t slot, std::byte* tile) const noexcept {
        KVCRUSH_ASSERT(row.size() == row_bytes() && slot < num_rows);
        std::memcpy(tile + slot * head_bytes, row.data(), head_bytes);
        detail::with_tile_bits(bits, [&](auto constant) {
            for_each_block(tile, [&](std::byte* bytes, std::size_t first, std::size_t channels) {
                detail::tile_block<constant> block;
                std::memcpy(block.words.data(), bytes, sizeof block.words);
                for (std::size_t c = 0; c < channels; c += 8) {
                    block.put(role,
                              slot,
                              c,
                              detail::read_codes<constant>(row.data() + head_bytes, first + c));
                }
                std::memcpy(bytes, block.words.data(), sizeof block.words);
            });
        });
    }

    /// Writes all rows of a tile, which is several times faster than one after the other. O(num_rows * dim)
    /// @param rows  [num_rows, row_bytes()]
    void fill(std::span<const std::byte> rows, std::byte* tile) const noexcept {
        KVCRUSH_ASSERT(rows.size() == num_rows * row_bytes());
        for (std::size_t slot = 0; slot < num_rows; ++slot) {
            std::memcpy(tile + slot * head_bytes, rows.data() + slot * row_bytes(), head_bytes);
        }
        detail::with_tile_bits(bits, [&](auto constant) {
            for_each_block(tile, [&](std::byte* bytes, std::size_t first, std::size_t channels) {
                detail::tile_block<constant> block;
                block.fill(
                    role, rows.data() + head_bytes + bits * first / 8, row_bytes(), channels);
                std::memcpy(bytes, block.words.data(), sizeof block.words);
            });
        });
    }

    /// Reads a row as put() was given it. O(dim)
    /// @param[out] row  [row_bytes()]
    void get(const std::byte* tile, std::size_t slot, std::span<std::byte> row) const noexcept {
        KVCRUSH_ASSERT(row.size() == row_bytes() && slot < num_rows);
        std::memcpy(row.data(), tile + slot * head_bytes, head_bytes);
        detail::with_tile_bits(bits, [&](auto constant) {
            for_each_block(
                tile, [&](const std::byte* bytes, std::size_t first, std::size_t channels) {
                    detail::tile_block<constant> block;
                    std::memcpy(block.words.data(), bytes, sizeof block.words);
                    for (std::size_t c = 0; c < channels; c += 8) {
                        detail::write_codes<constant>(
                            block.get(role, slot, c), first + c, row.data() + head_bytes);
                    }
                });
        });
    }

private:
    /// work(its bytes, its first channel, how many of its channels rows have)
    template <typename Byte, typename Work>
    void for_each_block(Byte* tile, const Work& work) const noexcept {
        tile += num_rows * head_bytes;
        for (std::size_t c = 0; c < dim; c += block_channels, tile += block_bytes(bits)) {
            work(tile, c, dim - c < block_channels ? dim - c : block_channels);
        }
    }
};

/// How the rows of a codec lie in tiles. To be specialised with `static code_tile of(const C&, tile_role, std::size_t dim)`
/// for codecs whose rows are a head and codes of equal width, the first channel in the lowest bits.
template <Codec C>
struct code_tile_for;

template <>
struct code_tile_for<codebook_row_codec> {
    static constexpr code_tile
    of(const codebook_row_codec& codec, tile_role role, std::size_t dim) noexcept {
        return {.role = role, .bits = codec.bits, .head_bytes = 2, .dim = dim};
    }
};
template <>
struct code_tile_for<int8_row_codec> {
    static constexpr code_tile of(const int8_row_codec&, tile_role role, std::size_t dim) noexcept {
        return {.role = role, .bits = 8, .head_bytes = sizeof(float), .dim = dim};
    }
};

/// A codec whose rows can lie in tiles.
template <typename C>
concept TiledCodec = Codec<C> && requires(const C& codec) {
    { code_tile_for<C>::of(codec, tile_role::keys, std::size_t{}) } -> std::same_as<code_tile>;
};
static_assert(TiledCodec<codebook_row_codec> && TiledCodec<int8_row_codec>);

} // namespace v0
} // namespace kvcrush
