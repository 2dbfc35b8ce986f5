// SPDX-License-Identifier: Apache-2.0
/// @file
/// The baseline without which no figure means anything.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/scorer.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores every (kv head, token) by a number drawn from its seed: the same on every machine.
struct random_scorer {
    static constexpr std::string_view name = "random";
    static constexpr std::string_view about = "any tokens: the baseline";
    static constexpr bool needs_attention = false;
    static constexpr bool reads_cache = false;

    /// Give each layer a seed of its own, or all layers keep the same tokens.
    std::uint64_t seed = 0;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"seed", &random_scorer::seed, "another seed, another draw"}};
    }
    void validate() const {}

    /// @param[out] scores  [num_kv_heads, seq_len], uniform in [0, 1)
    template <KvSource Kv>
    void score(const Kv&, head_scores scores) const noexcept {
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<float> row = scores.row(head);
            for (std::size_t token = 0; token < row.size(); ++token) {
                row[token] = random_unit(seed, head, token);
            }
        }
    }
};

} // namespace v0
} // namespace kvcrush
