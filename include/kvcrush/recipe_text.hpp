// SPDX-License-Identifier: Apache-2.0
/// @file
/// Recipes as text, for engines that are told by a command line or a configuration how to compress.
///
///     kv_cache cache(shape, parse_recipe("ada_kv(kvcrush(snapkv,share=0.1))+codec(k=q8_0,v=q4_0)+keep(ratio=0.25)"));
///
///     recipe  = policy { suffix }
///     policy  = full                                  everything
///             | SCORER                                snapkv(window=8)
///             | SELECTOR(SCORER)                      kvcrush(snapkv,anchor=alternate), chunk_kv(snapkv)
///             | ALLOCATOR(POLICY)                     ada_kv(snapkv), pyramid_kv(kvcrush(h2o))
///             | METHOD                                kvzip, dbudget_kv
///             | PRESET                                four_times(seed=1), kvcrush_auto(bytes=1)
///     suffix  = +codec(k=C,v=C) | +tiered(k=C,v=C,k2=C,v2=C,share=0.5)
///             | +keep(ratio=0.25) | +keep(tokens=1024) | +keep(bytes=0.25) | +keep(mib=512)
///             | +when(every=64,rows=0)
///
/// Parameters are written by name, in any order; sinks=4 and recent=32 go with every policy. Spaces between words do not
/// matter. list_policies() in text/help.hpp says what there is.
///
/// This header instantiates every policy of the catalogue: include it in one translation unit.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/recipe/cache_budget.hpp>
#include <kvcrush/recipe/recipe.hpp>
#include <kvcrush/text/arguments.hpp>
#include <kvcrush/text/budget.hpp>
#include <kvcrush/text/catalogue.hpp>
#include <kvcrush/text/expression.hpp>
#include <kvcrush/text/policies.hpp>
#include <kvcrush/text/storage.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// What stands before the first +.
template <typename Catalogue>
void parse_policy(const expression& text, recipe& result) {
    if (text.name == "full") {
        require(text.text == text.name, "policy full keeps everything and takes no parameters");
        return; // how much is kept is settled at the end
    }
    const bool preset = Catalogue::presets::with(text.name, [&](auto how) {
        require(text.positional.empty(), "policy ", text.name, " takes parameters and no policy");
        set_arguments(text, how);
        how.validate();
        result = how.make();
    });
    if (!preset) {
        policy_parser<Catalogue>::parse(text, result);
    }
}

template <typename Catalogue>
void parse_suffix(const expression& text, std::string_view owner, recipe& result) {
    if (text.name == "codec" || text.name == "tiered") {
        storage_parser<Catalogue>::parse(text, owner, result);
    } else if (text.name == "keep") {
        const cache_budget keep = parse_keep(text);
        require(result.keep.is_open() && (!result.keep.counts_bytes() || keep.counts_bytes()),
                "policy ",
                owner,
                result.keep.is_open() ? " counts bytes, and keep something else"
                                      : " says already how much stays");
        result.keep = keep;
    } else if (text.name == "when") {
        result.when = parse_when(text);
    } else {
        fail({"policy: ",
             in_quotes(text.name),
             " is unknown behind +; allowed: codec, tiered, keep, when, as in "
             "POLICY+codec(...)+keep(...)"});
    }
}

/// What policy and suffixes make of each other.
template <typename Catalogue>
void settle(const expression& policy, recipe& result) {
    const bool tiered = result.rows.tiers.size() > 1;
    if (policy.name == "full") {
        require(!tiered,
                "policy full knows no importance; tiered needs a policy that does, as in "
                "glob+tiered(...,keep=1)");
        require(result.keep == cache_budget{}, "policy full keeps everything and takes no keep");
        result.keep = cache_budget::everything();
    }
    require(!tiered || !Catalogue::whole_models::contains(policy.name),
            "policy ",
            policy.name,
            " gives no order of tokens, which tiered needs");
    result.validate();
}

} // namespace detail

/// @tparam Catalogue  the policies that it knows by name
/// @throws std::invalid_argument naming what is misspelt, out of range or does not go together, and what is allowed;
///         std::bad_alloc
template <typename Catalogue = catalogue>
[[nodiscard]] recipe parse_recipe(std::string_view text) {
    const std::vector<detail::expression> calls = detail::expression_parser(text).whole();
    const detail::expression& policy = calls.front();
    recipe result;
    detail::parse_policy<Catalogue>(policy, result);
    for (std::size_t i = 1; i < calls.size(); ++i) {
        for (std::size_t before = 1; before < i; ++before) {
            detail::require(calls[before].name != calls[i].name,
                            "policy ",
                            policy.name,
                            ": +",
                            calls[i].name,
                            " is given twice");
        }
        detail::parse_suffix<Catalogue>(calls[i], policy.name, result);
    }
    detail::settle<Catalogue>(policy, result);
    return result;
}

/// The text that parse_recipe() reads as this recipe, with all that differs from the defaults. Presets are written out.
/// Policies of a type that the catalogue does not have are written by their names, which it then does not know.
/// @throws std::invalid_argument if it cannot be written: dense rows in something else than f16, keys and values of sinks
///         in different codecs, more than two tiers, or two with a method that gives no order of tokens
template <typename Catalogue = catalogue>
[[nodiscard]] std::string to_text(const recipe& how) {
    const bool full = detail::is_full(how);
    detail::require(how.rows.tiers.size() < 2 || !how.model_allocator ||
                        !Catalogue::whole_models::contains(how.model_allocator.policy_name()),
                    "recipe: tiers of a method that gives no order of tokens cannot be written as "
                    "text");
    std::string result = full ? "full" : detail::policies_text<Catalogue>(how);
    for (const std::string& suffix : {detail::storage_text(how.rows),
                                      full ? std::string() : detail::keep_text(how.keep),
                                      detail::when_text(how.when)}) {
        if (!suffix.empty()) {
            result.append("+").append(suffix);
        }
    }
    return result;
}

} // namespace v0
} // namespace kvcrush
