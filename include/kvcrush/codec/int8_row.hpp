// SPDX-License-Identifier: Apache-2.0
/// @file
/// Eight bits per channel and one scale per row.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/detail/int8_row_kernels.hpp>
#include <kvcrush/core/finite_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/largest_magnitude.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// code = round(x / scale), ties to even, with scale = largest |x| of the row / 127; x is read as scale * code. As in
/// ggml's formats x / scale is x times the rounded inverse of the scale, unless the scale is tiny.
///
/// Storage: float scale, then dim signed bytes. 8 + 32 / dim bits per element. Free of loss in practice, and one
/// integer product per row: the format for keys where speed matters.
struct int8_row_codec {
    static constexpr std::string_view name = "int8_row";

    static constexpr auto parameters() { return parameter_list{}; }
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
        const simd::isa rung = simd::usable(at_most);
#if KVCRUSH_X86_DISPATCH
        if (rung == simd::isa::avx512 &&
            detail::int8_row_encode_avx512(rows.data(), dim, bytes.data())) {
            return true;
        }
        if (rung == simd::isa::avx2 &&
            detail::int8_row_encode_avx2(rows.data(), dim, bytes.data())) {
            return true;
        }
#endif
        const float largest = simd::largest_magnitude(rows, rung);
        if (!detail::is_finite(largest)) {
            return false;
        }
        const float scale = largest / 127.0F;
        std::memcpy(bytes.data(), &scale, sizeof scale);
        std::byte* const codes = bytes.data() + sizeof scale;
        const bool tiny = scale < detail::int8_row_least_scale;
        const float inverse = tiny ? 0.0F : 1.0F / scale;
        for (std::size_t i = 0; i < dim; ++i) {
            float code = std::nearbyint(rows[i] * inverse);
            if (tiny && scale != 0.0F) {
                // A quotient of 127.4 would come of a scale that is subnormal and lost digits.
                code = (std::clamp)(std::nearbyint(rows[i] / scale), -127.0F, 127.0F);
            }
            codes[i] = static_cast<std::byte>(static_cast<std::int8_t>(code));
        }
        return true;
    }

    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(bytes.size() == group_bytes(dim) && rows.size() == dim);
        float scale = 0.0F;
        std::memcpy(&scale, bytes.data(), sizeof scale);
        const std::byte* const codes = bytes.data() + sizeof scale;
        switch (simd::usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
        case simd::isa::avx512:
            return detail::int8_row_decode_avx512(codes, dim, scale, rows.data());
        case simd::isa::avx2: return detail::int8_row_decode_avx2(codes, dim, scale, rows.data());
#endif
        default:
            for (std::size_t i = 0; i < dim; ++i) {
                rows[i] = scale * static_cast<float>(static_cast<std::int8_t>(codes[i]));
            }
        }
    }
};
static_assert(Codec<int8_row_codec>);

} // namespace v0
} // namespace kvcrush
