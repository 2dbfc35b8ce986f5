// SPDX-License-Identifier: Apache-2.0
// The real model against recorded answers. Few and large tests: each one loads the model anew.
#include "eviction.hpp"
#include "generate.hpp"
#include "model.hpp"
#include "model_path.hpp"
#include "tokenizer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <numeric>
#include <sstream>
#include <vector>

namespace {

using lab::cache_type;
using kvcrush::kv_cache;
using lab_test::known_answer;
using lab_test::largest_difference;

constexpr const char* long_text_path = "/usr/share/common-licenses/GPL-3";

class ModelForward : public testing::Test {
protected:
    /// Not in SetUpTestSuite: there, a missing model would count as a skipped test.
    void SetUp() override {
        if (model_ != nullptr) {
            return;
        }
        const lab::gguf_file file(lab_test::require_model());
        tokenizer_ = std::make_unique<lab::tokenizer>(file);
        model_ = std::make_unique<lab::llama>(lab::llama::load(file));
    }
    static void TearDownTestSuite() {
        model_.reset();
        tokenizer_.reset();
    }

    static std::vector<int> long_text() {
        std::ifstream in(long_text_path, std::ios::binary);
        std::ostringstream text;
        text << in.rdbuf();
        if (!in) {
            throw std::runtime_error(std::string("cannot read ") + long_text_path +
                                     " (Debian package base-files)");
        }
        return tokenizer_->encode(text.str());
    }

