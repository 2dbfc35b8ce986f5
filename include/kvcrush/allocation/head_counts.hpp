// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tokens per layer and kv head: the answer of everything that looks at a model as a whole.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>

#include <cstddef>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// The kv heads of a model.
struct model_heads {
    std::size_t num_layers = 0;
    std::size_t num_kv_heads = 0;

    friend constexpr bool operator==(const model_heads&, const model_heads&) = default;
};

/// [num_layers, num_kv_heads] tokens, sinks and recent included.
class head_counts {
public:
    head_counts() = default;

    /// @throws std::invalid_argument if there is not one count per head
    head_counts(const model_heads& model, std::vector<std::size_t> counts)
        : model_(model), counts_(std::move(counts)) {
        detail::require(counts_.size() == model.num_layers * model.num_kv_heads,
                        "head_counts: ",
                        counts_.size(),
                        " counts are given for ",
                        model.num_layers,
                        " layers of ",
                        model.num_kv_heads,
                        " kv heads");
    }

    [[nodiscard]] const model_heads& model() const noexcept { return model_; }
    /// The heads of one layer, for fixed_counts.
    [[nodiscard]] std::span<const std::size_t> layer(std::size_t index) const noexcept {
        KVCRUSH_ASSERT(index < model_.num_layers);
        return std::span(counts_).subspan(index * model_.num_kv_heads, model_.num_kv_heads);
    }
    /// All heads, layer by layer.
    [[nodiscard]] std::span<const std::size_t> values() const noexcept { return counts_; }
    /// Tokens of all heads together.
    [[nodiscard]] std::size_t total() const noexcept {
        return std::accumulate(counts_.begin(), counts_.end(), std::size_t{0});
    }

    friend bool operator==(const head_counts&, const head_counts&) = default;

private:
    model_heads model_{};
    std::vector<std::size_t> counts_;
};

} // namespace v0
} // namespace kvcrush
