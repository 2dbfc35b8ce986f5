// SPDX-License-Identifier: Apache-2.0
/// @file
/// Form C of KVCrush: what OpenVINO GenAI ships, so that its users can reproduce their results.
///
/// It differs from kvcrush_selector in more than its unit, a block of tokens for all heads of a layer together:
///
/// - The representatives come on top of the budget: a sequence with a long prompt settles at
///   max_cache_tokens + num_representative_blocks * block_size tokens. Compare methods at that number. One whose prompt
///   fits the cache outgrows it by a block at a time, which is fewer candidates than a budget of two or more asks for:
///   it never sees a representative, and settles at max_cache_tokens.
/// - A portrait bit says that a token lies in the better half by its raw accumulated score, also where importance is
///   that score over the number of queries that saw the token: older tokens have more of them set.
/// - Representatives are picked at a whole step and never reach the far end of the order. After the first eviction
///   there are budget + 1 candidates, so for a budget of two or more it comes down to dropping the block farthest from
///   the anchor. Only the first eviction spreads its picks.
/// - Once it has run, it runs at every step.
/// - Anchors are drawn anew at every eviction, from one generator for all layers.
///
/// kvcrush_selector keeps its representatives inside the budget, makes bits per head and spreads its picks over the
/// whole order. Both count blocks or tokens by Hamming distance to one anchor.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/grouping/anchor.hpp>
#include <kvcrush/select/best_tokens.hpp>
#include <kvcrush/select/block_refinement.hpp>
#include <kvcrush/select/score_history.hpp>
#include <kvcrush/simd/bitmap.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <ranges>
#include <span>
#include <string_view>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Settings of OpenVINO GenAI's cache eviction, with its defaults; its names stand in brackets.
///
///     |<- sink ->|<- evictable ->|<- recent ->|        whole blocks; a partly filled last block counts as recent
/// Its apply_rotation stays off, as it is by default; its third aggregation, ADAPTIVE_RKV, does not use KVCrush.
/// @see OpenVINO GenAI since 2025.3: CacheEvictionConfig, KVCrushConfig
struct openvino_compat {
    static constexpr std::string_view name = "openvino_compat";
    static constexpr std::string_view about = "blocks as OpenVINO GenAI evicts them";

    /// Tokens per block, 1 to 4096: 32 on CPUs, 16 on GPUs.
    std::size_t block_size = 32;
    /// Tokens that are never evicted and whose scores are not tracked (start_size).
    std::size_t num_sink_tokens = 32;
    /// Tokens at the end that are not evicted yet (recent_size).
    std::size_t num_recent_tokens = 128;
    /// Tokens kept, without the representatives (max_cache_size).
    std::size_t max_cache_tokens = 672;
    /// Scores of which the largest counts for a token, its own and those behind it: 1 to 64 (7 there, not to be set).
    std::size_t pooling_kernel_size = 7;
    /// What makes a block important (aggregation_mode).
    block_aggregation aggregation = block_aggregation::norm_sum;
    /// Last queries of the prompt whose attention counts (snapkv_window_size); 0 takes all.
    std::size_t observation_window = 8;
    /// Blocks kept on top (kvcrush_config.budget); 0 leaves KVCrush out, as it does there.
    std::size_t num_representative_blocks = 0;
    /// random, zeros, ones, mean or alternate (kvcrush_config.anchor_point_mode).
    anchor_kind anchor = anchor_kind::random;
    /// Of the random anchors (kvcrush_config.rng_seed).
    std::uint64_t seed = 0;

    static constexpr auto parameters() {
        using self = openvino_compat;
        return parameter_list{
            parameter{"block_size", &self::block_size, "tokens per block"},
            parameter{"sinks", &self::num_sink_tokens, "tokens kept at the start"},
            parameter{"recent", &self::num_recent_tokens, "tokens kept at the end"},
            parameter{"max_cache", &self::max_cache_tokens, "tokens kept before representatives"},
            parameter{"kernel", &self::pooling_kernel_size, "scores of which the largest counts"},
            parameter{"aggregation", &self::aggregation, "what makes a block important"},
            parameter{"window", &self::observation_window, "last queries that count, 0 for all"},
            parameter{"budget", &self::num_representative_blocks, "representatives [blocks]"},
            parameter{"anchor", &self::anchor, "code that distances are taken to"},
            parameter{"seed", &self::seed, "of random anchors"}};
    }

