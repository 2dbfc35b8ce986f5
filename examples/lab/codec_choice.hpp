// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the rows of a compressed cache are stored.
#pragma once

#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/cache/row_store.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

namespace lab {

/// What `+codec(...)` and `+tiered(...)` of a policy say.
struct codec_choice {
    kvcrush::codec_pair sinks;
    /// The most precise first.
    std::vector<kvcrush::codec_pair> tiers;
    /// Share of the kept tokens that goes to the first tier; the others go to the second.
    double first_share = 1.0;
    /// Newest rows that stay dense while a text goes on. Compression itself encodes all rows.
    std::size_t window = 128;
    /// Tokens to keep, whatever the keep ratio of the run: for policies that aim at bytes.
    std::optional<double> keep{};
    /// The keep ratio of a run is a share of the bytes in f16, not of the tokens.
    bool counts_bytes = false;
    kvcrush::arithmetic attention = kvcrush::arithmetic::integer;

    /// The share of the tokens whose rows take that share of the bytes in f16, all of them at most. A little less, for
    /// sinks and the mean key take more.
    [[nodiscard]] double tokens_for_bytes(double bytes, std::size_t head_dim) const {
        constexpr double spare = 0.975;
        double stored = 0.0;
        for (std::size_t i = 0; i < tiers.size(); ++i) {
            const double share = i == 0 ? first_share : 1.0 - first_share;
            stored += share * (bytes_per_token(tiers[i].keys, head_dim) +
                               bytes_per_token(tiers[i].values, head_dim));
        }
        const double dense = 2.0 * static_cast<double>(head_dim * sizeof(kvcrush::f16));
        return (std::min)(bytes * spare * dense / stored, 1.0);
    }

private:
    [[nodiscard]] static double bytes_per_token(const kvcrush::any_codec& codec,
                                                std::size_t head_dim) {
        return static_cast<double>(codec.group_bytes(head_dim)) /
               static_cast<double>(codec.group_size());
    }
};

} // namespace lab
