// SPDX-License-Identifier: Apache-2.0
#include "policy.hpp"

#include "error.hpp"
#include "expression.hpp"
#include "parameters.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iterator>
#include <optional>
#include <type_traits>
#include <utility>

namespace lab {
namespace {

/// Sinks and recent tokens of one policy, named as on the command line.
struct area_parameters {
    std::size_t sinks = kvcrush::area_sizes{}.num_sink_tokens;
    std::size_t recent = kvcrush::area_sizes{}.num_recent_tokens;

    static constexpr auto parameters() {
        return std::tuple{
            kvcrush::parameter{"sinks", &area_parameters::sinks, "tokens always kept at the start"},
            kvcrush::parameter{
                "recent", &area_parameters::recent, "tokens always kept at the end"}};
    }
    [[nodiscard]] kvcrush::area_sizes chosen() const { return {sinks, recent}; }
};

template <typename Variant, std::size_t I = 0>
[[nodiscard]] std::vector<std::string_view> names_of() {
    if constexpr (I == std::variant_size_v<Variant>) {
        return {};
    } else {
        std::vector<std::string_view> names = names_of<Variant, I + 1>();
        names.insert(names.begin(), std::variant_alternative_t<I, Variant>::name);
        return names;
    }
}

/// The alternative of a variant with the given name.
template <typename Variant, std::size_t I = 0>
[[nodiscard]] bool choose(std::string_view name, Variant& chosen) {
    if constexpr (I == std::variant_size_v<Variant>) {
        return false;
    } else {
        using candidate = std::variant_alternative_t<I, Variant>;
        if (candidate::name == name) {
            chosen = candidate{};
            return true;
        }
        return choose<Variant, I + 1>(name, chosen);
    }
}

void require_value(const expression& owner, const std::string& key, const expression& value) {
    if (!value.positional.empty() || !value.named.empty()) {
        fail("policy ", owner.name, ": ", key, " takes a plain value, not ", in_quotes(value.text));
    }
}

[[noreturn]] void
fail_unknown(const expression& owner, const std::string& key, std::vector<std::string> names) {
    fail("policy ",
         owner.name,
         ": there is no parameter ",
         in_quotes(key),
         "; it has ",
         names.empty() ? std::string("none") : fmt::format("{}", fmt::join(names, ", ")));
}

/// Sets the named arguments of a scorer; with `areas` given, sinks and recent are parameters too.
template <typename Variant>
[[nodiscard]] Variant parse_scorer(const expression& text, area_parameters* areas) {
    Variant scorer;
    if (!choose(text.name, scorer)) {
        fail("policy ",
             in_quotes(text.name),
             " is unknown here; allowed: ",
             fmt::format("{}", fmt::join(names_of<Variant>(), ", ")));
    }
    if (!text.positional.empty()) {
        fail("policy ",
             text.name,
             ": ",
             in_quotes(text.positional.front().text),
             " has no name; write parameter=value");
    }
    std::visit(
        [&](auto& policy) {
            for (const expression& value : text.named) {
                const std::string& key = value.key;
                require_value(text, key, value);
                if (set_parameter(policy, text.name, key, value.text) ||
                    (areas != nullptr && set_parameter(*areas, text.name, key, value.text))) {
                    continue;
                }
                std::vector<std::string> names;
                append_names(policy, names);
                if (areas != nullptr) {
                    append_names(*areas, names);
                }
                fail_unknown(text, key, names);
            }
            policy.validate();
        },
        scorer);
    return scorer;
}

/// `kvcrush(BASE, ...)`: parameters of the selector, the signature and the anchor in one list.
void parse_kvcrush(const expression& text, policy& result, area_parameters& areas) {
    if (text.positional.size() != 1) {
        fail("policy kvcrush takes one base scorer, as in kvcrush(snapkv); ",
             text.positional.size(),
             " are given");
    }
    result.scorer = parse_scorer<any_scorer>(text.positional.front(), nullptr);
    kvcrush::kvcrush_selector<any_picker> selector;
    std::optional<any_bits> bits;
    for (const expression& value : text.named) {
        const std::string& key = value.key;
        if (key == "bits") {
            bits = any_bits{parse_scorer<decltype(any_bits::chosen)>(value, nullptr)};
            continue;
        }
        require_value(text, key, value);
        if (key == "signature") {
            if (value.name != "head") {
                fail("policy kvcrush: signature is ", in_quotes(value.name), "; allowed: head");
            }
        } else if (key == "pick") {
            if (!choose(value.name, selector.picker.chosen)) {
                fail("policy kvcrush: pick is ",
                     in_quotes(value.name),
                     "; allowed: ",
                     fmt::format("{}", fmt::join(names_of<decltype(any_picker::chosen)>(), "|")));
            }
        } else if (!set_parameter(selector, text.name, key, value.text) &&
                   !set_parameter(selector.signature, text.name, key, value.text) &&
                   !set_parameter(selector.anchor, text.name, key, value.text) &&
                   !set_parameter(areas, text.name, key, value.text)) {
            std::vector<std::string> names{"signature", "bits", "pick"};
            append_names(selector, names);
            append_names(selector.signature, names);
            append_names(selector.anchor, names);
            append_names(areas, names);
            fail_unknown(text, key, names);
        }
    }
    selector.validate();
    if (!bits) {
        result.selector = selector;
    } else {
        result.selector = kvcrush::kvcrush_selector<any_picker, any_bits>{
            selector.share, selector.signature, selector.anchor, selector.picker, *bits};
    }
}

template <typename Policy>
[[nodiscard]] std::vector<policy_help::row> rows_of(const Policy& policy) {
    std::vector<policy_help::row> rows;
    for_each_parameter(policy,
                       [&](std::string_view name, const auto& value, std::string_view about) {
                           rows.push_back({std::string(name),
                                           show_value(value),
                                           allowed_values<std::decay_t<decltype(value)>>(),
                                           std::string(about)});
                       });
    return rows;
}

void append(std::vector<policy_help::row>& rows, std::vector<policy_help::row> more) {
    rows.insert(
        rows.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

template <std::size_t I = 0>
void list_scorers(std::vector<policy_help>& list) {
    if constexpr (I < std::variant_size_v<any_scorer>) {
        using scorer = std::variant_alternative_t<I, any_scorer>;
        list.push_back({std::string(scorer::name), std::string(scorer::about), rows_of(scorer{})});
        list_scorers<I + 1>(list);
    }
}

} // namespace

policy parse_policy(std::string_view text) {
    const expression parsed = parse_expression(text);
    policy result;
    result.text = parsed.text;
    area_parameters areas;
    if (parsed.name == "full") {
        if (!parsed.positional.empty() || !parsed.named.empty()) {
            fail("policy full keeps everything and takes no parameters");
        }
        result.full = true;
    } else if (parsed.name == "kvcrush") {
        parse_kvcrush(parsed, result, areas);
    } else {
        any_scorer known;
        if (!choose(parsed.name, known)) {
            fail("policy ",
                 in_quotes(parsed.name),
                 " is unknown; allowed: all, full, ",
                 fmt::format("{}", fmt::join(names_of<any_scorer>(), ", ")),
                 ", kvcrush(SCORER)");
        }
        result.scorer = parse_scorer<any_scorer>(parsed, &areas);
        result.selector = kvcrush::top_k_selector{};
    }
    result.areas = areas.chosen();
    return result;
}

std::vector<policy> parse_policies(std::string_view list) {
    std::vector<policy> policies;
    for (const std::string& part : split_list(list)) {
        if (part != "all") {
            policies.push_back(parse_policy(part));
            continue;
        }
        policies.push_back(parse_policy("full"));
        for (const std::string_view name : names_of<any_scorer>()) {
            policies.push_back(parse_policy(name));
        }
        policies.push_back(parse_policy("kvcrush(h2o)"));
        policies.push_back(parse_policy("kvcrush(snapkv)"));
    }
    return policies;
}

std::vector<policy_help> list_policies() {
    std::vector<policy_help> list;
    list.push_back({"full", "everything: the baseline", {}});
    list_scorers(list);
    for (policy_help& entry : list) {
        if (entry.name != "full") {
            append(entry.parameters, rows_of(area_parameters{}));
        }
    }
    using selector = kvcrush::kvcrush_selector<>;
    policy_help crush{"kvcrush(SCORER)", std::string(selector::about), rows_of(selector{})};
    crush.parameters.push_back(
        {"signature", "head", "head", "portrait of a token: one bit per head"});
    crush.parameters.push_back(
        {"bits",
         "SCORER",
         fmt::format("{}", fmt::join(names_of<decltype(any_bits::chosen)>(), "|")),
         "scorer whose query heads make the bits"});
    crush.parameters.push_back(
        {"pick",
         "linspace",
         fmt::format("{}", fmt::join(names_of<decltype(any_picker::chosen)>(), "|")),
         "who represents the rest"});
    append(crush.parameters, rows_of(selector{}.signature));
    append(crush.parameters, rows_of(selector{}.anchor));
    append(crush.parameters, rows_of(area_parameters{}));
    list.push_back(std::move(crush));
    return list;
}

} // namespace lab
