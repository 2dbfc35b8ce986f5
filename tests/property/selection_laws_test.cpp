// SPDX-License-Identifier: Apache-2.0
// The rules that every policy obeys, over ragged sizes, hostile keys and every layout.
#include <kvcrush/kvcrush.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

namespace kvcrush {
namespace {

constexpr std::size_t num_q_heads = 6;
constexpr std::size_t num_kv_heads = 3;

template <typename ScorerT, typename SelectorT>
struct policy_pair {
    using scorer = ScorerT;
    using selector = SelectorT;
};

using every_policy = testing::Types<
    policy_pair<h2o_scorer, top_k_selector>,
    policy_pair<snapkv_scorer, top_k_selector>,
    policy_pair<knorm_scorer, top_k_selector>,
    policy_pair<streaming_llm_scorer, top_k_selector>,
    policy_pair<random_scorer, top_k_selector>,
    policy_pair<h2o_scorer, kvcrush_selector<>>,
    policy_pair<snapkv_scorer, kvcrush_selector<step_picker>>,
    policy_pair<knorm_scorer, kvcrush_selector<most_important_picker>>,
    policy_pair<random_scorer, kvcrush_selector<linspace_picker, snapkv_scorer>>,
    policy_pair<streaming_llm_scorer, kvcrush_selector<>>,
    policy_pair<snapkv_scorer, kvcrush_selector<farthest_picker, own_scores, key_sign_signature>>,
    policy_pair<snapkv_scorer, kvcrush_selector<second_score_picker<h2o_scorer>>>,
    policy_pair<knorm_scorer, kvcrush_selector<second_score_picker<knorm_scorer>>>,
    policy_pair<tova_scorer, chunk_kv_selector>,
    policy_pair<alisa_scorer, critical_kv_selector<>>,
    policy_pair<glob_scorer, diverse_kv_selector>,
    policy_pair<key_diff_scorer, prefix_suffix_selector>,
    policy_pair<lag_kv_scorer, partition_selector>,
    policy_pair<r_kv_scorer, kvcrush_selector<>>,
    policy_pair<keyformer_scorer, top_k_selector>,
    policy_pair<expected_attention_scorer, top_k_selector>,
    policy_pair<squared_attention_scorer, top_k_selector>>;

enum class numbers { ordinary, all_equal, with_nan, with_infinities };

float number(numbers kind, std::uint64_t stream, std::size_t i) {
    const float x = 4.0F * (random_unit(99, stream, i) - 0.5F);
    const std::uint64_t dice = random_bits(98, stream, i) % 50;
    switch (kind) {
    case numbers::all_equal: return 1.0F;
    case numbers::with_nan: return dice == 0 ? std::numeric_limits<float>::quiet_NaN() : x;
    case numbers::with_infinities:
        return dice == 0 ? std::numeric_limits<float>::infinity()
                         : (dice == 1 ? -std::numeric_limits<float>::infinity() : x);
    case numbers::ordinary: break;
    }
    return x;
}

struct cache {
    cache(numbers kind, std::size_t tokens, std::size_t dim)
        : shape{num_kv_heads, tokens, dim, dim},
          keys(num_kv_heads * tokens * dim),
          queries(num_q_heads * tokens * dim) {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            keys[i] = number(kind, 0, i);
        }
        for (std::size_t i = 0; i < queries.size(); ++i) {
            queries[i] = number(kind, 1, i);
        }
    }
    [[nodiscard]] kv_view<float> kv() { return {keys, keys, shape}; }
    [[nodiscard]] query_view all_queries() const {
        return {queries, num_q_heads, shape.seq_len, shape.key_dim};
    }

