// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/select/diverse_kv.hpp>

#include "reference/chunk_kv.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(Selector<diverse_kv_selector, kv_view<float>>);

using tokens = std::vector<token_index>;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();

struct cache {
    kv_shape shape;
    std::vector<float> keys;
    [[nodiscard]] kv_view<float> view() { return {keys, keys, shape}; }
};

selection select(const diverse_kv_selector& policy,
                 cache& data,
                 const std::vector<float>& scores,
                 const area_sizes& sizes,
                 std::size_t count) {
    policy.validate();
    const std::size_t heads = data.shape.num_kv_heads;
    const std::size_t n = data.shape.seq_len;
    const std::vector<std::size_t> counts(heads, count);
    test::owned_scratch memory(policy.scratch_bytes({data.shape, heads}));
    selection out;
    out.reserve(heads, heads * n);
    policy.select({const_head_scores(scores, heads, n), {}, areas(sizes, n), counts, memory.get()},
                  out,
                  data.view());
    return out;
}

/// Mean cosine of all pairs of tokens of two groups, over the heads named.
double similarity(const cache& data,
                  const std::vector<std::size_t>& heads,
                  const std::vector<std::size_t>& a,
                  const std::vector<std::size_t>& b) {
    const std::size_t n = data.shape.seq_len;
    const std::size_t dim = data.shape.key_dim;
    double sum = 0.0;
    for (const std::size_t head : heads) {
        for (const std::size_t i : a) {
            for (const std::size_t j : b) {
                double dot = 0.0;
                double left = 0.0;
                double right = 0.0;
                for (std::size_t k = 0; k < dim; ++k) {
                    const auto x = static_cast<double>(data.keys[(head * n + i) * dim + k]);
                    const auto y = static_cast<double>(data.keys[(head * n + j) * dim + k]);
                    dot += x * y;
                    left += x * x;
                    right += y * y;
                }
                sum += dot / std::sqrt(left * right);
            }
        }
    }
    return sum / static_cast<double>(heads.size() * a.size() * b.size());
}

TEST(DiverseKvSelector, PicksWhatResemblesTheImportantGroupsLeast) {
    // Groups of two: the first is important, the second repeats it, the third is opposite, the fourth at right angles.
    cache data{{1, 8, 2, 2}, {1, 0, 2, 0, 1, 0, 3, 0, -1, 0, -1, 0, 0, 1, 0, 2}};
    const std::vector<float> scores{9, 9, 8, 8, 1, 1, 2, 2};
    const diverse_kv_selector policy{.group_size = 2, .share = 0.5};
    EXPECT_EQ(test::list(select(policy, data, scores, {0, 0}, 4).kept(0)), (tokens{0, 1, 4, 5}));
    EXPECT_EQ(test::list(select(policy, data, scores, {0, 0}, 5).kept(0)), (tokens{0, 1, 2, 4, 5}))
        << "what is left goes by score";
    diverse_kv_selector none = policy;
    none.share = 0.0;
    EXPECT_EQ(test::list(select(none, data, scores, {0, 0}, 4).kept(0)), (tokens{0, 1, 2, 3}));
    diverse_kv_selector all = policy;
    all.share = 1.0;
    EXPECT_EQ(test::list(select(all, data, scores, {0, 0}, 4).kept(0)), (tokens{0, 1, 4, 5}))
        << "the best group opens the set";
}

TEST(DiverseKvSelector, GreedyRoundsLookAtWhatWasPicked) {
    // Two groups oppose the important one and are alike; after one of them the third direction is less alike.
    cache data{{1, 4, 2, 2}, {1, 0, -1, 0.1F, -1, 0.1F, 0.1F, -1}};
    const std::vector<float> scores{9, 1, 1, 1};
    diverse_kv_selector policy{.group_size = 1, .share = 0.67};
    EXPECT_EQ(test::list(select(policy, data, scores, {0, 0}, 3).kept(0)), (tokens{0, 1, 3}));
    policy.rounds = 1; // as the authors
    EXPECT_EQ(test::list(select(policy, data, scores, {0, 0}, 3).kept(0)), (tokens{0, 1, 2}));
}

