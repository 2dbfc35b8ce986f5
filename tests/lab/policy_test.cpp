// SPDX-License-Identifier: Apache-2.0
#include "policy.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <variant>

namespace lab {
namespace {

using testing::HasSubstr;

std::string message_of(const std::string& text) {
    try {
        static_cast<void>(parse_policies(text));
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing was thrown";
}

TEST(Policy, NamesChooseTheLibraryTypes) {
    EXPECT_TRUE(parse_policy("full").full);
    EXPECT_TRUE(std::holds_alternative<kvcrush::knorm_scorer>(parse_policy("knorm").scorer));
    EXPECT_TRUE(std::holds_alternative<kvcrush::top_k_selector>(parse_policy("knorm").selector));
}

TEST(Policy, ParametersAreSetByName) {
    const policy how =
        parse_policy("snapkv(window=8, "
                     "pool=avg,kernel=5,reduce=max,order=pool_first,shared=1,sinks=2,recent=9)");
    const auto& scorer = std::get<kvcrush::snapkv_scorer>(how.scorer);
    EXPECT_EQ(scorer.observation_window, 8U);
    EXPECT_EQ(scorer.pool, kvcrush::pooling::avg);
    EXPECT_EQ(scorer.pooling_kernel_size, 5U);
    EXPECT_EQ(scorer.reduce_heads, kvcrush::head_reduction::max);
    EXPECT_EQ(scorer.order, kvcrush::pooling_order::pool_first);
    EXPECT_TRUE(scorer.shared);
    EXPECT_EQ(how.areas, (kvcrush::area_sizes{2, 9}));
}

TEST(Policy, CompositionReadsAsComposition) {
    const policy how = parse_policy(
        "kvcrush(h2o(normalise=none,last=256),anchor=alternate,share=0.1,pick=step,quantile=0.25)");
    EXPECT_EQ(std::get<kvcrush::h2o_scorer>(how.scorer).last, 256U);
    const auto& selector = std::get<kvcrush::kvcrush_selector<any_picker>>(how.selector);
    EXPECT_EQ(selector.anchor.kind, kvcrush::anchor_kind::alternate);
    EXPECT_EQ(selector.share, 0.1);
    EXPECT_EQ(selector.signature.quantile, 0.25);
    EXPECT_TRUE(std::holds_alternative<kvcrush::step_picker>(selector.picker.chosen));

    const policy bits = parse_policy("kvcrush(knorm,bits=snapkv(window=16))");
    const auto& with_bits =
        std::get<kvcrush::kvcrush_selector<any_picker, any_bits>>(bits.selector);
    EXPECT_EQ(std::get<kvcrush::snapkv_scorer>(with_bits.bits.chosen).observation_window, 16U);
}

TEST(Policy, CommasInParenthesesBelongToTheExpression) {
    const auto list = parse_policies("full,kvcrush(snapkv,share=0.5),random(seed=3)");
    ASSERT_EQ(list.size(), 3U);
    EXPECT_EQ(list[1].text, "kvcrush(snapkv,share=0.5)");
    EXPECT_EQ(std::get<kvcrush::random_scorer>(list[2].scorer).seed, 3U);
}

TEST(Policy, AllIsEveryPolicyWithItsDefaults) {
    const auto list = parse_policies("all");
    EXPECT_EQ(list.size(), std::variant_size_v<any_scorer> + 3);
    EXPECT_TRUE(list.front().full);
}

TEST(Policy, MistakesAreNamedWithWhatIsAllowed) {
    EXPECT_THAT(message_of("snapvk"),
                HasSubstr("policy \"snapvk\" is unknown; allowed: all, full, random, "));
    EXPECT_THAT(message_of("snapkv(windwo=8)"),
                HasSubstr("there is no parameter \"windwo\"; it has window, pool, kernel"));
    EXPECT_THAT(message_of("snapkv(pool=median)"),
                HasSubstr("pool is \"median\"; allowed: max|avg|none"));
    EXPECT_THAT(message_of("snapkv(window=-1)"),
                HasSubstr("window is \"-1\"; allowed: a whole number"));
    EXPECT_THAT(message_of("snapkv(window=99999999999999999999)"),
                HasSubstr("allowed: a whole number"));
    EXPECT_THAT(message_of("snapkv(kernel=4)"), HasSubstr("kernel is 4; it must be odd"));
    EXPECT_THAT(message_of("snapkv(8)"), HasSubstr("\"8\" has no name; write parameter=value"));
    EXPECT_THAT(message_of("kvcrush"), HasSubstr("takes one base scorer"));
    EXPECT_THAT(message_of("kvcrush(snapkv,h2o)"), HasSubstr("2 are given"));
    EXPECT_THAT(message_of("kvcrush(snapkv,share=1.5)"),
                HasSubstr("share is 1.5; it must lie in [0, 1]"));
    EXPECT_THAT(message_of("kvcrush(snapkv,share=nan)"), HasSubstr("share"));
    EXPECT_THAT(message_of("kvcrush(snapkv,anchor=middle)"),
                HasSubstr("allowed: zeros|ones|alternate"));
    EXPECT_THAT(message_of("kvcrush(snapkv,pick=best)"),
                HasSubstr("allowed: linspace|step|most_important"));
    EXPECT_THAT(message_of("kvcrush(snapkv,bits=knorm)"), HasSubstr("allowed: h2o, snapkv"));
    EXPECT_THAT(message_of("kvcrush(kvcrush(snapkv))"), HasSubstr("\"kvcrush\" is unknown here"));
    EXPECT_THAT(message_of("full(x=1)"), HasSubstr("takes no parameters"));
}

TEST(Policy, BrokenExpressionsSayWhere) {
    EXPECT_THAT(message_of("snapkv(window=8"),
                HasSubstr("there is nothing more; expected ',' or ')'"));
    EXPECT_THAT(message_of("snapkv)"), HasSubstr("at character 7"));
    EXPECT_THAT(message_of("snapkv(,)"), HasSubstr("expected a name or a value"));
    EXPECT_THAT(message_of(""), HasSubstr("empty"));
    EXPECT_THAT(message_of("full,,random"), HasSubstr("empty"));
    EXPECT_THAT(message_of(std::string(1000, '(')), HasSubstr("character 1"));
    std::string deep;
    for (int i = 0; i < 100; ++i) {
        deep += "a(";
    }
    EXPECT_THAT(message_of(deep), HasSubstr("parentheses inside each other"));
}

TEST(Policy, TheListNamesEveryParameter) {
    for (const policy_help& entry : list_policies()) {
        if (entry.name == "full") {
            continue;
        }
        EXPECT_FALSE(entry.about.empty()) << entry.name;
        std::string names;
        for (const policy_help::row& row : entry.parameters) {
            names += row.name + " ";
        }
        EXPECT_THAT(names, HasSubstr("sinks recent")) << entry.name;
    }
}

} // namespace
} // namespace lab
