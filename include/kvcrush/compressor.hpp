// SPDX-License-Identifier: Apache-2.0
/// @file
/// Binds one policy of each kind, checks once, then runs.
#pragma once

#include <kvcrush/allocation/allocator.hpp>
#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/executor.hpp>
#include <kvcrush/core/head_range.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/select_result.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/shape_only.hpp>
#include <kvcrush/select/selector.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Decides which tokens of a layer's cache stay.
///
///     compressor crush(snapkv_scorer{}, kvcrush_selector<>{});          // checks the policies
///     crush.plan({kv.shape(), num_q_heads}, budget::keep_ratio(0.25));  // checks the sizes, takes all memory
///     for each layer:
///         compact(kv, crush.select(kv, queries));                       // allocates nothing
///
/// One compressor serves one thread; give each thread its own (for_each_layer), or lend several threads to one call:
/// select(executor, kv, queries). Copies keep the plan and have memory of their own for it.
template <Scorer ScorerT, typename SelectorT, typename AllocatorT = uniform_allocator>
class compressor {
    static_assert(Allocator<AllocatorT>,
                  "kvcrush: allocate(scores, areas, tokens, counts) of this allocator must be "
                  "const noexcept and return void; with a trailing scratch it also needs "
                  "scratch_bytes(size) noexcept");

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
    /// @param size       num_q_heads may stay 0 for scorers that look at keys alone, key_dim and value_dim where nobody
    ///                   reads keys or values
    /// @param num_tasks  how many tasks select() may hand to an executor at once; each takes scratch memory of its own
    /// @throws std::invalid_argument if the budget does not hold sinks and recent tokens, if num_q_heads is not a
    ///         multiple of num_kv_heads, if sizes overflow, or from the policies; std::bad_alloc, after which the
    ///         compressor has no plan
    void plan(const problem_size& size, const budget& tokens, std::size_t num_tasks = 1) {
        check_size(size);
        check_needs(size);
        validate_for(scorer_, size);
        validate_for(selector_, size);
        validate_for(allocator_, size);
        detail::require(num_tasks >= 1 && num_tasks <= max_tasks,
                        "compressor: num_tasks is ",
                        num_tasks,
                        "; it must lie in [1, ",
                        max_tasks,
                        "]");
        const std::size_t per_head = tokens.tokens_for(size.kv.seq_len);
        planned_ = false;
        answered_ = false;
        take_memory(size, num_tasks);
        size_ = size;
        tokens_ = per_head;
        areas_ = areas(tokens.protected_areas(), size.kv.seq_len);
        planned_ = true;
    }

    /// Replaces the scorer, for what differs from layer to layer: filters, seeds, given scores. The plan stays.
    /// @throws std::invalid_argument if its parameters make no sense, or not for the planned size; std::bad_alloc
    void set_scorer(const ScorerT& scorer) {
        scorer.validate();
        if (planned_) {
            validate_for(scorer, size_);
        }
        const std::size_t bytes = scores_are_read ? scorer_scratch_bytes(scorer, size_) : 0;
        memory_.resize((std::max)(memory_.size(), num_tasks_ * bytes));
        scorer_ = scorer;
        scoring_bytes_ = bytes;
    }

    /// Replaces the allocator, for counts that change from layer to layer; the plan stays.
    /// @throws std::invalid_argument if its parameters make no sense, or not for the planned size; std::bad_alloc
    void set_allocator(const AllocatorT& allocator) {
        allocator.validate();
        if (planned_) {
            validate_for(allocator, size_);
        }
        memory_.resize((std::max)(memory_.size(), allocator_scratch_bytes(allocator, size_)));
        allocator_ = allocator;
    }