    kv_shape shape;
    std::vector<float> keys;
    std::vector<float> queries;
};

template <typename Policy>
class SelectionLaws : public testing::Test {
protected:
    selection select(cache& data, const budget& tokens) {
        compressor crush(typename Policy::scorer{}, typename Policy::selector{});
        crush.plan({data.shape, num_q_heads}, tokens);
        return crush.select(data.kv(), data.all_queries());
    }
};
TYPED_TEST_SUITE(SelectionLaws, every_policy);

TYPED_TEST(SelectionLaws, ExactBudgetAscendingUniqueProtected) {
    for (const numbers kind :
         {numbers::ordinary, numbers::all_equal, numbers::with_nan, numbers::with_infinities}) {
        for (const std::size_t tokens :
             std::initializer_list<std::size_t>{0, 1, 2, 35, 36, 37, 63, 64, 65, 131}) {
            for (const area_sizes sizes : {area_sizes{}, area_sizes{0, 0}, area_sizes{3, 1}}) {
                for (const std::size_t wanted :
                     std::initializer_list<std::size_t>{0, 1, 4, 36, 50, 64, 1000}) {
                    const std::size_t always = areas(sizes, tokens).num_protected();
                    if (wanted < always && always < tokens) {
                        continue; // refused by the budget
                    }
                    cache data(kind, tokens, 5);
                    const selection kept = this->select(data, budget::tokens(wanted, sizes));
                    const std::size_t expected = (std::min)(tokens, (std::max)(wanted, always));
                    ASSERT_EQ(kept.num_kv_heads(), num_kv_heads);
                    for (std::size_t head = 0; head < num_kv_heads; ++head) {
                        const auto list = kept.kept(head);
                        ASSERT_EQ(list.size(), expected) << tokens << " tokens, budget " << wanted;
                        for (std::size_t i = 0; i < list.size(); ++i) {
                            ASSERT_LT(list[i], tokens);
                            ASSERT_TRUE(i == 0 || list[i - 1] < list[i]);
                        }
                        const areas area(sizes, tokens);
                        for (std::size_t t = 0; t < tokens; ++t) {
                            if (t < area.middle_begin || t >= area.middle_end) {
                                ASSERT_TRUE(std::binary_search(
                                    list.begin(), list.end(), static_cast<token_index>(t)))
                                    << "token " << t << " of " << tokens;
                            }
                        }
                    }
                }
            }
        }
    }
}

TYPED_TEST(SelectionLaws, SameInputSameAnswer) {
    cache data(numbers::ordinary, 150, 16);
    EXPECT_EQ(this->select(data, budget::keep_ratio(0.5)),
              this->select(data, budget::keep_ratio(0.5)));
}

TYPED_TEST(SelectionLaws, LayoutsAreInvisible) {
    const kv_shape shape{num_kv_heads, 90, 16, 7};
    std::vector<float> queries(num_q_heads * shape.seq_len * shape.key_dim);
    for (std::size_t i = 0; i < queries.size(); ++i) {
        queries[i] = number(numbers::ordinary, 1, i);
    }
    std::vector<selection> answers;
    test::with_every_layout<f16>(shape, [&](const auto& kv) {
        compressor crush(typename TypeParam::scorer{}, typename TypeParam::selector{});
        crush.plan({shape, num_q_heads}, budget::keep_ratio(0.5));
        answers.push_back(
            crush.select(kv, query_view(queries, num_q_heads, shape.seq_len, shape.key_dim)));
    });
    for (const selection& answer : answers) {
        EXPECT_EQ(answer, answers.front());
    }
}

/// Head order must not matter: permuting the kv heads (with their groups of query heads) permutes the answer.
/// The baselines that draw per head, and portraits whose anchor is symmetric, are covered by what they promise.
TEST(HeadPermutation, SnapkvPermutesWithItsHeads) {
    cache data(numbers::ordinary, 100, 8);
    cache turned = data;
    const std::size_t kv_block = 100 * 8;
    const std::size_t q_block = 2 * 100 * 8;
    std::rotate(turned.keys.begin(),
                turned.keys.begin() + static_cast<std::ptrdiff_t>(kv_block),
                turned.keys.end());
    std::rotate(turned.queries.begin(),
                turned.queries.begin() + static_cast<std::ptrdiff_t>(q_block),
                turned.queries.end());
    compressor crush(snapkv_scorer{}, kvcrush_selector<>{});
    crush.plan({data.shape, num_q_heads}, budget::tokens(60));
    const selection kept = crush.select(data.kv(), data.all_queries());
    const selection moved = crush.select(turned.kv(), turned.all_queries());
    for (std::size_t head = 0; head < num_kv_heads; ++head) {
        EXPECT_EQ(test::list(moved.kept(head)), test::list(kept.kept((head + 1) % num_kv_heads)));
    }
}

TEST(LargerBudgets, TopKKeepsASuperset) {
    cache data(numbers::ordinary, 120, 8);
    compressor crush(h2o_scorer{}, top_k_selector{});
    selection smaller;
    for (std::size_t tokens = 36; tokens <= 120; tokens += 7) {
        crush.plan({data.shape, num_q_heads}, budget::tokens(tokens));
        const selection kept = crush.select(data.kv(), data.all_queries());
        for (std::size_t head = 0; head < smaller.num_kv_heads(); ++head) {
            const auto now = kept.kept(head);
            const auto before = smaller.kept(head);
            EXPECT_TRUE(std::includes(now.begin(), now.end(), before.begin(), before.end()))
                << tokens;
        }
        smaller = kept;
    }
}

} // namespace
} // namespace kvcrush
