// SPDX-License-Identifier: Apache-2.0
#include "policy.hpp"

#include <kvcrush/recipe_text.hpp>
#include <kvcrush/text/help.hpp>

#include "own_q_filters.hpp"

#include <algorithm>
#include <cmath>

namespace lab {

std::vector<double> policy::ratios(const std::vector<double>& keep_ratios) const {
    if (how.keep.is_open()) {
        return keep_ratios;
    }
    const bool is_ratio = how.keep.counts() == kvcrush::cache_budget::unit::token_share ||
                          how.keep.counts() == kvcrush::cache_budget::unit::byte_share;
    return {is_ratio ? how.keep.value() : 1.0};
}

kvcrush::cache_budget policy::within(std::size_t tokens, std::size_t tokens_seen) const {
    if (how.keep.is_open() && !how.keep.counts_bytes()) {
        return kvcrush::cache_budget::tokens(tokens);
    }
    const auto seen = static_cast<double>((std::max)(tokens_seen, std::size_t{1}));
    return how.keep.with_ratio((std::min)(static_cast<double>(tokens) / seen, 1.0));
}

void policy::check_for(const model_config& model,
                       const kvcrush::cache_budget& keep,
                       std::size_t tokens) const {
    const kvcrush::kv_shape shape{model.num_kv_heads, tokens, model.head_dim, model.head_dim};
    how.validate_for({shape, model.num_q_heads});
    static_cast<void>(how.tokens_for(
        keep, {tokens, model.head_dim, model.head_dim}, model.num_layers * model.num_kv_heads));
}

policy parse_policy(std::string_view text) {
    return {std::string(text), kvcrush::parse_recipe<lab_catalogue>(text)};
}

std::vector<policy> parse_policies(std::string_view list) {
    std::vector<policy> policies;
    for (const std::string& text : kvcrush::split_recipes<lab_catalogue>(list)) {
        policies.push_back(parse_policy(text));
    }
    return policies;
}

std::vector<kvcrush::policy_help> list_policies() {
    return kvcrush::list_policies<lab_catalogue>();
}

} // namespace lab