    /// Tokens per kv head of the plan, sinks and recent included: what each head keeps, or their mean where the
    /// allocator gives some heads more than others.
    [[nodiscard]] std::size_t tokens_per_head() const noexcept { return tokens_; }
    [[nodiscard]] const AllocatorT& allocator() const noexcept { return allocator_; }
    /// Queries of the last tokens that select(kv, queries) looks at in a sequence of this length: hand over as many.
    /// With fewer it answers from those.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return (std::max)(queries_of(scorer_, seq_len), queries_of(selector_, seq_len));
    }
    [[nodiscard]] const ScorerT& scorer() const noexcept { return scorer_; }
    [[nodiscard]] const SelectorT& selector() const noexcept { return selector_; }

    /// Selects from keys and values alone, or from shape_only{shape} where nobody reads them.
    /// @pre kv has the planned shape: plan() again when seq_len changes. Asserted in debug builds; otherwise the
    ///      answer is a refusal, which throws when it is used as a selection.
    /// @return the tokens to keep; valid until the next call
    template <KvSource Kv>
    select_result select(const Kv& kv) noexcept {
        static_assert(!ScorerT::needs_attention,
                      "kvcrush: this scorer looks at attention: call select(kv, queries) or "
                      "select(attention)");
        static_assert(!std::is_same_v<Kv, shape_only> || !reads_keys,
                      "kvcrush: this scorer reads keys: call select(kv) or select(kv, queries)");
        if constexpr (!ScorerT::needs_attention) {
            return run_if(serial_executor{}, kv.shape() == size_.kv, kv);
        }
        return {};
    }

    /// Selects with the queries of the last tokens, as many as num_queries(seq_len) says.
    /// Scorers that look at keys alone leave the queries aside.
    /// @pre kv and queries have the planned shape
    template <KvSource Kv>
    select_result select(const Kv& kv, const query_view& queries) noexcept {
        return select(serial_executor{}, kv, queries);
    }

    /// The same with the threads of a caller: scorers that look at heads one by one share them out. The answer does not
    /// depend on how many tasks or threads there are.
    template <Executor E, KvSource Kv>
    select_result select(E&& execute, const Kv& kv, const query_view& queries) noexcept {
        static_assert(!std::is_same_v<Kv, shape_only> || !reads_keys,
                      "kvcrush: this scorer reads keys: give select() a view of them");
        const bool queries_fit = queries.num_queries() <= size_.kv.seq_len &&
                                 queries.num_q_heads() == size_.num_q_heads &&
                                 queries.head_dim() == size_.kv.key_dim && has_keys(size_);
        return run_if(
            execute, kv.shape() == size_.kv && (queries_fit || !looks_at_attention), kv, queries);
    }

    /// Selects from attention weights, for engines that have them.
    /// @pre attention has the planned seq_len and num_q_heads
    select_result select(const attention_view& attention) noexcept {
        return select(serial_executor{}, attention);
    }

    /// The same with the threads of a caller.
    template <Executor E>
    select_result select(E&& execute, const attention_view& attention) noexcept {
        static_assert(reads_attention,
                      "kvcrush: this scorer reads keys: call select(kv) or select(kv, queries)");
        if constexpr (reads_attention) {
            return run_if(execute,
                          attention.seq_len() == size_.kv.seq_len &&
                              attention.num_q_heads() == size_.num_q_heads,
                          attention);
        }
        return {};
    }

    /// The scores that decided in the last select(), [num_kv_heads, seq_len]; valid until the next call. Empty before
    /// the first, after a refusal, and where neither the selector nor the allocator looks at scores.
    [[nodiscard]] const_head_scores scores() const noexcept {
        if constexpr (folds_heads) {
            return answered_ ? folded() : const_head_scores{};
        } else {
            return observed();
        }
    }

    /// The same before query heads were folded into kv heads, [num_q_heads, seq_len] where the scorer does that.
    [[nodiscard]] const_head_scores observed() const noexcept {
        if (!answered_ || !scores_are_read) {
            return {};
        }
        return {observed_, num_observed_heads(scorer_, size_), size_.kv.seq_len};
    }

