// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rows of 8-bit floating-point numbers.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/core/finite_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/simd/isa.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// S.1111.111 is NaN, and there is no infinity: what others call e4m3fn.
struct fp8_e4m3 {
    static constexpr std::string_view name = "fp8_e4m3";
    static constexpr int mantissa_bits = 3;
    static constexpr int exponent_bias = 7;
    static constexpr float largest = 448.0F;
    static constexpr unsigned infinity = 0x80; // none
    static constexpr unsigned nan = 0x7F;      // and above
};
/// The upper half of an f16.
struct fp8_e5m2 {
    static constexpr std::string_view name = "fp8_e5m2";
    static constexpr int mantissa_bits = 2;
    static constexpr int exponent_bias = 15;
    static constexpr float largest = 57344.0F;
    static constexpr unsigned infinity = 0x7C;
    static constexpr unsigned nan = 0x7D;
};

/// The nearest number of the format, ties to even; what is too large becomes the largest.
template <typename Format>
[[nodiscard]] inline std::uint8_t to_fp8(float value) noexcept {
    constexpr int shift = 23 - Format::mantissa_bits;
    // 2^(1 - bias): below it numbers are equally spaced. Adding a power of two with that spacing rounds to it.
    constexpr std::uint32_t least_normal = (128U - Format::exponent_bias) << 23;
    constexpr float spacer =
        std::bit_cast<float>(least_normal + (static_cast<std::uint32_t>(shift) << 23));
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = bits >> 24 & 0x80U;
    std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    constexpr auto limit = std::bit_cast<std::uint32_t>(Format::largest);
    magnitude = magnitude < limit ? magnitude : limit;
    const std::uint32_t even = magnitude >> shift & 1U;
    const std::uint32_t half = (std::uint32_t{1} << (shift - 1)) - 1U;
    const std::uint32_t normal =
        ((magnitude + half + even) >> shift) -
        (static_cast<std::uint32_t>(127 - Format::exponent_bias) << Format::mantissa_bits);
    const std::uint32_t subnormal =
        std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + spacer) -
        std::bit_cast<std::uint32_t>(spacer);
    return static_cast<std::uint8_t>(sign | (magnitude < least_normal ? subnormal : normal));
}

template <typename Format>
[[nodiscard]] inline float from_fp8(std::uint8_t code) noexcept {
    constexpr int shift = 23 - Format::mantissa_bits;
    constexpr float least = std::bit_cast<float>(
        static_cast<std::uint32_t>(128 - Format::exponent_bias - Format::mantissa_bits) << 23);
    const std::uint32_t magnitude = code & 0x7FU;
    // Sums of bits rather than a product with a power of two: that would meet subnormal floats, which some programs
    // have switched off.
    const std::uint32_t normal =
        (magnitude << shift) + (static_cast<std::uint32_t>(127 - Format::exponent_bias) << 23);
    std::uint32_t bits =
        magnitude >> Format::mantissa_bits == 0
            ? std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<int>(magnitude)) * least)
            : normal;
    bits = magnitude >= Format::nan ? 0x7FC00000U : bits;
    bits = magnitude == Format::infinity ? 0x7F800000U : bits;
    return std::bit_cast<float>(bits | (code & 0x80U) << 24);
}

} // namespace detail

/// code = the 8-bit float nearest to x / scale, ties to even; x is read as scale * code. What is too large becomes the
/// largest number of the format times scale: 448 with e4m3, 57344 with e5m2.
///
/// Storage: dim bytes. 8 bits per element. `scale` is the codec's own and stored with no row: take it from a calibration, or
/// leave it at 1, where the keys of some models pass 448.
template <typename Format>
struct fp8_codec {
    static constexpr std::string_view name = Format::name;

    /// 1 in vLLM.
    float scale = 1.0F;

    static constexpr auto parameters() {
        return parameter_list{parameter{
            "scale", &fp8_codec::scale, "what rows are divided by before they are rounded"}};
    }
    /// @throws std::invalid_argument unless scale is above 0 and scale times the largest number finite
    void validate() const {
        detail::require(scale >= std::numeric_limits<float>::min() &&
                            scale <= std::numeric_limits<float>::max() / Format::largest,
                        name,
                        ": scale is ",
                        scale,
                        "; it must be above 0, and a number times ",
                        Format::largest);
    }
    /// @throws std::invalid_argument if dim is 0
    void validate_for(std::size_t dim) const {
        detail::require(dim > 0, name, ": rows have 0 channels; they must have at least 1");
    }

    [[nodiscard]] static constexpr std::size_t group_size() noexcept { return 1; }
    [[nodiscard]] static constexpr std::size_t group_bytes(std::size_t dim) noexcept { return dim; }

    /// @return false, with nothing written, if a value is NaN or infinite
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(rows.size() == dim && bytes.size() == group_bytes(dim));
        static_cast<void>(dim);
        static_cast<void>(at_most);
        if (!all_finite(rows)) {
            return false;
        }
        for (std::size_t i = 0; i < rows.size(); ++i) {
            bytes[i] = static_cast<std::byte>(detail::to_fp8<Format>(rows[i] / scale));
        }
        return true;
    }

    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(bytes.size() == group_bytes(dim) && rows.size() == dim);
        static_cast<void>(at_most);
        for (std::size_t i = 0; i < dim; ++i) {
            rows[i] = scale * detail::from_fp8<Format>(std::to_integer<std::uint8_t>(bytes[i]));
        }
    }
};

/// Four bits of exponent, three of mantissa: the "fp8" of most engines. Error on Gaussian rows: 0.0007 of the squared norm.
/// @see the OCP 8-bit floating point specification; arXiv:2209.05433
using fp8_e4m3_codec = fp8_codec<detail::fp8_e4m3>;
/// Five bits of exponent, two of mantissa: coarser, but without a scale to choose. Error on Gaussian rows: 0.0028.
/// @see the OCP 8-bit floating point specification; arXiv:2209.05433
using fp8_e5m2_codec = fp8_codec<detail::fp8_e5m2>;
static_assert(Codec<fp8_e4m3_codec> && Codec<fp8_e5m2_codec>);

} // namespace v0
} // namespace kvcrush
