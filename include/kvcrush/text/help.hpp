// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a user can read about the policies of a catalogue, and lists of recipes.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/grouping/linspace.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/page_selector.hpp>
#include <kvcrush/signature/head_signature.hpp>
#include <kvcrush/text/arguments.hpp>
#include <kvcrush/text/budget.hpp>
#include <kvcrush/text/catalogue.hpp>
#include <kvcrush/text/crush.hpp>
#include <kvcrush/text/expression.hpp>
#include <kvcrush/text/storage.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// What a policy does in a recipe.
enum class policy_role : std::uint8_t {
    baseline,
    scorer,
    selector,
    /// Shares out the budget of a layer, or of a model.
    allocator,
    /// Says by itself what every layer keeps.
    method,
    preset,
    /// Stands behind a +.
    suffix,
    codec
};

template <>
struct enum_names<policy_role> {
    static constexpr named_value<policy_role> values[] = {
        {"baseline", policy_role::baseline},
        {"scorer", policy_role::scorer},
        {"selector", policy_role::selector},
        {"allocator", policy_role::allocator},
        {"method", policy_role::method},
        {"preset", policy_role::preset},
        {"suffix", policy_role::suffix},
        {"codec", policy_role::codec}};
};

/// One policy with its parameters.
struct policy_help {
    struct row {
        std::string name;
        /// The default.
        std::string value;
        std::string allowed;
        std::string about;
    };
    policy_role role = policy_role::scorer;
    std::string name;
    /// How it is written: "ada_kv(POLICY)".
    std::string form;
    std::string about;
    std::vector<row> parameters;

    /// Adds the parameters of a policy with their defaults.
    template <typename P>
    void add(const P& policy) {
        for_each_parameter(
            policy, [&](std::string_view parameter, const auto& value, std::string_view what) {
                parameters.push_back(
                    {std::string(parameter),
                     parameter_text(value),
                     detail::allowed_values<std::remove_cvref_t<decltype(value)>>(),
                     std::string(what)});
            });
    }
};

namespace detail {

/// What it says of itself; codecs, how much they take.
template <typename P>
[[nodiscard]] std::string about_of(const P& policy) {
    if constexpr (requires { P::about; }) {
        return std::string(P::about);
    } else if constexpr (Codec<P>) {
        return "rows in " + parameter_text(bits_per_element(policy, 64)) +
               " bits per element, where they have 64";
    } else {
        return {};
    }
}

/// Entries of all policies of a list.
/// @param argument  what stands in parentheses behind the name, "(SCORER)"
/// @param areas     whether sinks and recent tokens can be given
template <typename List>
void append_help(std::vector<policy_help>& help,
                 policy_role role,
                 std::string_view argument,
                 bool areas) {
    List::for_each([&](const auto& policy) {
        policy_help& entry =
            help.emplace_back(policy_help{role,
                                          std::string(policy.name),
                                          std::string(policy.name).append(argument),
                                          about_of(policy),
                                          {}});
        entry.add(policy);
        if (areas) {
            entry.add(area_parameters{});
        }
    });
}

/// kvcrush has an entry for each portrait, as they take different parameters.
template <typename Catalogue>
void append_crush_help(std::vector<policy_help>& help) {
    using parser = crush_parser<Catalogue>;
    const std::string pickers = join(parser::picker_names(), "|");
    const auto begin = [&](std::string form, std::string_view about) -> policy_help& {
        return help.emplace_back(
            policy_help{policy_role::selector, "kvcrush", std::move(form), std::string(about), {}});
    };
    const auto finish = [&](policy_help& entry, const auto& selector) {
        entry.add(selector);
        entry.parameters.push_back({"pick", "linspace", pickers, "who represents the rest"});
        entry.add(area_parameters{});
    };
    policy_help& heads = begin("kvcrush(SCORER)", kvcrush_selector<>::about);
    heads.parameters = {
        {"signature", "head", join(parser::signature_names(), "|"), "what a portrait shows"},
        {"bits", "SCORER", "any scorer", "whose heads make the bits; by default the base"},
        {"second", "SCORER", "any scorer", "who speaks for the rest with pick=second_score"}};
    finish(heads, kvcrush_selector<>{});
    Catalogue::signatures::for_each([&](const auto& signature) {
        using portrait = std::remove_cvref_t<decltype(signature)>;
        if constexpr (!std::is_same_v<portrait, head_signature>) {
            finish(begin(std::string("kvcrush(SCORER,signature=").append(signature.name) + ')',
                         "the same with another portrait"),
                   kvcrush_selector<linspace_picker, own_scores, portrait>{});
        }
    });
    finish(begin("kvcrush(SCORER,signature=page)", page_selector<>::about), page_selector<>{});
}

template <typename Catalogue>
void append_suffix_help(std::vector<policy_help>& help) {
    const auto add = [&](std::string_view name,
                         std::string_view arguments,
                         std::string about,
                         const auto&... policies) {
        policy_help& entry =
            help.emplace_back(policy_help{policy_role::suffix,
                                          std::string(name),
                                          std::string("POLICY+").append(name).append(arguments),
                                          std::move(about),
                                          {}});
        (entry.add(policies), ...);
    };
    add("codec",
        "(k=C,v=C)",
        "whose rows are stored in codecs C, hadamard(C), and for keys mean_centred(C)",
        storage_parameters{});
    add("tiered",
        "(k=C,v=C,k2=C,v2=C)",
        "whose most important rows are stored in k and v, the others in k2 and v2",
        storage_parameters{},
        tier_parameters{});
    add("keep",
        "(ratio=R)",
        "as many tokens, or as many as fit so many bytes; keep(bytes) leaves open how many",
        keep_parameters{});
    add("when", "(every=N)", "compressed by itself so often", when_parameters{});
}

} // namespace detail

