// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/recipe_text.hpp>
#include <kvcrush/text/help.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace kvcrush {
namespace {

using testing::HasSubstr;

/// An engine's own: every so many tokens one is important.
struct sieve_scorer {
    static constexpr std::string_view name = "sieve";
    static constexpr std::string_view about = "every so many tokens";
    static constexpr bool needs_attention = false;

    std::size_t every = 10;

    static constexpr auto parameters() {
        return parameter_list{parameter{"every", &sieve_scorer::every, "tokens from one to the next"}};
    }
    void validate() const { detail::require(every > 0, "sieve: every is 0; it must be 1 or more"); }

    template <KvSource Kv>
    void score(const Kv&, head_scores scores) const noexcept {
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<float> row = scores.row(head);
            for (std::size_t t = 0; t < row.size(); ++t) {
                row[t] = t % every == 0 ? 1.0F : 0.0F;
            }
        }
    }
};

/// One that stands in for a policy of the library.
struct my_knorm_scorer : sieve_scorer {
    static constexpr std::string_view name = "knorm";
};

struct my_catalogue : catalogue {
    using scorers = extended<catalogue::scorers, sieve_scorer, my_knorm_scorer>;
    // Fewer of the rest, for the sake of those who compile this test.
    using plain_codecs = policy_list<q8_0_codec>;
    using own_codecs = policy_list<>;
    using pickers = policy_list<linspace_picker>;
};

TEST(Catalogue, PoliciesOfAnEngineAreOneLineMore) {
    const recipe how = parse_recipe<my_catalogue>("ada_kv(kvcrush(sieve(every=7),second=sieve,"
                                                  "pick=second_score),recent=8)");
    EXPECT_EQ(how.scorer.as<sieve_scorer>()->every, 7U);
    EXPECT_EQ(to_text<my_catalogue>(how),
              "ada_kv(kvcrush(sieve(every=7),pick=second_score,second=sieve),recent=8)");
    EXPECT_NE(parse_recipe<my_catalogue>("knorm").scorer.as<my_knorm_scorer>(), nullptr);
    EXPECT_NE(parse_recipe<my_catalogue>("snapkv").scorer.as<snapkv_scorer>(), nullptr);
    EXPECT_THROW(static_cast<void>(parse_recipe<my_catalogue>("sieve(every=0)")),
                 std::invalid_argument);
}

TEST(Catalogue, WhatItLeavesOutIsUnknown) {
    try {
        static_cast<void>(parse_recipe<my_catalogue>("full+codec(k=q4_0,v=q8_0)"));
        ADD_FAILURE() << "nothing was thrown";
    } catch (const std::invalid_argument& error) {
        EXPECT_THAT(error.what(), HasSubstr("\"q4_0\" is unknown here; allowed: q8_0, hadamard"));
    }
}

TEST(Catalogue, ListsShowThem) {
    const std::vector<policy_help> help = list_policies<my_catalogue>();
    const auto sieve = std::find_if(
        help.begin(), help.end(), [](const policy_help& entry) { return entry.name == "sieve"; });
    ASSERT_NE(sieve, help.end());
    EXPECT_EQ(sieve->role, policy_role::scorer);
    EXPECT_EQ(sieve->about, "every so many tokens");
    ASSERT_EQ(sieve->parameters.size(), 3U) << "and sinks and recent tokens";
    EXPECT_EQ(sieve->parameters[0].name, "every");
    EXPECT_EQ(sieve->parameters[0].value, "10");
    EXPECT_EQ(sieve->parameters[0].allowed, "a whole number");
    EXPECT_THAT(split_recipes<my_catalogue>("all"), testing::Contains("sieve"));
    EXPECT_EQ(std::count_if(help.begin(),
                            help.end(),
                            [](const policy_help& entry) { return entry.name == "knorm"; }),
              1)
        << "replaced";
}

} // namespace
} // namespace kvcrush
