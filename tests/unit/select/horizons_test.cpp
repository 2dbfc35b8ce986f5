// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/retention/glob.hpp>
#include <kvcrush/retention/key_diff.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/streaming_llm.hpp>
#include <kvcrush/select/horizons.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/horizons.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

static_assert(Selector<horizons_selector, kv_view<const float>, query_view>);

using tokens = std::vector<token_index>;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

struct example {
    kv_shape shape;
    std::size_t num_q_heads;
    std::size_t num_queries;
    std::vector<float> keys;
    std::vector<float> queries;

    example(std::size_t heads, std::size_t group, std::size_t length, std::size_t dim)
        : shape{heads, length, dim, dim},
          num_q_heads(heads * group),
          num_queries((std::min)(length, std::size_t{256})),
          keys(heads * length * dim),
          queries(num_q_heads * num_queries * dim) {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            keys[i] = random_unit(1, length, i) - 0.3F;
        }
        for (std::size_t i = 0; i < queries.size(); ++i) {
            queries[i] = 5.0F * (random_unit(2, length, i) - 0.5F);
        }
    }
    [[nodiscard]] kv_view<const float> kv() const {
        return kv_view<const float>(keys, keys, shape);
    }
    [[nodiscard]] query_view asking() const {
        return {queries, num_q_heads, num_queries, shape.key_dim};
    }
    [[nodiscard]] problem_size size() const { return {shape, num_q_heads}; }
};

tokens keep(const example& data,
            const horizons_selector& policy,
            std::size_t count,
            std::size_t head = 0) {
    compressor crush(streaming_llm_scorer{}, policy);
    crush.plan(data.size(), budget::tokens(count, {2, 5}));
    return test::list(crush.select(data.kv(), data.asking()).kept(head));
}

/// What a scorer gives each kv head.
template <typename Scorer>
std::vector<float> scores_of(const Scorer& scorer, const example& data) {
    const std::size_t n = data.shape.seq_len;
    const std::size_t heads = num_observed_heads(scorer, data.size());
    std::vector<float> observed(heads * n);
    std::vector<float> folded(data.shape.num_kv_heads * n);
    test::owned_scratch memory(scorer_scratch_bytes(scorer, data.size()));
    observe(scorer, head_scores(observed, heads, n), memory.get(), data.kv(), data.asking());
    const const_head_scores scores = reduce(scorer,
                                            const_head_scores(observed, heads, n),
                                            head_scores(folded, data.shape.num_kv_heads, n),
                                            memory.get());
    return {scores.values().begin(), scores.values().end()};
}

/// Tokens [begin, end) by score, the best first.
std::vector<std::size_t>
best_first(const std::vector<float>& scores, std::size_t begin, std::size_t end) {
    std::vector<std::size_t> order(end - begin);
    std::iota(order.begin(), order.end(), begin);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return scores[a] > scores[b];
    });
    return order;
}

struct lists {
    std::vector<std::size_t> near;
    std::vector<std::size_t> unlike;
    std::vector<std::size_t> far;
};

lists lists_of(const example& data, std::size_t head, std::size_t kernel) {
    const std::size_t n = data.shape.seq_len;
    const std::size_t end = n - 5;
    const std::vector<float> near = scores_of(
        snapkv_scorer{.observation_window = 1, .pooling_kernel_size = kernel, .shared = true},
        data);
    const std::vector<float> far = scores_of(glob_scorer{.last = 256}, data);
    const std::vector<float> directions = scores_of(key_diff_scorer{}, data);
    std::vector<float> total(n);
    for (std::size_t h = 0; h < data.shape.num_kv_heads; ++h) {
        for (std::size_t t = 0; t < n; ++t) {
            total[t] += directions[h * n + t];
        }
    }
    std::vector<float> pooled(n);
    for (std::size_t t = 2; t < end; ++t) {
        pooled[t] = total[t];
        for (std::size_t other = 2; other < end; ++other) {
            if (other + kernel / 2 >= t && other <= t + kernel / 2) {
                pooled[t] = (std::max)(pooled[t], total[other]);
            }
        }
    }
    const std::vector<float> own(far.begin() + static_cast<std::ptrdiff_t>(head * n),
                                 far.begin() + static_cast<std::ptrdiff_t>((head + 1) * n));
    return {best_first(near, 2, end), best_first(pooled, 2, end), best_first(own, 2, end)};
}

