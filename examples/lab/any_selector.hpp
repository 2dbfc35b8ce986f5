// SPDX-License-Identifier: Apache-2.0
/// @file
/// A selector chosen at run time, itself a model of the library's concept: scorers and selectors are then compiled
/// side by side instead of in every combination.
#pragma once

#include <kvcrush/kvcrush.hpp>

#include "layer_view.hpp"

#include <cstddef>
#include <memory>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace lab {

class any_selector {
public:
    static constexpr std::string_view name = "selector";
    /// Some do; the lab always has queries to give.
    static constexpr bool needs_attention = true;
    static constexpr auto parameters() { return std::tuple{}; }

    any_selector() : any_selector(kvcrush::top_k_selector{}) {}

    template <typename Selector>
        requires(!std::is_same_v<Selector, any_selector>) && kvcrush::Policy<Selector>
    explicit any_selector(Selector selector)
        : held_(std::make_shared<model<Selector>>(std::move(selector))) {}

    void validate() const { held_->validate(); }
    void validate_for(const kvcrush::problem_size& size) const { held_->validate_for(size); }
    [[nodiscard]] std::size_t scratch_bytes(const kvcrush::problem_size& size) const noexcept {
        return held_->scratch_bytes(size);
    }

    template <kvcrush::Element T>
    void select(const kvcrush::selection_request& request,
                kvcrush::selection& out,
                const layer_view<T>& kv,
                const kvcrush::query_view& queries) const noexcept {
        held_->select(request, out, kv, queries);
    }

    /// The same, drawing otherwise: one seed for all layers would treat them alike.
    [[nodiscard]] any_selector for_layer(std::size_t layer) const {
        any_selector result;
        result.held_ = held_->for_layer(layer);
        return result;
    }

    /// What is inside, if it is a Selector; null otherwise.
    template <typename Selector>
    [[nodiscard]] const Selector* as() const {
        const auto* found = dynamic_cast<const model<Selector>*>(held_.get());
        return found == nullptr ? nullptr : &found->selector;
    }

private:
    struct base {
        virtual ~base() = default;
        virtual void validate() const = 0;
        virtual void validate_for(const kvcrush::problem_size& size) const = 0;
        [[nodiscard]] virtual std::size_t
        scratch_bytes(const kvcrush::problem_size& size) const noexcept = 0;
        virtual void select(const kvcrush::selection_request& request,
                            kvcrush::selection& out,
                            const layer_view<float>& kv,
                            const kvcrush::query_view& queries) const noexcept = 0;
        virtual void select(const kvcrush::selection_request& request,
                            kvcrush::selection& out,
                            const layer_view<kvcrush::f16>& kv,
                            const kvcrush::query_view& queries) const noexcept = 0;
        [[nodiscard]] virtual std::shared_ptr<const base> for_layer(std::size_t layer) const = 0;
    };

    template <typename Selector>
    struct model final : base {
        explicit model(Selector chosen) : selector(std::move(chosen)) {}

        void validate() const override { selector.validate(); }
        void validate_for(const kvcrush::problem_size& size) const override {
            if constexpr (requires { selector.validate_for(size); }) {
                selector.validate_for(size);
            }
        }
        [[nodiscard]] std::size_t
        scratch_bytes(const kvcrush::problem_size& size) const noexcept override {
            return selector.scratch_bytes(size);
        }
        void select(const kvcrush::selection_request& request,
                    kvcrush::selection& out,
                    const layer_view<float>& kv,
                    const kvcrush::query_view& queries) const noexcept override {
            selector.select(request, out, kv, queries);
        }
        void select(const kvcrush::selection_request& request,
                    kvcrush::selection& out,
                    const layer_view<kvcrush::f16>& kv,
                    const kvcrush::query_view& queries) const noexcept override {
            selector.select(request, out, kv, queries);
        }
        [[nodiscard]] std::shared_ptr<const base> for_layer(std::size_t layer) const override {
            Selector copy = selector;
            if constexpr (requires { copy.anchor.seed; }) {
                copy.anchor.seed = kvcrush::random_bits(copy.anchor.seed, 1, layer);
            }
            return std::make_shared<model>(std::move(copy));
        }

        Selector selector;
    };

    std::shared_ptr<const base> held_;
};

} // namespace lab
