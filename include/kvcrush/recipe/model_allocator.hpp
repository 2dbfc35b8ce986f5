// SPDX-License-Identifier: Apache-2.0
/// @file
/// What divides a budget over the layers of a model, from more than one layer.
#pragma once

#include <kvcrush/allocation/head_counts.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/core/rope.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/recipe/layer_access.hpp>
#include <kvcrush/recipe/layer_judge.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Called with a layer of a cache to which the model has just appended tokens again: its rows, and their queries.
using replay_observer =
    std::function<void(std::size_t layer, const any_source& rows, const query_view& queries)>;

/// What a model allocator may look at.
struct model_problem {
    /// One per layer, all of one shape but for the rows that heads hold.
    std::span<const layer_access* const> layers;
    std::size_t num_q_heads = 0;
    rope angles{};
    /// The recipe's scorer, and what it protects.
    const layer_policy& policy;
    /// Tokens per kv head on average, sinks and recent included.
    std::size_t tokens = 0;
    /// Tokens that the cache has seen.
    std::size_t tokens_seen = 0;
    /// Lets the model read these tokens once more, behind a copy of the cache, for methods that watch it do so; empty where
    /// the engine gave no way to.
    std::function<void(std::span<const std::int32_t> tokens, const replay_observer& observe)> replay{};
    /// What was read so far, and what asks the model to repeat it, for the same methods.
    std::span<const std::int32_t> context{};
    std::span<const std::int32_t> repeat_request{};

    [[nodiscard]] kv_shape shape() const noexcept {
        return layers.empty() ? kv_shape{} : layers.front()->shape();
    }
    [[nodiscard]] model_heads heads() const noexcept {
        return {layers.size(), shape().num_kv_heads};
    }
    /// The budget as the allocators of allocation/ take it.
    [[nodiscard]] budget per_head() const noexcept { return budget::tokens(tokens, policy.areas); }
};

/// What is settled before the first layer is compressed. At most one of them is set; with none, every head may keep as many.
struct model_plan {
    /// Tokens per kv head of each layer.
    std::vector<std::size_t> tokens{};
    /// Tokens of each layer and kv head.
    head_counts counts{};
    /// What each layer keeps, for methods that say all.
    std::vector<selection> kept{};
};

/// A policy for which plan_model(policy, problem) is found, as those of recipe/model_plans.hpp.
template <typename P>
concept ModelAllocator = Policy<P> && requires(const P& policy, const model_problem& problem) {
    { plan_model(policy, problem) } -> std::same_as<model_plan>;
};

/// Any of them, or none. Copies share the value, which nobody can change.
class any_model_allocator {
public:
    /// None: every head may keep as many.
    any_model_allocator() = default;

    /// @throws std::invalid_argument if the policy's parameters make no sense
    template <typename P>
        requires(!std::is_same_v<std::remove_cvref_t<P>, any_model_allocator> &&
                 ModelAllocator<std::remove_cvref_t<P>>)
    any_model_allocator(P&& policy) // NOLINT(google-explicit-constructor): a policy is one wherever one is asked for
        : held_(validated<std::remove_cvref_t<P>>(std::forward<P>(policy))) {}

    [[nodiscard]] explicit operator bool() const noexcept { return held_ != nullptr; }
    /// @pre there is one, here and below
    [[nodiscard]] std::string_view policy_name() const noexcept { return held_->name(); }
    [[nodiscard]] std::string arguments() const { return held_->arguments(); }
    /// Queries of the newest tokens that it looks at, those of the scorer left out.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return held_->num_queries(seq_len);
    }
    /// @throws std::invalid_argument if the problem lacks what the method needs
    [[nodiscard]] model_plan plan(const model_problem& problem) const { return held_->plan(problem); }

private:
    struct base {
        base() = default;
        base(const base&) = delete;
        base& operator=(const base&) = delete;
        virtual ~base() = default;
        [[nodiscard]] virtual std::string_view name() const noexcept = 0;
        [[nodiscard]] virtual std::string arguments() const = 0;
        [[nodiscard]] virtual std::size_t num_queries(std::size_t seq_len) const noexcept = 0;
        [[nodiscard]] virtual model_plan plan(const model_problem& problem) const = 0;
    };

    template <typename P>
    struct model final : base {
        explicit model(P chosen) : policy(std::move(chosen)) {}

        [[nodiscard]] std::string_view name() const noexcept override { return P::name; }
        [[nodiscard]] std::string arguments() const override { return policy_arguments(policy); }
        [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept override {
            if constexpr (requires { plan_queries(policy, seq_len); }) {
                return plan_queries(policy, seq_len);
            } else {
                return 0;
            }
        }
        [[nodiscard]] model_plan plan(const model_problem& problem) const override {
            return plan_model(policy, problem);
        }

        P policy;
    };

    template <typename P>
    [[nodiscard]] static std::shared_ptr<const base> validated(P policy) {
        policy.validate();
        return std::make_shared<const model<P>>(std::move(policy));
    }

    std::shared_ptr<const base> held_;
};

} // namespace v0
} // namespace kvcrush