TEST(Horizons, ReadsItsListsTogether) {
    const horizons_selector policy;
    for (const std::size_t group : std::initializer_list<std::size_t>{1, 3, 4, 7, 8}) {
        const example data(2, group, 60 + 37 * group, 16 + 8 * group);
        for (std::size_t head = 0; head < 2; ++head) {
            const lists judged = lists_of(data, head, policy.pooling_kernel_size);
            for (const std::size_t count : std::initializer_list<std::size_t>{8, 12, 30, 55}) {
                const std::set<std::size_t> middle =
                    reference::read_together({{judged.near, policy.near_share},
                                              {judged.unlike, policy.unlike_share},
                                              {judged.far, 1.0 - policy.near_share - policy.unlike_share}},
                                             count - 7);
                tokens expected{0, 1};
                expected.insert(expected.end(), middle.begin(), middle.end());
                for (std::size_t t = data.shape.seq_len - 5; t < data.shape.seq_len; ++t) {
                    expected.push_back(static_cast<token_index>(t));
                }
                EXPECT_EQ(keep(data, policy, count, head), expected)
                    << "group " << group << ", head " << head << ", count " << count;
            }
        }
    }
}

TEST(Horizons, EachJudgeGetsItsShareAtLeast) {
    const horizons_selector policy{.near_share = 0.5, .unlike_share = 0.25};
    const example data(3, 3, 400, 64);
    for (std::size_t head = 0; head < 3; ++head) {
        const tokens kept = keep(data, policy, 107, head);
        const std::set<std::size_t> all(kept.begin(), kept.end());
        const lists judged = lists_of(data, head, policy.pooling_kernel_size);
        const auto has_best = [&](const std::vector<std::size_t>& list, std::size_t best) {
            for (std::size_t i = 0; i < best; ++i) {
                EXPECT_TRUE(all.contains(list[i])) << "head " << head << ", place " << i;
            }
        };
        has_best(judged.near, 50);
        has_best(judged.unlike, 25);
        has_best(judged.far, 25);
    }
}

TEST(Horizons, OneJudgeAloneIsThatScorer) {
    const example data(2, 4, 300, 32);
    const auto plain = [&](const auto& scorer) {
        compressor crush(scorer, top_k_selector{});
        crush.plan(data.size(), budget::tokens(90, {2, 5}));
        return test::list(crush.select(data.kv(), data.asking()).kept(1));
    };
    EXPECT_EQ(keep(data, {.near_share = 1.0, .unlike_share = 0.0}, 90, 1),
              plain(snapkv_scorer{.observation_window = 1, .shared = true}));
    EXPECT_EQ(keep(data, {.near_share = 0.0, .unlike_share = 0.0}, 90, 1), plain(glob_scorer{.last = 256}));
}

TEST(Horizons, KeepsWhatItMayWhateverTheData) {
    example data(2, 2, 80, 8);
    for (std::size_t c = 0; c < 8; ++c) {
        data.keys[40 * 8 + c] = nan;
        data.keys[(80 + 41) * 8 + c] = std::numeric_limits<float>::infinity();
    }
    for (const std::size_t count : std::initializer_list<std::size_t>{7, 8, 40, 79, 80}) {
        const tokens kept = keep(data, {}, count);
        EXPECT_EQ(kept.size(), count);
        EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
    }
    std::fill(data.queries.begin(), data.queries.end(), nan);
    EXPECT_EQ(keep(data, {}, 40).size(), 40U);
}

TEST(Horizons, IsTheSameInEveryLayoutAndForHalves) {
    const kv_shape shape{3, 120, 16, 16};
    const std::vector<float> queries(6 * 120 * 16, 0.25F);
    tokens first;
    test::with_every_layout<f16>(shape, [&](const auto& kv) {
        compressor crush(streaming_llm_scorer{}, horizons_selector{});
        crush.plan({shape, 6}, budget::tokens(60));
        const tokens kept = test::list(crush.select(kv, query_view(queries, 6, 120, 16)).kept(2));
        first = first.empty() ? kept : first;
        EXPECT_EQ(kept, first);
    });
    EXPECT_EQ(first.size(), 60U);
}

TEST(Horizons, RefusesSharesBeyondTheBudget) {
    const auto message = [](const horizons_selector& policy) {
        try {
            policy.validate();
        } catch (const std::invalid_argument& error) {
            return std::string(error.what());
        }
        return std::string("taken");
    };
    EXPECT_EQ(message({.near_share = 1.5}), "kvcrush::horizons: near is 1.5; it must lie in [0, 1]");
    EXPECT_EQ(message({.near_share = nan}), "kvcrush::horizons: near is nan; it must lie in [0, 1]");
    EXPECT_EQ(message({.near_share = 0.5, .unlike_share = 0.75}),
              "kvcrush::horizons: unlike is 0.75; it must lie in [0, 1 - near], near is 0.5");
    EXPECT_EQ(message({.unlike_share = -0.1}),
              "kvcrush::horizons: unlike is -0.1; it must lie in [0, 1 - near], near is 0.4");
    EXPECT_EQ(message({.pooling_kernel_size = 4}),
              "kvcrush::horizons: kernel is 4; it must be odd");
    EXPECT_EQ(message({.near_share = 0.0, .unlike_share = 1.0}), "taken");
}

} // namespace
} // namespace kvcrush
