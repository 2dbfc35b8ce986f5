// SPDX-License-Identifier: Apache-2.0
/// @file
/// The scalar quantisers with the least squared error for N(0, 1).
#pragma once

#include <array>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Positive centroids, ascending: the fixed point of Lloyd's iteration, to the last digit of a float.
template <std::size_t Bits>
inline constexpr std::array<float, (std::size_t{1} << Bits) / 2> positive_centroids{};
template <>
inline constexpr std::array<float, 1> positive_centroids<1>{0.797884561F};
template <>
inline constexpr std::array<float, 2> positive_centroids<2>{0.452780035F, 1.510417608F};
template <>
inline constexpr std::array<float, 4> positive_centroids<3>{
    0.245094179F, 0.756005281F, 1.343909279F, 2.151945705F};
template <>
inline constexpr std::array<float, 8> positive_centroids<4>{0.128395030F,
                                                            0.388048299F,
                                                            0.656759119F,
                                                            0.942340456F,
                                                            1.256231197F,
                                                            1.618046386F,
                                                            2.069017227F,
                                                            2.732589571F};
template <>
inline constexpr std::array<float, 16> positive_centroids<5>{0.065889660F,
                                                             0.198051830F,
                                                             0.331378306F,
                                                             0.466699523F,
                                                             0.604933624F,
                                                             0.747135704F,
                                                             0.894565117F,
                                                             1.048783320F,
                                                             1.211804381F,
                                                             1.386340340F,
                                                             1.576228079F,
                                                             1.787233218F,
                                                             2.028728399F,
                                                             2.317739404F,
                                                             2.691119577F,
                                                             3.260732493F};

} // namespace detail

/// The Lloyd-Max quantiser of N(0, 1) with 2^Bits values. Mean squared error for 1 to 5 bits: .363380, .117482, .034548,
/// .009501, .002505.
/// @see Lloyd, "Least squares quantization in PCM"; Max, "Quantizing for minimum distortion", 1960
template <std::size_t Bits>
    requires(Bits >= 1 && Bits <= 5)
struct lloyd_max {
    static constexpr std::size_t size = std::size_t{1} << Bits;

    /// Ascending and symmetric: centroids[k] = -centroids[size - 1 - k].
    static constexpr std::array<float, size> centroids = [] {
        std::array<float, size> all{};
        for (std::size_t k = 0; k < size / 2; ++k) {
            all[size / 2 + k] = detail::positive_centroids<Bits>[k];
            all[size / 2 - 1 - k] = -detail::positive_centroids<Bits>[k];
        }
        return all;
    }();

    /// Midpoints between neighbours. The code of y is the number of thresholds <= y.
    static constexpr std::array<float, size - 1> thresholds = [] {
        std::array<float, size - 1> all{};
        for (std::size_t k = 0; k + 1 < size; ++k) {
            all[k] = 0.5F * (centroids[k] + centroids[k + 1]);
        }
        return all;
    }();
};

} // namespace v0
} // namespace kvcrush
