// SPDX-License-Identifier: Apache-2.0
/// @file
/// Eight bits per channel and one scale per row.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/finite_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <tuple>

namespace kvcrush {
inline namespace v0 {

/// code = round(x / scale), ties to even, with scale = largest |x| of the row / 127; x is read as scale * code.
///
/// Storage: float scale, then dim signed bytes. 8 + 32 / dim bits per element. Free of loss in practice, and one
/// integer product per row: the format for keys where speed matters.
struct int8_row_codec {
    static constexpr std::string_view name = "int8_row";

    static constexpr auto parameters() { return std::tuple{}; }
    void validate() const noexcept {}
    /// @throws std::invalid_argument if dim is 0
    void validate_for(std::size_t dim) const {
        detail::require(dim > 0, "int8_row: rows have 0 channels; they must have at least 1");
    }

    [[nodiscard]] static constexpr std::size_t group_size() noexcept { return 1; }
    [[nodiscard]] static constexpr std::size_t group_bytes(std::size_t dim) noexcept {
        return sizeof(float) + dim;
    }

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
        float largest = 0.0F;
        for (const float value : rows) {
            largest = (std::max)(largest, std::abs(value));
        }
        const float scale = largest / 127.0F;
        std::memcpy(bytes.data(), &scale, sizeof scale);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            // A quotient of 127.4 would come of a scale that is subnormal and lost digits.
            const float code = scale == 0.0F
                                   ? 0.0F
                                   : (std::clamp)(std::nearbyint(rows[i] / scale), -127.0F, 127.0F);
            bytes[sizeof(float) + i] = static_cast<std::byte>(static_cast<std::int8_t>(code));
        }
        return true;
    }

    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(bytes.size() == group_bytes(dim) && rows.size() == dim);
        static_cast<void>(at_most);
        float scale = 0.0F;
        std::memcpy(&scale, bytes.data(), sizeof scale);
        for (std::size_t i = 0; i < dim; ++i) {
            rows[i] =
                scale * static_cast<float>(static_cast<std::int8_t>(bytes[sizeof(float) + i]));
        }
    }
};
static_assert(Codec<int8_row_codec>);

} // namespace v0
} // namespace kvcrush
