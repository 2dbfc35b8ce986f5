// SPDX-License-Identifier: Apache-2.0
/// @file
/// A scorer that is chosen when a program runs.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/layer_context.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/any_source.hpp>
#include <kvcrush/retention/streaming_llm.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace kvcrush {
inline namespace v0 {

/// Any value that models Scorer over keys and queries. Itself a scorer, that may need attention: hand it queries. Copies
/// share the value, which nobody can change.
class any_scorer {
public:
    static constexpr std::string_view name = "any_scorer";
    static constexpr bool needs_attention = true;
    static constexpr auto parameters() { return parameter_list{}; }

    /// streaming_llm: the newest tokens.
    any_scorer() : any_scorer(streaming_llm_scorer{}) {}
    /// There is always one inside: what is moved from keeps it.
    any_scorer(const any_scorer&) = default;
    any_scorer& operator=(const any_scorer&) = default;
    ~any_scorer() = default;

    /// @throws std::invalid_argument if the scorer's parameters make no sense
    template <typename P>
        requires(!std::is_same_v<std::remove_cvref_t<P>, any_scorer> &&
                 Scorer<std::remove_cvref_t<P>>)
    any_scorer(
        P&& scorer) // NOLINT(google-explicit-constructor): a scorer is one wherever one is asked for
        : held_(validated<std::remove_cvref_t<P>>(std::forward<P>(scorer))) {}

    /// What is inside: "snapkv".
    [[nodiscard]] std::string_view policy_name() const noexcept { return held_->name(); }
    /// Its parameters that are not the defaults: "window=8".
    [[nodiscard]] std::string arguments() const { return held_->arguments(); }
    /// The value inside, if it is a P; nullptr otherwise.
    template <typename P>
    [[nodiscard]] const P* as() const noexcept {
        return held_->tag() == &detail::type_tag<P>
                   ? &static_cast<const model<P>*>(held_.get())->policy
                   : nullptr;
    }

    void validate() const { held_->validate(); }
    void validate_for(const problem_size& size) const { held_->validate_for(size); }
    /// The same as it is to be in one layer: with seeds of its own, the model's RoPE, its own calibration.
    [[nodiscard]] any_scorer at_layer(const layer_context& where) const {
        return any_scorer(held_->at_layer(where));
    }

    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return held_->num_queries(seq_len);
    }
    /// Heads of what observe() writes: query heads, or kv heads for scorers of keys.
    [[nodiscard]] std::size_t num_observed_heads(const problem_size& size) const noexcept {
        return held_->num_observed_heads(size);
    }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        return any_source::scratch_bytes(size.kv) + held_->scratch_bytes(size);
    }

    /// @param[out] observed  [num_observed_heads, seq_len]
    template <KvSource Kv>
    void observe(const Kv& kv,
                 const query_view& queries,
                 head_scores observed,
                 scratch memory) const noexcept {
        if constexpr (std::is_same_v<Kv, any_source>) {
            held_->observe(kv, queries, observed, memory);
        } else {
            const any_source source(kv, memory);
            held_->observe(source, queries, observed, memory);
        }
    }
    /// @param[out] scores  [num_kv_heads, seq_len]
    void reduce(const_head_scores observed, head_scores scores, scratch memory) const noexcept {
        held_->reduce(observed, scores, memory);
    }

private:
    struct base {
        base() = default;
        base(const base&) = delete;
        base& operator=(const base&) = delete;
        virtual ~base() = default;
        /// Which policy it is: &detail::type_tag of it.
        [[nodiscard]] virtual const void* tag() const noexcept = 0;
        [[nodiscard]] virtual std::string_view name() const noexcept = 0;
        [[nodiscard]] virtual std::string arguments() const = 0;
        virtual void validate() const = 0;
        virtual void validate_for(const problem_size& size) const = 0;
        [[nodiscard]] virtual std::shared_ptr<const base>
        at_layer(const layer_context& where) const = 0;
        [[nodiscard]] virtual std::size_t num_queries(std::size_t seq_len) const noexcept = 0;
        [[nodiscard]] virtual std::size_t
        num_observed_heads(const problem_size& size) const noexcept = 0;
        [[nodiscard]] virtual std::size_t
        scratch_bytes(const problem_size& size) const noexcept = 0;
        virtual void observe(const any_source& kv,
                             const query_view& queries,
                             head_scores observed,
                             scratch memory) const noexcept = 0;
        virtual void
        reduce(const_head_scores observed, head_scores scores, scratch memory) const noexcept = 0;
    };

    template <typename P>
    struct model final : base {
        explicit model(P chosen) : policy(std::move(chosen)) {}

        [[nodiscard]] const void* tag() const noexcept override { return &detail::type_tag<P>; }

        [[nodiscard]] std::string_view name() const noexcept override { return P::name; }
        [[nodiscard]] std::string arguments() const override { return policy_arguments(policy); }
        void validate() const override { policy.validate(); }
        void validate_for(const problem_size& size) const override {
            if constexpr (requires { policy.validate_for(size); }) {
                policy.validate_for(size);
            }
        }
        [[nodiscard]] std::shared_ptr<const base>
        at_layer(const layer_context& where) const override {
            auto own = policy_at_layer(policy, where);
            return std::make_shared<const model<decltype(own)>>(std::move(own));
        }
        [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept override {
            if constexpr (requires { policy.num_queries(seq_len); }) {
                return policy.num_queries(seq_len);
            } else {
                return 0;
            }
        }
        [[nodiscard]] std::size_t
        num_observed_heads(const problem_size& size) const noexcept override {
            return kvcrush::num_observed_heads(policy, size);
        }
        [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept override {
            return scorer_scratch_bytes(policy, size);
        }
        void observe(const any_source& kv,
                     const query_view& queries,
                     head_scores observed,
                     scratch memory) const noexcept override {
            kvcrush::observe(policy, observed, memory, kv, queries);
        }
        void reduce(const_head_scores observed,
                    head_scores scores,
                    scratch memory) const noexcept override {
            const const_head_scores decisive = kvcrush::reduce(policy, observed, scores, memory);
            if (decisive.values().data() != scores.values().data()) { // final already
                std::copy(
                    decisive.values().begin(), decisive.values().end(), scores.values().begin());
            }
        }

        P policy;
    };

    explicit any_scorer(std::shared_ptr<const base> held) : held_(std::move(held)) {}
    template <typename P>
    [[nodiscard]] static std::shared_ptr<const base> validated(P policy) {
        policy.validate();
        return std::make_shared<const model<P>>(std::move(policy));
    }

    std::shared_ptr<const base> held_;
};
static_assert(AttentionScorer<any_scorer, any_source, query_view>);

} // namespace v0
} // namespace kvcrush

#if KVCRUSH_EXTERN_INSTANCES
#    include <kvcrush/retention/detail/any_scorer_instances.hpp>
#endif
