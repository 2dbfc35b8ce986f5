// SPDX-License-Identifier: Apache-2.0
// Acting on memory: compact/<variant>/tokens:N moves a random quarter of the rows of 8 heads of 128 f16 channels.
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/selection.hpp>

#include "huge_buffer.hpp"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>

namespace kvcrush::bench {
namespace {

constexpr std::size_t num_heads = 8;
constexpr std::size_t head_dim = 128;

selection random_quarter(std::size_t tokens) {
    selection kept;
    kept.reserve(num_heads, num_heads * tokens);
    for (std::size_t head = 0; head < num_heads; ++head) {
        for (std::size_t t = 0; t < tokens; ++t) {
            if (random_bits(1, head, t) % 4 == 0) {
                kept.extend(1)[0] = static_cast<token_index>(t);
            }
        }
        kept.end_head();
    }
    return kept;
}

template <typename Layout>
void compact_rows(benchmark::State& state, std::size_t tokens) {
    huge_buffer<f16> keys(num_heads * tokens * head_dim);
    huge_buffer<f16> values(num_heads * tokens * head_dim);
    const kv_view<f16, Layout> kv(
        keys.span(), values.span(), kv_shape{num_heads, tokens, head_dim, head_dim});
    const selection kept = random_quarter(tokens);
    for (auto _ : state) {
        compact(kv, kept);
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(kept.total() * head_dim * 2 * sizeof(f16)) *
                            state.iterations());
}

/// The same number of bytes in one piece: what a copy costs at least.
void copy_bytes(benchmark::State& state, std::size_t tokens) {
    huge_buffer<f16> from(num_heads * tokens * head_dim);
    huge_buffer<f16> to(from.size());
    const std::size_t bytes = random_quarter(tokens).total() * head_dim * sizeof(f16);
    for (auto _ : state) {
        std::memcpy(to.data(), from.data(), bytes);
        std::memcpy(to.data() + to.size() / 2, from.data() + from.size() / 2, bytes);
        benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(2 * bytes) * state.iterations());
}

const bool registered = [] {
    for (const std::size_t tokens : std::initializer_list<std::size_t>{4096, 32768}) {
        const auto add = [&](const char* variant, auto function) {
            benchmark::RegisterBenchmark(
                fmt::format("compact/{}/tokens:{}", variant, tokens).c_str(), function, tokens);
        };
        add("memcpy", copy_bytes);
        add("hnd", compact_rows<hnd>);
        add("nhd", compact_rows<nhd>);
    }
    return true;
}();

} // namespace
} // namespace kvcrush::bench