    static const lab::llama& model() { return *model_; }
    static const lab::tokenizer& tokenizer() { return *tokenizer_; }

private:
    static std::unique_ptr<lab::tokenizer> tokenizer_;
    static std::unique_ptr<lab::llama> model_;
};

std::unique_ptr<lab::tokenizer> ModelForward::tokenizer_;
std::unique_ptr<lab::llama> ModelForward::model_;

/// log(softmax(logits)[id]) in double
double log_probability(std::span<const float> logits, int id) {
    const auto largest = static_cast<double>(*std::ranges::max_element(logits));
    double sum = 0.0;
    for (const float logit : logits) {
        sum += std::exp(static_cast<double>(logit) - largest);
    }
    return static_cast<double>(logits[static_cast<std::size_t>(id)]) - largest - std::log(sum);
}

std::vector<int> largest_ids(std::span<const float> logits, std::size_t count) {
    std::vector<int> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::ranges::partial_sort(ids,
                              ids.begin() + static_cast<std::ptrdiff_t>(count),
                              std::ranges::greater{},
                              [&](int id) { return logits[static_cast<std::size_t>(id)]; });
    ids.resize(count);
    return ids;
}

/// log p(ids[t + 1] | ids[0..t]) for every t, without holding all logits at once.
std::vector<double>
log_probabilities(const lab::llama& model, kv_cache& cache, std::span<const int> ids) {
    std::vector<double> result;
    constexpr std::size_t piece = lab::llama::chunk_size;
    for (std::size_t first = 0; first < ids.size(); first += piece) {
        const auto part = ids.subspan(first, (std::min)(piece, ids.size() - first));
        const lab::matrix logits = model.forward(part, cache, part.size());
        for (std::size_t t = 0; t < part.size() && first + t + 1 < ids.size(); ++t) {
            result.push_back(log_probability(logits.row(t), ids[first + t + 1]));
        }
    }
    return result;
}

double mean(std::span<const double> values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TEST_F(ModelForward, ReproducesRecordedPrompts) {
    const auto& config = model().config();
    EXPECT_EQ(config.num_layers, 30U);
    EXPECT_EQ(config.num_q_heads, 9U);
    EXPECT_EQ(config.num_kv_heads, 3U);
    EXPECT_EQ(config.head_dim, 64U);
    EXPECT_EQ(config.context_length, 8192U);
    const auto recorded = known_answer("smollm2_logits.json");
    ASSERT_EQ(recorded.at("cases").size(), 4U);
    for (const auto& item : recorded.at("cases")) {
        const auto prompt = item.at("prompt").get<std::string>();
        SCOPED_TRACE(prompt);
        const auto ids = item.at("ids").get<std::vector<int>>();
        EXPECT_EQ(tokenizer().encode(prompt), ids);
        kv_cache cache = model().make_cache(cache_type::f32);
        const lab::matrix logits = model().forward(ids, cache, ids.size());
        const auto last = logits.row(ids.size() - 1);
        const auto top_ids = item.at("top10_ids").get<std::vector<int>>();
        EXPECT_EQ(largest_ids(last, 10), top_ids);
        for (std::size_t i = 0; i < top_ids.size(); ++i) {
            EXPECT_NEAR(static_cast<double>(last[static_cast<std::size_t>(top_ids[i])]),
                        item.at("top10_logits").at(i).get<double>(),
                        2e-3);
        }
        std::vector<double> of_prompt;
        for (std::size_t t = 0; t + 1 < ids.size(); ++t) {
            of_prompt.push_back(log_probability(logits.row(t), ids[t + 1]));
        }
        EXPECT_NEAR(mean(of_prompt), item.at("mean_logprob_of_prompt").get<double>(), 1e-3);
    }
}

TEST_F(ModelForward, ReproducesRecordedContinuations) {
    for (const auto& item : known_answer("smollm2_logits.json").at("cases")) {
        const auto ids = item.at("ids").get<std::vector<int>>();
        kv_cache cache = model().make_cache(cache_type::f32);
        lab::generation_options options{.max_new_tokens = 32};
        options.end_token = tokenizer().end_token();
        const auto tokens = generate(model(), cache, ids, options);
        EXPECT_EQ(tokens, item.at("greedy_32").get<std::vector<int>>());
        EXPECT_EQ(tokenizer().decode(tokens), item.at("greedy_text").get<std::string>());
    }
}

TEST_F(ModelForward, ReproducesTheRecordedNllOfALongText) {
    const auto recorded = known_answer("smollm2_logits.json").at("long_text");
    auto ids = long_text();
    EXPECT_EQ(ids.size(), recorded.at("total_tokens").get<std::size_t>());
    ASSERT_GE(ids.size(), 2048U);
    ids.resize(2048);
    const auto first = recorded.at("first_ids_of_the_2048").get<std::vector<int>>();
    const auto last = recorded.at("last_ids_of_the_2048").get<std::vector<int>>();
    EXPECT_TRUE(std::ranges::equal(first, std::span(ids).first(first.size())));
    EXPECT_TRUE(std::ranges::equal(last, std::span(ids).last(last.size())));
    kv_cache cache = model().make_cache(cache_type::f32);
    const auto of_text = log_probabilities(model(), cache, ids);
    ASSERT_EQ(of_text.size(), 2047U);
    EXPECT_NEAR(-mean(of_text), recorded.at("nll_mean").get<double>(), 1e-3);
    EXPECT_NEAR(-mean(std::span(of_text).last(1024)),
                recorded.at("nll_mean_last_1024").get<double>(),
                1e-3);
}

TEST_F(ModelForward, EvictedRowsAreGoneAndHalfPrecisionIsClose) {
    auto ids = long_text();
    ids.resize(360);
    const auto before = std::span(ids).first(300);
    const auto after = std::span(ids).last(60);
    std::vector<double> nll;
    for (const cache_type type : {cache_type::f32, cache_type::f16}) {
        kv_cache full = model().make_cache(type);
        static_cast<void>(model().forward(before, full, 0));
        kv_cache evicted = full;
        evicted.apply(lab_test::random_choice(full, 11));
        kv_cache one_by_one = evicted;
        const lab::matrix together = model().forward(after, evicted, after.size());
        double largest = 0.0;
        for (std::size_t t = 0; t < after.size(); ++t) {
            const lab::matrix logits = model().forward(after.subspan(t, 1), one_by_one, 1);
            largest = (std::max)(largest, largest_difference(logits.row(0), together.row(t)));
        }
        EXPECT_LT(largest, type == cache_type::f32 ? 2e-3 : 5e-2);
        EXPECT_EQ(evicted.tokens_seen(), 360U);
        EXPECT_EQ(evicted.layer(0).rows(0), 60U); // all of the first 300 were evicted
        EXPECT_EQ(lab_test::positions_of(evicted, 0, 0).front(), 300U);
        EXPECT_EQ(lab_test::positions_of(evicted, 29, 2).back(), 359U);
        nll.push_back(-mean(log_probabilities(model(), full, after)));
    }
    EXPECT_NEAR(
        nll[0], nll[1], 0.01); // 11-bit keys and values move the mean by less than a hundredth
}

} // namespace