    /// @throws std::invalid_argument if a size is 0 or not a multiple of block_size, if nothing is left between sinks
    ///         and recent tokens, or if OpenVINO GenAI has no such anchor
    void validate() const {
        using detail::require;
        block_refinement{.block_size = block_size}.validate();
        require_blocks(num_sink_tokens, "num_sink_tokens");
        require_blocks(num_recent_tokens, "num_recent_tokens");
        require_blocks(max_cache_tokens, "max_cache_tokens");
        require(max_cache_tokens > num_sink_tokens &&
                    max_cache_tokens - num_sink_tokens > num_recent_tokens,
                "openvino_compat: max_cache_tokens is ",
                max_cache_tokens,
                "; it must be larger than ",
                num_sink_tokens,
                " sinks + ",
                num_recent_tokens,
                " recent tokens");
        require(pooling_kernel_size >= 1 &&
                    pooling_kernel_size <= score_history::max_pooling_kernel_size,
                "openvino_compat: pooling_kernel_size is ",
                pooling_kernel_size,
                "; it must lie in [1, ",
                score_history::max_pooling_kernel_size,
                "]");
        const bool known = anchor == anchor_kind::random || anchor == anchor_kind::zeros ||
                           anchor == anchor_kind::ones || anchor == anchor_kind::mean ||
                           anchor == anchor_kind::alternate;
        require(known,
                "openvino_compat: anchor is ",
                name_of(anchor),
                "; it must be random, zeros, ones, mean or alternate");
    }

    /// Queries of a chunk whose attention the engine adds up: those among the last observation_window of the prompt,
    /// and every one behind it.
    /// @param prompt_tokens     tokens of the whole prompt
    /// @param processed_tokens  tokens seen before the chunk
    /// @param chunk_tokens      tokens of the chunk
    [[nodiscard]] constexpr std::size_t scored_queries(std::size_t prompt_tokens,
                                                       std::size_t processed_tokens,
                                                       std::size_t chunk_tokens) const noexcept {
        if (observation_window == 0) {
            return chunk_tokens;
        }
        const std::size_t first = prompt_tokens - (std::min)(prompt_tokens, observation_window);
        const std::size_t after = processed_tokens + chunk_tokens;
        return after <= first ? 0 : (std::min)(chunk_tokens, after - first);
    }

private:
    void require_blocks(std::size_t tokens, const char* what) const {
        detail::require(tokens > 0 && tokens % block_size == 0,
                        "openvino_compat: ",
                        what,
                        " is ",
                        tokens,
                        "; it must be a positive multiple of block_size, which is ",
                        block_size);
    }
};
static_assert(Policy<openvino_compat>);

/// Decides for one running sequence which blocks each layer evicts.
///
///     openvino_evictor evictor(settings, num_layers, max_tokens);       // checks, takes all memory
///     for each pass of the model:                                       // a chunk of the prompt, or one token
///         for each layer:
///             evictor.register_scores(layer, scores, settings.scored_queries(prompt, seen, chunk));
///         if the whole prompt has been seen:
///             for each layer, ascending:
///                 blocks = evictor.evict(layer);                        // noexcept, allocates nothing
///                 keep_other_blocks(blocks, ...); compact(kv, kept);
///
/// Layers evict different blocks, but all of them equally many: an engine with one length per sequence, like OpenVINO
/// GenAI itself, goes by the number of layer 0. That holds as long as every pass registers all layers, with as many
/// scores and scored queries for each; it is checked in debug builds.
/// New tokens go on at the number of tokens seen.
/// @note O(cached tokens) a pass and layer
class openvino_evictor {
public:
    /// @param num_layers  layers of the model
    /// @param max_tokens  longest cache that scores are registered for, just before an eviction: the prompt, or
    ///                    max_cache_tokens + (num_representative_blocks + 1) * block_size, and the chunk behind
    /// @throws std::invalid_argument from settings.validate(), if num_layers is 0, or if max_tokens does not exceed
    ///         max_cache_tokens or is 2^32 and more; std::bad_alloc
    openvino_evictor(const openvino_compat& settings,
                     std::size_t num_layers,
                     std::size_t max_tokens)
        : settings_(checked(settings, num_layers, max_tokens)),
          refinement_{.block_size = settings.block_size,
                      .anchor = {.kind = settings.anchor, .seed = settings.seed}},
          layers_(
              num_layers,
              score_history(max_tokens - settings.num_sink_tokens, settings.pooling_kernel_size)),
          num_evicted_(num_layers),
          evicted_(max_tokens / settings.block_size),
          generator_(static_cast<std::mt19937::result_type>(settings.seed)) {
        const std::size_t blocks = evicted_.size();
        memory_.resize(scratch::bytes<double>(blocks) + scratch::bytes<std::uint32_t>(blocks) +
                       scratch::bytes<std::uint64_t>(simd::bitmap_words(blocks)) +
                       scratch::bytes<std::uint64_t>(anchor_words()) +
                       refinement_.scratch_bytes(max_tokens));
    }

