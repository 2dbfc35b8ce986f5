// SPDX-License-Identifier: Apache-2.0
/// @file
/// e^x for the arguments of a softmax, which are at most 0.
///
/// The argument is split into n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts, the first of 9
/// bits, so that its multiples are exact), e^r is a polynomial of degree 6 (relative error 3.1e-9,
/// Remez exchange), and n is added to the exponent bits. All rungs but the scalar one do the same operations in the same
/// order and agree bit for bit. Error: below 0.9 ulp, 2^-23 relative (measured on every seventh float); the scalar rung
/// has that of std::exp. Results below the smallest normal float (arguments below -87.3365) are 0. Such arguments, -infinity among
/// them, raise no floating-point exceptions; within kernels those between -infinity and -2e38 overflow.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/rungs/on_rung.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cmath>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// Smallest argument whose result is a normal float: -126 ln 2, rounded up.
inline constexpr float exp_lowest = -87.336540F;
/// Largest argument of the array form: leaves room to add such results.
inline constexpr float exp_highest = 88.0F;
/// What the array form takes smaller arguments for.
inline constexpr float exp_least = -1e38F;

/// e^x, 0 for NaN and below exp_lowest.
inline float exp_scalar(float x) noexcept { return x >= exp_lowest ? std::exp(x) : 0.0F; }

/// Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
inline constexpr float exp_rounder = 0x1.8p23F;
inline constexpr float exp_log2e = 0x1.715476p0F;
inline constexpr float exp_ln2_high = 0x1.63p-1F;
inline constexpr float exp_ln2_low = -0x1.bd0106p-13F;
inline constexpr float exp_c2 = 0x1.fffffcp-2F;
inline constexpr float exp_c3 = 0x1.555492p-3F;
inline constexpr float exp_c4 = 0x1.5558f2p-5F;
inline constexpr float exp_c5 = 0x1.123a20p-7F;
inline constexpr float exp_c6 = 0x1.6a23d0p-10F;

struct exp_args {
    const float* in;
    float* out;
    std::size_t size;
};

namespace on_scalar {
inline void exp_many(const exp_args& args) noexcept {
    for (std::size_t i = 0; i < args.size; ++i) {
        args.out[i] = exp_scalar(args.in[i] > exp_highest ? exp_highest : args.in[i]);
    }
}
} // namespace on_scalar

#define KVCRUSH_SCALAR_BY_HAND
#define KVCRUSH_ALGORITHM <kvcrush/simd/detail/exp_kernels.inl>
#include <kvcrush/simd/detail/rungs/each.inl>

} // namespace detail

/// e^x of each value. Arguments above 88 count as 88, NaN gives 0; no result is infinite or NaN.
/// @param[out] out  [in.size()]; may be the same memory as `in`
inline void
exp_many(std::span<const float> in, std::span<float> out, isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(out.size() == in.size());
    const detail::exp_args args{in.data(), out.data(), in.size()};
    KVCRUSH_ON_RUNG(detail, usable(at_most), exp_many(args))
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
