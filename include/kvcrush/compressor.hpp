// SPDX-License-Identifier: Apache-2.0
/// @file
/// Binds one policy of each kind, checks once, then runs.
#pragma once

#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/selector.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Decides which tokens of a layer's cache stay.
///
///     compressor crush(snapkv_scorer{}, kvcrush_selector<>{});          // checks the policies
///     crush.plan({kv.shape(), num_q_heads}, budget::keep_ratio(0.25));  // checks the sizes, takes all memory
///     for each layer:
///         compact(kv, crush.select(kv, queries));                       // noexcept, allocates nothing
///
/// One compressor serves one thread; give each thread its own.
template <Scorer ScorerT,
          typename SelectorT = kvcrush_selector<>,
          typename AllocatorT = uniform_allocator>
class compressor {
public:
    /// @throws std::invalid_argument if a policy's parameters make no sense
    explicit compressor(const ScorerT& scorer = {},
                        const SelectorT& selector = {},
                        const AllocatorT& allocator = {})
        : scorer_(scorer), selector_(selector), allocator_(allocator) {
        scorer_.validate();
        selector_.validate();
        allocator_.validate();
    }

    /// Prepares for layers of one size and takes the memory for them. Call it again for another size or budget;
    /// memory only grows.
    /// @param size  num_q_heads may stay 0 for scorers that look at keys alone
    /// @throws std::invalid_argument if the budget does not hold sinks and recent tokens, if num_q_heads is not a
    ///         multiple of num_kv_heads, or if sizes overflow; std::bad_alloc
    void plan(const problem_size& size, const budget& tokens) {
        using detail::require;
        const kv_shape& kv = size.kv;
        detail::require_shape(kv, "compressor");
        require(kv.num_kv_heads > 0 || size.num_q_heads == 0,
                "compressor: num_q_heads is ",
                size.num_q_heads,
                " without any kv head");
        require(kv.num_kv_heads == 0 || size.num_q_heads % kv.num_kv_heads == 0,
                "compressor: num_q_heads is ",
                size.num_q_heads,
                "; it must be a multiple of num_kv_heads (",
                kv.num_kv_heads,
                ")");
        constexpr std::size_t most = (std::numeric_limits<std::uint32_t>::max)();
        require(kv.num_kv_heads <= most && size.num_q_heads <= most && kv.key_dim <= most,
                "compressor: num_kv_heads is ",
                kv.num_kv_heads,
                ", num_q_heads ",
                size.num_q_heads,
                ", key_dim ",
                kv.key_dim,
                "; each must be below 2^32");
        if constexpr (looks_at_attention) {
            require(size.num_q_heads > 0 || kv.num_kv_heads == 0,
                    "compressor: ",
                    ScorerT::needs_attention ? ScorerT::name : SelectorT::name,
                    " looks at attention; num_q_heads is 0 and must be given");
        }
        const std::size_t per_head = tokens.tokens_for(kv.seq_len);
        const std::size_t observed_heads = num_observed_heads(scorer_, size);
        // More than all pieces of scratch memory together.
        const std::size_t heads = size.num_q_heads + 2 * kv.num_kv_heads + 64;
        const std::size_t scores = detail::checked_multiply(heads, kv.seq_len + 256, "compressor");
        static_cast<void>(detail::checked_multiply(scores, 16 * (kv.key_dim + 256), "compressor"));

        observed_.resize(observed_heads * kv.seq_len);
        scores_.resize(ScorerT::needs_attention ? kv.num_kv_heads * kv.seq_len : 0);
        counts_.assign(kv.num_kv_heads, 0);
        const std::size_t scoring = scorer_scratch_bytes(scorer_, size);
        const std::size_t selecting = selector_.scratch_bytes(size);
        memory_.resize(scoring > selecting ? scoring : selecting);
        // An allocator may give one head more than its share, never more than the sequence.
        selection_.reserve(kv.num_kv_heads, kv.num_kv_heads * kv.seq_len);
        size_ = size;
        tokens_ = per_head;
        areas_ = areas(tokens.protected_areas(), kv.seq_len);
    }

