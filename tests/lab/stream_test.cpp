// SPDX-License-Identifier: Apache-2.0
// Decoding on a cache that is compressed again and again, against the loop that says what that means.
#include "compression.hpp"
#include "error.hpp"
#include "stream.hpp"
#include "tiny_model.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace lab;
using testing::HasSubstr;

experiment plan_of(const std::string& policies) {
    experiment plan;
    plan.policies = parse_policies(policies);
    plan.type = cache_type::f32;
    return plan;
}

std::vector<int> some_text(std::size_t size) {
    std::vector<int> tokens(size);
    for (std::size_t i = 0; i < size; ++i) {
        tokens[i] = static_cast<int>((i * i + 7 * i) % 50);
    }
    return tokens;
}

TEST(Stream, LosesNothingWhileEverythingFits) {
    const llama model = lab_test::load(lab_test::tiny_model().file());
    const stream_options options{.prompt = 10, .tokens = 40, .budget = 60, .compress_every = 4};
    const auto rows = run_stream(
        plan_of("full,streaming_llm(sinks=2,recent=8)"), options, "text", some_text(51), model);
    ASSERT_EQ(rows.size(), 2 * stream_parts);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        EXPECT_EQ(rows[i].quality.kld_mean, 0.0);
        EXPECT_EQ(rows[i].quality.top1_agreement, 1.0);
        EXPECT_EQ(rows[i].context, 10 + 40 * (i % stream_parts + 1) / stream_parts);
        EXPECT_EQ(rows[i].kept_tokens_mean, static_cast<double>(rows[i].context));
    }
    EXPECT_EQ(rows[0].policy, "full");
    EXPECT_EQ(rows[stream_parts - 1].name, "text 40-50");
}

TEST(Stream, DoesWhatItsLoopSays) {
    const llama model = lab_test::load(lab_test::tiny_model().file());
    const std::vector<int> text = some_text(81);
    const stream_options options{.prompt = 20, .tokens = 60, .budget = 24, .compress_every = 5};
    const experiment plan = plan_of("snapkv(sinks=2,recent=8,window=4)");
    const auto found = run_stream(plan, options, "text", text, model);
    ASSERT_EQ(found.size(), stream_parts);

    kvcrush::kv_cache full = model.make_cache(cache_type::f32);
    static_cast<void>(model.forward({text.data(), 20}, full, 0));
    kvcrush::kv_cache small = copy_for(full, plan.policies[0]);
    std::size_t since = 5;
    for (std::size_t part = 0; part < stream_parts; ++part) {
        matrix wanted(15, 50);
        matrix got(15, 50);
        for (std::size_t i = 0; i < 15; ++i, ++since) {
            const std::size_t at = 20 + 15 * part + i;
            if (since >= 5 && small.layer(0).rows(0) > 24) {
                static_cast<void>(compress(
                    small, {model, {text.data(), at}}, kvcrush::cache_budget::tokens(24)));
                since = 0;
            }
            const matrix a = model.forward({&text[at], 1}, full, 1);
            const matrix b = model.forward({&text[at], 1}, small, 1);
            std::copy_n(a.data(), 50, wanted.row(i).data());
            std::copy_n(b.data(), 50, got.row(i).data());
        }
        const auto truth = text.begin() + static_cast<std::ptrdiff_t>(20 + 15 * part + 1);
        const fidelity quality = compare(reference_predictions(wanted, {truth, truth + 15}), got);
        EXPECT_DOUBLE_EQ(found[part].quality.kld_mean, quality.kld_mean);
        EXPECT_DOUBLE_EQ(found[part].quality.nll, quality.nll);
        EXPECT_EQ(found[part].kept_tokens_mean, static_cast<double>(small.layer(0).rows(0)));
        EXPECT_LE(found[part].kept_tokens_mean, 24 + 5);
    }
    EXPECT_GT(found.back().quality.kld_mean, 0.0);
}

TEST(Stream, KeepsWhatThePolicySaysOfItself) {
    const llama model = lab_test::load(lab_test::tiny_model().file());
    const stream_options options{.prompt = 60, .tokens = 40, .budget = 40, .compress_every = 4};
    const auto rows = run_stream(plan_of("full+codec(k=f16,v=f16,sinks=f16),snapkv(sinks=2,recent="
                                         "8,window=4)+codec(k=f16,v=f16,sinks=f16,keep=0.5)"),
                                 options,
                                 "text",
                                 some_text(101),
                                 model);
    ASSERT_EQ(rows.size(), 2 * stream_parts);
    for (std::size_t part = 0; part < stream_parts; ++part) {
        EXPECT_EQ(rows[part].kept_tokens_mean, static_cast<double>(rows[part].context));
        const measurement& half = rows[stream_parts + part];
        EXPECT_EQ(half.keep_ratio, 0.5);
        EXPECT_GE(half.kept_tokens_mean, 0.5 * static_cast<double>(half.context));
        EXPECT_LE(half.kept_tokens_mean, 0.5 * static_cast<double>(half.context) + 6);
    }
}

TEST(Stream, RefusesBeforeItReads) {
    const llama model = lab_test::load(lab_test::tiny_model().file());
    const auto complaint = [&](const std::string& policy,
                               const stream_options& options,
                               std::size_t num_tokens) -> std::string {
        try {
            static_cast<void>(
                run_stream(plan_of(policy), options, "text", some_text(num_tokens), model));
        } catch (const std::invalid_argument& error) {
            return error.what();
        }
        return "accepted";
    };
    const std::string small = "snapkv(sinks=2,recent=8,window=4)";
    const stream_options fits{.prompt = 20, .tokens = 60, .budget = 24, .compress_every = 5};
    EXPECT_EQ(complaint(small, fits, 81), "accepted");
    EXPECT_THAT(complaint(small, fits, 80), HasSubstr("text \"text\" has 79 tokens"));
    EXPECT_THAT(complaint(small, {.prompt = 600, .tokens = 101}, 1000), HasSubstr("700"));
    EXPECT_THAT(complaint(small, {.prompt = 20, .tokens = 3}, 81), HasSubstr("at least 4"));
    EXPECT_THAT(complaint(small, {.prompt = 20, .tokens = 60, .budget = 9}, 81), HasSubstr("9"));
    EXPECT_THAT(complaint(small, {.prompt = 2, .tokens = 4, .budget = 9}, 81), HasSubstr("9"))
        << "though so few rows would all be kept";
    EXPECT_EQ(complaint("full+codec(k=f16,v=f16,sinks=f16)",
                        {.prompt = 0, .tokens = 8, .budget = 60, .compress_every = 1},
                        81),
              "accepted");
    EXPECT_EQ(complaint("ada_kv(" + small + ")", fits, 81), "accepted") << "heads may differ";
}

} // namespace
