// SPDX-License-Identifier: Apache-2.0
/// @file
/// Any row codec, with rows turned by a Hadamard matrix first.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/rotation.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Stores H S x with `Inner` (see rotation). A few large channels no longer set the scale of their whole block: at 4 bits
/// that halves the loss of q4_0; formats of 8 bits gain nothing.
///
/// Storage: that of `Inner`. Wrap mean_centred around this one, not the other way round. Not for codecs of token groups:
/// turning a row destroys the likeness of its channels from token to token that kivi lives on.
/// @see QuaRot, arXiv:2404.00456; without signs as in llama.cpp
template <Codec Inner>
    requires(!RotatingCodec<Inner> && !CentringCodec<Inner>)
struct hadamard_codec {
    static constexpr std::string_view name = "hadamard";

    Inner inner{};
    /// Random signs before the transform.
    bool signs = false;
    /// Which signs.
    std::uint64_t seed = 0;

    static constexpr auto parameters() {
        using self = hadamard_codec;
        return parameter_list{parameter{"signs", &self::signs, "random signs before the transform"},
                              parameter{"seed", &self::seed, "another seed, other signs"}};
    }
    /// "q4_0,signs=1"
    [[nodiscard]] std::string arguments() const {
        std::string result = policy_text(inner);
        append_argument(result, changed_parameters(*this, hadamard_codec{}));
        return result;
    }
    /// @throws std::invalid_argument if the inner codec is not in order or does not store single rows
    void validate() const {
        inner.validate();
        detail::require(inner.group_size() == 1,
                        name,
                        ": ",
                        Inner::name,
                        " stores ",
                        inner.group_size(),
                        " tokens together; it must store single rows");
    }
    /// @throws std::invalid_argument if the inner codec cannot store such rows, or they cannot be turned
    void validate_for(std::size_t dim) const {
        rotation::validate_for(dim, name);
        inner.validate_for(dim);
    }

    [[nodiscard]] constexpr std::size_t group_size() const noexcept { return inner.group_size(); }
    [[nodiscard]] constexpr std::size_t group_bytes(std::size_t dim) const noexcept {
        return inner.group_bytes(dim);
    }

    /// @return false, with nothing written, if a value is NaN or infinite, or the inner codec cannot hold the turned row
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(rows.size() == dim);
        static_cast<void>(dim);
        // NaN and infinity stay what they are, or one another, in a sum: the inner codec refuses them.
        return detail::encode_rotated(turn(), inner, rows, bytes, at_most);
    }

    /// Rows in the basis of the model.
    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        inner.decode(bytes, dim, rows, at_most);
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
    [[nodiscard]] constexpr const Inner& stored() const noexcept { return inner; }

private:
    [[nodiscard]] constexpr rotation turn() const noexcept {
        return {.signs = signs, .seed = seed};
    }
};

} // namespace v0
} // namespace kvcrush
