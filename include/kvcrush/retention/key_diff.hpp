// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keys that point elsewhere than the others.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/row_batches.hpp>
#include <kvcrush/math/row_dot.hpp>
#include <kvcrush/math/row_norm.hpp>
#include <kvcrush/simd/norm.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by how far its key turns away from the mean direction. Needs neither queries nor attention weights.
///
///     direction[k]     = mean over j of key[k, j] / ||key[k, j]||
///     importance[k, j] = -cos(key[k, j], direction[k])                     in [-1, 1]
///
/// A key of length 0 has no direction: it adds nothing to the mean and scores 0. The same holds for all keys where the
/// mean vanishes. A key with a NaN or an infinity, or longer than 1.8e19, adds nothing to the mean and scores NaN.
/// @note O(num_kv_heads * seq_len * head_dim): one pass over the keys for the mean, one for the cosines
/// @note It cannot tell what matters to the text that follows, but loses no needle for not having been asked about it:
///       of the methods without attention it is the one for questions that come later.
/// @see  KeyDiff, arXiv:2504.15364. Deviations: one call sees the whole cache (the paper applies it block by block
///       while prefilling, which calling it after each block gives).
struct key_diff_scorer {
    static constexpr std::string_view name = "key_diff";
    static constexpr std::string_view about = "keys that turn away from the mean direction";
    static constexpr bool needs_attention = false;

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    /// @param[in]  kv      [num_kv_heads, seq_len, head_dim]
    /// @param[out] scores  [num_kv_heads, seq_len]
    template <KvSource Kv>
    void score(const Kv& kv, head_scores scores) const noexcept {
        const std::size_t dim = kv.shape().key_dim;
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<float> row = scores.row(head);
            const auto key_of = [&](std::size_t token) { return kv.key(head, token); };
            // Channel block by channel block; all channels are one block in practice.
            std::fill(row.begin(), row.end(), 0.0F);
            double squared_length = 0.0;
            for (std::size_t first = 0; first < dim; first += block) {
                std::array<float, block> mean;
                const std::span<float> part(mean.data(), (std::min)(block, dim - first));
                mean_direction(key_of, row.size(), first, part);
                for (const float value : part) {
                    squared_length += static_cast<double>(value) * static_cast<double>(value);
                }
                const bool last = first + block >= dim;
                add_products(key_of, first, part, last ? std::sqrt(squared_length) : 0.0, row);
            }
        }
    }

private:
    /// Channels that have a place on the stack.
    static constexpr std::size_t block = 512;
    using batch_values = std::array<float, detail::row_batch>;

    /// @param[out] mean  channels [first, first + mean.size()) of the mean direction
    template <typename KeyOf>
    static void mean_direction(KeyOf key_of,
                               std::size_t num_tokens,
                               std::size_t first,
                               std::span<float> mean) noexcept {
        std::array<double, block> sums{};
        for (std::size_t begin = 0; begin < num_tokens; begin += detail::row_batch) {
            batch_values weights;
            std::array<std::size_t, detail::row_batch> tokens;
            std::size_t count = (std::min)(detail::row_batch, num_tokens - begin);
            squared_norms([&](std::size_t i) { return key_of(begin + i); },
                          std::span<float>(weights.data(), count));
            count = keep_directions(begin, count, weights, tokens);
            weighted_sum(
                [&](std::size_t i) {
                    return detail::channels_of(key_of(tokens[i]), first, mean.size());
                },
                std::span<const float>(weights.data(), count),
                mean);
            for (std::size_t c = 0; c < mean.size(); ++c) {
                sums[c] += static_cast<double>(mean[c]);
            }
        }
        for (std::size_t c = 0; c < mean.size(); ++c) {
            mean[c] = static_cast<float>(sums[c] / static_cast<double>(num_tokens));
        }
    }

    /// Turns squared lengths into weights and moves those of keys that have a direction to the front.
    /// @param[out] tokens  whose weights they are
    /// @return how many
    static std::size_t
    keep_directions(std::size_t begin,
                    std::size_t count,
                    batch_values& weights,
                    std::array<std::size_t, detail::row_batch>& tokens) noexcept {
        std::size_t kept = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const float squared = weights[i];
            if (squared > 0.0F && squared <= (std::numeric_limits<float>::max)()) {
                weights[kept] = 1.0F / std::sqrt(squared);
                tokens[kept] = begin + i;
                ++kept;
            }
        }
        return kept;
    }

    /// Adds the products with some channels of the mean, and makes cosines of them when its length is known.
    template <typename KeyOf>
    static void add_products(KeyOf key_of,
                             std::size_t first,
                             std::span<const float> mean,
                             double length,
                             std::span<float> row) noexcept {
        batch_values products;
        batch_values norms;
        for (std::size_t begin = 0; begin < row.size(); begin += detail::row_batch) {
            const std::size_t count = (std::min)(detail::row_batch, row.size() - begin);
            dots(
                [&](std::size_t i) {
                    return detail::channels_of(key_of(begin + i), first, mean.size());
                },
                mean,
                std::span<float>(products.data(), count));
            for (std::size_t i = 0; i < count; ++i) {
                row[begin + i] += products[i];
            }
            if (!(length > 0.0)) {
                continue;
            }
            const std::span<float> lengths(norms.data(), count);
            squared_norms([&](std::size_t i) { return key_of(begin + i); }, lengths);
            simd::scale_roots(lengths, -static_cast<float>(length));
            for (std::size_t i = 0; i < count; ++i) {
                row[begin + i] = lengths[i] == 0.0F ? 0.0F : row[begin + i] / lengths[i];
            }
        }
    }
};

} // namespace v0
} // namespace kvcrush
