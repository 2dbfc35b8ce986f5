// SPDX-License-Identifier: Apache-2.0
// What the lab makes of recipes; how they are written is tested in unit/text.
#include <kvcrush/text/help.hpp>

#include "own_q_filters.hpp"
#include "policy.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace lab {
namespace {

using testing::HasSubstr;

TEST(Policy, CommasInParenthesesBelongToTheExpression) {
    const auto list = parse_policies("full, kvcrush(snapkv,share=0.5) ,random(seed=3)");
    ASSERT_EQ(list.size(), 3U);
    EXPECT_TRUE(list[0].full());
    EXPECT_EQ(list[1].text, "kvcrush(snapkv,share=0.5)");
    EXPECT_FALSE(list[1].full());
    EXPECT_EQ(list[2].how.scorer.policy_name(), "random");
}

TEST(Policy, AllIsEveryPolicyWithItsDefaults) {
    const auto list = parse_policies("all");
    EXPECT_TRUE(list.front().full());
    std::set<std::string> texts;
    for (const policy& how : list) {
        EXPECT_TRUE(texts.insert(how.text).second) << how.text << " stands there twice";
    }
    // Every name that `policies` prints is tried; suffixes and codecs stand behind any of them.
    for (const kvcrush::policy_help& entry : list_policies()) {
        if (entry.role == kvcrush::policy_role::suffix ||
            entry.role == kvcrush::policy_role::codec) {
            continue;
        }
        EXPECT_TRUE(std::any_of(texts.begin(), texts.end(), [&](const std::string& text) {
            return text.starts_with(entry.name);
        })) << entry.name;
    }
}

TEST(Policy, KnowsTheScorerOfTheLab) {
    EXPECT_NE(parse_policy("ada_kv(q_filters)").how.scorer.as<own_q_filters>(), nullptr);
}

TEST(Policy, RatiosOfTheRunCountUnlessThePolicyHasOneOfItsOwn) {
    const std::vector<double> asked{0.5, 0.25};
    using list = std::vector<double>;
    EXPECT_EQ(parse_policy("snapkv").ratios(asked), asked);
    EXPECT_EQ(parse_policy("kvcrush_auto(bytes=1)").ratios(asked), asked);
    EXPECT_EQ(parse_policy("full").ratios(asked), list{1.0});
    EXPECT_EQ(parse_policy("four_times").ratios(asked), list{1.0});
    EXPECT_EQ(parse_policy("eight_times").ratios(asked), list{0.6});
    EXPECT_EQ(parse_policy("snapkv+codec(k=q8_0,v=q8_0,keep=0.75)").ratios(asked), list{0.75});
    EXPECT_EQ(parse_policy("snapkv+keep(ratio=0.1)").ratios(asked), list{0.1});
}

TEST(Policy, WithinSoManyTokensItKeepsItsOwnShareIfItHasOne) {
    using kvcrush::cache_budget;
    EXPECT_EQ(parse_policy("snapkv").within(100, 400), cache_budget::tokens(100));
    EXPECT_EQ(parse_policy("eight_times").within(100, 400), cache_budget::keep_ratio(0.6));
    const cache_budget bytes = parse_policy("kvcrush_auto(bytes=1)").within(100, 400);
    EXPECT_TRUE(bytes.counts_bytes());
    EXPECT_EQ(bytes.value(), 0.25);
    EXPECT_EQ(parse_policy("snapkv").within(500, 400), cache_budget::tokens(500));
}

TEST(Policy, ABudgetWithoutRoomForSinksAndRecentTokensIsRefused) {
    const model_config model{
        .num_layers = 2, .num_q_heads = 6, .num_kv_heads = 2, .head_dim = 64};
    const auto complaint = [&](const std::string& text, double ratio, std::size_t tokens) {
        try {
            const policy how = parse_policy(text);
            how.check_for(model, how.at(ratio), tokens);
        } catch (const std::invalid_argument& error) {
            return std::string(error.what());
        }
        return std::string("accepted");
    };
    EXPECT_EQ(complaint("snapkv", 0.5, 100), "accepted");
    EXPECT_THAT(complaint("snapkv", 0.25, 100), HasSubstr("25 of 100 tokens"));
    EXPECT_EQ(complaint("snapkv(recent=8)", 0.25, 100), "accepted");
    EXPECT_THAT(complaint("kvcrush_auto(bytes=1)", 0.01, 1000), HasSubstr("36 are needed"));
    EXPECT_EQ(complaint("full", 0.25, 10), "accepted");
}

} // namespace
} // namespace lab