private:
    static constexpr bool looks_at_attention = [] {
        if constexpr (requires { SelectorT::needs_attention; }) {
            return ScorerT::needs_attention || SelectorT::needs_attention;
        } else {
            return ScorerT::needs_attention;
        }
    }();
    static constexpr bool scores_are_read = reads_scores<SelectorT> || reads_scores<AllocatorT>;
    static constexpr bool folds_heads =
        ScorerT::needs_attention && !detail::scores_directly<ScorerT> && scores_are_read;
    static constexpr bool reads_keys = scores_are_read && reads_cache<ScorerT>;
    static constexpr bool reads_attention = AttentionScorer<ScorerT, attention_view>;
    static constexpr std::size_t max_tasks = 4096;
    static constexpr bool splits_heads = SplittableScorer<ScorerT>;

    template <typename Policy>
    [[nodiscard]] static std::size_t queries_of(const Policy& policy,
                                                std::size_t seq_len) noexcept {
        if constexpr (requires { policy.num_queries(seq_len); }) {
            return policy.num_queries(seq_len);
        } else {
            return 0;
        }
    }

    template <typename Policy>
    static void validate_for(const Policy& policy, const problem_size& size) {
        if constexpr (requires { policy.validate_for(size); }) {
            policy.validate_for(size);
        }
    }

    /// Without any head or token there is nothing to read.
    [[nodiscard]] static bool has_keys(const problem_size& size) noexcept {
        return size.kv.key_dim > 0 || size.kv.num_kv_heads == 0 || size.kv.seq_len == 0;
    }

    static void check_size(const problem_size& size) {
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
        // More than all pieces of scratch memory together.
        const std::size_t heads = size.num_q_heads + 2 * kv.num_kv_heads + 64;
        const std::size_t scores = detail::checked_multiply(heads, kv.seq_len + 256, "compressor");
        static_cast<void>(detail::checked_multiply(scores, 16 * (kv.key_dim + 256), "compressor"));
    }

    /// What the policies look at must be there.
    static void check_needs(const problem_size& size) {
        if constexpr (looks_at_attention) {
            detail::require(size.num_q_heads > 0 || size.kv.num_kv_heads == 0,
                            "compressor: ",
                            ScorerT::needs_attention ? ScorerT::name : SelectorT::name,
                            " looks at attention; num_q_heads is 0 and must be given");
        }
        if constexpr (reads_keys && !reads_attention) {
            detail::require(has_keys(size),
                            "compressor: ",
                            ScorerT::name,
                            " reads keys; key_dim is 0 and must be given");
        }
    }

    void take_memory(const problem_size& size, std::size_t num_tasks) {
        const kv_shape& kv = size.kv;
        observed_.resize(scores_are_read ? num_observed_heads(scorer_, size) * kv.seq_len : 0);
        // Where nobody looks, zeros stand for the scores.
        scores_.resize(folds_heads || !scores_are_read ? kv.num_kv_heads * kv.seq_len : 0);
        counts_.assign(kv.num_kv_heads, 0);
        scoring_bytes_ = scores_are_read ? scorer_scratch_bytes(scorer_, size) : 0;
        num_tasks_ =
            splits_heads ? (std::max)((std::min)(num_tasks, kv.num_kv_heads), std::size_t{1}) : 1;
        memory_.resize(
            (std::max)({detail::checked_multiply(num_tasks_, scoring_bytes_, "compressor"),
                        std::size_t{selector_.scratch_bytes(size)},
                        allocator_scratch_bytes(allocator_, size)}));
        // An allocator may give one head more than its share, never more than the sequence.
        selection_.reserve(kv.num_kv_heads, kv.num_kv_heads * kv.seq_len);
    }

    template <typename E, typename... Inputs>
    select_result run_if(E&& execute, bool fits, const Inputs&... inputs) noexcept {
        KVCRUSH_ASSERT(planned_ && fits &&
                       "kvcrush: plan() again when the size of the cache changes");
        answered_ = planned_ && fits;
        if (!answered_) {
            return {};
        }
        run(execute, inputs...);
        return select_result(selection_.value);
    }

    template <typename E, typename... Inputs>
    void run(E& execute, const Inputs&... inputs) noexcept {
        const scratch memory{std::span<std::byte>(memory_)};
        const_head_scores decisive = folded();
        if constexpr (scores_are_read) {
            const std::size_t heads = num_observed_heads(scorer_, size_);
            const head_scores seen(observed_, heads, size_.kv.seq_len);
            if constexpr (splits_heads) {
                observe_heads(execute, seen, inputs...);
            } else {
                observe(scorer_, seen, memory, inputs...);
            }
            const head_scores room(
                scores_, folds_heads ? size_.kv.num_kv_heads : 0, size_.kv.seq_len);
            decisive = reduce(scorer_, seen, room, memory);
        }
        allocate_tokens(allocator_, decisive, areas_, tokens_, counts_, memory);
        selector_.select(
            {decisive, observed(), areas_, counts_, memory}, selection_.value, inputs...);
    }

    [[nodiscard]] const_head_scores folded() const noexcept {
        if constexpr (folds_heads || !scores_are_read) {
            return {scores_, size_.kv.num_kv_heads, size_.kv.seq_len};
        } else {
            return {};
        }
    }

    /// Contiguous ranges of kv heads, one task each.
    template <typename E, typename... Inputs>
    void observe_heads(E& execute, head_scores observed, const Inputs&... inputs) noexcept {
        const std::size_t heads = size_.kv.num_kv_heads;
        const std::size_t group = heads == 0 ? 0 : size_.num_q_heads / heads;
        const auto task = [&](std::size_t i) noexcept {
            const std::size_t first = i * heads / num_tasks_;
            const std::size_t count = (i + 1) * heads / num_tasks_ - first;
            const std::size_t seq_len = observed.seq_len();
            const head_scores part(
                observed.values().subspan(first * group * seq_len, count * group * seq_len),
                count * group,
                seq_len);
            const scratch memory{
                std::span<std::byte>(memory_).subspan(i * scoring_bytes_, scoring_bytes_)};
            observe(scorer_, part, memory, heads_of(inputs, first, count, group)...);
        };
        execute(num_tasks_, task);
    }

    template <KvSource Kv>
    [[nodiscard]] static head_range<Kv>
    heads_of(const Kv& kv, std::size_t first, std::size_t count, std::size_t) noexcept {
        return {kv, first, count};
    }
    template <typename Queries>
    [[nodiscard]] static Queries heads_of(const Queries& queries,
                                          std::size_t first,
                                          std::size_t count,
                                          std::size_t group) noexcept {
        return queries.heads(first * group, count * group);
    }

    ScorerT scorer_;
    SelectorT selector_;
    AllocatorT allocator_;
    problem_size size_{};
    bool planned_ = false;
    bool answered_ = false; ///< whether the scores are those of the last select()
    areas areas_{};
    std::size_t tokens_ = 0;
    std::size_t num_tasks_ = 1;
    std::size_t scoring_bytes_ = 0;
    std::vector<float> observed_;
    std::vector<float> scores_;
    std::vector<std::size_t> counts_;
    std::vector<std::byte> memory_;
    detail::selection_room selection_;
};

} // namespace v0
} // namespace kvcrush