    /// Adds what the queries of a pass thought of the cached tokens.
    /// @param[in] scores              [cached tokens], sums over heads and scored queries, sinks included
    /// @param[in] num_scored_queries  see openvino_compat::scored_queries
    /// @pre layer < num_layers; the cache has not shrunk but by evict(); scores.size() <= max_tokens
    template <std::ranges::contiguous_range Scores>
        requires ScoreValue<std::ranges::range_value_t<Scores>>
    void register_scores(std::size_t layer,
                         const Scores& scores,
                         std::size_t num_scored_queries) noexcept {
        KVCRUSH_ASSERT(layer < layers_.size());
        const std::span<const std::ranges::range_value_t<Scores>> all(scores);
        const std::size_t sinks = (std::min)(settings_.num_sink_tokens, all.size());
        layers_[layer].add(all.subspan(sinks), num_scored_queries, settings_.observation_window);
    }

    /// True where evict() has something to do: the cache outgrew its limit by a whole block. Evict only once the
    /// prompt has been seen to its end.
    [[nodiscard]] bool needs_eviction(std::size_t layer = 0) const noexcept {
        return num_cached(layer) >= settings_.max_cache_tokens + settings_.block_size;
    }

    /// Tokens of the cache that are accounted for, sinks included: 0 behind the sinks before the first scored query.
    [[nodiscard]] std::size_t num_cached(std::size_t layer = 0) const noexcept {
        KVCRUSH_ASSERT(layer < layers_.size());
        return settings_.num_sink_tokens + layers_[layer].num_tracked();
    }

    /// Chooses the blocks that a layer evicts and forgets their scores.
    /// @return blocks of the sequence, ascending; none where nothing is to be done. Valid until the next call
    /// @pre    layers are asked in ascending order, once a pass: the random anchor is drawn from one generator
    [[nodiscard]] std::span<const std::uint32_t> evict(std::size_t layer) noexcept {
        KVCRUSH_ASSERT(layer < layers_.size());
        std::size_t count = 0;
        if (needs_eviction(layer)) {
            count = choose(layers_[layer]);
            const std::span<std::uint32_t> blocks = std::span(evicted_).first(count);
            layers_[layer].remove_blocks(blocks, settings_.block_size);
            const auto start =
                static_cast<std::uint32_t>(settings_.num_sink_tokens / settings_.block_size);
            for (std::uint32_t& block : blocks) {
                block += start;
            }
        }
        num_evicted_[layer] += count;
        KVCRUSH_ASSERT(layer == 0 || num_evicted_[layer] == num_evicted_[0]);
        return std::span<const std::uint32_t>(evicted_).first(count);
    }

    [[nodiscard]] const openvino_compat& settings() const noexcept { return settings_; }
    [[nodiscard]] std::size_t num_layers() const noexcept { return layers_.size(); }
    [[nodiscard]] const score_history& history(std::size_t layer) const noexcept {
        KVCRUSH_ASSERT(layer < layers_.size());
        return layers_[layer];
    }

private:
    static const openvino_compat&
    checked(const openvino_compat& settings, std::size_t num_layers, std::size_t max_tokens) {
        settings.validate();
        detail::require(num_layers > 0, "openvino_evictor: num_layers is 0; it must be at least 1");
        detail::require(max_tokens > settings.max_cache_tokens &&
                            max_tokens <= (std::numeric_limits<std::uint32_t>::max)(),
                        "openvino_evictor: max_tokens is ",
                        max_tokens,
                        "; it must lie in [",
                        settings.max_cache_tokens + 1,
                        ", ",
                        (std::numeric_limits<std::uint32_t>::max)(),
                        "]");
        return settings;
    }

    [[nodiscard]] std::size_t anchor_words() const noexcept {
        return simd::words_per_code<std::uint64_t>(settings_.block_size);
    }

