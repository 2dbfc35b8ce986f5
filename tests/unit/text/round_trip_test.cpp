// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/grouping/farthest.hpp>
#include <kvcrush/grouping/second_score.hpp>
#include <kvcrush/recipe/kvzip_plan.hpp>
#include <kvcrush/recipe/model_plans.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/page_selector.hpp>
#include <kvcrush/signature/key_sign.hpp>
#include <kvcrush/text/help.hpp>

#include "unit/text/recipe_text.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

using testing::HasSubstr;

/// What is read from its canonical text is written as the same.
void expect_stable(const std::string& text) {
    const std::string once = canonical(text);
    EXPECT_EQ(canonical(once), once) << text;
}

/// A recipe with a policy in its place, such that all of its parameters can be given: "snapkv" to "snapkv(" and ")".
std::pair<std::string, std::string> place_of(const policy_help& entry) {
    std::string before = entry.form;
    for (const auto& [word, instead] : {std::pair{"SCORER", "snapkv"}, {"POLICY", "snapkv"}}) {
        if (const std::size_t at = before.find(word); at != std::string::npos) {
            before.replace(at, 6, instead);
        }
    }
    for (std::size_t at; (at = before.find("=C")) != std::string::npos;) {
        before.replace(at, 2, "=q4_0");
    }
    if (entry.name == "keep" || entry.name == "when") {
        return {before.substr(0, before.find('(')) + '(', ")"};
    }
    if (entry.role == policy_role::codec) {
        return {"h2o+codec(v=q8_0,k=" + entry.name + '(', "))"};
    }
    if (before.back() == ')') {
        before.back() = ',';
        return {before, ")"};
    }
    return {before + '(', ")"};
}

/// Values to try for a parameter, other ones than its default.
std::vector<std::string> other_values(const policy_help::row& row) {
    if (row.allowed == "a whole number") {
        return {"2", "3", "5", "8", "17", "64"};
    }
    if (row.allowed == "a number") {
        return {"0.125", "0.375", "2.5", "30", "1e-07"};
    }
    std::vector<std::string> names;
    for (std::size_t begin = 0; begin <= row.allowed.size();) {
        const std::size_t end = (std::min)(row.allowed.find('|', begin), row.allowed.size());
        names.push_back(row.allowed.substr(begin, end - begin));
        begin = end + 1;
    }
    return names;
}

TEST(RoundTrip, EveryPolicyWithItsDefaults) {
    for (const std::string& text : every_recipe()) {
        expect_stable(text);
    }
}

TEST(RoundTrip, EveryParameterOfEveryPolicy) {
    for (const policy_help& entry : list_policies()) {
        const auto [before, after] = place_of(entry);
        for (const policy_help::row& row : entry.parameters) {
            if (row.name == "bits" || row.name == "second" || row.name == "signature") {
                if (row.allowed == "any scorer" || row.name == "signature") {
                    continue; // what goes with them is tested elsewhere
                }
            }
            std::size_t accepted = 0;
            for (const std::string& value : other_values(row)) {
                const std::string given = row.name + '=' + value;
                const std::string text = before + given + after;
                const std::string message = message_of(text);
                if (message != "nothing was thrown" || value == row.value) {
                    EXPECT_EQ(message.find("there is no parameter"), std::string::npos) << message;
                    continue;
                }
                ++accepted;
                expect_stable(text);
                if (entry.role != policy_role::preset && entry.role != policy_role::suffix) {
                    EXPECT_THAT(canonical(text), HasSubstr(given)) << text;
                }
            }
            EXPECT_GT(accepted, 0U) << entry.form << ' ' << row.name;
        }
    }
}

TEST(RoundTrip, SuffixesAreWrittenInOneOrder) {
    EXPECT_EQ(
        canonical("snapkv+when(rows=7)+keep(tokens=64)+codec(v=q4_0,k=q8_0,exact=1,window=9)"),
        "snapkv+codec(k=q8_0,v=q4_0,window=9,exact=1)+keep(tokens=64)+when(rows=7)");
    EXPECT_EQ(canonical("snapkv+codec(k=q8_0,v=q8_0,keep=0.6)"),
              "snapkv+codec(k=q8_0,v=q8_0)+keep(ratio=0.6)");
    EXPECT_EQ(canonical("snapkv+codec(k=q8_0,v=q8_0,bytes=1)"),
              "snapkv+codec(k=q8_0,v=q8_0)+keep(bytes)");
    for (const char* keep :
         {"ratio=0.1", "bytes=0.3333333333333333", "mib=0.0001", "mib=3.25", "tokens=0"}) {
        expect_stable("snapkv+keep(" + std::string(keep) + ")");
    }
    EXPECT_EQ(parse(canonical("snapkv+keep(mib=0.001)")).keep,
              parse("snapkv+keep(mib=0.001)").keep);
}

