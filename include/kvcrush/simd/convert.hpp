// SPDX-License-Identifier: Apache-2.0
/// @file
/// Conversion of rows of elements to float and back, bit for bit the same as to_float and
/// from_float of core/types.hpp on every rung: f16 by the instructions of F16C and AVX-512, bf16 by
/// integer arithmetic (vcvtneps2bf16 would flush subnormals to zero).
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/detail/convert_avx.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Widens a row; exact, and a signalling NaN becomes a quiet one.
///
/// @param[in]  in   elements
/// @param[out] out  as many floats; must not overlap `in`
template <Element T>
void to_float(std::span<const T> in, std::span<float> out, isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(in.size() == out.size());
    if constexpr (std::is_same_v<std::remove_const_t<T>, float>) {
        static_cast<void>(at_most);
        std::copy_n(in.data(), in.size(), out.data());
    } else {
        switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
        case isa::avx512: return detail::to_float_avx512(in.data(), out.data(), in.size());
        case isa::avx2: return detail::to_float_avx2(in.data(), out.data(), in.size());
#endif
        default:
            for (std::size_t i = 0; i < in.size(); ++i) {
                out[i] = kvcrush::to_float(in[i]);
            }
        }
    }
}

/// Narrows a row: rounds to nearest, ties to even; what is too large becomes infinity, and NaN
/// stays NaN.
///
/// @param[in]  in   floats
/// @param[out] out  as many elements; must not overlap `in`
template <Element T>
void from_float(std::span<const float> in, std::span<T> out, isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(in.size() == out.size());
    if constexpr (std::is_same_v<T, float>) {
        static_cast<void>(at_most);
        std::copy_n(in.data(), in.size(), out.data());
    } else {
        switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
        case isa::avx512: return detail::from_float_avx512(in.data(), out.data(), in.size());
        case isa::avx2: return detail::from_float_avx2(in.data(), out.data(), in.size());
#endif
        default:
            for (std::size_t i = 0; i < in.size(); ++i) {
                out[i] = kvcrush::from_float<T>(in[i]);
            }
        }
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
