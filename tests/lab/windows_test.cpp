// SPDX-License-Identifier: Apache-2.0
// The whole path on the real model: prefill, compress, continue; against curves of an independent implementation.
#include "compression.hpp"
#include "eviction.hpp"
#include "experiment.hpp"
#include "gguf.hpp"
#include "model.hpp"
#include "model_path.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace lab {
namespace {

struct known_windows {
    nlohmann::json recorded = lab_test::known_answer("lm_windows.json");
    llama model = llama::load(gguf_file(lab_test::require_model()));
    std::vector<window> windows;

    known_windows() {
        for (const auto& entry : recorded["windows"]) {
            windows.push_back({entry["name"],
                               entry["context"].get<std::vector<int>>(),
                               entry["continuation"].get<std::vector<int>>()});
        }
    }
    [[nodiscard]] double expected(const std::string& policy) const {
        double sum = 0.0;
        for (const auto& value : recorded["kld_mean_at_0.25"][policy]) {
            sum += value.get<double>() / static_cast<double>(windows.size());
        }
        return sum;
    }
};

TEST(ModelWindows, ReproduceTheReferenceCurves) {
    const known_windows known;
    experiment plan;
    const std::vector<std::string> exact{"snapkv",
                                         "h2o",
                                         "h2o(normalise=none)",
                                         "streaming_llm",
                                         "knorm",
                                         "kvcrush(snapkv,anchor=zeros,share=0.25)",
                                         "kvcrush(h2o(normalise=none),anchor=zeros,share=0.25)"};
    plan.policies =
        parse_policies("full,random(seed=0),random(seed=1),random(seed=2),random(seed=3)");
    for (const std::string& text : exact) {
        plan.policies.push_back(parse_policy(text));
    }
    plan.keep_ratios = {0.25};
    std::vector<measurement> results = run(plan, known.windows, known.model);
    append_means(results);

    double random_mean = 0.0;
    std::map<std::string, double> divergence;
    for (const measurement& m : results) {
        if (m.name != "mean") {
            const double recorded = known.recorded["nll_full"][m.name];
            EXPECT_NEAR(m.nll_full, recorded, 0.002 * recorded) << m.name;
            EXPECT_EQ(m.bytes_full, 2.0 * 2 * 30 * 3 * 64 * 1024);
        } else if (m.policy.starts_with("random")) {
            random_mean += m.quality.kld_mean / 4.0;
        } else {
            divergence[m.policy] = m.quality.kld_mean;
        }
    }
    for (const std::string& policy : exact) { // too good is as suspicious as too bad
        EXPECT_NEAR(divergence[policy], known.expected(policy), 0.08 * known.expected(policy))
            << policy;
    }
    EXPECT_NEAR(random_mean, known.expected("random"), 0.15 * known.expected("random"));
    EXPECT_EQ(divergence["full"], 0.0);
}

TEST(ModelCompression, IsReal) {
    const known_windows known;
    const std::vector<int> context(known.windows[0].context.begin(),
                                   known.windows[0].context.begin() + 300);
    const std::vector<int> next(known.windows[0].context.begin() + 300,
                                known.windows[0].context.begin() + 320);
    kvcrush::kv_cache prefilled = known.model.make_cache(cache_type::f32);
    static_cast<void>(known.model.forward(context, prefilled, 0));

    const auto difference = [&](kvcrush::kv_cache a, kvcrush::kv_cache b) {
        const matrix x = known.model.forward(next, a, next.size());
        const matrix y = known.model.forward(next, b, next.size());
        double largest = 0.0;
        for (std::size_t i = 0; i < x.rows() * x.cols(); ++i) {
            largest = std::max(
                largest,
                std::abs(static_cast<double>(x.data()[i]) - static_cast<double>(y.data()[i])));
        }
        return largest;
    };

    // Keeping everything changes no logit.
    const policy keeps_all = parse_policy("kvcrush(snapkv)");
    kvcrush::kv_cache kept_all = copy_for(prefilled, keeps_all);
    const cache_history history{known.model, context};
    static_cast<void>(compress(kept_all, history, keeps_all.at(1.0)));
    EXPECT_EQ(difference(prefilled, kept_all), 0.0);

    for (const char* text : {"snapkv", "knorm", "kvcrush(h2o,share=0.5)"}) {
        const policy how = parse_policy(text);
        kvcrush::kv_cache compressed = copy_for(prefilled, how);
        const timed_compression done = compress(compressed, history, how.at(0.25));
        EXPECT_EQ(done.kept_tokens_mean, 75.0);
        EXPECT_EQ(compressed.tokens_seen(), 300U) << "positions go on at the tokens seen";

        // What is held is what is allocated: rows of K and V in f32, and a bit per token for positions.
        EXPECT_EQ(done.bytes_held, 30U * 3 * (75 * 2 * 64 * sizeof(float) + 5 * 8)) << text;

        // A cache to which the kept rows alone were ever added answers the same.
        kvcrush::kv_cache rebuilt = known.model.make_cache(cache_type::f32);
        for (std::size_t l = 0; l < 30; ++l) {
            for (std::size_t head = 0; head < 3; ++head) {
                const std::vector<float> keys = lab_test::rows_of(prefilled, l, head, true);
                const std::vector<float> values = lab_test::rows_of(prefilled, l, head, false);
                for (const kvcrush::token_index token : done.kept[l].kept(head)) {
                    ASSERT_TRUE(rebuilt.layer(l).append_row(
                        head,
                        std::span(keys).subspan(token * 64, 64),
                        std::span(values).subspan(token * 64, 64),
                        token));
                }
                const auto kept = done.kept[l].kept(head);
                EXPECT_EQ(lab_test::positions_of(compressed, l, head),
                          std::vector<std::size_t>(kept.begin(), kept.end()));
            }
        }
        EXPECT_LT(difference(rebuilt, compressed), 1e-4) << text;
    }
}

} // namespace
} // namespace lab