TEST(RoundTrip, RecipesOfTypesAreWritten) {
    EXPECT_EQ(written({}), "streaming_llm");
    EXPECT_EQ(written({.keep = cache_budget::everything()}), "full");
    EXPECT_EQ(written({.keep = cache_budget::everything(), .when = {.every = 3}}),
              "full+when(every=3)");
    EXPECT_EQ(written({.scorer = knorm_scorer{}, .keep = cache_budget::everything()}),
              "knorm+keep(ratio=1)");
    EXPECT_EQ(written({.scorer = snapkv_scorer{.observation_window = 8},
                       .selector =
                           kvcrush_selector<second_score_picker<h2o_scorer>>{
                               .share = 0.5, .picker = {{.last = 256}}},
                       .areas = {2, 3}}),
              "kvcrush(snapkv(window=8),pick=second_score,second=h2o(last=256),share=0.5,sinks=2,"
              "recent=3)");
    EXPECT_EQ(written({.scorer = h2o_scorer{},
                       .selector =
                           kvcrush_selector<farthest_picker, own_scores, key_sign_signature>{
                               .signature = {.channels = 8}, .anchor = {.count = 2}}}),
              "kvcrush(h2o,signature=key_sign,pick=farthest,channels=8,anchors=2)");
    EXPECT_EQ(written({.model_allocator = kvzip{.selector = {.level = kvzip_level::head}},
                       .areas = {4, 0}}),
              "kvzip(level=head,recent=0)");
    EXPECT_EQ(written({.keep = cache_budget::everything(),
                       .rows = {.tiers = {{q8_0_codec{}, q4_0_codec{}}}}}),
              "full+codec(k=q8_0,v=q4_0,sinks=f16,exact=1)");
}

TEST(RoundTrip, WhatCannotBeWrittenIsRefused) {
    const storage_tier tier{q8_0_codec{}, q8_0_codec{}, 0.2};
    for (const row_storage& rows :
         {row_storage{.dense = {dense_codec<bf16>{}, dense_codec<f16>{}}},
          row_storage{.sinks = {q8_0_codec{}, q4_0_codec{}}, .tiers = {tier}},
          row_storage{.tiers = {tier, tier, tier}}}) {
        EXPECT_THROW(static_cast<void>(written({.rows = rows})), std::invalid_argument);
    }
    EXPECT_THROW(
        static_cast<void>(written({.model_allocator = kvzip{}, .rows = {.tiers = {tier, tier}}})),
        std::invalid_argument);
}

/// What a recipe would keep of a small cache.
std::vector<std::vector<std::size_t>> kept_by(recipe how) {
    how.areas = {2, 4};
    how.keep = how.keep.with_ratio(0.4);
    kv_cache cache({.num_layers = 2, .num_q_heads = 4, .num_kv_heads = 2, .head_dim = 32}, how);
    for (std::size_t l = 0; l < 2; ++l) {
        const auto numbers = [&](std::size_t count, std::uint64_t what) {
            std::vector<float> row(count);
            for (std::size_t i = 0; i < count; ++i) {
                row[i] = 3.0F * (random_unit(l, what, i) - 0.5F);
            }
            return row;
        };
        EXPECT_TRUE(cache.append(l, numbers(150 * 64, 1), numbers(150 * 64, 2)));
        cache.observe(l, numbers(150 * 128, 3));
    }
    std::vector<std::vector<std::size_t>> kept;
    for (const layer_choice& layer : cache.choose()) {
        kept.emplace_back(layer.kept.indices().begin(), layer.kept.indices().end());
    }
    return kept;
}

