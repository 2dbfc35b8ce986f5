// SPDX-License-Identifier: Apache-2.0
/// @file
/// The operations that algorithms are written in, without any instruction set: what runs where no other rung does, and
/// what the others are compared with.
///
/// A rung is a namespace of these operations; an algorithm is a file `*.inl` that is included once per rung, see
/// simd/detail/rungs/each.inl.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace scalar_rung {

/// Bytes of a register.
inline constexpr std::size_t width = 16;
/// Registers that sums may live in at a time.
inline constexpr std::size_t num_sums = 8;
/// Whether products of bytes take the first one without sign.
inline constexpr bool unsigned_first = false;

struct bytes {
    std::uint8_t lane[width];
};
struct ints {
    std::int32_t lane[width / 4];
};
struct floats {
    float lane[width / 4];
};
/// Four bytes, for every four of a register.
struct quad {
    std::int8_t lane[4];
};
/// What codes of up to 5 bits stand for. Codes of 8 bits stand for themselves: looking them up changes nothing.
struct byte_table {
    const std::uint8_t* entries;
};

inline bytes load_bytes(const std::byte* from) noexcept {
    bytes out;
    std::memcpy(out.lane, from, width);
    return out;
}
/// Bits [Shift, Shift + Bits) of each byte.
template <unsigned Shift, unsigned Bits>
inline bytes field(bytes of) noexcept {
    for (std::uint8_t& lane : of.lane) {
        lane = static_cast<std::uint8_t>(lane >> Shift & ((1U << Bits) - 1U));
    }
    return of;
}
/// `low`, below bit At, and bit From of `high` at At. What `low` holds from At on does not matter.
template <unsigned From, unsigned At>
inline bytes with_bit(bytes low, bytes high) noexcept {
    for (std::size_t i = 0; i < width; ++i) {
        low.lane[i] = static_cast<std::uint8_t>((low.lane[i] & ((1U << At) - 1U)) |
                                                (high.lane[i] >> From & 1U) << At);
    }
    return low;
}
/// @param entries  64 of them, repeating
template <unsigned Bits>
inline byte_table load_table(const std::uint8_t* entries) noexcept {
    return {entries};
}
template <unsigned Bits>
inline bytes look_up(byte_table table, bytes codes) noexcept {
    if constexpr (Bits < 8) {
        for (std::uint8_t& lane : codes.lane) {
            lane = table.entries[lane & ((1U << Bits) - 1U)];
        }
    }
    return codes;
}
/// Signed bytes as the first operand of dot_signed() takes them.
inline bytes as_first(bytes of) noexcept { return of; }

inline quad load_quad(const void* from) noexcept {
    quad out;
    std::memcpy(out.lane, from, 4);
    return out;
}
inline ints all_ints(std::int32_t value) noexcept {
    ints out;
    for (std::int32_t& lane : out.lane) {
        lane = value;
    }
    return out;
}
/// sum + a . b over each four bytes, both within +-127. @param a  from as_first() or a table that suits
inline ints dot_signed(ints sum, bytes a, quad b) noexcept {
    for (std::size_t i = 0; i < width; ++i) {
        sum.lane[i / 4] += std::int32_t{static_cast<std::int8_t>(a.lane[i])} * b.lane[i % 4];
    }
    return sum;
}
/// The same with b within 0 to 127, a within +-127 and as it is.
inline ints dot_weights(ints sum, bytes a, quad b) noexcept { return dot_signed(sum, a, b); }

