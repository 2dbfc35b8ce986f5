// SPDX-License-Identifier: Apache-2.0
/// @file
/// An allocator chosen at run time, itself a model of the library's concept.
#pragma once

#include <kvcrush/allocation/allocator.hpp>
#include <kvcrush/allocation/uniform.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace lab {

class any_allocator {
public:
    static constexpr std::string_view name = "allocator";
    static constexpr auto parameters() { return std::tuple{}; }

    any_allocator() : any_allocator(kvcrush::uniform_allocator{}) {}

    template <typename Policy>
        requires(!std::is_same_v<Policy, any_allocator>) && kvcrush::Allocator<Policy>
    explicit any_allocator(Policy policy)
        : held_(std::make_shared<model<Policy>>(std::move(policy))) {}

    void validate() const { held_->validate(); }
    void validate_for(const kvcrush::problem_size& size) const { held_->validate_for(size); }
    [[nodiscard]] std::size_t scratch_bytes(const kvcrush::problem_size& size) const noexcept {
        return held_->scratch_bytes(size);
    }
    void allocate(kvcrush::const_head_scores scores,
                  const kvcrush::areas& area,
                  std::size_t tokens,
                  std::span<std::size_t> counts,
                  kvcrush::scratch memory) const noexcept {
        held_->allocate(scores, area, tokens, counts, memory);
    }

    /// What is inside, if it is a Policy; null otherwise.
    template <typename Policy>
    [[nodiscard]] const Policy* as() const {
        const auto* found = dynamic_cast<const model<Policy>*>(held_.get());
        return found == nullptr ? nullptr : &found->policy;
    }

private:
    struct base {
        virtual ~base() = default;
        virtual void validate() const = 0;
        virtual void validate_for(const kvcrush::problem_size& size) const = 0;
        [[nodiscard]] virtual std::size_t
        scratch_bytes(const kvcrush::problem_size& size) const noexcept = 0;
        virtual void allocate(kvcrush::const_head_scores scores,
                              const kvcrush::areas& area,
                              std::size_t tokens,
                              std::span<std::size_t> counts,
                              kvcrush::scratch memory) const noexcept = 0;
    };

    template <typename Policy>
    struct model final : base {
        explicit model(Policy chosen) : policy(std::move(chosen)) {}

        void validate() const override { policy.validate(); }
        void validate_for(const kvcrush::problem_size& size) const override {
            if constexpr (requires { policy.validate_for(size); }) {
                policy.validate_for(size);
            }
        }
        [[nodiscard]] std::size_t
        scratch_bytes(const kvcrush::problem_size& size) const noexcept override {
            return kvcrush::allocator_scratch_bytes(policy, size);
        }
        void allocate(kvcrush::const_head_scores scores,
                      const kvcrush::areas& area,
                      std::size_t tokens,
                      std::span<std::size_t> counts,
                      kvcrush::scratch memory) const noexcept override {
            kvcrush::allocate_tokens(policy, scores, area, tokens, counts, memory);
        }

        Policy policy;
    };

    std::shared_ptr<const base> held_;
};

} // namespace lab
