// SPDX-License-Identifier: Apache-2.0
#include "policy.hpp"

#include "area_parameters.hpp"
#include "arguments.hpp"
#include "error.hpp"
#include "expression.hpp"

#include <iterator>
#include <utility>

namespace lab {
namespace {

/// `kvcrush(BASE, ...)`
void parse_kvcrush(const expression& text, policy& result, area_parameters& areas) {
    if (text.positional.size() != 1) {
        fail("policy kvcrush takes one base scorer, as in kvcrush(snapkv); ",
             text.positional.size(),
             " are given");
    }
    result.scorer = parse_choice<any_scorer>(text.positional.front());
    result.selector = parse_crush(text, areas);
}

template <std::size_t I = 0>
void list_scorers(std::vector<policy_help>& list) {
    if constexpr (I < std::variant_size_v<any_scorer>) {
        using scorer = std::variant_alternative_t<I, any_scorer>;
        policy_help help{std::string(scorer::name), std::string(scorer::about), {}};
        help.add(scorer{});
        help.add(area_parameters{});
        list.push_back(std::move(help));
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
                 join(names_of<any_scorer>(), ", "),
                 ", kvcrush(SCORER)");
        }
        result.scorer = parse_choice<any_scorer>(parsed, areas);
        result.selector = any_selector(kvcrush::top_k_selector{});
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
    std::vector<policy_help> crush = list_crush();
    list.insert(
        list.end(), std::make_move_iterator(crush.begin()), std::make_move_iterator(crush.end()));
    return list;
}

} // namespace lab
