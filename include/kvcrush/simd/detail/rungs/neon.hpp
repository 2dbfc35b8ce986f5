// SPDX-License-Identifier: Apache-2.0
/// @file
/// The operations of simd/detail/rungs/scalar.hpp on NEON (AArch64).
#pragma once

#include <kvcrush/config.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if KVCRUSH_NEON
#    include <arm_neon.h>
#    define KVCRUSH_OP [[gnu::always_inline]] inline

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace neon_rung {

inline constexpr std::size_t width = 16;
inline constexpr std::size_t num_sums = 16;
inline constexpr bool unsigned_first = false;

using bytes = uint8x16_t;
using ints = int32x4_t;
using floats = float32x4_t;
using quad = int8x16_t;
struct byte_table {
    uint8x16x2_t entries;
};

KVCRUSH_OP bytes load_bytes(const std::byte* from) noexcept {
    return vld1q_u8(reinterpret_cast<const std::uint8_t*>(from));
}
template <unsigned Shift, unsigned Bits>
KVCRUSH_OP bytes field(bytes of) noexcept {
    if constexpr (Shift > 0) {
        of = vshrq_n_u8(of, Shift);
    }
    if constexpr (Shift + Bits < 8) {
        of = vandq_u8(of, vdupq_n_u8((1U << Bits) - 1U));
    }
    return of;
}
template <unsigned From, unsigned At>
KVCRUSH_OP bytes with_bit(bytes low, bytes high) noexcept {
    if constexpr (From > At) {
        high = vshrq_n_u8(high, From - At);
    } else if constexpr (From < At) {
        high = vshlq_n_u8(high, At - From);
    }
    return vorrq_u8(low, vandq_u8(high, vdupq_n_u8(1U << At)));
}
template <unsigned Bits>
KVCRUSH_OP byte_table load_table(const std::uint8_t* entries) noexcept {
    return {{{vld1q_u8(entries), vld1q_u8(entries + 16)}}};
}
template <unsigned Bits>
KVCRUSH_OP bytes look_up(byte_table table, bytes codes) noexcept {
    if constexpr (Bits == 8) {
        return codes;
    } else if constexpr (Bits <= 4) {
        return vqtbl1q_u8(table.entries.val[0], codes);
    } else {
        return vqtbl2q_u8(table.entries, codes);
    }
}
KVCRUSH_OP bytes as_first(bytes of) noexcept { return of; }

KVCRUSH_OP quad load_quad(const void* from) noexcept {
    std::int32_t four = 0;
    std::memcpy(&four, from, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
KVCRUSH_OP ints all_ints(std::int32_t value) noexcept { return vdupq_n_s32(value); }
/// Sums of two products fit 16 bits, as no factor is -128.
KVCRUSH_OP ints dot_signed(ints sum, bytes a, quad b) noexcept {
    const int8x16_t signed_a = vreinterpretq_s8_u8(a);
    const int16x8_t low = vmull_s8(vget_low_s8(signed_a), vget_low_s8(b));
    const int16x8_t high = vmull_high_s8(signed_a, b);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
}
KVCRUSH_OP ints dot_weights(ints sum, bytes a, quad b) noexcept { return dot_signed(sum, a, b); }

KVCRUSH_OP floats to_floats(ints of) noexcept { return vcvtq_f32_s32(of); }
KVCRUSH_OP floats all_floats(float value) noexcept { return vdupq_n_f32(value); }
KVCRUSH_OP floats load_floats(const float* from) noexcept { return vld1q_f32(from); }
/// The first `count` of four lanes.
KVCRUSH_OP uint32x4_t first_lanes(std::size_t count) noexcept {
    constexpr std::uint32_t numbers[4] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(numbers),
                     vdupq_n_u32(static_cast<std::uint32_t>(count < 4 ? count : 4)));
}
KVCRUSH_OP floats load_first(const float* from, std::size_t count, floats otherwise) noexcept {
    if (count >= 4) {
        return vld1q_f32(from);
    }
    float lanes[4];
    vst1q_f32(lanes, otherwise);
    std::memcpy(lanes, from, count * sizeof(float));
    return vld1q_f32(lanes);
}
KVCRUSH_OP floats load_halves(const std::byte* from) noexcept {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(reinterpret_cast<const std::uint8_t*>(from))));
}
KVCRUSH_OP floats load_bfloats(const std::byte* from) noexcept {
    const uint8x8_t halves = vld1_u8(reinterpret_cast<const std::uint8_t*>(from));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(halves), 16));
}
KVCRUSH_OP floats load_signed(const std::byte* from) noexcept {
    std::uint32_t four = 0;
    std::memcpy(&four, from, 4);
    const int16x8_t codes = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(codes)));
}
KVCRUSH_OP void store_floats(float* to, floats of) noexcept { vst1q_f32(to, of); }
KVCRUSH_OP void store_first(float* to, std::size_t count, floats of) noexcept {
    if (count >= 4) {
        return vst1q_f32(to, of);
    }
    float lanes[4];
    vst1q_f32(lanes, of);
    std::memcpy(to, lanes, count * sizeof(float));
}
KVCRUSH_OP floats keep_where(uint32x4_t lanes, floats of) noexcept {
    return vreinterpretq_f32_u32(vandq_u32(lanes, vreinterpretq_u32_f32(of)));
}
KVCRUSH_OP floats keep_first(std::size_t count, floats of) noexcept {
    return keep_where(first_lanes(count), of);
}
KVCRUSH_OP floats keep_from(floats bound, floats x, floats of) noexcept {
    return keep_where(vcgeq_f32(x, bound), of);
}
KVCRUSH_OP floats add(floats a, floats b) noexcept { return vaddq_f32(a, b); }
KVCRUSH_OP floats subtract(floats a, floats b) noexcept { return vsubq_f32(a, b); }
KVCRUSH_OP floats multiply(floats a, floats b) noexcept { return vmulq_f32(a, b); }
KVCRUSH_OP floats multiply_add(floats a, floats b, floats c) noexcept { return vfmaq_f32(c, a, b); }
KVCRUSH_OP floats times_power_of_two(floats of, floats low_bits) noexcept {
    return vreinterpretq_f32_u32(
        vaddq_u32(vreinterpretq_u32_f32(of), vshlq_n_u32(vreinterpretq_u32_f32(low_bits), 23)));
}
KVCRUSH_OP floats smaller(floats a, floats b) noexcept { return vbslq_f32(vcltq_f32(a, b), a, b); }
KVCRUSH_OP floats larger(floats a, floats b) noexcept {
    return vbslq_f32(vcgtq_f32(a, b), a, b); // a NaN in a gives b, as elsewhere
}
KVCRUSH_OP floats magnitude(floats of) noexcept { return vabsq_f32(of); }
KVCRUSH_OP float largest_lane(floats of) noexcept { return vmaxnmvq_f32(of); }
KVCRUSH_OP bool any_above(floats a, floats b) noexcept { return vmaxvq_u32(vcgtq_f32(a, b)) != 0; }
KVCRUSH_OP void add_lanes(const floats* of, float* out) noexcept {
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(of[0], of[1]), vpaddq_f32(of[2], of[3])));
    vst1q_f32(out + 4, vpaddq_f32(vpaddq_f32(of[4], of[5]), vpaddq_f32(of[6], of[7])));
}
KVCRUSH_OP float sum_of_sixteen(const floats* sixteen) noexcept {
    const floats four =
        vaddq_f32(vaddq_f32(sixteen[0], sixteen[2]), vaddq_f32(sixteen[1], sixteen[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
KVCRUSH_OP void add_sixteen(const floats* sixteen, double* sums) noexcept {
    for (std::size_t i = 0; i < 4; ++i, sums += 4) {
        vst1q_f64(sums, vaddq_f64(vld1q_f64(sums), vcvt_f64_f32(vget_low_f32(sixteen[i]))));
        vst1q_f64(sums + 2, vaddq_f64(vld1q_f64(sums + 2), vcvt_high_f64_f32(sixteen[i])));
    }
}
KVCRUSH_OP void add_eight(const floats* sixteen, float factor, double* sums) noexcept {
    const float64x2_t times = vdupq_n_f64(double{factor});
    for (std::size_t i = 0; i < 2; ++i, sums += 4) {
        const floats four = vaddq_f32(sixteen[i], sixteen[2 + i]);
        vst1q_f64(sums, vfmaq_f64(vcvt_f64_f32(vget_low_f32(four)), vld1q_f64(sums), times));
        vst1q_f64(sums + 2, vfmaq_f64(vcvt_high_f64_f32(four), vld1q_f64(sums + 2), times));
    }
}
/// The lowest byte of each lane.
KVCRUSH_OP void store_low_bytes(std::int8_t* to, int32x4_t lanes) noexcept {
    const int16x4_t halves = vqmovn_s32(lanes);
    const int8x8_t quarters = vqmovn_s16(vcombine_s16(halves, halves));
    const std::int32_t four = vget_lane_s32(vreinterpret_s32_s8(quarters), 0);
    std::memcpy(to, &four, 4);
}
KVCRUSH_OP void store_nearest(std::int8_t* to, floats of) noexcept {
    const floats bounded = vmaxnmq_f32(vminnmq_f32(of, vdupq_n_f32(127.0F)), vdupq_n_f32(-127.0F));
    store_low_bytes(to, vcvtnq_s32_f32(bounded));
}
KVCRUSH_OP void store_truncated(std::int8_t* to, floats of) noexcept {
    store_low_bytes(to, vcvtq_s32_f32(vminnmq_f32(of, vdupq_n_f32(127.0F))));
}

} // namespace neon_rung
} // namespace simd
} // namespace v0
} // namespace kvcrush
#    undef KVCRUSH_OP
#endif