    /// Writes the blocks to evict, counted from the end of the sinks, to evicted_.
    std::size_t choose(const score_history& layer) noexcept {
        const std::size_t block_size = settings_.block_size;
        const std::size_t always = settings_.num_sink_tokens + settings_.num_recent_tokens;
        const std::size_t cached = settings_.num_sink_tokens + layer.num_tracked();
        const std::size_t blocks = cached / block_size - always / block_size;
        const std::size_t stay = (settings_.max_cache_tokens - always) / block_size;
        const std::size_t go = blocks - stay; // at least one: see needs_eviction

        scratch memory{std::span(memory_)};
        const std::span<double> importance = memory.take<double>(blocks);
        layer.block_scores(settings_.aggregation, block_size, importance);
        // The lowest go, of equal ones the earlier: the largest keys once they run backwards.
        const auto key_of = [importance](std::size_t block) noexcept {
            return ~detail::ordered_key64(importance[block]);
        };
        const detail::key_cut cut = detail::find_key_cut(blocks, go, key_of);
        std::size_t count = 0;
        for (std::size_t block = 0; block < blocks; ++block) {
            if (cut.contains(key_of(block), block)) {
                evicted_[count++] = static_cast<std::uint32_t>(block);
            }
        }
        const std::size_t budget = settings_.num_representative_blocks;
        return budget > 0 && count >= budget
                   ? refine(layer.scores().first(blocks * block_size), count, memory)
                   : count;
    }

    /// Takes the representatives out of the first `count` entries of evicted_.
    std::size_t refine(std::span<const double> scores, std::size_t count, scratch memory) noexcept {
        const std::span<const std::uint32_t> candidates =
            std::span<const std::uint32_t>(evicted_).first(count);
        const std::size_t budget = settings_.num_representative_blocks;
        const std::span<std::uint32_t> retained = memory.take<std::uint32_t>(budget);
        if (settings_.anchor == anchor_kind::random) {
            const std::span<std::uint64_t> code = memory.take<std::uint64_t>(anchor_words());
            draw_anchor(code);
            refinement_.retain(
                scores, candidates, budget, std::span<const std::uint64_t>(code), retained, memory);
        } else {
            refinement_.retain(scores, candidates, budget, retained, memory);
        }
        const std::span<std::uint64_t> stays =
            memory.take<std::uint64_t>(simd::bitmap_words(scores.size() / settings_.block_size));
        std::fill(stays.begin(), stays.end(), std::uint64_t{0});
        for (const std::uint32_t block : retained) {
            stays[block / 64] |= std::uint64_t{1} << (block % 64);
        }
        std::size_t left = 0;
        for (const std::uint32_t block : candidates) {
            if ((stays[block / 64] >> (block % 64) & 1U) == 0) {
                evicted_[left++] = block;
            }
        }
        return left;
    }

    /// One draw per bit, and of each draw the highest bit: that is what std::uniform_int_distribution<int>(0, 1) of
    /// libstdc++ 11 and newer makes of a 32-bit generator. Other standard libraries make something else of it (the
    /// generator is fixed by the standard, the distribution is not), so OpenVINO GenAI's random anchors depend on how
    /// it was built; these do not.
    void draw_anchor(std::span<std::uint64_t> code) noexcept {
        std::fill(code.begin(), code.end(), std::uint64_t{0});
        for (std::size_t bit = 0; bit < settings_.block_size; ++bit) {
            code[bit / 64] |= std::uint64_t{generator_() >> 31} << (bit % 64);
        }
    }

    openvino_compat settings_;
    block_refinement refinement_;
    std::vector<score_history> layers_;
    /// By each layer so far.
    std::vector<std::size_t> num_evicted_;
    std::vector<std::uint32_t> evicted_;
    std::vector<std::byte> memory_;
    std::mt19937 generator_;
};

/// Selects the tokens outside some blocks, the same for every kv head.
///
/// Whole blocks go, so with pages of block_size tokens (or a divisor of it) compact() and free_pages() give whole pages
/// back. An engine with a block table may instead drop those very pages from it and move nothing.
/// @param[in]  leaving     blocks, ascending, each once
/// @param[in]  num_tokens  cached before the eviction
/// @param[out] out         needs room for num_kv_heads heads with num_tokens - leaving.size() * block_size tokens each
/// @pre leaving blocks lie inside the sequence as a whole
inline void keep_other_blocks(std::span<const std::uint32_t> leaving,
                              std::size_t block_size,
                              std::size_t num_tokens,
                              std::size_t num_kv_heads,
                              selection& out) noexcept {
    out.clear();
    for (std::size_t head = 0; head < num_kv_heads; ++head) {
        std::size_t begin = 0;
        for (const std::uint32_t block : leaving) {
            out.extend_range(begin, block * block_size);
            begin = (std::size_t{block} + 1) * block_size;
        }
        KVCRUSH_ASSERT(begin <= num_tokens);
        out.extend_range(begin, num_tokens);
        out.end_head();
    }
}

} // namespace v0
} // namespace kvcrush
