// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a cache stores its rows.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// A codec for keys and one for values.
struct codec_pair {
    any_codec keys{};
    any_codec values{};

    /// Rows that can be encoded at a time: a multiple of both groups.
    [[nodiscard]] std::size_t group_size() const noexcept {
        return std::lcm(keys.group_size(), values.group_size());
    }
    /// A row of one kv head [bytes]; in groups, its part of the group.
    [[nodiscard]] double row_bytes(std::size_t key_dim, std::size_t value_dim) const noexcept {
        return static_cast<double>(keys.group_bytes(key_dim)) /
                   static_cast<double>(keys.group_size()) +
               static_cast<double>(values.group_bytes(value_dim)) /
                   static_cast<double>(values.group_size());
    }
};

/// Rows that are stored alike, because they are about as important.
struct storage_tier {
    any_codec keys{};
    any_codec values{};
    /// Part of the kept tokens, in (0, 1]. The last tier takes what the others leave, whatever it says.
    double share = 1.0;

    [[nodiscard]] codec_pair codecs() const { return {keys, values}; }
};

/// Where rows go: dense when they arrive, into a tier when they leave the window or the cache is compressed.
///
///     |<- sinks ->|<- tiers, by importance ->|<- window, dense ->|
///
/// The default keeps all rows in f16.
struct row_storage {
    /// How rows are held until they are encoded.
    codec_pair dense{};
    /// The first tokens have a codec of their own: whole models depend on them, and they are few.
    std::size_t num_sink_tokens = 4;
    codec_pair sinks{};
    /// Where the other rows go, the most precise first; with none, all rows stay dense. Keys are centred here alone: sinks
    /// lie far off the mean, and dense rows come before there is one.
    std::vector<storage_tier> tiers{};
    /// Newest rows that stay dense while a text goes on. Compression itself encodes all rows.
    std::size_t window = 128;
    /// How attention computes with encoded rows.
    arithmetic attention = arithmetic::exact;

    [[nodiscard]] bool encodes() const noexcept { return !tiers.empty(); }
    [[nodiscard]] bool centres_keys() const noexcept {
        return std::any_of(tiers.begin(), tiers.end(), [](const storage_tier& tier) {
            return tier.keys.centres_keys();
        });
    }

    /// @throws std::invalid_argument if a share lies outside (0, 1] or those before the last leave nothing, if there are
    ///         more than 64 tiers, or if sinks or dense rows need groups of rows
    void validate() const {
        detail::require(tiers.size() <= 64,
                        "row_storage: there are ",
                        tiers.size(),
                        " tiers; 64 at most are allowed");
        detail::require(sinks.group_size() == 1 && dense.group_size() == 1,
                        "row_storage: sinks and dense rows need codecs of single rows");
        double taken = 0.0;
        for (std::size_t i = 0; i + 1 < tiers.size(); ++i) {
            detail::require(tiers[i].share > 0.0 && tiers[i].share <= 1.0,
                            "row_storage: the share of tier ",
                            i,
                            " is ",
                            tiers[i].share,
                            "; it must lie in (0, 1]");
            taken += tiers[i].share;
        }
        detail::require(taken <= 1.0,
                        "row_storage: the tiers before the last share out ",
                        taken,
                        " of the tokens; 1 at most can be");
    }

    /// @throws std::invalid_argument likewise, or if a codec cannot hold rows of these channels
    void validate_for(std::size_t key_dim, std::size_t value_dim) const {
        validate();
        const auto check_pair = [&](const codec_pair& pair) {
            pair.keys.validate_for(key_dim);
            pair.values.validate_for(value_dim);
        };
        check_pair(dense);
        check_pair(sinks);
        for (const storage_tier& tier : tiers) {
            check_pair(tier.codecs());
        }
    }

    /// A row on average, sinks and metadata of a head left out [bytes].
    [[nodiscard]] double row_bytes(std::size_t key_dim, std::size_t value_dim) const noexcept {
        double bytes = 0.0;
        double left = 1.0;
        for (std::size_t i = 0; i < tiers.size(); ++i) {
            const double share = i + 1 == tiers.size() ? left : tiers[i].share;
            bytes += share * tiers[i].codecs().row_bytes(key_dim, value_dim);
            left -= share;
        }
        return encodes() ? bytes : dense.row_bytes(key_dim, value_dim);
    }
};

} // namespace v0
} // namespace kvcrush
