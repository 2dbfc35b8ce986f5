// SPDX-License-Identifier: Apache-2.0
/// @file
/// An allocator that is chosen when a program runs.
#pragma once

#include <kvcrush/allocation/allocator.hpp>
#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace kvcrush {
inline namespace v0 {

/// Any value that models Allocator. Itself an allocator. Copies share the value, which nobody can change.
class any_allocator {
public:
    static constexpr std::string_view name = "any_allocator";
    static constexpr auto parameters() { return parameter_list{}; }

    any_allocator() : any_allocator(uniform_allocator{}) {}
    /// There is always one inside: what is moved from keeps it.
    any_allocator(const any_allocator&) = default;
    any_allocator& operator=(const any_allocator&) = default;
    ~any_allocator() = default;

    /// @throws std::invalid_argument if the allocator's parameters make no sense
    template <typename P>
        requires(!std::is_same_v<std::remove_cvref_t<P>, any_allocator> &&
                 Allocator<std::remove_cvref_t<P>>)
    any_allocator(
        P&& allocator) // NOLINT(google-explicit-constructor): an allocator is one wherever one is asked for
        : held_(validated<std::remove_cvref_t<P>>(std::forward<P>(allocator))) {}

    /// What is inside: "ada_kv".
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
    /// Whether it looks at the scores that it is given.
    [[nodiscard]] bool looks_at_scores() const noexcept { return held_->looks_at_scores(); }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        return held_->scratch_bytes(size);
    }
    void allocate(const_head_scores scores,
                  const areas& area,
                  std::size_t tokens,
                  std::span<std::size_t> counts,
                  scratch memory) const noexcept {
        held_->allocate(scores, area, tokens, counts, memory);
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
        [[nodiscard]] virtual bool looks_at_scores() const noexcept = 0;
        [[nodiscard]] virtual std::size_t
        scratch_bytes(const problem_size& size) const noexcept = 0;
        virtual void allocate(const_head_scores scores,
                              const areas& area,
                              std::size_t tokens,
                              std::span<std::size_t> counts,
                              scratch memory) const noexcept = 0;
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
        [[nodiscard]] bool looks_at_scores() const noexcept override { return reads_scores<P>; }
        [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept override {
            return allocator_scratch_bytes(policy, size);
        }
        void allocate(const_head_scores scores,
                      const areas& area,
                      std::size_t tokens,
                      std::span<std::size_t> counts,
                      scratch memory) const noexcept override {
            allocate_tokens(policy, scores, area, tokens, counts, memory);
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
static_assert(Allocator<any_allocator>);

} // namespace v0
} // namespace kvcrush

#if KVCRUSH_EXTERN_INSTANCES
#    include <kvcrush/allocation/detail/any_allocator_instances.hpp>
#endif
