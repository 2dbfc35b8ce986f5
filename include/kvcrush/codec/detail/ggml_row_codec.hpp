// SPDX-License-Identifier: Apache-2.0
/// @file
/// A row codec of any block format of ggml.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/detail/ggml_avx2.hpp>
#include <kvcrush/codec/detail/ggml_avx512.hpp>
#include <kvcrush/codec/detail/ggml_format.hpp>
#include <kvcrush/core/finite_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/largest_magnitude.hpp>

#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Rows as blocks of 32 channels, one after the other. @tparam Derived  the codec itself, which has the name
template <typename Derived, typename Format>
struct ggml_row_codec {
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const noexcept {}
    /// @throws std::invalid_argument unless dim is a multiple of 32, and not 0
    void validate_for(std::size_t dim) const {
        require(dim > 0 && dim % ggml_block == 0,
                Derived::name,
                ": rows have ",
                dim,
                " channels; blocks need a multiple of 32");
    }

    [[nodiscard]] static constexpr std::size_t group_size() noexcept { return 1; }
    [[nodiscard]] static constexpr std::size_t group_bytes(std::size_t dim) noexcept {
        return dim / ggml_block * Format::bytes;
    }

    /// @return false, with nothing written, if a value is NaN or infinite, or the f16 scale or minimum of a block
    ///         would be infinite
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(rows.size() == dim && bytes.size() == group_bytes(dim));
        const float* const row = rows.data();
        const std::size_t num_blocks = dim / ggml_block;
        const simd::isa rung = simd::usable(at_most);
        // Short rows are looked at by the kernels of AVX2 and AVX-512 as they go; nothing may be written of a row that has
        // to be refused.
        const bool looked_at = !Format::has_min && num_blocks <= 4 && rung >= simd::isa::avx2;
        if (!looked_at &&
            !magnitude_below(simd::largest_magnitude(rows, rung), Format::surely_held)) {
            return encode_large(row, num_blocks, bytes.data());
        }
        bool stored = true;
        switch (rung) {
#if KVCRUSH_X86_DISPATCH
        case simd::isa::avx512:
            stored = ggml_encode_avx512<Format>(row, num_blocks, bytes.data());
            break;
        case simd::isa::avx2:
            stored = ggml_encode_avx2<Format>(row, num_blocks, bytes.data());
            break;
#endif
        default: ggml_encode_scalar<Format>(row, num_blocks, bytes.data());
        }
        return stored || encode_large(row, num_blocks, bytes.data());
    }

    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        KVCRUSH_ASSERT(bytes.size() == group_bytes(dim) && rows.size() == dim);
        const std::size_t num_blocks = dim / ggml_block;
        switch (simd::usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
        case simd::isa::avx512:
            return ggml_decode_avx512<Format>(bytes.data(), num_blocks, rows.data());
        case simd::isa::avx2:
            return ggml_decode_avx2<Format>(bytes.data(), num_blocks, rows.data());
#endif
        default: ggml_decode_scalar<Format>(bytes.data(), num_blocks, rows.data());
        }
    }

private:
    /// Rows with magnitudes that f16 scales may be too small for, or with NaN or infinity.
    KVCRUSH_COLD static bool
    encode_large(const float* row, std::size_t num_blocks, std::byte* bytes) noexcept {
        if (!all_finite({row, num_blocks * ggml_block})) {
            return false;
        }
        for (std::size_t b = 0; b < num_blocks; ++b) {
            if (!ggml_holds<Format>(row + b * ggml_block)) {
                return false;
            }
        }
        ggml_encode_scalar<Format>(row, num_blocks, bytes);
        return true;
    }
};

} // namespace detail
} // namespace v0
} // namespace kvcrush
