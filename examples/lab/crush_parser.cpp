// SPDX-License-Identifier: Apache-2.0
#include "crush_parser.hpp"

#include "alternatives.hpp"
#include "arguments.hpp"

#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace lab {
namespace {

using any_picker = std::variant<kvcrush::linspace_picker,
                                kvcrush::step_picker,
                                kvcrush::farthest_picker,
                                kvcrush::most_important_picker,
                                second_scorer>;

/// The portrait of pages, chosen like a signature.
struct page_portrait {
    static constexpr std::string_view name = "page";
};
using any_signature =
    std::variant<kvcrush::head_signature, kvcrush::key_sign_signature, page_portrait>;

const std::vector<std::string> structural{"signature", "pick", "bits", "second"};

/// What decides the type of the selector; everything else sets its parameters.
struct parts {
    any_signature signature;
    any_picker pick;
    std::optional<attention_scorer> bits;
    bool has_second = false;
    std::vector<expression> values;
};

template <typename Variant>
void choose_plain(const expression& owner, const expression& value, Variant& chosen) {
    require_plain(owner, value);
    if (!choose(value.name, chosen)) {
        fail("policy ",
             owner.name,
             ": ",
             value.key,
             " is ",
             in_quotes(value.name),
             "; allowed: ",
             join(names_of<Variant>(), "|"));
    }
}

[[nodiscard]] attention_scorer parse_attention_scorer(const expression& value) {
    return {parse_choice<decltype(attention_scorer::chosen)>(value)};
}

[[nodiscard]] parts take_apart(const expression& text) {
    parts found;
    std::optional<attention_scorer> second;
    for (const expression& value : text.named) {
        if (value.key == "signature") {
            choose_plain(text, value, found.signature);
        } else if (value.key == "pick") {
            choose_plain(text, value, found.pick);
        } else if (value.key == "bits") {
            found.bits = parse_attention_scorer(value);
        } else if (value.key == "second") {
            second = parse_attention_scorer(value);
        } else {
            found.values.push_back(value);
        }
    }
    auto* opinion = std::get_if<second_scorer>(&found.pick);
    if ((opinion != nullptr) != second.has_value()) {
        fail("policy ",
             text.name,
             ": pick=second_score and second=SCORER go together, as in "
             "kvcrush(snapkv,pick=second_score,second=h2o(last=256))");
    }
    const bool of_heads = std::holds_alternative<kvcrush::head_signature>(found.signature);
    if (opinion != nullptr && (found.bits || !of_heads)) {
        fail("policy ",
             text.name,
             ": pick=second_score looks at no portrait; leave signature and bits out");
    }
    if (found.bits && !of_heads) {
        fail("policy ", text.name, ": bits=SCORER is for signature=head");
    }
    if (opinion != nullptr) {
        opinion->second = *second;
    }
    return found;
}

template <typename Selector, typename... Parts>
[[nodiscard]] any_selector finish(const expression& text,
                                  const parts& found,
                                  Selector selector,
                                  area_parameters& areas,
                                  Parts Selector::*... members) {
    for (const expression& value : found.values) {
        set_argument(text, value, structural, selector, selector.*members..., areas);
    }
    selector.validate();
    return any_selector(std::move(selector));
}

/// A selector of tokens with one of the portraits.
template <typename Signature, typename Picker, typename Bits>
[[nodiscard]] any_selector finish_tokens(const expression& text,
                                         const parts& found,
                                         const Picker& picker,
                                         const Bits& bits,
                                         area_parameters& areas) {
    using selector = kvcrush::kvcrush_selector<Picker, Bits, Signature>;
    selector chosen;
    chosen.picker = picker;
    chosen.bits = bits;
    if constexpr (kvcrush::ScorePicker<Picker>) { // no portrait: neither signature nor anchor
        return finish(text, found, chosen, areas);
    } else {
        return finish(text, found, chosen, areas, &selector::signature, &selector::anchor);
    }
}

template <typename Picker>
[[nodiscard]] any_selector finish_with(const expression& text,
                                       const parts& found,
                                       const Picker& picker,
                                       area_parameters& areas) {
    if constexpr (!kvcrush::ScorePicker<Picker>) {
        if (std::holds_alternative<page_portrait>(found.signature)) {
            using selector = kvcrush::page_selector<Picker>;
            selector chosen;
            chosen.picker = picker;
            return finish(text, found, chosen, areas, &selector::anchor);
        }
        if (std::holds_alternative<kvcrush::key_sign_signature>(found.signature)) {
            return finish_tokens<kvcrush::key_sign_signature>(
                text, found, picker, kvcrush::own_scores{}, areas);
        }
        if (found.bits) {
            return finish_tokens<kvcrush::head_signature>(text, found, picker, *found.bits, areas);
        }
    }
    return finish_tokens<kvcrush::head_signature>(
        text, found, picker, kvcrush::own_scores{}, areas);
}

} // namespace

any_selector parse_crush(const expression& text, area_parameters& areas) {
    const parts found = take_apart(text);
    return std::visit([&](const auto& picker) { return finish_with(text, found, picker, areas); },
                      found.pick);
}

std::vector<policy_help> list_crush() {
    using heads = kvcrush::kvcrush_selector<>;
    using keys = kvcrush::kvcrush_selector<kvcrush::linspace_picker,
                                           kvcrush::own_scores,
                                           kvcrush::key_sign_signature>;
    using pages = kvcrush::page_selector<>;
    const std::string scorers = join(names_of<decltype(attention_scorer::chosen)>(), "|");
    const auto entry = [&](std::string name, std::string_view about, const auto& selector) {
        policy_help help{std::move(name), std::string(about), {}};
        help.add(selector);
        help.parameters.push_back(
            {"pick", "linspace", join(names_of<any_picker>(), "|"), "who represents the rest"});
        return help;
    };
    policy_help of_heads = entry("kvcrush(SCORER)", heads::about, heads{});
    of_heads.parameters.push_back(
        {"second", "SCORER", scorers, "who speaks for the rest with pick=second_score"});
    of_heads.parameters.push_back(
        {"signature", "head", join(names_of<any_signature>(), "|"), "what a portrait shows"});
    of_heads.parameters.push_back({"bits", "SCORER", scorers, "scorer whose heads make the bits"});
    of_heads.add(heads{}.signature);
    of_heads.add(heads{}.anchor);
    policy_help of_keys = entry("kvcrush(SCORER,signature=key_sign)",
                                "the same with portraits of keys: the signs of their channels",
                                keys{});
    of_keys.add(keys{}.signature);
    of_keys.add(keys{}.anchor);
    policy_help of_pages = entry("kvcrush(SCORER,signature=page)", pages::about, pages{});
    of_pages.add(pages{}.anchor);
    std::vector<policy_help> list{of_heads, of_keys, of_pages};
    for (policy_help& help : list) {
        help.add(area_parameters{});
    }
    return list;
}

} // namespace lab
