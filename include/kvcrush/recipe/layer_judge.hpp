// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scores the rows of one layer of a cache and says which of them stay, for policies that are chosen when a program runs.
#pragma once

#include <kvcrush/allocation/any_allocator.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/layer_context.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/math/any_source.hpp>
#include <kvcrush/recipe/layer_access.hpp>
#include <kvcrush/retention/any_scorer.hpp>
#include <kvcrush/select/any_selector.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// The parts of a recipe that decide which rows stay.
struct layer_policy {
    any_scorer scorer{};
    any_selector selector{};
    any_allocator allocator{};
    area_sizes areas{};
};

/// Looks at one layer after the other.
///
/// Where all kv heads hold as many rows they are looked at together, as a compressor does. Where they do not, each is looked
/// at on its own, and only the allocator sees all of them: there the heads are lined up at their first and last tokens,
/// and tokens that a head lacks have the lowest score. What a method says of several heads at once (one list for all
/// heads, portraits of a bit per head) is then said of the query heads of one.
/// Not to be used from several threads at once; give each its own.
class layer_judge {
public:
    /// @param num_q_heads  of the model
    layer_judge(layer_policy policy, std::size_t num_q_heads)
        : policy_(std::move(policy)), num_q_heads_(num_q_heads) {}

    /// Scores the rows of a layer.
    /// @param layer   must outlive the calls of select() that follow
    /// @param angles  how the model turns keys
    /// @throws std::invalid_argument if a policy looks at queries and there are none of the newest row of a head;
    ///         std::bad_alloc
    void look(const layer_access& layer, std::size_t index, const rope& angles) {
        shape_ = layer.shape();
        index_ = index;
        angles_ = angles;
        divide(layer);
        take_memory();
        for (part& own : parts_) {
            score(own);
        }
        line_up();
    }

    /// What decides, [num_kv_heads, longest head]: rows of shorter heads are lined up at both ends, see above.
    [[nodiscard]] const_head_scores scores() const noexcept {
        return parts_.size() == 1 ? const_head_scores(parts_.front().scores)
                                  : const_head_scores(lined_up_, shape_.num_kv_heads, shape_.seq_len);
    }

    /// Which rows stay where heads keep so many on average.
    /// @return rows of each kv head, numbered by age
    [[nodiscard]] selection select(std::size_t tokens) {
        std::vector<std::size_t> counts(shape_.num_kv_heads, tokens);
        if (shape_.num_kv_heads > 0) {
            allocate_tokens(policy_.allocator,
                            scores(),
                            areas(policy_.areas, shape_.seq_len),
                            tokens,
                            counts,
                            scratch(std::span(memory_)));
        }
        give_surplus_away(counts);
        return select(counts);
    }

    /// Which rows stay where each kv head keeps so many; all of them where it has no more.
    /// @param counts  [num_kv_heads]
    [[nodiscard]] selection select(std::span<const std::size_t> counts) {
        selection result;
        result.reserve(shape_.num_kv_heads, shape_.num_kv_heads * shape_.seq_len);
        selection own;
        for (const part& one : parts_) {
            const kv_shape shape = one.source.shape();
            std::vector<std::size_t> few(counts.begin() + offset(one.first_head),
                                         counts.begin() + offset(one.first_head + shape.num_kv_heads));
            for (std::size_t& count : few) {
                count = (std::min)(count, shape.seq_len);
            }
            own.reserve(shape.num_kv_heads, shape.num_kv_heads * shape.seq_len);
            one.selector.select({.scores = one.scores,
                                 .observed = one.observed,
                                 .area = areas(policy_.areas, shape.seq_len),
                                 .counts = few,
                                 .memory = scratch(std::span(memory_))},
                                own,
                                one.source,
                                one.queries);
            for (std::size_t head = 0; head < own.num_kv_heads(); ++head) {
                const auto kept = own.kept(head);
                std::copy(kept.begin(), kept.end(), result.extend(kept.size()).begin());
                result.end_head();
            }
        }
        return result;
    }

private:
    /// Kv heads that are looked at together.
    struct part {
        std::size_t first_head;
        any_source source;
        query_view queries;
        any_scorer scorer;
        any_selector selector;
        head_scores observed{};
        head_scores scores{};

        [[nodiscard]] problem_size size() const noexcept {
            return {source.shape(), queries.num_q_heads()};
        }
    };

    [[nodiscard]] static std::ptrdiff_t offset(std::size_t i) noexcept {
        return static_cast<std::ptrdiff_t>(i);
    }

