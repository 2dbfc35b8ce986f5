// SPDX-License-Identifier: Apache-2.0
/// @file
/// `kvcrush(BASE, signature=..., pick=..., ...)`: which of the library's selectors that is.
#pragma once

#include <kvcrush/kvcrush.hpp>

#include "any_selector.hpp"
#include "area_parameters.hpp"
#include "expression.hpp"
#include "policy_help.hpp"

#include <cstddef>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

namespace lab {

/// A scorer that looks at attention, chosen at run time: it makes the bits of portraits, or gives a second opinion.
struct attention_scorer {
    static constexpr std::string_view name = "scorer";
    static constexpr bool needs_attention = true;
    static constexpr auto parameters() { return std::tuple{}; }
    void validate() const {}

    std::variant<kvcrush::h2o_scorer, kvcrush::snapkv_scorer> chosen;

    [[nodiscard]] std::size_t scratch_bytes(const kvcrush::problem_size& size) const noexcept {
        return std::visit([&](const auto& scorer) { return scorer.scratch_bytes(size); }, chosen);
    }
    template <kvcrush::KvSource Kv>
    void observe(const Kv& kv,
                 const kvcrush::query_view& queries,
                 kvcrush::head_scores mass,
                 kvcrush::scratch memory) const noexcept {
        std::visit([&](const auto& scorer) { scorer.observe(kv, queries, mass, memory); }, chosen);
    }
    void reduce(kvcrush::const_head_scores mass,
                kvcrush::head_scores scores,
                kvcrush::scratch memory) const noexcept {
        std::visit([&](const auto& scorer) { scorer.reduce(mass, scores, memory); }, chosen);
    }
};

using second_scorer = kvcrush::second_score_picker<attention_scorer>;

/// Sets sinks and recent tokens among the arguments, too.
/// @throws input_error naming what is misspelt, out of range or does not go together, and what is allowed
[[nodiscard]] any_selector parse_crush(const expression& text, area_parameters& areas);

/// One entry per signature, as they take different parameters.
[[nodiscard]] std::vector<policy_help> list_crush();

} // namespace lab