TEST(RoundTrip, TextKeepsWhatTypesKeep) {
    const snapkv_scorer snapkv{};
    const std::vector<std::pair<std::string, any_selector>> same{
        {"kvcrush(snapkv,pick=second_score,second=h2o(last=64),share=0.5)",
         kvcrush_selector<second_score_picker<h2o_scorer>>{.share = 0.5, .picker = {{.last = 64}}}},
        {"kvcrush(snapkv,pick=second_score,second=knorm)",
         kvcrush_selector<second_score_picker<knorm_scorer>>{}},
        {"kvcrush(snapkv,bits=h2o(normalise=none),pick=farthest)",
         kvcrush_selector<farthest_picker, h2o_scorer>{
             .bits = {.normalise = h2o_normalisation::none}}},
        {"kvcrush(snapkv,bits=knorm)", kvcrush_selector<linspace_picker, knorm_scorer>{}},
        {"kvcrush(snapkv,signature=key_sign,anchor=random,seed=4)",
         kvcrush_selector<linspace_picker, own_scores, key_sign_signature>{
             .anchor = {.kind = anchor_kind::random, .seed = 4}}},
        {"kvcrush(snapkv,signature=page,page=8)", page_selector<>{.page_size = 8}}};
    for (const auto& [text, selector] : same) {
        EXPECT_EQ(kept_by(parse(text)), kept_by({.scorer = snapkv, .selector = selector})) << text;
    }
    EXPECT_NE(kept_by(parse("kvcrush(snapkv)")), kept_by(parse(same[0].first)));
}

TEST(RoundTrip, ScorersInsideSelectorsDrawApartInEachLayer) {
    const auto kept =
        kept_by(parse("kvcrush(streaming_llm,pick=second_score,second=random,share=1)"));
    EXPECT_NE(kept[0], kept[1]);
}

TEST(RoundTrip, TextsKeepWhatTheirCanonicalTextsKeep) {
    for (const char* text :
         {"ada_kv(horizons(snapkv))",
          "pyramid_kv(ada_kv(kvcrush(h2o,share=0.5,anchor=alternate),floor=0.1))",
          "kv_compress(squared_attention,block_size=4)",
          "baklava(snapkv,form=two_classes)",
          "duo_attention(h2o)",
          "dbudget_kv(threshold=0.3)",
          "random(seed=9)"}) {
        EXPECT_EQ(kept_by(parse(text)), kept_by(parse(canonical(text)))) << text;
    }
}

TEST(PolicyList, NamesEveryParameter) {
    for (const policy_help& entry : list_policies()) {
        EXPECT_FALSE(entry.about.empty()) << entry.form;
        std::string names;
        for (const policy_help::row& row : entry.parameters) {
            EXPECT_FALSE(row.about.empty() || row.allowed.empty() || row.value.empty())
                << entry.form << ' ' << row.name;
            names += row.name + " ";
        }
        if (entry.role == policy_role::scorer || entry.role == policy_role::selector ||
            entry.role == policy_role::allocator || entry.role == policy_role::method) {
            EXPECT_THAT(names, HasSubstr("sinks recent")) << entry.form;
        }
    }
}

TEST(PolicyList, ShowsCodecsSuffixesAndPresets) {
    std::set<std::string> names;
    for (const policy_help& entry : list_policies()) {
        names.insert(std::string(name_of(entry.role)) + ' ' + entry.form);
    }
    for (const char* name : {"baseline full",
                             "scorer snapkv",
                             "method kvzip",
                             "selector kvcrush(SCORER)",
                             "selector kvcrush(SCORER,signature=key_sign)",
                             "selector kvcrush(SCORER,signature=page)",
                             "allocator pyramid_kv(POLICY)",
                             "preset four_times",
                             "suffix POLICY+codec(k=C,v=C)",
                             "suffix POLICY+tiered(k=C,v=C,k2=C,v2=C)",
                             "codec q8_0",
                             "codec iq4_nl",
                             "codec kivi_key"}) {
        EXPECT_TRUE(names.contains(name)) << name;
    }
}

TEST(PolicyList, AllIsEveryPolicyWithItsDefaults) {
    const std::vector<std::string> list = split_recipes("all");
    EXPECT_EQ(list.front(), "full");
    const std::set<std::string> texts(list.begin(), list.end());
    EXPECT_EQ(texts.size(), list.size()) << "one stands there twice";
    for (const policy_help& entry : list_policies()) {
        if (entry.role == policy_role::suffix || entry.role == policy_role::codec) {
            continue;
        }
        EXPECT_TRUE(std::any_of(texts.begin(), texts.end(), [&](const std::string& text) {
            return text.substr(0, text.find('(')) == entry.name;
        })) << entry.name;
    }
}

TEST(PolicyList, CommasInParenthesesBelongToTheRecipe) {
    EXPECT_EQ(split_recipes("full, kvcrush(snapkv,share=0.5) ,random(seed=3)"),
              (std::vector<std::string>{"full", "kvcrush(snapkv,share=0.5)", "random(seed=3)"}));
    for (const char* text : {"", "full,,random", ",full", "full, ", " "}) {
        EXPECT_THROW(static_cast<void>(split_recipes(text)), std::invalid_argument) << text;
    }
}

} // namespace
} // namespace kvcrush
