// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rows as they are: f32, f16 or bf16 elements, so that dense and encoded rows are attended to alike.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/core/finite_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/convert.hpp>

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// One element per channel, rounded to nearest even.
///
/// Storage: elements of T in the machine's byte order. 32 or 16 bits per element.
template <Element T>
struct dense_codec {
    static constexpr std::string_view name = std::is_same_v<T, float> ? "f32"
                                             : std::is_same_v<T, f16> ? "f16"
                                                                      : "bf16";

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const noexcept {}
    /// @throws std::invalid_argument if dim is 0
    void validate_for(std::size_t dim) const {
        detail::require(dim > 0, name, ": rows have 0 channels; they must have at least 1");
    }

    [[nodiscard]] static constexpr std::size_t group_size() noexcept { return 1; }
    [[nodiscard]] static constexpr std::size_t group_bytes(std::size_t dim) noexcept {
        return dim * sizeof(T);
    }

    /// @return false, with nothing written, if a value is NaN, infinite or too large for T
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(rows.size() == dim && bytes.size() == group_bytes(dim));
        static_cast<void>(dim);
        if (!all_finite(rows)) {
            return false;
        }
        if constexpr (!std::is_same_v<T, float>) {
            for (const float value : rows) {
                // What rounds to infinity: half a step beyond the largest finite element.
                constexpr float limit = std::is_same_v<T, f16> ? 65520.0F : 0x1.FFp127F;
                if (value >= limit || value <= -limit) {
                    return false;
                }
            }
        }
        simd::from_float(rows, std::span(reinterpret_cast<T*>(bytes.data()), rows.size()), at_most);
        return true;
    }

    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(bytes.size() == group_bytes(dim) && rows.size() == dim);
        simd::to_float(std::span(reinterpret_cast<const T*>(bytes.data()), dim), rows, at_most);
    }
};
static_assert(Codec<dense_codec<float>> && Codec<dense_codec<f16>> && Codec<dense_codec<bf16>>);

} // namespace v0
} // namespace kvcrush
