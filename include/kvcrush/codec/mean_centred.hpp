// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keys stored less their mean.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/finite_rows.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Asks whoever holds the keys to store k - mean with `Inner`, the mean being that of the keys at the first encoding
/// without the sinks (mean_key()). Keys of real models share a large constant part, biases above all, that costs bits
/// and tells no token from another; without it the loss at 4 bits halves. Exact: q . k = q . (k - mean) + q . mean.
///
/// The holder subtracts before encode(), keeps the mean in the basis of the model (4 * dim bytes per kv head) and hands
/// it to attend() with the rows; this type does no arithmetic of its own, and decode() gives k - mean. Values gain
/// nothing from it. Sinks must not enter the mean: their keys lie far off, and with them the loss grows instead.
///
/// Storage: that of `Inner`.
/// @see Qwen2 keys, whose biases make quantisers by the norm fail, in the discussions of llama.cpp
template <Codec Inner>
    requires(!CentringCodec<Inner>)
struct mean_centred_codec {
    static constexpr std::string_view name = "mean_centred";
    static constexpr bool centres_keys = true;

    Inner inner{};

    static constexpr auto parameters() { return parameter_list{}; }
    /// "q4_0"
    [[nodiscard]] std::string arguments() const { return policy_text(inner); }
    void validate() const { inner.validate(); }
    void validate_for(std::size_t dim) const { inner.validate_for(dim); }

    [[nodiscard]] constexpr std::size_t group_size() const noexcept { return inner.group_size(); }
    [[nodiscard]] constexpr std::size_t group_bytes(std::size_t dim) const noexcept {
        return inner.group_bytes(dim);
    }

    /// @param rows  keys less their mean
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              simd::isa at_most = simd::best()) const noexcept {
        return inner.encode(rows, dim, bytes, at_most);
    }
    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        inner.decode(bytes, dim, rows, at_most);
    }

    void rotate(std::span<float> rows,
                std::size_t dim,
                simd::isa at_most = simd::best()) const noexcept requires RotatingCodec<Inner> {
        inner.rotate(rows, dim, at_most);
    }
    void unrotate(std::span<float> rows,
                  std::size_t dim,
                  simd::isa at_most = simd::best()) const noexcept requires RotatingCodec<Inner> {
        inner.unrotate(rows, dim, at_most);
    }
    [[nodiscard]] constexpr const auto& stored() const noexcept requires RotatingCodec<Inner> {
        return inner.stored();
    }
};

/// The mean of keys, for codecs that centre them.
///
/// @param[in]  rows       keys [count, dim], the oldest first. Rows with NaN or infinity do not count: no codec takes them
/// @param      num_sinks  how many of the first rows are sinks
/// @param[out] mean       [dim]; zeros if no row is left
/// @note Sums in double, row after row: the same mean on every machine
inline void mean_key(std::span<const float> rows,
                     std::size_t dim,
                     std::size_t num_sinks,
                     std::span<float> mean) noexcept {
    KVCRUSH_ASSERT(dim > 0 && rows.size() % dim == 0 && mean.size() == dim);
    const std::size_t count = rows.size() / dim;
    std::array<double, 128> sums;
    for (std::size_t first = 0; first < dim; first += sums.size()) {
        const std::size_t channels = (std::min)(sums.size(), dim - first);
        sums.fill(0.0);
        double counted = 0.0;
        for (std::size_t r = num_sinks; r < count; ++r) {
            const std::span<const float> row = rows.subspan(r * dim, dim);
            if (!all_finite(row)) {
                continue;
            }
            counted += 1.0;
            for (std::size_t c = 0; c < channels; ++c) {
                sums[c] += static_cast<double>(row[first + c]);
            }
        }
        for (std::size_t c = 0; c < channels; ++c) {
            mean[first + c] = counted > 0.0 ? static_cast<float>(sums[c] / counted) : 0.0F;
        }
    }
}

} // namespace v0
} // namespace kvcrush
