// SPDX-License-Identifier: Apache-2.0
// Threads are the caller's: the answer is the same with any number of them, tasks run in any order.
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/executor.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/random.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <initializer_list>
#include <stdexcept>
#include <thread>
#include <vector>

namespace kvcrush {
namespace {

/// A thread per task, started last task first.
struct thread_per_task {
    template <typename Task>
    void operator()(std::size_t num_tasks, const Task& task) const {
        std::vector<std::thread> threads;
        for (std::size_t i = num_tasks; i-- > 0;) {
            threads.emplace_back([&task, i] { task(i); });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
    }
};
static_assert(Executor<thread_per_task>);

constexpr std::size_t num_kv_heads = 5;
constexpr std::size_t num_q_heads = 10;
constexpr std::size_t head_dim = 8;

struct layer {
    layer(std::size_t tokens, std::uint64_t seed)
        : shape{num_kv_heads, tokens, head_dim, head_dim},
          keys(num_kv_heads * tokens * head_dim),
          queries(num_q_heads * tokens * head_dim) {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            keys[i] = random_unit(seed, 0, i) - 0.5F;
        }
        for (std::size_t i = 0; i < queries.size(); ++i) {
            queries[i] = 4.0F * (random_unit(seed, 1, i) - 0.5F);
        }
    }
    [[nodiscard]] kv_view<float> kv() { return {keys, keys, shape}; }
    [[nodiscard]] query_view window() const {
        return {queries, num_q_heads, shape.seq_len, head_dim};
    }

    kv_shape shape;
    std::vector<float> keys;
    std::vector<float> queries;
};

template <typename ScorerT>
class AnyScorerOnThreads : public testing::Test {};
using scorers = testing::Types<snapkv_scorer, h2o_scorer, knorm_scorer, random_scorer>;
TYPED_TEST_SUITE(AnyScorerOnThreads, scorers);

TYPED_TEST(AnyScorerOnThreads, AnswersTheSameWithAnyNumberOfTasks) {
    layer data(150, 3);
    compressor crush(TypeParam{}, kvcrush_selector<>{});
    crush.plan({data.shape, num_q_heads}, budget::keep_ratio(0.5));
    const selection expected = crush.select(data.kv(), data.window());
    for (const std::size_t num_tasks : std::initializer_list<std::size_t>{1, 2, 3, 5, 64}) {
        crush.plan({data.shape, num_q_heads}, budget::keep_ratio(0.5), num_tasks);
        EXPECT_EQ(crush.select(thread_per_task{}, data.kv(), data.window()), expected) << num_tasks;
        EXPECT_EQ(crush.select(data.kv(), data.window()), expected) << num_tasks;
    }
}

TEST(CompressorOnThreads, SharesOutAttentionWeightsToo) {
    std::vector<float> weights(num_q_heads * 4 * 60);
    for (std::size_t i = 0; i < weights.size(); ++i) {
        weights[i] = random_unit(8, 0, i);
    }
    const attention_view attention(weights, num_q_heads, 4, 60);
    compressor crush(snapkv_scorer{.observation_window = 4}, kvcrush_selector<>{});
    crush.plan({{num_kv_heads, 60, 0, 0}, num_q_heads}, budget::tokens(45));
    const selection expected = crush.select(attention);
    crush.plan({{num_kv_heads, 60, 0, 0}, num_q_heads}, budget::tokens(45), 3);
    EXPECT_EQ(crush.select(thread_per_task{}, attention), expected);
}

TEST(CompressorOnThreads, RefusesNoTaskAtAll) {
    compressor crush(snapkv_scorer{}, kvcrush_selector<>{});
    EXPECT_THROW(crush.plan({{1, 100, 4, 4}, 2}, budget::tokens(50), 0), std::invalid_argument);
    EXPECT_THROW(crush.plan({{1, 100, 4, 4}, 2}, budget::tokens(50), std::size_t{1} << 40),
                 std::invalid_argument);
}

TEST(ForEachLayer, EveryLayerOnceAndTheSameAnswerOnAnyNumberOfLanes) {
    constexpr std::size_t num_layers = 7;
    std::vector<layer> layers;
    for (std::size_t l = 0; l < num_layers; ++l) {
        layers.emplace_back(100, l);
    }
    compressor crush(snapkv_scorer{}, kvcrush_selector<>{});
    crush.plan({layers[0].shape, num_q_heads}, budget::tokens(60));
    std::vector<selection> expected;
    for (layer& data : layers) {
        expected.push_back(crush.select(data.kv(), data.window()));
    }
    for (const std::size_t num_lanes : std::initializer_list<std::size_t>{1, 2, 3, 9}) {
        std::vector<decltype(crush)> lanes(num_lanes, crush);
        std::vector<selection> kept(num_layers);
        std::atomic<std::size_t> calls{0};
        for_each_layer(
            thread_per_task{}, num_layers, std::span(lanes), [&](std::size_t l, auto& lane) {
                kept[l] = lane.select(layers[l].kv(), layers[l].window());
                ++calls;
            });
        EXPECT_EQ(calls, num_layers);
        EXPECT_EQ(kept, expected) << num_lanes;
    }
}

TEST(ForEachLayer, NeedsALane) {
    const auto work = [](std::size_t, int&) { ADD_FAILURE() << "there is no layer"; };
    EXPECT_THROW(for_each_layer(serial_executor{}, 3, std::span<int>{}, work),
                 std::invalid_argument);
    EXPECT_NO_THROW(for_each_layer(serial_executor{}, 0, std::span<int>{}, work));
}

} // namespace
} // namespace kvcrush