    void divide(const layer_access& layer) {
        const std::size_t heads = shape_.num_kv_heads;
        const bool even = layer.heads_are_even();
        const std::size_t num_parts = even ? 1 : heads;
        readers_.clear();
        std::size_t bytes = 0;
        for (std::size_t i = 0; i < num_parts; ++i) {
            readers_.emplace_back(layer, i, even ? heads : 1, even ? shape_.seq_len : layer.rows(i));
            bytes += any_source::scratch_bytes(readers_.back().shape());
        }
        tiles_.resize((std::max)(tiles_.size(), bytes));
        scratch memory{std::span(tiles_)};
        parts_.clear();
        const std::size_t group = heads == 0 ? 0 : num_q_heads_ / heads;
        for (std::size_t i = 0; i < num_parts; ++i) {
            const kv_shape shape = readers_[i].shape();
            const query_view queries = layer.queries(i, shape.num_kv_heads)
                                           .heads(i * group, shape.num_kv_heads * group);
            detail::require(queries.num_queries() > 0 || num_queries(shape.seq_len) == 0,
                            "layer_judge: ",
                            policy_.scorer.policy_name(),
                            " with ",
                            policy_.selector.policy_name(),
                            " looks at queries; there are none of the newest row that a head of layer ",
                            index_,
                            " holds");
            const layer_context where{.layer = index_,
                                      .first_head = i,
                                      .size = {shape, queries.num_q_heads()},
                                      .angles = angles_,
                                      .queries = &queries};
            parts_.push_back({i,
                              any_source(readers_[i], memory),
                              queries,
                              policy_.scorer.at_layer(where),
                              policy_.selector.at_layer(where)});
        }
    }

    /// Queries that are looked at where a head holds so many rows.
    [[nodiscard]] std::size_t num_queries(std::size_t rows) const noexcept {
        const bool scores =
            policy_.selector.looks_at_scores() || policy_.allocator.looks_at_scores();
        return rows == 0 ? 0
                         : (std::max)(scores ? policy_.scorer.num_queries(rows) : 0,
                                      policy_.selector.num_queries(rows));
    }

    /// For scores, and for what one policy at a time needs.
    void take_memory() {
        std::size_t floats = 0;
        std::size_t bytes = policy_.allocator.scratch_bytes({shape_, num_q_heads_});
        for (const part& own : parts_) {
            const problem_size size = own.size();
            floats += (own.scorer.num_observed_heads(size) + size.kv.num_kv_heads) * size.kv.seq_len;
            bytes = (std::max)({bytes, own.scorer.scratch_bytes(size), own.selector.scratch_bytes(size)});
        }
        floats_.resize((std::max)(floats_.size(), floats));
        memory_.resize((std::max)(memory_.size(), bytes));
        std::span<float> free(floats_);
        const auto take = [&free](std::size_t heads, std::size_t rows) {
            const head_scores taken(free.first(heads * rows), heads, rows);
            free = free.subspan(heads * rows);
            return taken;
        };
        for (part& own : parts_) {
            const problem_size size = own.size();
            own.observed = take(own.scorer.num_observed_heads(size), size.kv.seq_len);
            own.scores = take(size.kv.num_kv_heads, size.kv.seq_len);
        }
    }

    void score(const part& own) {
        if (!policy_.selector.looks_at_scores() && !policy_.allocator.looks_at_scores()) {
            std::fill(own.scores.values().begin(), own.scores.values().end(), 0.0F);
            return;
        }
        const scratch memory{std::span(memory_)};
        own.scorer.observe(own.source, own.queries, own.observed, memory);
        own.scorer.reduce(own.observed, own.scores, memory);
    }

    /// Scores of heads of different lengths as one matrix, for the allocator.
    void line_up() {
        if (parts_.size() <= 1) {
            return;
        }
        const std::size_t longest = shape_.seq_len;
        lined_up_.assign(shape_.num_kv_heads * longest, -(std::numeric_limits<float>::max)());
        for (const part& own : parts_) {
            const std::span<const float> from = own.scores.row(0);
            const std::span<float> to = std::span(lined_up_).subspan(own.first_head * longest, longest);
            const std::size_t sinks = (std::min)(policy_.areas.num_sink_tokens, from.size());
            std::copy_n(from.begin(), sinks, to.begin());
            std::copy(from.begin() + offset(sinks), from.end(), to.end() - offset(from.size() - sinks));
        }
    }

    /// Tokens that were given to heads with fewer rows go to the others, as evenly as possible.
    void give_surplus_away(std::span<std::size_t> counts) const {
        std::size_t surplus = 0;
        for (const part& own : parts_) {
            const kv_shape shape = own.source.shape();
            for (std::size_t h = own.first_head; h < own.first_head + shape.num_kv_heads; ++h) {
                surplus += counts[h] - (std::min)(counts[h], shape.seq_len);
                counts[h] = (std::min)(counts[h], shape.seq_len);
            }
        }
        for (bool given = true; surplus > 0 && given;) {
            given = false;
            for (const part& own : parts_) {
                const std::size_t rows = own.source.shape().seq_len;
                std::size_t& count = counts[own.first_head];
                if (parts_.size() > 1 && count < rows && surplus > 0) {
                    const std::size_t more =
                        (std::min)(rows - count, (std::max)(surplus / parts_.size(), std::size_t{1}));
                    count += more;
                    surplus -= more;
                    given = true;
                }
            }
        }
    }

    layer_policy policy_;
    std::size_t num_q_heads_;
    std::size_t index_ = 0;
    rope angles_{};
    kv_shape shape_{};
    std::vector<heads_reader> readers_;
    std::vector<part> parts_;
    std::vector<std::byte> tiles_;   ///< of all sources
    std::vector<float> floats_;      ///< observed and scores of all parts
    std::vector<float> lined_up_;    ///< [num_kv_heads, longest], where heads differ
    std::vector<std::byte> memory_;  ///< scratch
};

} // namespace v0
} // namespace kvcrush