TEST(DiverseKvSelector, AgreesWithAllPairsOfTokens) {
    for (const std::size_t n : std::initializer_list<std::size_t>{1, 9, 64, 65, 130, 300}) {
        for (const std::size_t group : std::initializer_list<std::size_t>{1, 4, 7}) {
            if (group == 1 && n > 130) {
                continue; // all pairs, again and again
            }
            for (const chunk_sets sets : {chunk_sets::per_layer, chunk_sets::per_head}) {
                for (const std::size_t rounds : std::initializer_list<std::size_t>{1, 3, 64}) {
                    const std::size_t dim = 5;
                    const std::size_t heads = 3;
                    cache data{{heads, n, dim, dim}, {}};
                    for (std::size_t i = 0; i < heads * n * dim; ++i) {
                        data.keys.push_back(random_unit(17, n, i) - 0.5F);
                    }
                    const std::vector<float> scores = test::random_scores(heads * n, n);
                    const areas area({2, 3}, n);
                    const std::size_t count =
                        area.num_protected() + (n - area.num_protected()) * 2 / 5;
                    const diverse_kv_selector policy{
                        .group_size = group, .share = 0.4, .rounds = rounds, .sets = sets};
                    const selection kept = select(policy, data, scores, {2, 3}, count);
                    for (std::size_t head = 0; head < heads; ++head) {
                        std::vector<float> row(area.num_middle());
                        std::vector<std::size_t> members{0, 1, 2};
                        if (sets == chunk_sets::per_layer) {
                            sum_middle_scores(const_head_scores(scores, heads, n), area, row);
                        } else {
                            const auto own =
                                area.middle(const_head_scores(scores, heads, n).row(head));
                            row.assign(own.begin(), own.end());
                            members = {head};
                        }
                        const std::vector<double> wide(row.begin(), row.end());
                        const auto by_score =
                            reference::ranked(reference::chunk_means(wide, group));
                        std::vector<std::vector<std::size_t>> groups(by_score.size());
                        for (std::size_t t = 0; t < row.size(); ++t) {
                            groups[t / group].push_back(area.middle_begin + t);
                        }
                        const std::size_t budget = count - area.num_protected();
                        const std::size_t diverse = policy.num_diverse(budget);
                        std::vector<std::size_t> order(
                            by_score.begin(),
                            by_score.begin() +
                                static_cast<std::ptrdiff_t>(budget / group - diverse));
                        std::size_t left = diverse;
                        if (order.empty() && left > 0) {
                            order.push_back(by_score.front());
                            --left;
                        }
                        for (std::size_t round = std::min(rounds, left); left > 0; --round) {
                            std::vector<double> unlike;
                            for (std::size_t g = 0; g < groups.size(); ++g) {
                                double sum = 0.0;
                                for (const std::size_t other : order) {
                                    sum -= similarity(data, members, groups[g], groups[other]);
                                }
                                const bool taken =
                                    std::find(order.begin(), order.end(), g) != order.end();
                                unlike.push_back(taken ? -1e9 : sum);
                            }
                            const auto ranking = reference::ranked(unlike);
                            const std::size_t now = (left + round - 1) / round;
                            order.insert(order.end(),
                                         ranking.begin(),
                                         ranking.begin() + static_cast<std::ptrdiff_t>(now));
                            left -= now;
                        }
                        for (const std::size_t g : by_score) {
                            if (std::find(order.begin(), order.end(), g) == order.end()) {
                                order.push_back(g);
                            }
                        }
                        const auto middle = reference::take_chunks(wide, order, group, budget);
                        tokens expected;
                        for (std::size_t t = 0; t < n; ++t) {
                            if (t < area.middle_begin || t >= area.middle_end ||
                                std::binary_search(
                                    middle.begin(), middle.end(), t - area.middle_begin)) {
                                expected.push_back(static_cast<token_index>(t));
                            }
                        }
                        ASSERT_EQ(test::list(kept.kept(head)), expected)
                            << n << " tokens in groups of " << group << ", " << rounds << " rounds";
                    }
                }
            }
        }
    }
}

TEST(DiverseKvSelector, KeysThatAreNotNumbersResembleNothing) {
    for (const float odd : {nan, inf, -inf, 0.0F, 3e38F}) {
        cache data{{1, 6, 1, 1}, {1, 1, odd, odd, 1, 1}};
        const std::vector<float> scores{9, 9, 0, 0, 1, 1};
        const selection kept = select({.group_size = 2, .share = 0.5}, data, scores, {0, 0}, 4);
        EXPECT_EQ(test::list(kept.kept(0)), (tokens{0, 1, 2, 3})) << odd;
    }
}

TEST(DiverseKvSelector, LayoutsAreInvisible) {
    const kv_shape shape{3, 90, 16, 7};
    std::vector<selection> answers;
    test::with_every_layout<f16>(shape, [&](const auto& kv) {
        compressor crush(knorm_scorer{}, diverse_kv_selector{.group_size = 8, .share = 0.5});
        crush.plan({shape, 3}, budget::tokens(70));
        answers.push_back(crush.select(kv));
    });
    for (const selection& answer : answers) {
        EXPECT_EQ(answer, answers.front());
        EXPECT_EQ(answer.kept(0).size(), 70U);
    }
}

TEST(DiverseKvSelector, SaysWhatIsWrong) {
    EXPECT_THROW(diverse_kv_selector{.group_size = 0}.validate(), std::invalid_argument);
    EXPECT_THROW(diverse_kv_selector{.share = 1.01}.validate(), std::invalid_argument);
    EXPECT_THROW(diverse_kv_selector{.share = -0.1}.validate(), std::invalid_argument);
    EXPECT_THROW(diverse_kv_selector{.rounds = 0}.validate(), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
