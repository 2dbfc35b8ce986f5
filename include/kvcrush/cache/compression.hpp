// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a compression is asked for, what it chooses in a layer, and what it did.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/recipe/cache_budget.hpp>
#include <kvcrush/recipe/layer_access.hpp>
#include <kvcrush/recipe/layer_judge.hpp>
#include <kvcrush/recipe/row_storage.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

class kv_cache;

struct compress_request {
    /// How much stays this time; the recipe's own budget if not set.
    std::optional<cache_budget> keep{};
    /// Tasks that an executor may run side by side; each works on layers of its own.
    std::size_t num_lanes = 1;
    /// Lets the model read tokens behind a copy of the cache: append and attend as for any others. For kvzip.
    std::function<void(std::span<const std::int32_t> tokens, kv_cache& copy)> replay{};
    /// The tokens read so far, and those that ask the model to repeat them; for kvzip.
    std::span<const std::int32_t> context{};
    std::span<const std::int32_t> repeat_request{};
};

/// What a layer keeps, and how it is stored.
struct layer_choice {
    /// Rows of each kv head by age.
    selection kept{};
    /// The tier of each kept row, in the order of kept.indices(); empty if rows are not encoded.
    std::vector<std::uint8_t> tiers{};
    /// Tokens that the layer had seen: with more of them, rows have other numbers.
    std::size_t tokens_seen = 0;
};

/// What a compression did.
struct compression {
    /// Rows per kv head, on average over layers and heads.
    double rows_before = 0.0;
    double rows_kept = 0.0;
    std::size_t bytes_before = 0;
    std::size_t bytes_held = 0;
    /// Heads with rows that a codec cannot hold: those stay as they were stored before.
    std::size_t heads_not_stored = 0;
};

namespace detail {

/// Chooses in one layer.
class layer_chooser {
public:
    /// @param tokens  per kv head on average, sinks and recent included
    layer_chooser(const layer_access& layer,
                  const row_storage& storage,
                  const area_sizes& areas,
                  std::size_t tokens,
                  std::span<const std::size_t> counts,
                  layer_judge& judge) noexcept
        : layer_(layer), storage_(storage), areas_(areas), tokens_((std::min)(tokens, layer.shape().seq_len)), counts_(counts), judge_(judge) {}

    /// @param index, angles  of the layer
    [[nodiscard]] layer_choice choose(std::size_t index, const rope& angles) {
        layer_choice result;
        const bool ranks = storage_.tiers.size() > 1;
        if (!drops_rows() && !ranks) {
            result.kept = all_rows();
        } else {
            judge_.look(layer_, index, angles);
            result.kept = drops_rows() ? select(1.0) : all_rows();
        }
        if (storage_.encodes()) {
            result.tiers = tiers_of(result.kept);
        }
        return result;
    }

private:
    [[nodiscard]] bool drops_rows() const noexcept {
        const std::size_t heads = layer_.shape().num_kv_heads;
        std::size_t rows = 0;
        for (std::size_t head = 0; head < heads; ++head) {
            rows += layer_.rows(head);
        }
        const std::size_t wanted =
            counts_.empty() ? tokens_ * heads
                            : std::accumulate(counts_.begin(), counts_.end(), std::size_t{0});
        return wanted < rows;
    }

    [[nodiscard]] selection all_rows() const {
        const kv_shape shape = layer_.shape();
        selection all;
        all.reserve(shape.num_kv_heads, shape.num_kv_heads * shape.seq_len);
        for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
            all.extend_range(0, layer_.rows(head));
            all.end_head();
        }
        return all;
    }

    /// The best rows, as many as this share of what is kept, but more than the protected ones.
    [[nodiscard]] selection select(double share) const {
        const std::size_t least = areas_.num_sink_tokens + areas_.num_recent_tokens + 1;
        const auto part = [&](std::size_t count) {
            const auto few = static_cast<std::size_t>(share * static_cast<double>(count));
            return share >= 1.0 ? count : (std::min)(count, (std::max)(few, least));
        };
        if (counts_.empty()) {
            return judge_.select(part(tokens_));
        }
        std::vector<std::size_t> counts(counts_.size());
        std::transform(counts_.begin(), counts_.end(), counts.begin(), part);
        return judge_.select(std::span<const std::size_t>(counts));
    }

    [[nodiscard]] std::vector<std::uint8_t> tiers_of(const selection& kept) const {
        const std::size_t last = storage_.tiers.size() - 1;
        std::vector<std::uint8_t> tiers(kept.total(), static_cast<std::uint8_t>(last));
        for (std::size_t tier = last; tier-- > 0;) {
            double share = 0.0;
            for (std::size_t t = 0; t <= tier; ++t) {
                share += storage_.tiers[t].share;
            }
            const selection best = share >= 1.0 ? kept : select(share);
            for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
                const auto mine = kept.kept(head);
                const auto first = best.kept(head);
                for (std::size_t i = 0; i < mine.size(); ++i) {
                    if (std::binary_search(first.begin(), first.end(), mine[i])) {
                        tiers[kept.indptr()[head] + i] = static_cast<std::uint8_t>(tier);
                    }
                }
            }
        }
        return tiers;
    }

    const layer_access& layer_;
    const row_storage& storage_;
    area_sizes areas_;
    std::size_t tokens_;
    std::span<const std::size_t> counts_; ///< per kv head, or empty
    layer_judge& judge_;
};

} // namespace detail
} // namespace v0
} // namespace kvcrush
