// SPDX-License-Identifier: Apache-2.0
/// @file
/// A selector that is chosen when a program runs.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/layer_context.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/math/any_source.hpp>
#include <kvcrush/select/selector.hpp>
#include <kvcrush/select/top_k.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace kvcrush {
inline namespace v0 {

/// Any value that models Selector over keys and queries. Itself a selector, that may look at attention: hand it queries.
/// Copies share the value, which nobody can change.
class any_selector {
public:
    static constexpr std::string_view name = "any_selector";
    static constexpr bool needs_attention = true;
    static constexpr auto parameters() { return parameter_list{}; }

    any_selector() : any_selector(top_k_selector{}) {}
    /// There is always one inside: what is moved from keeps it.
    any_selector(const any_selector&) = default;
    any_selector& operator=(const any_selector&) = default;
    ~any_selector() = default;

    /// @throws std::invalid_argument if the selector's parameters make no sense
    template <typename P>
        requires(!std::is_same_v<std::remove_cvref_t<P>, any_selector> &&
                 Selector<std::remove_cvref_t<P>, any_source, query_view>)
    any_selector(
        P&& selector) // NOLINT(google-explicit-constructor): a selector is one wherever one is asked for
        : held_(validated<std::remove_cvref_t<P>>(std::forward<P>(selector))) {}

    /// What is inside: "kvcrush".
    [[nodiscard]] std::string_view policy_name() const noexcept { return held_->name(); }
    /// Its parameters that are not the defaults.
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
    /// The same as it is to be in one layer: seeds of its own.
    [[nodiscard]] any_selector at_layer(const layer_context& where) const {
        return any_selector(held_->at_layer(where));
    }
    /// Whether it looks at the scores that it is given.
    [[nodiscard]] bool looks_at_scores() const noexcept { return held_->looks_at_scores(); }
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return held_->num_queries(seq_len);
    }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        return any_source::scratch_bytes(size.kv) + held_->scratch_bytes(size);
    }

    template <KvSource Kv>
    void select(const selection_request& what,
                selection& out,
                const Kv& kv,
                const query_view& queries) const noexcept {
        if constexpr (std::is_same_v<Kv, any_source>) {
            held_->select(what, out, kv, queries);
        } else {
            selection_request rest = what;
            const any_source source(kv, rest.memory);
            held_->select(rest, out, source, queries);
        }
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
        [[nodiscard]] virtual bool looks_at_scores() const noexcept = 0;
        [[nodiscard]] virtual std::size_t num_queries(std::size_t seq_len) const noexcept = 0;
        [[nodiscard]] virtual std::size_t
        scratch_bytes(const problem_size& size) const noexcept = 0;
        virtual void select(const selection_request& what,
                            selection& out,
                            const any_source& kv,
                            const query_view& queries) const noexcept = 0;
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
            return std::make_shared<const model>(policy_at_layer(policy, where));
        }
        [[nodiscard]] bool looks_at_scores() const noexcept override { return reads_scores<P>; }
        [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept override {
            if constexpr (requires { policy.num_queries(seq_len); }) {
                return policy.num_queries(seq_len);
            } else {
                return 0;
            }
        }
        [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept override {
            return policy.scratch_bytes(size);
        }
        void select(const selection_request& what,
                    selection& out,
                    const any_source& kv,
                    const query_view& queries) const noexcept override {
            policy.select(what, out, kv, queries);
        }

        P policy;
    };

    explicit any_selector(std::shared_ptr<const base> held) : held_(std::move(held)) {}
    template <typename P>
    [[nodiscard]] static std::shared_ptr<const base> validated(P policy) {
        policy.validate();
        return std::make_shared<const model<P>>(std::move(policy));
    }

    std::shared_ptr<const base> held_;
};

} // namespace v0
} // namespace kvcrush

#if KVCRUSH_EXTERN_INSTANCES
#    include <kvcrush/select/detail/any_selector_instances.hpp>
#endif
