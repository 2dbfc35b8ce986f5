// SPDX-License-Identifier: Apache-2.0
// The whole of compressor::select for one layer: 32 query heads, 8 kv heads, 128 f16 channels, keep ratio 0.25.
//     select/<policy>/tokens:N        from keys, values and the last 32 queries
//     crush/<policy>/tokens:N         from attention weights of 8 queries: scoring is cheap, so this is KVCrush itself
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/streaming_llm.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/top_k.hpp>

#include "huge_buffer.hpp"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace kvcrush::bench {
namespace {

constexpr std::size_t num_q_heads = 32;
constexpr std::size_t num_kv_heads = 8;
constexpr std::size_t head_dim = 128;
constexpr std::size_t num_queries = 32;

struct layer {
    explicit layer(std::size_t tokens)
        : keys(num_kv_heads * tokens * head_dim),
          values(keys.size()),
          queries(num_q_heads * num_queries * head_dim),
          shape{num_kv_heads, tokens, head_dim, head_dim} {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            keys.data()[i] = to_f16(random_unit(1, 0, i) - 0.5F);
        }
        for (std::size_t i = 0; i < queries.size(); ++i) {
            queries.data()[i] = 8.0F * (random_unit(2, 0, i) - 0.5F);
        }
    }
    [[nodiscard]] kv_view<f16> kv() const { return {keys.span(), values.span(), shape}; }
    [[nodiscard]] query_view last_queries() const {
        return {queries.span(), num_q_heads, num_queries, head_dim};
    }

    huge_buffer<f16> keys;
    huge_buffer<f16> values;
    huge_buffer<float> queries;
    kv_shape shape;
};

void report(benchmark::State& state, std::size_t tokens) {
    state.counters["tokens"] =
        benchmark::Counter(static_cast<double>(tokens) * static_cast<double>(state.iterations()),
                           benchmark::Counter::kIsRate);
}

template <typename Scorer, typename Selector>
void select_layer(benchmark::State& state, std::size_t tokens) {
    const layer data(tokens);
    compressor crush(Scorer{}, Selector{});
    crush.plan({data.shape, num_q_heads}, budget::keep_ratio(0.25));
    for (auto _ : state) {
        benchmark::DoNotOptimize(crush.select(data.kv(), data.last_queries()).total());
    }
    report(state, tokens);
}

template <typename Selector>
void crush_layer(benchmark::State& state, std::size_t tokens) {
    constexpr std::size_t rows = 8;
    huge_buffer<float> weights(num_q_heads * rows * tokens);
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const float x = random_unit(3, 0, i);
        weights.data()[i] = x * x * x * x;
    }
    const attention_view attention(weights.span(), num_q_heads, rows, tokens);
    compressor crush(snapkv_scorer{.observation_window = rows}, Selector{});
    crush.plan({{num_kv_heads, tokens, head_dim, head_dim}, num_q_heads}, budget::keep_ratio(0.25));
    for (auto _ : state) {
        benchmark::DoNotOptimize(crush.select(attention).total());
    }
    report(state, tokens);
}

const bool registered = [] {
    for (const std::size_t tokens : std::initializer_list<std::size_t>{4096, 32768}) {
        const auto add = [&](const char* name, auto function) {
            benchmark::RegisterBenchmark(
                fmt::format("{}/tokens:{}", name, tokens).c_str(), function, tokens);
        };
        add("select/streaming_llm", select_layer<streaming_llm_scorer, top_k_selector>);
        add("select/knorm", select_layer<knorm_scorer, top_k_selector>);
        add("select/snapkv", select_layer<snapkv_scorer, top_k_selector>);
        add("select/kvcrush(snapkv)", select_layer<snapkv_scorer, kvcrush_selector<>>);
        add("crush/snapkv", crush_layer<top_k_selector>);
        add("crush/kvcrush(snapkv)", crush_layer<kvcrush_selector<>>);
    }
    return true;
}();

} // namespace
} // namespace kvcrush::bench
