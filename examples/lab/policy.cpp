// SPDX-License-Identifier: Apache-2.0
#include "policy.hpp"

#include "allocation_parser.hpp"
#include "alternatives.hpp"
#include "area_parameters.hpp"
#include "arguments.hpp"
#include "codec_parser.hpp"
#include "crush_parser.hpp"
#include "error.hpp"
#include "expression.hpp"
#include "whole_model.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

namespace lab {
namespace {

/// Selectors that need nothing but a scorer. A new one is one more name here.
using simple_selector = std::variant<kvcrush::chunk_kv_selector,
                                     kvcrush::critical_kv_selector<>,
                                     kvcrush::diverse_kv_selector,
                                     kvcrush::horizons_selector,
                                     kvcrush::partition_selector,
                                     kvcrush::prefix_suffix_selector>;

/// The one policy in parentheses that another is built on.
[[nodiscard]] const expression&
base_of(const expression& text, std::string_view what, std::string_view example) {
    if (text.positional.size() != 1) {
        fail("policy ",
             text.name,
             " takes one ",
             what,
             ", as in ",
             example,
             "; ",
             text.positional.size(),
             " are given");
    }
    return text.positional.front();
}

[[nodiscard]] bool is_among(const std::vector<std::string_view>& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

[[noreturn]] void fail_unknown_policy(std::string_view name) {
    fail("policy ",
         in_quotes(name),
         " is unknown; allowed: all, full, ",
         join(names_of<any_scorer>(), ", "),
         ", ",
         join(whole_model_names(), ", "),
         ", kvcrush(SCORER), ",
         join(names_of<simple_selector>(), "(SCORER), "),
         "(SCORER), ",
         join(allocation_names(), "(POLICY), "),
         "(POLICY), ",
         join(preset_names(), ", "),
         ", and POLICY+codec(...)");
}

void build(const expression& text, area_parameters& areas, policy& result) {
    if (text.name == "kvcrush") {
        result.scorer = parse_choice<any_scorer>(base_of(text, "base scorer", "kvcrush(snapkv)"));
        result.selector = parse_crush(text, areas);
    } else if (is_among(names_of<simple_selector>(), text.name)) {
        result.scorer = parse_choice<any_scorer>(base_of(text, "base scorer", "chunk_kv(snapkv)"));
        expression own = text;
        own.positional.clear();
        std::visit([&](const auto& selector) { result.selector = any_selector(selector); },
                   parse_choice<simple_selector>(own, areas));
    } else if (is_among(allocation_names(), text.name)) {
        const expression& base = base_of(text, "policy", "ada_kv(snapkv)");
        if (base.name == "full") {
            fail("policy ", text.name, " divides a budget; full has none");
        }
        if (is_among(whole_model_names(), base.name)) {
            fail("policy ",
                 text.name,
                 " divides a budget; ",
                 base.name,
                 " says already what each layer keeps");
        }
        build(base, areas, result);
        if (base.name == text.name) {
            fail("policy ", text.name, " stands inside itself");
        }
        allocation own = parse_allocation(text, areas);
        if (own.planner) {
            if (result.planner) {
                fail("policy ", text.name, ": ", base.name, " says already what each layer keeps");
            }
            result.planner = std::move(own.planner);
        } else {
            result.allocator = std::move(own.allocator);
        }
    } else if (is_among(whole_model_names(), text.name)) {
        result.planner = parse_whole_model(text, areas);
    } else if (is_among(names_of<any_scorer>(), text.name)) {
        result.scorer = parse_choice<any_scorer>(text, areas);
        result.selector = any_selector(kvcrush::top_k_selector{});
    } else {
        fail_unknown_policy(text.name);
    }
}

} // namespace

std::vector<double> policy::ratios(const std::vector<double>& keep_ratios) const {
    if (full) {
        return {1.0};
    }
    if (codec && codec->keep) {
        return {*codec->keep};
    }
    std::vector<double> ratios = keep_ratios;
    if (codec && codec->counts_bytes) {
        for (double& ratio : ratios) {
            ratio = codec->tokens_for_bytes(ratio, head_dim_);
        }
    }
    return ratios;
}

policy parse_policy(std::string_view text) {
    const auto [base, codec] = split_codec(expand_preset(text));
    const expression parsed = parse_expression(base);
    policy result;
    result.text = std::string(text);
    area_parameters areas;
    if (codec) {
        result.codec = parse_codec_choice(*codec);
    }
    if (parsed.name == "full") {
        if (!parsed.positional.empty() || !parsed.named.empty()) {
            fail("policy full keeps everything and takes no parameters");
        }
        if (!codec) {
            result.full = true;
        } else if (result.codec->first_share < 1.0) {
            fail("policy full knows no importance; tiered needs a policy that does, as in "
                 "glob+tiered(...,keep=1)");
        } else if (result.codec->keep) {
            fail("policy full keeps everything and takes no keep");
        } else { // all tokens are kept by whatever keeps as many as there are
            result.codec->keep = 1.0;
            result.scorer = kvcrush::streaming_llm_scorer{};
            result.selector = any_selector(kvcrush::top_k_selector{});
        }
    } else {
        build(parsed, areas, result);
        if (result.codec && result.codec->first_share < 1.0 && result.planner) {
            fail("policy ", parsed.name, " gives no order of tokens, which tiered needs");
        }
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
        for (const std::string_view name : whole_model_names()) {
            policies.push_back(parse_policy(name));
        }
        for (const std::string_view name : preset_names()) {
            policies.push_back(parse_policy(name));
        }
        policies.push_back(parse_policy("kvcrush(h2o)"));
        policies.push_back(parse_policy("kvcrush(snapkv)"));
        policies.push_back(parse_policy("kvcrush(snapkv,pick=second_score,second=h2o(last=256))"));
        for (const auto& names : {names_of<simple_selector>(), allocation_names()}) {
            for (const std::string_view name : names) {
                policies.push_back(parse_policy(std::string(name) + "(snapkv)"));
            }
        }
    }
    return policies;
}

std::vector<policy_help> list_policies() {
    std::vector<policy_help> list{{"full", "everything: the baseline", {}}};
    for (const auto& part : {help_of<any_scorer>(),
                             list_whole_model(),
                             list_crush(),
                             help_of<simple_selector>("(SCORER)"),
                             list_allocations(),
                             list_codecs()}) {
        list.insert(list.end(), part.begin(), part.end());
    }
    return list;
}

} // namespace lab
