// SPDX-License-Identifier: Apache-2.0
/// @file
/// Another scorer speaks for what the first one passed over.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/grouping/picker.hpp>

#include <string>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Picks the candidates that another scorer likes best, per kv head. What is worth most is a second scorer with
/// another horizon: snapkv decides from the last 32 queries, and h2o over the last 256 finds what was read before.
/// @tparam Second  any scorer; it gets the same inputs as the one that decides
/// @note On the reference model this is what beats plain snapkv and plain h2o at equal memory; signatures do not.
/// @see  kvcrush's own; the budget shape (important + representatives) is that of KVCrush, arXiv:2503.00022
template <Scorer Second>
struct second_score_picker {
    static constexpr std::string_view name = "second_score";
    static constexpr bool needs_attention = Second::needs_attention;

    Second second{};

    static constexpr auto parameters() { return parameter_list{}; }
    /// "second=h2o(last=256)"
    [[nodiscard]] std::string arguments() const { return "second=" + policy_text(second); }
    /// @throws std::invalid_argument from the scorer
    void validate() const { second.validate(); }
};

} // namespace v0
} // namespace kvcrush
