// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/critical_kv.hpp>

#include "reference/chunk_kv.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(Selector<critical_kv_selector<>, kv_view<float>>);
static_assert(Selector<critical_kv_selector<given_value_norms>>);

using tokens = std::vector<token_index>;
using given = critical_kv_selector<given_value_norms>;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();

template <typename Policy, typename... Inputs>
tokens select(const Policy& policy,
              const std::vector<float>& scores,
              const area_sizes& sizes,
              std::size_t count,
              const Inputs&... inputs) {
    policy.validate();
    const std::size_t n = scores.size();
    const std::array<std::size_t, 1> counts{count};
    test::owned_scratch memory(policy.scratch_bytes({{1, n, 0, 0}, 1}));
    selection out;
    out.reserve(1, n);
    policy.select({const_head_scores(scores, 1, n), {}, areas(sizes, n), counts, memory.get()},
                  out,
                  inputs...);
    return test::list(out.kept(0));
}

TEST(CriticalKvSelector, ReproducesTheKnownAnswer) {
    // Known answer 11 of the specification: stage 1 keeps 0, stage 2 adds 3.
    const std::vector<float> norms{1, 1, 2, 9};
    const given policy{.norms = {const_head_scores(norms, 1, 4)}};
    EXPECT_EQ(select(policy, {0.4F, 0.3F, 0.2F, 0.1F}, {0, 0}, 2), (tokens{0, 3}));
    EXPECT_EQ(select(policy, {0.4F, 0.3F, 0.2F, 0.1F}, {0, 0}, 1), (tokens{3}))
        << "int(1 * 0.5) tokens go by score";
    EXPECT_EQ(select(policy, {0.4F, 0.3F, 0.2F, 0.1F}, {0, 0}, 3), (tokens{0, 2, 3}));
}

TEST(CriticalKvSelector, EpsilonLetsLargeValuesIn) {
    const std::vector<float> norms{1, 1, 1, 1000};
    const std::vector<float> scores{0.2F, 0.1F, 0.05F, 0.0F};
    given policy{.epsilon = 0.0, .norms = {const_head_scores(norms, 1, 4)}};
    EXPECT_EQ(select(policy, scores, {0, 0}, 2), (tokens{0, 1}));
    policy.epsilon = 1e-3;
    EXPECT_EQ(select(policy, scores, {0, 0}, 2), (tokens{0, 3}));
}

TEST(CriticalKvSelector, WithoutProjectionTheNormIsThatOfTheValue) {
    const kv_shape shape{1, 20, 3, 5};
    test::with_every_layout<f16>(shape, [&](const auto& kv) {
        const std::vector<float> scores = test::random_scores(20, 3);
        std::vector<float> norms(20);
        for (std::size_t t = 0; t < 20; ++t) {
            for (std::size_t k = 0; k < 5; ++k) {
                norms[t] += std::fabs(test::marked(true, 0, t, k));
            }
        }
        const given policy{.norms = {const_head_scores(norms, 1, 20)}};
        for (std::size_t count = 5; count <= 20; ++count) {
            EXPECT_EQ(select(critical_kv_selector<>{}, scores, {2, 3}, count, kv),
                      select(policy, scores, {2, 3}, count));
        }
    });
}

TEST(CriticalKvSelector, AgreesWithSortedLists) {
    for (const std::size_t n : std::initializer_list<std::size_t>{0, 1, 2, 63, 64, 65, 300}) {
        for (const double first : {0.0, 0.3, 0.5, 1.0}) {
            for (const area_sizes sizes : {area_sizes{0, 0}, area_sizes{3, 5}}) {
                std::vector<float> scores = test::random_scores(n, n);
                std::vector<float> norms = test::random_scores(n, n + 1);
                for (std::size_t i = 0; i < n; i += 13) {
                    scores[i] = i % 2 == 0 ? nan : inf;
                    norms[n - 1 - i] = i % 2 == 0 ? 0.0F : nan;
                }
                const given policy{.first_stage = first, .norms = {const_head_scores(norms, 1, n)}};
                const areas area(sizes, n);
                for (std::size_t count = area.num_protected(); count <= n; count += 1 + n / 7) {
                    const std::size_t budget = count - area.num_protected();
                    const auto forced =
                        static_cast<std::size_t>(first * static_cast<double>(budget));
                    std::vector<double> wide;
                    for (std::size_t t = area.middle_begin; t < area.middle_end; ++t) {
                        wide.push_back(static_cast<double>(scores[t]));
                    }
                    const auto order = reference::ranked(wide);
                    std::vector<bool> kept(area.num_middle());
                    for (std::size_t i = 0; i < forced; ++i) {
                        kept[order[i]] = true;
                    }
                    std::vector<double> weighed;
                    std::vector<std::size_t> rest;
                    for (std::size_t t = 0; t < kept.size(); ++t) {
                        if (!kept[t]) {
                            const std::size_t at = area.middle_begin + t;
                            weighed.push_back(
                                static_cast<double>((scores[at] + 1e-4F) * norms[at]));
                            rest.push_back(t);
                        }
                    }
                    const auto second = reference::ranked(weighed);
                    for (std::size_t i = 0; i < budget - forced; ++i) {
                        kept[rest[second[i]]] = true;
                    }
                    tokens expected;
                    for (std::size_t t = 0; t < n; ++t) {
                        const bool middle = t >= area.middle_begin && t < area.middle_end;
                        if (!middle || kept[t - area.middle_begin]) {
                            expected.push_back(static_cast<token_index>(t));
                        }
                    }
                    ASSERT_EQ(select(policy, scores, sizes, count), expected)
                        << n << " tokens, " << count << " kept";
                }
            }
        }
    }
}

TEST(CriticalKvSelector, SaysWhatIsWrong) {
    EXPECT_THROW(critical_kv_selector<>{.first_stage = 1.5}.validate(), std::invalid_argument);
    EXPECT_THROW(critical_kv_selector<>{.first_stage = std::nan("")}.validate(),
                 std::invalid_argument);
    EXPECT_THROW(critical_kv_selector<>{.epsilon = -1.0}.validate(), std::invalid_argument);
    const std::vector<float> norms(12);
    compressor crush(snapkv_scorer{}, given{.norms = {const_head_scores(norms, 2, 6)}});
    EXPECT_NO_THROW(crush.plan({{2, 6, 4, 4}, 4}, budget::tokens(6)));
    EXPECT_THROW(crush.plan({{2, 7, 4, 4}, 4}, budget::tokens(7)), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