/// All that recipes of a catalogue can be made of.
template <typename Catalogue = catalogue>
[[nodiscard]] std::vector<policy_help> list_policies() {
    std::vector<policy_help> help{
        {policy_role::baseline, "full", "full", "everything: the baseline", {}}};
    const std::string scorer = "(SCORER)";
    const std::string policy = "(POLICY)";
    detail::append_help<typename Catalogue::scorers>(help, policy_role::scorer, "", true);
    detail::append_help<typename Catalogue::whole_models>(help, policy_role::method, "", true);
    detail::append_crush_help<Catalogue>(help);
    detail::append_help<typename Catalogue::selectors>(help, policy_role::selector, scorer, true);
    detail::append_help<typename Catalogue::allocators>(help, policy_role::allocator, policy, true);
    detail::append_help<typename Catalogue::model_allocators>(
        help, policy_role::allocator, policy, true);
    detail::append_help<typename Catalogue::presets>(help, policy_role::preset, "", false);
    detail::append_suffix_help<Catalogue>(help);
    detail::append_help<typename Catalogue::plain_codecs>(help, policy_role::codec, "", false);
    detail::append_help<typename Catalogue::own_codecs>(help, policy_role::codec, "", false);
    return help;
}

/// A recipe for every policy, with the defaults: what "all" stands for.
template <typename Catalogue = catalogue>
[[nodiscard]] std::vector<std::string> every_recipe() {
    std::vector<std::string> all{"full"};
    const std::vector<std::string_view> scorers = Catalogue::scorers::names();
    for (const auto& names :
         {scorers, Catalogue::whole_models::names(), Catalogue::presets::names()}) {
        all.insert(all.end(), names.begin(), names.end());
    }
    const std::string base(Catalogue::scorers::contains(snapkv_scorer::name) || scorers.empty()
                               ? snapkv_scorer::name
                               : scorers.front());
    all.push_back(call_text("kvcrush", base));
    if (Catalogue::scorers::contains(h2o_scorer::name)) {
        all.push_back("kvcrush(h2o)");
        all.push_back("kvcrush(" + base + ",pick=second_score,second=h2o(last=256))");
    }
    for (const auto& names : {Catalogue::selectors::names(),
                              Catalogue::allocators::names(),
                              Catalogue::model_allocators::names()}) {
        for (const std::string_view name : names) {
            all.push_back(call_text(name, base));
        }
    }
    return all;
}

/// Recipes between the commas outside parentheses, spaces around them left out; "all" stands for every_recipe().
/// @throws std::invalid_argument if an entry is empty
template <typename Catalogue = catalogue>
[[nodiscard]] std::vector<std::string> split_recipes(std::string_view list) {
    std::vector<std::string> result;
    for (const std::string& part : detail::split_list(list)) {
        const std::size_t begin = part.find_first_not_of(' ');
        const std::string text = part.substr(begin, part.find_last_not_of(' ') + 1 - begin);
        if (text == "all") {
            const std::vector<std::string> all = every_recipe<Catalogue>();
            result.insert(result.end(), all.begin(), all.end());
        } else {
            result.push_back(text);
        }
    }
    return result;
}

} // namespace v0
} // namespace kvcrush
