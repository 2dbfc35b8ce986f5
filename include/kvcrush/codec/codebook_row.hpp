// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rows whose channels look Gaussian, as indices of Lloyd-Max centroids and one norm: what TurboQuant stores after it
/// has turned a row.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/core/finite_rows.hpp>
#include <kvcrush/codec/lloyd_max.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/codebook.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace detail {

template <std::size_t Bits>
inline constexpr simd::codebook<Bits> gaussian_codebook(lloyd_max<Bits>::centroids,
                                                        lloyd_max<Bits>::thresholds);

/// work(bits), with bits, 2 to 5, as a constant.
template <typename Work>
decltype(auto) with_codebook_bits(std::size_t bits, Work&& work) {
    switch (bits) {
    case 2: return work(std::integral_constant<std::size_t, 2>{});
    case 3: return work(std::integral_constant<std::size_t, 3>{});
    case 4: return work(std::integral_constant<std::size_t, 4>{});
    default: return work(std::integral_constant<std::size_t, 5>{});
    }
}

} // namespace detail

/// y = x * sqrt(dim) / ||x||, code = the nearest centroid c of N(0, 1); x is read as norm / sqrt(dim) * c.
///
/// Centroids are means, so decoded rows are shorter than what went in: by 6 % with 2 bits, 1.7 with 3, 0.5 with 4.
/// norm = ||x|| sqrt(dim) / ||c|| makes up for it (`correct_norm`); it changes the squared error by +3, -1 and -2 % of
/// what norm = ||x|| gives. Codes are the same for both, and chosen with the norm before it is rounded.
///
/// Storage: f16 norm, low byte first, then dim codes: channel i has bits [bits * i, bits * i + bits) of what follows,
/// read as one little-endian number (4 bits: 2 i low, 2 i + 1 high; 3 and 5 bits: eight channels in 24 and 40 bits;
/// 2 bits: four in a byte). bits + 16 / dim bits per element. A row with a norm that f16 rounds to zero (below 3e-8) is
/// stored as zeros.
/// @see arXiv:2504.19874 (the mse variant; stores ||x||). The corrected norm is that of the llama.cpp fork
///      llama-cpp-turboquant, whose 4-bit table is not used: it has twice the error.
struct codebook_row_codec {
    static constexpr std::string_view name = "codebook_row";

    std::size_t bits = 4;
    /// Decoded rows are as long as the rows were.
    bool correct_norm = true;

    static constexpr auto parameters() {
        using self = codebook_row_codec;
        return parameter_list{
            parameter{"bits", &self::bits, "bits per channel, 2 to 5"},
            parameter{"correct_norm", &self::correct_norm, "decoded rows keep their length"}};
    }
    /// @throws std::invalid_argument unless bits is 2, 3, 4 or 5
    void validate() const {
        detail::require(
            bits >= 2 && bits <= 5, name, ": bits is ", bits, "; it must be 2, 3, 4 or 5");
    }
    /// @throws std::invalid_argument unless the codes fill whole bytes
    void validate_for(std::size_t dim) const {
        detail::require(dim > 0, name, ": rows have 0 channels; they must have at least 1");
        const std::size_t step = bits == 4 ? 2 : bits == 2 ? 4 : 8;
        detail::require(dim % step == 0,
                        name,
                        ": rows have ",
                        dim,
                        " channels; ",
                        bits,
                        " bits need a multiple of ",
                        step);
    }

    [[nodiscard]] static constexpr std::size_t group_size() noexcept { return 1; }
    [[nodiscard]] constexpr std::size_t group_bytes(std::size_t dim) const noexcept {
        return norm_bytes + bits * dim / 8;
    }

    /// @return false, with nothing written, if a value is NaN or infinite, or the norm that is stored too large for f16
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(rows.size() == dim && bytes.size() == group_bytes(dim));
        static_cast<void>(dim);
        return detail::with_codebook_bits(bits, [&](auto constant) {
            return encode_row(detail::gaussian_codebook<constant>, rows, bytes, at_most);
        });
    }

    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(bytes.size() == group_bytes(dim) && rows.size() == dim);
        const f16 norm{static_cast<std::uint16_t>(std::to_integer<unsigned>(bytes[0]) |
                                                  std::to_integer<unsigned>(bytes[1]) << 8)};
        const float factor = to_float(norm) / std::sqrt(static_cast<float>(dim));
        const std::span<const std::byte> codes = bytes.subspan(norm_bytes);
        detail::with_codebook_bits(bits, [&](auto constant) {
            simd::decode_codes(detail::gaussian_codebook<constant>, codes, factor, rows, at_most);
        });
    }

private:
    static constexpr std::size_t norm_bytes = 2;

    template <std::size_t Bits>
    [[nodiscard]] bool encode_row(const simd::codebook<Bits>& book,
                                  std::span<const float> row,
                                  std::span<std::byte> bytes,
                                  simd::isa at_most) const noexcept {
        const double squares = simd::square_sum(row, at_most);
        if (!detail::is_finite(squares)) {
            return false;
        }
        const double norm = std::sqrt(squares);
        if (to_f16(static_cast<float>(norm)).bits == 0) {
            std::fill(bytes.begin(), bytes.end(), std::byte{0});
            return true;
        }
        const auto size = static_cast<float>(row.size());
        const auto factor = static_cast<float>(static_cast<double>(std::sqrt(size)) / norm);
        const auto stored_norm = [&](float chosen) {
            const auto length = static_cast<float>(norm);
            return to_f16(correct_norm ? length * std::sqrt(size / chosen) : length);
        };
        // Norms that cannot overflow, however short the centroids make the row, need no look ahead.
        if (norm > 65504.0 * static_cast<double>(lloyd_max<Bits>::centroids[book.size / 2]) &&
            stored_norm(simd::encode_codes(book, row, factor, {})).bits >= infinite) {
            return false;
        }
        const f16 stored =
            stored_norm(simd::encode_codes(book, row, factor, bytes.subspan(norm_bytes), at_most));
        bytes[0] = static_cast<std::byte>(stored.bits);
        bytes[1] = static_cast<std::byte>(stored.bits >> 8);
        return true;
    }

    static constexpr std::uint16_t infinite = 0x7C00;
};
static_assert(Codec<codebook_row_codec>);

} // namespace v0
} // namespace kvcrush
