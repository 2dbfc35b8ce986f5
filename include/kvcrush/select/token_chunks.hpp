// SPDX-License-Identifier: Apache-2.0
/// @file
/// Middle tokens in chunks of equal length, and a budget of tokens spent on the best of them: the part that chunk_kv
/// and diverse_kv share.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/ordered_key.hpp>
#include <kvcrush/simd/rank_cut.hpp>
#include <kvcrush/simd/top_k.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Which heads keep which chunks.
enum class chunk_sets {
    /// All kv heads of the layer the same chunks, by the sum of their scores.
    per_layer,
    /// Each kv head its own.
    per_head
};

template <>
struct enum_names<chunk_sets> {
    static constexpr named_value<chunk_sets> values[] = {{"per_layer", chunk_sets::per_layer},
                                                         {"per_head", chunk_sets::per_head}};
};

/// Sums of the scores of all heads per middle token. NaN is passed over: the other heads speak for its head too. Where
/// all heads are NaN, so is the sum.
/// @param[out] out  [area.num_middle()]
inline void
sum_middle_scores(const_head_scores scores, const areas& area, std::span<float> out) noexcept {
    for (std::size_t t = 0; t < out.size(); ++t) {
        double sum = 0.0;
        std::size_t count = 0;
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const float score = scores.row(head)[area.middle_begin + t];
            if (!std::isnan(score)) {
                sum += static_cast<double>(score);
                ++count;
            }
        }
        const double heads = static_cast<double>(scores.num_heads());
        out[t] = count == 0 ? std::numeric_limits<float>::quiet_NaN()
                            : static_cast<float>(sum * (heads / static_cast<double>(count)));
    }
}

/// Chunks of `chunk_size` tokens, the last one maybe shorter, of which some are chosen whole and at most one in part.
/// Each function is linear in tokens.
class token_chunks {
public:
    [[nodiscard]] static constexpr std::size_t count(std::size_t num_tokens,
                                                     std::size_t chunk_size) noexcept {
        return num_tokens / chunk_size + (num_tokens % chunk_size != 0 ? 1U : 0U);
    }
    [[nodiscard]] static constexpr std::size_t scratch_bytes(std::size_t num_tokens,
                                                             std::size_t chunk_size) noexcept {
        const std::size_t chunks = count(num_tokens, chunk_size);
        return scratch::bytes<float>(chunks) +
               scratch::bytes<std::uint64_t>(simd::bitmap_words(chunks));
    }

    /// @param scores  one per middle token; read until write()
    /// @param memory  means and choices stay there: scratch_bytes()
    token_chunks(std::span<const float> scores, std::size_t chunk_size, scratch& memory) noexcept
        : scores_(scores),
          size_(chunk_size),
          means_(memory.take<float>(count(scores.size(), chunk_size))),
          whole_(memory.take<std::uint64_t>(simd::bitmap_words(means_.size()))) {
        for (std::size_t c = 0; c < means_.size(); ++c) {
            means_[c] = mean(scores.subspan(begin(c), length(c)));
        }
        start_over();
    }

    /// Forgets what was chosen.
    void start_over() noexcept {
        std::fill(whole_.begin(), whole_.end(), std::uint64_t{0});
        part_ = means_.size();
        part_tokens_ = 0;
        chosen_ = 0;
    }

    [[nodiscard]] std::size_t num_chunks() const noexcept { return means_.size(); }
    [[nodiscard]] std::size_t begin(std::size_t chunk) const noexcept { return chunk * size_; }
    [[nodiscard]] std::size_t length(std::size_t chunk) const noexcept {
        return (std::min)(size_, scores_.size() - begin(chunk));
    }
    /// Mean score of a chunk, NaN left out; NaN if there is nothing else.
    [[nodiscard]] float mean_score(std::size_t chunk) const noexcept { return means_[chunk]; }
    [[nodiscard]] bool is_chosen(std::size_t chunk) const noexcept {
        return (whole_[chunk / 64] >> (chunk % 64) & 1U) != 0;
    }
    /// Tokens chosen so far.
    [[nodiscard]] std::size_t num_chosen_tokens() const noexcept { return chosen_; }

    /// Takes a whole chunk.
    void choose(std::size_t chunk) noexcept {
        KVCRUSH_ASSERT(!is_chosen(chunk));
        whole_[chunk / 64] |= std::uint64_t{1} << (chunk % 64);
        chosen_ += length(chunk);
    }

    /// Takes the `count` chunks with the best means; ties take the earlier one, NaN is the lowest.
    /// @pre nothing was chosen
    void choose_best(std::size_t count) noexcept {
        simd::mark_inside(means_, simd::find_rank_cut(means_, count), whole_);
        for (std::size_t c = 0; c < means_.size(); ++c) {
            chosen_ += is_chosen(c) ? length(c) : 0;
        }
    }

    /// Takes the best of the other chunks until `num_tokens` tokens are chosen; the last one is cut to its best tokens.
    /// @pre num_tokens <= the number of middle tokens
    /// @note Searches all chunks for each one that it takes: meant for what choose_best() leaves over.
    void fill(std::size_t num_tokens) noexcept {
        KVCRUSH_ASSERT(num_tokens <= scores_.size());
        while (chosen_ < num_tokens) {
            std::size_t best = means_.size();
            for (std::size_t c = 0; c < means_.size(); ++c) {
                if (!is_chosen(c) &&
                    (best == means_.size() ||
                     simd::ordered_key(means_[c]) > simd::ordered_key(means_[best]))) {
                    best = c;
                }
            }
            const std::size_t left = num_tokens - chosen_;
            if (length(best) <= left) {
                choose(best);
            } else {
                part_ = best;
                part_tokens_ = left;
                chosen_ = num_tokens;
            }
        }
    }

    /// Appends the chosen tokens, ascending, to the head being built.
    /// @param offset  where the middle begins
    void write(std::size_t offset, selection& out) const noexcept {
        for (std::size_t c = 0; c < means_.size(); ++c) {
            if (c == part_) {
                simd::top_k(scores_.subspan(begin(c), length(c)),
                            part_tokens_,
                            out.extend(part_tokens_),
                            static_cast<token_index>(offset + begin(c)));
            } else if (is_chosen(c)) {
                out.extend_range(offset + begin(c), offset + begin(c) + length(c));
            }
        }
    }

private:
    [[nodiscard]] static float mean(std::span<const float> scores) noexcept {
        double sum = 0.0;
        std::size_t count = 0;
        for (const float score : scores) {
            if (!std::isnan(score)) {
                sum += static_cast<double>(score);
                ++count;
            }
        }
        return count == 0 ? std::numeric_limits<float>::quiet_NaN()
                          : static_cast<float>(sum / static_cast<double>(count));
    }

    std::span<const float> scores_;
    std::size_t size_;
    std::span<float> means_;
    std::span<std::uint64_t> whole_;
    /// The chunk of which part_tokens_ tokens are taken; num_chunks() for none.
    std::size_t part_ = 0;
    std::size_t part_tokens_ = 0;
    std::size_t chosen_ = 0;
};

} // namespace v0
} // namespace kvcrush