inline floats to_floats(ints of) noexcept {
    floats out;
    for (std::size_t i = 0; i < width / 4; ++i) {
        out.lane[i] = static_cast<float>(of.lane[i]);
    }
    return out;
}
inline floats all_floats(float value) noexcept {
    floats out;
    for (float& lane : out.lane) {
        lane = value;
    }
    return out;
}
inline floats load_floats(const float* from) noexcept {
    floats out;
    std::memcpy(out.lane, from, width);
    return out;
}
/// Lanes below `count`, the others as they are in `otherwise`. Memory behind them is not read.
inline floats load_first(const float* from, std::size_t count, floats otherwise) noexcept {
    for (std::size_t i = 0; i < width / 4 && i < count; ++i) {
        otherwise.lane[i] = from[i];
    }
    return otherwise;
}
/// As many f16, widened.
inline floats load_halves(const std::byte* from) noexcept {
    f16 halves[width / 4];
    std::memcpy(halves, from, sizeof halves);
    floats out;
    for (std::size_t i = 0; i < width / 4; ++i) {
        out.lane[i] = to_float(halves[i]);
    }
    return out;
}
/// As many bf16, widened.
inline floats load_bfloats(const std::byte* from) noexcept {
    bf16 halves[width / 4];
    std::memcpy(halves, from, sizeof halves);
    floats out;
    for (std::size_t i = 0; i < width / 4; ++i) {
        out.lane[i] = to_float(halves[i]);
    }
    return out;
}
/// As many signed bytes.
inline floats load_signed(const std::byte* from) noexcept {
    floats out;
    for (std::size_t i = 0; i < width / 4; ++i) {
        out.lane[i] = static_cast<float>(std::to_integer<std::int8_t>(from[i]));
    }
    return out;
}
inline void store_floats(float* to, floats of) noexcept { std::memcpy(to, of.lane, width); }
/// Lanes below `count`. Memory behind them is not written.
inline void store_first(float* to, std::size_t count, floats of) noexcept {
    for (std::size_t i = 0; i < width / 4 && i < count; ++i) {
        to[i] = of.lane[i];
    }
}
/// Zeros from lane `count` on.
inline floats keep_first(std::size_t count, floats of) noexcept {
    for (std::size_t i = count; i < width / 4; ++i) {
        of.lane[i] = 0.0F;
    }
    return of;
}
/// Zeros where x is less than `bound`, or NaN.
inline floats keep_from(floats bound, floats x, floats of) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        of.lane[i] = x.lane[i] >= bound.lane[i] ? of.lane[i] : 0.0F;
    }
    return of;
}
inline floats add(floats a, floats b) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        a.lane[i] += b.lane[i];
    }
    return a;
}
inline floats subtract(floats a, floats b) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        a.lane[i] -= b.lane[i];
    }
    return a;
}
inline floats multiply(floats a, floats b) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        a.lane[i] *= b.lane[i];
    }
    return a;
}
/// a * b + c, rounded once.
inline floats multiply_add(floats a, floats b, floats c) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        c.lane[i] = std::fma(a.lane[i], b.lane[i], c.lane[i]);
    }
    return c;
}
/// 2^n times as much, where n stands in the low bits of a float: of what 1.5 * 2^23 was added to.
inline floats times_power_of_two(floats of, floats low_bits) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        of.lane[i] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(of.lane[i]) +
                                          (std::bit_cast<std::uint32_t>(low_bits.lane[i]) << 23));
    }
    return of;
}
/// b where one of them is NaN.
inline floats smaller(floats a, floats b) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        a.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i];
    }
    return a;
}
inline floats larger(floats a, floats b) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    }
    return a;
}
inline floats magnitude(floats of) noexcept {
    for (float& lane : of.lane) {
        lane = std::fabs(lane);
    }
    return of;
}
inline float largest_lane(floats of) noexcept {
    float largest = of.lane[0];
    for (const float lane : of.lane) {
        largest = lane > largest ? lane : largest;
    }
    return largest;
}
inline bool any_above(floats a, floats b) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        if (a.lane[i] > b.lane[i]) {
            return true;
        }
    }
    return false;
}
/// out[i]: what the lanes of of[i] come to, of eight registers
inline void add_lanes(const floats* of, float* out) noexcept {
    for (std::size_t i = 0; i < 8; ++i) {
        out[i] = 0.0F;
        for (const float lane : of[i].lane) {
            out[i] += lane;
        }
    }
}
/// Adds sixteen lanes, in as many registers as that takes: 8 to 15 to the first eight, and so on.
inline float sum_of_sixteen(const floats* sixteen) noexcept {
    float lanes[16];
    std::memcpy(lanes, sixteen, sizeof lanes);
    for (std::size_t half = 8; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) {
            lanes[i] += lanes[half + i];
        }
    }
    return lanes[0];
}
/// sums[i] += lane i of sixteen
inline void add_sixteen(const floats* sixteen, double* sums) noexcept {
    float lanes[16];
    std::memcpy(lanes, sixteen, sizeof lanes);
    for (std::size_t i = 0; i < 16; ++i) {
        sums[i] += double{lanes[i]};
    }
}
/// sums[i] = sums[i] * factor + (lane i + lane 8 + i), i < 8
inline void add_eight(const floats* sixteen, float factor, double* sums) noexcept {
    float lanes[16];
    std::memcpy(lanes, sixteen, sizeof lanes);
    for (std::size_t i = 0; i < 8; ++i) {
        sums[i] = sums[i] * double{factor} + double{lanes[i] + lanes[8 + i]};
    }
}
/// The nearest whole numbers, ties to even, within +-127, as bytes.
inline void store_nearest(std::int8_t* to, floats of) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        const float whole = std::nearbyint(of.lane[i]);
        to[i] = static_cast<std::int8_t>(whole > 127.0F    ? 127.0F
                                         : whole < -127.0F ? -127.0F
                                                           : whole);
    }
}
/// Whole numbers towards 0, of 0 to 127, as bytes.
inline void store_truncated(std::int8_t* to, floats of) noexcept {
    for (std::size_t i = 0; i < width / 4; ++i) {
        to[i] = static_cast<std::int8_t>(of.lane[i] < 127.0F ? of.lane[i] : 127.0F);
    }
}

} // namespace scalar_rung
} // namespace simd
} // namespace v0
} // namespace kvcrush
