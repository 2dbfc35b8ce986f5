// SPDX-License-Identifier: Apache-2.0
/// @file
/// The first call of a recipe as text: which tokens stay.
#pragma once

#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/recipe/recipe.hpp>
#include <kvcrush/select/top_k.hpp>
#include <kvcrush/text/arguments.hpp>
#include <kvcrush/text/crush.hpp>
#include <kvcrush/text/expression.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Builds the policies of a recipe from the inside out.
template <typename Catalogue>
class policy_parser {
public:
    /// @throws std::invalid_argument naming what is misspelt or out of range, and what is allowed
    static void parse(const expression& text, recipe& result) {
        policy_parser own(result);
        own.build(text);
        result.areas = own.areas_.chosen();
    }

private:
    explicit policy_parser(recipe& result) : result_(result) {}

    void build(const expression& text) {
        if (text.name == "kvcrush") {
            read_scorer(base_of(text, "base scorer", "kvcrush(snapkv)"));
            result_.selector = crush_parser<Catalogue>::parse(text, areas_);
        } else if (Catalogue::selectors::contains(text.name)) {
            read_scorer(base_of(text, "base scorer", "chunk_kv(snapkv)"));
            parse_choice<typename Catalogue::selectors>(
                without_base(text),
                [&](auto selector) { result_.selector = std::move(selector); },
                areas_);
        } else if (Catalogue::allocators::contains(text.name) ||
                   Catalogue::model_allocators::contains(text.name)) {
            divide(text);
        } else if (Catalogue::whole_models::contains(text.name)) {
            parse_choice<typename Catalogue::whole_models>(
                text, [&](auto policy) { result_.model_allocator = std::move(policy); }, areas_);
        } else if (Catalogue::scorers::contains(text.name)) {
            read_scorer(text, areas_);
        } else {
            fail_unknown(text.name);
        }
    }

    template <typename... Shared>
    void read_scorer(const expression& text, Shared&... shared) {
        parse_choice<typename Catalogue::scorers>(
            text, [&](auto scorer) { result_.scorer = std::move(scorer); }, shared...);
    }

    /// What divides a budget over the heads of a layer, or over layers, wraps any policy that does not.
    void divide(const expression& text) {
        const expression& base = base_of(text, "policy", "ada_kv(snapkv)");
        require(base.name != "full", "policy ", text.name, " divides a budget; full has none");
        require(!Catalogue::whole_models::contains(base.name),
                "policy ",
                text.name,
                " divides a budget; ",
                base.name,
                " says already what each layer keeps");
        require(base.name != text.name, "policy ", text.name, " stands inside itself");
        build(base);
        if (Catalogue::allocators::contains(text.name)) {
            require(result_.allocator.template as<uniform_allocator>() != nullptr,
                    "policy ",
                    text.name,
                    ": ",
                    base.name,
                    " says already what each head keeps");
            parse_choice<typename Catalogue::allocators>(
                without_base(text),
                [&](auto allocator) { result_.allocator = std::move(allocator); },
                areas_);
            return;
        }
        require(!result_.model_allocator,
                "policy ",
                text.name,
                ": ",
                base.name,
                " says already what each layer keeps");
        parse_choice<typename Catalogue::model_allocators>(
            without_base(text),
            [&](auto allocator) { result_.model_allocator = std::move(allocator); },
            areas_);
    }

    /// The one policy in parentheses that another is built on.
    [[nodiscard]] static const expression&
    base_of(const expression& text, std::string_view what, std::string_view example) {
        require(text.positional.size() == 1,
                "policy ",
                text.name,
                " takes one ",
                what,
                ", as in ",
                example,
                "; ",
                text.positional.size(),
                " are given");
        return text.positional.front();
    }

    [[nodiscard]] static expression without_base(const expression& text) {
        expression own = text;
        own.positional.clear();
        return own;
    }

    [[noreturn]] static void fail_unknown(std::string_view name) {
        std::vector<std::string> allowed{"full"};
        append_names(allowed, Catalogue::scorers::names());
        append_names(allowed, Catalogue::whole_models::names());
        allowed.emplace_back("kvcrush(SCORER)");
        append_names(allowed, Catalogue::selectors::names(), "(SCORER)");
        append_names(allowed, Catalogue::allocators::names(), "(POLICY)");
        append_names(allowed, Catalogue::model_allocators::names(), "(POLICY)");
        append_names(allowed, Catalogue::presets::names());
        fail({"policy ",
             in_quotes(name),
             " is unknown; allowed: ",
             join(allowed, ", "),
             ", and POLICY+codec(...)"});
    }

    recipe& result_;
    area_parameters areas_{};
};

/// Whether a recipe drops nothing and needs to rank nothing.
[[nodiscard]] inline bool is_full(const recipe& how) {
    const recipe plain{};
    return how.keep == cache_budget::everything() && how.rows.tiers.size() <= 1 &&
           policy_text(how.scorer) == policy_text(plain.scorer) &&
           policy_text(how.selector) == policy_text(plain.selector) &&
           policy_text(how.allocator) == policy_text(plain.allocator) && !how.model_allocator &&
           how.areas == plain.areas;
}

/// The call that policy_parser reads as these policies.
template <typename Catalogue>
[[nodiscard]] std::string policies_text(const recipe& how) {
    std::string_view name = how.scorer.policy_name();
    std::string arguments = how.scorer.arguments();
    const auto wrap = [&](std::string_view outer, const std::string& own) {
        arguments = call_text(name, arguments);
        append_argument(arguments, own);
        name = outer;
    };
    if (how.selector.policy_name() != top_k_selector::name) {
        const bool of_pages = how.selector.policy_name() == crush_parser<Catalogue>::pages;
        wrap(of_pages ? "kvcrush" : how.selector.policy_name(), how.selector.arguments());
    }
    if (how.allocator.policy_name() != uniform_allocator::name) {
        wrap(how.allocator.policy_name(), how.allocator.arguments());
    }
    if (how.model_allocator) {
        wrap(how.model_allocator.policy_name(), how.model_allocator.arguments());
        if (Catalogue::whole_models::contains(name)) {
            arguments = how.model_allocator.arguments();
        }
    }
    append_argument(
        arguments,
        changed_parameters(area_parameters{how.areas.num_sink_tokens, how.areas.num_recent_tokens},
                           area_parameters{}));
    return call_text(name, arguments);
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
