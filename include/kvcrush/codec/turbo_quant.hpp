// SPDX-License-Identifier: Apache-2.0
/// @file
/// TurboQuant: rows turned at random look Gaussian, so one table of centroids fits them all.
#pragma once

#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/rotation.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Index 2 * bits + correct_norm: attention refers to the codec of the turned rows.
inline constexpr std::array<codebook_row_codec, 12> codebook_rows = [] {
    std::array<codebook_row_codec, 12> codecs{};
    for (std::size_t i = 0; i < codecs.size(); ++i) {
        codecs[i] = {.bits = i / 2, .correct_norm = i % 2 != 0};
    }
    return codecs;
}();

} // namespace detail

/// Random signs, the Hadamard transform (see rotation), then codebook_row: the nearest of 2^bits centroids per channel
/// and one norm per row.
///
/// Storage: that of codebook_row, bits + 16 / dim bits per element. Error on Gaussian rows: 0.117, 0.035, 0.0095 and
/// 0.0025 of the squared norm with 2, 3, 4 and 5 bits. Keys with a large mean spend their bits on it: centre them
/// (mean_centred).
/// @see arXiv:2504.19874, the mse variant. Deviations: a Hadamard matrix with signs instead of a dense random rotation;
///      centroids of N(0, 1) instead of the Beta distribution, which differ little; the norm makes up for the shrinkage
///      unless `correct_norm` is false; 5 bits as well. The prod variant, whose sign bits of the residual lose more than
///      they bring, is left out.
struct turbo_quant_codec {
    static constexpr std::string_view name = "turbo_quant";

    std::size_t bits = 4;
    /// Which random signs.
    std::uint64_t seed = 0;
    /// Random signs before the transform, as in the paper; llama.cpp and vLLM do without, or with fixed ones.
    bool signs = true;
    /// Decoded rows are as long as the rows were; false in the paper.
    bool correct_norm = true;

    static constexpr auto parameters() {
        using self = turbo_quant_codec;
        return parameter_list{
            parameter{"bits", &self::bits, "bits per channel, 2 to 5"},
            parameter{"seed", &self::seed, "another seed, other signs"},
            parameter{"signs", &self::signs, "random signs before the transform"},
            parameter{"correct_norm", &self::correct_norm, "decoded rows keep their length"}};
    }
    /// @throws std::invalid_argument unless bits is 2, 3, 4 or 5
    void validate() const {
        detail::require(
            bits >= 2 && bits <= 5, name, ": bits is ", bits, "; it must be 2, 3, 4 or 5");
    }
    /// @throws std::invalid_argument unless dim is a multiple of 8 in [8, 1024]
    void validate_for(std::size_t dim) const { rotation::validate_for(dim, name); }

    [[nodiscard]] static constexpr std::size_t group_size() noexcept { return 1; }
    [[nodiscard]] constexpr std::size_t group_bytes(std::size_t dim) const noexcept {
        return stored().group_bytes(dim);
    }

    /// @return false, with nothing written, if a value is NaN or infinite, or the norm that is stored too large for f16
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(rows.size() == dim);
        static_cast<void>(dim);
        return detail::encode_rotated(turn(), stored(), rows, bytes, at_most);
    }

    /// Rows in the basis of the model.
    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        stored().decode(bytes, dim, rows, at_most);
        unrotate(rows, dim, at_most);
    }

    void rotate(std::span<float> rows,
                std::size_t dim,
                simd::isa at_most = simd::best()) const noexcept {
        turn().rotate(rows, dim, at_most);
    }
    void unrotate(std::span<float> rows,
                  std::size_t dim,
                  simd::isa at_most = simd::best()) const noexcept {
        turn().unrotate(rows, dim, at_most);
    }
    [[nodiscard]] constexpr const codebook_row_codec& stored() const noexcept {
        KVCRUSH_ASSERT(bits >= 2 && bits <= 5);
        return detail::codebook_rows[2 * bits + (correct_norm ? 1 : 0)];
    }

private:
    [[nodiscard]] constexpr rotation turn() const noexcept {
        return {.signs = signs, .seed = seed};
    }
};
static_assert(RotatingCodec<turbo_quant_codec>);

} // namespace v0
} // namespace kvcrush
