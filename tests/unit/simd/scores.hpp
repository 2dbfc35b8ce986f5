// SPDX-License-Identifier: Apache-2.0
/// @file
/// Score vectors of every kind that selection has to cope with.
#pragma once

#include <kvcrush/core/random.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush::reference {

enum class score_kind {
    uniform,
    signed_normal,
    softmax_mass, ///< most values tiny, a few near one
    mostly_zero,  ///< zeros of both signs and a few values
    few_values,   ///< seven different ones
    two_values,
    all_equal,
    all_nan,
    half_nan, ///< NaN of both signs, quiet and signalling
    any_bits, ///< infinities, subnormals, NaN
    ascending,
    descending,
    periodic,      ///< period 64
    close_together ///< neighbouring floats
};

inline constexpr std::array all_score_kinds{score_kind::uniform,
                                            score_kind::signed_normal,
                                            score_kind::softmax_mass,
                                            score_kind::mostly_zero,
                                            score_kind::few_values,
                                            score_kind::two_values,
                                            score_kind::all_equal,
                                            score_kind::all_nan,
                                            score_kind::half_nan,
                                            score_kind::any_bits,
                                            score_kind::ascending,
                                            score_kind::descending,
                                            score_kind::periodic,
                                            score_kind::close_together};

[[nodiscard]] inline float
score_of_kind(score_kind kind, std::uint64_t seed, std::size_t i, std::size_t n) {
    const float u = random_unit(seed, 0, i);
    const std::uint64_t bits = random_bits(seed, 1, i);
    const float at = static_cast<float>(i);
    switch (kind) {
    case score_kind::uniform: return u;
    case score_kind::signed_normal:
        return std::sqrt(-2.0F * std::log(u + 1e-7F)) *
               std::cos(6.2831853F * random_unit(seed, 2, i));
    case score_kind::softmax_mass: return std::exp(-20.0F * u);
    case score_kind::mostly_zero:
        return bits % 16 == 0 ? u - 0.25F : (bits & 16U) != 0 ? 0.0F : -0.0F;
    case score_kind::few_values: return static_cast<float>(bits % 7) - 3.0F;
    case score_kind::two_values: return (bits & 1U) != 0 ? 1.0F : -1e-30F;
    case score_kind::all_equal: return 0.125F;
    case score_kind::all_nan: return std::numeric_limits<float>::quiet_NaN();
    case score_kind::half_nan:
        return (bits & 1U) != 0 ? u
                                : std::bit_cast<float>(
                                      0x7F800001U | static_cast<std::uint32_t>(bits & 0x80FFFF00U));
    case score_kind::any_bits: {
        constexpr std::array<std::uint32_t, 8> special{0x7F800000U,
                                                       0xFF800000U,
                                                       0x00000000U,
                                                       0x80000000U,
                                                       0x00000001U,
                                                       0x80000001U,
                                                       0x7FC00000U,
                                                       0xFFFFFFFFU};
        return std::bit_cast<float>(bits % 4 == 0 ? special[(bits >> 8) % 8]
                                                  : static_cast<std::uint32_t>(bits >> 32));
    }
    case score_kind::ascending: return at;
    case score_kind::descending: return static_cast<float>(n) - at;
    case score_kind::periodic: return static_cast<float>(i % 64 == 0 ? 1000 + i / 64 : i % 64);
    case score_kind::close_together:
        return std::bit_cast<float>(0x3F800000U + static_cast<std::uint32_t>(bits % 1000));
    }
    return 0;
}

inline void fill_scores(std::span<float> scores, score_kind kind, std::uint64_t seed) {
    for (std::size_t i = 0; i < scores.size(); ++i) {
        scores[i] = score_of_kind(kind, seed, i, scores.size());
    }
}

/// Ranks worth asking for: the ends, their neighbours, and fractions between.
[[nodiscard]] inline std::array<std::size_t, 10> ranks_to_test(std::size_t n) {
    return {0, 1, 2, n / 100, n / 8, n / 4, n / 2, n - n / 16, n > 0 ? n - 1 : 0, n + 1};
}

} // namespace kvcrush::reference
