// SPDX-License-Identifier: Apache-2.0
/// @file
/// `X+keep(ratio=0.25)` and `X+when(every=64)`: how much stays, and when that is seen to.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/recipe/cache_budget.hpp>
#include <kvcrush/recipe/recipe.hpp>
#include <kvcrush/text/arguments.hpp>
#include <kvcrush/text/expression.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Whole numbers up to here are the same in a double; no cache has as many tokens or bytes.
inline constexpr double most_of_a_budget = 0x1p53;
inline constexpr double bytes_of_mib = 0x1p20;

/// What keep(...) may be given; one of them.
struct keep_parameters {
    double ratio = 0.0;
    std::size_t tokens = 0;
    double bytes = 0.0;
    double mib = 0.0;
    static constexpr auto parameters() {
        using self = keep_parameters;
        return parameter_list{
            parameter{"ratio", &self::ratio, "share of the tokens seen, in (0, 1]"},
            parameter{"tokens", &self::tokens, "tokens per kv head, on average over the heads"},
            parameter{"bytes", &self::bytes, "share of the bytes in f16, in (0, 1]"},
            parameter{"mib", &self::mib, "size of the whole cache [MiB]"}};
    }
};

/// `keep(bytes)` counts bytes, as many as whoever runs it says.
/// @throws std::invalid_argument naming what is misspelt or out of range, and what is allowed
[[nodiscard]] inline cache_budget parse_keep(const expression& text) {
    if (text.named.empty() && text.positional.size() == 1 &&
        text.positional.front().text == "bytes") {
        return cache_budget::of_bytes();
    }
    require_no_positional(text, "ratio=NUMBER, tokens=NUMBER, bytes=NUMBER or mib=NUMBER");
    keep_parameters values;
    set_arguments(text, values);
    require(text.named.size() == 1,
            "policy keep takes one of ratio, tokens, bytes and mib, as in +keep(ratio=0.25); ",
            text.named.size(),
            " are given");
    const std::string_view key = text.named.front().key;
    if (key == "ratio") {
        return cache_budget::keep_ratio(values.ratio);
    }
    if (key == "bytes") {
        return cache_budget::byte_ratio(values.bytes);
    }
    if (key == "tokens") {
        require(values.tokens <= std::uint64_t{1} << 53U,
                "policy keep: tokens is ",
                values.tokens,
                "; it must be 2^53 at most");
        return cache_budget::tokens(values.tokens);
    }
    require(values.mib >= 0.0 && values.mib <= most_of_a_budget / bytes_of_mib,
            "policy keep: mib is ",
            values.mib,
            "; it must lie in [0, 2^33]");
    return cache_budget::bytes(static_cast<std::size_t>(values.mib * bytes_of_mib));
}

/// The call that parse_keep() reads as this budget; empty where it is the default.
[[nodiscard]] inline std::string keep_text(const cache_budget& keep) {
    if (keep == cache_budget{}) {
        return {};
    }
    if (keep == cache_budget::of_bytes()) {
        return "keep(bytes)";
    }
    const double value = (std::min)(keep.value(), most_of_a_budget);
    switch (keep.counts()) {
    case cache_budget::unit::tokens:
        return "keep(tokens=" + parameter_text(static_cast<std::uint64_t>(value)) + ')';
    case cache_budget::unit::token_share: return "keep(ratio=" + parameter_text(value) + ')';
    case cache_budget::unit::bytes: return "keep(mib=" + parameter_text(value / bytes_of_mib) + ')';
    default: return "keep(bytes=" + parameter_text(value) + ')';
    }
}

/// When a cache is compressed by itself.
struct when_parameters {
    std::size_t every = compression_trigger{}.every;
    std::size_t rows = compression_trigger{}.rows;
    static constexpr auto parameters() {
        using self = when_parameters;
        return parameter_list{
            parameter{"every", &self::every, "tokens between two compressions"},
            parameter{"rows",
                      &self::rows,
                      "rows of the longest head above which it is compressed; 0: no limit"}};
    }
};

[[nodiscard]] inline compression_trigger parse_when(const expression& text) {
    require_no_positional(text, "every=TOKENS or rows=ROWS");
    when_parameters values;
    set_arguments(text, values);
    return {values.every, values.rows};
}

/// The call that parse_when() reads as this; empty where it is the default.
[[nodiscard]] inline std::string when_text(const compression_trigger& when) {
    const std::string arguments =
        changed_parameters(when_parameters{when.every, when.rows}, when_parameters{});
    return arguments.empty() ? std::string() : call_text("when", arguments);
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
