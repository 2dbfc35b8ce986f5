// SPDX-License-Identifier: Apache-2.0
/// @file
/// The presets of kvcrush/presets.hpp as policies with parameters, for recipes that are text.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/presets.hpp>
#include <kvcrush/recipe/cache_budget.hpp>
#include <kvcrush/recipe/recipe.hpp>

#include <cstdint>
#include <string_view>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Whoever runs it says how much is kept.
struct auto_preset {
    static constexpr std::string_view name = "kvcrush_auto";
    static constexpr std::string_view about =
        "what works best here: ada_kv(horizons(snapkv)), no knob but the budget";

    bool bytes = false;
    std::uint64_t seed = 0;

    static constexpr auto parameters() {
        using self = auto_preset;
        return parameter_list{
            parameter{"bytes",
                      &self::bytes,
                      "keep ratios are shares of the f16 bytes, and rows are stored in codecs"},
            parameter{"seed", &self::seed, "of the random signs of the codecs"}};
    }
    void validate() const {}
    [[nodiscard]] recipe make() const {
        recipe result = bytes ? kvcrush_auto_bytes(0.25, seed) : kvcrush_auto();
        result.keep = bytes ? cache_budget::of_bytes() : cache_budget{};
        return result;
    }
};

struct seeded_preset {
    std::uint64_t seed = 0;

    static constexpr auto parameters() {
        return parameter_list{parameter{"seed", &seeded_preset::seed, "of the random signs"}};
    }
    void validate() const {}
};

struct four_times_preset : seeded_preset {
    static constexpr std::string_view name = "four_times";
    static constexpr std::string_view about =
        "a quarter of the bytes: all tokens, keys of half of them in 5 bits, the others in 3";
    [[nodiscard]] recipe make() const { return kvcrush::four_times(seed); }
};

struct eight_times_preset : seeded_preset {
    static constexpr std::string_view name = "eight_times";
    static constexpr std::string_view about =
        "an eighth of the bytes: three fifths of the tokens, keys of a quarter of them in 5 bits "
        "and values in 4, the others in 3 and 2";
    [[nodiscard]] recipe make() const { return kvcrush::eight_times(seed); }
};

struct sixteen_times_preset : seeded_preset {
    static constexpr std::string_view name = "sixteen_times";
    static constexpr std::string_view about =
        "a sixteenth of the bytes: three tenths of the tokens, stored as in eight_times";
    [[nodiscard]] recipe make() const { return kvcrush::sixteen_times(seed); }
};

} // namespace detail
} // namespace v0
} // namespace kvcrush
