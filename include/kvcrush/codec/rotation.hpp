// SPDX-License-Identifier: Apache-2.0
/// @file
/// Turning rows so that what a few channels hold is spread over all of them, before they are quantised.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/hadamard.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// x becomes H S x, S a diagonal of random signs (or none) and H the Walsh-Hadamard matrix / sqrt(n) of blocks of n
/// channels, n being the largest power of two that divides the row: 128 of 128, but 32 of 96 and 16 of 80.
///
/// The random signs keep a row that happens to look like a row of H (a constant one, say) from becoming a single spike.
/// @see QuaRot, arXiv:2404.00456. llama.cpp turns quantised caches without signs, in blocks of at least 64.
struct rotation {
    /// Rows are turned in a copy on the stack before they are stored; longer ones are refused.
    static constexpr std::size_t max_channels = 1024;
    static constexpr std::size_t min_block = 8;

    bool signs = false;
    std::uint64_t seed = 0;

    [[nodiscard]] static constexpr std::size_t block_size(std::size_t dim) noexcept {
        return dim & (~dim + 1);
    }

    /// @param  who  begins the message
    /// @throws std::invalid_argument unless dim is a multiple of 8 in [8, 1024]
    static void validate_for(std::size_t dim, std::string_view who) {
        detail::require(dim > 0 && dim % min_block == 0 && dim <= max_channels,
                        who,
                        ": rows have ",
                        dim,
                        " channels; rotation needs a multiple of ",
                        min_block,
                        " and at most ",
                        max_channels);
    }

    /// @param[in]  in   [any number, dim]
    /// @param[out] out  as many rows; may be `in`
    void rotate(std::span<const float> in,
                std::span<float> out,
                std::size_t dim,
                simd::isa at_most = simd::best()) const noexcept {
        const sign_words words = signs_of(dim);
        simd::hadamard(
            in, out, dim, block_size(dim), {signs ? words.data() : nullptr, nullptr}, at_most);
    }
    /// @param[in,out] rows  [any number, dim]
    void rotate(std::span<float> rows,
                std::size_t dim,
                simd::isa at_most = simd::best()) const noexcept {
        rotate(rows, rows, dim, at_most);
    }
    /// The inverse of rotate(), up to rounding.
    void unrotate(std::span<float> rows,
                  std::size_t dim,
                  simd::isa at_most = simd::best()) const noexcept {
        const sign_words words = signs_of(dim);
        simd::hadamard(
            rows, dim, block_size(dim), {nullptr, signs ? words.data() : nullptr}, at_most);
    }

private:
    using sign_words = std::array<std::uint64_t, max_channels / 64>;

    [[nodiscard]] sign_words signs_of(std::size_t dim) const noexcept {
        KVCRUSH_ASSERT(dim % min_block == 0 && dim <= max_channels);
        sign_words words;
        for (std::size_t w = 0; signs && w * 64 < dim; ++w) {
            words[w] = random_bits(seed, 0, w);
        }
        return words;
    }
};

namespace detail {

/// Stores rows turned by `turn` with `stored`.
template <typename Stored>
[[nodiscard]] bool encode_rotated(const rotation& turn,
                                  const Stored& stored,
                                  std::span<const float> row,
                                  std::span<std::byte> bytes,
                                  simd::isa rung) noexcept {
    KVCRUSH_ASSERT(row.size() <= rotation::max_channels);
    std::array<float, rotation::max_channels> buffer;
    const std::span<float> turned(buffer.data(), row.size());
    turn.rotate(row, turned, row.size(), rung);
    return stored.encode(turned, row.size(), bytes, rung);
}

} // namespace detail

} // namespace v0
} // namespace kvcrush