    /// Tokens per kv head that select() keeps, sinks and recent included.
    [[nodiscard]] std::size_t tokens_per_head() const noexcept { return tokens_; }
    [[nodiscard]] const ScorerT& scorer() const noexcept { return scorer_; }
    [[nodiscard]] const SelectorT& selector() const noexcept { return selector_; }

    /// Selects from keys and values alone.
    /// @pre kv has the planned shape: plan() again when seq_len changes. Asserted in debug builds; otherwise the
    ///      answer holds no head at all, which compact() leaves alone.
    /// @return the tokens to keep; valid until the next call
    template <KvSource Kv>
    const selection& select(const Kv& kv) noexcept {
        static_assert(!ScorerT::needs_attention,
                      "kvcrush: this scorer looks at attention: call select(kv, queries) or "
                      "select(attention)");
        if constexpr (!ScorerT::needs_attention) {
            run_if(kv.shape() == size_.kv, kv);
        }
        return selection_;
    }

    /// Selects with the queries of the last tokens, as many as the scorer's num_queries() asks for.
    /// Scorers that look at keys alone leave the queries aside.
    /// @pre kv and queries have the planned shape
    template <KvSource Kv>
    const selection& select(const Kv& kv, const query_view& queries) noexcept {
        const bool queries_fit = queries.num_queries() <= size_.kv.seq_len &&
                                 queries.num_q_heads() == size_.num_q_heads &&
                                 queries.head_dim() == size_.kv.key_dim;
        run_if(kv.shape() == size_.kv && (queries_fit || !looks_at_attention), kv, queries);
        return selection_;
    }

    /// Selects from attention weights, for engines that have them.
    /// @pre attention has the planned seq_len and num_q_heads
    const selection& select(const attention_view& attention) noexcept {
        static_assert(AttentionScorer<ScorerT, attention_view>,
                      "kvcrush: this scorer reads keys: call select(kv) or select(kv, queries)");
        if constexpr (AttentionScorer<ScorerT, attention_view>) {
            run_if(attention.seq_len() == size_.kv.seq_len &&
                       attention.num_q_heads() == size_.num_q_heads,
                   attention);
        }
        return selection_;
    }

private:
    static constexpr bool looks_at_attention = [] {
        if constexpr (requires { SelectorT::needs_attention; }) {
            return ScorerT::needs_attention || SelectorT::needs_attention;
        } else {
            return ScorerT::needs_attention;
        }
    }();

    template <typename... Inputs>
    void run_if(bool fits, const Inputs&... inputs) noexcept {
        KVCRUSH_ASSERT(fits && "kvcrush: plan() again when the size of the cache changes");
        if (fits) {
            run(inputs...);
        } else {
            selection_.clear();
        }
    }

    template <typename... Inputs>
    void run(const Inputs&... inputs) noexcept {
        const std::size_t seq_len = size_.kv.seq_len;
        const std::size_t observed_heads = num_observed_heads(scorer_, size_);
        const head_scores observed(
            std::span<float>(observed_).first(observed_heads * seq_len), observed_heads, seq_len);
        const head_scores scores(std::span<float>(scores_),
                                 ScorerT::needs_attention ? size_.kv.num_kv_heads : 0,
                                 seq_len);
        const scratch memory{std::span<std::byte>(memory_)};
        observe(scorer_, observed, memory, inputs...);
        const const_head_scores decisive = reduce(scorer_, observed, scores, memory);
        allocator_.allocate(decisive, areas_, tokens_, counts_);
        selector_.select(decisive,
                         observed,
                         areas_,
                         std::span<const std::size_t>(counts_),
                         selection_,
                         memory,
                         inputs...);
    }

    ScorerT scorer_;
    SelectorT selector_;
    AllocatorT allocator_;
    problem_size size_{};
    areas areas_{};
    std::size_t tokens_ = 0;
    std::vector<float> observed_;
    std::vector<float> scores_;
    std::vector<std::size_t> counts_;
    std::vector<std::byte> memory_;
    selection selection_;
};

} // namespace v0
} // namespace kvcrush
