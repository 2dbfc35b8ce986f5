// SPDX-License-Identifier: Apache-2.0
// Kernels: hamming/<rung>/bits:B/tokens:N beside a naive loop and the read+write limit; top_k beside the standard
// library.
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/hamming.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/top_k.hpp>

#include "bandwidth_probe.hpp"
#include "baseline_hamming.hpp"
#include "huge_buffer.hpp"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace kvcrush::bench {
namespace {

void report(benchmark::State& state, std::size_t tokens, std::size_t bytes) {
    state.counters["tokens"] =
        benchmark::Counter(static_cast<double>(tokens) * static_cast<double>(state.iterations()),
                           benchmark::Counter::kIsRate);
    state.SetBytesProcessed(static_cast<std::int64_t>(bytes) * state.iterations());
}

template <typename Code>
void naive(const Code* query,
           std::size_t words,
           const Code* codes,
           std::size_t count,
           std::uint16_t* out) {
    if constexpr (sizeof(Code) == 1) {
        naive_hamming_8(query, codes, count, out);
    } else if constexpr (sizeof(Code) == 2) {
        naive_hamming_16(query, codes, count, out);
    } else if constexpr (sizeof(Code) == 4) {
        naive_hamming_32(query, codes, count, out);
    } else {
        naive_hamming_64(query, words, codes, count, out);
    }
}

/// Registers one width and length on every rung, beside its baselines. The kernels have no data-dependent branch, so
/// the same codes serve every iteration.
template <typename Code>
void register_hamming(std::size_t bits, std::size_t tokens) {
    const std::size_t words = (std::max)(bits / (8 * sizeof(Code)), std::size_t{1});
    const std::string arguments = fmt::format("bits:{}/tokens:{}", bits, tokens);
    const std::size_t in_bytes = tokens * words * sizeof(Code);
    const auto add = [&](const std::string& variant, auto kernel) {
        benchmark::RegisterBenchmark(fmt::format("hamming/{}/{}", variant, arguments).c_str(),
                                     [=](benchmark::State& state) {
                                         huge_buffer<Code> codes(tokens * words);
                                         huge_buffer<Code> query(words);
                                         huge_buffer<std::uint16_t> out(tokens);
                                         codes.fill_random(1);
                                         query.fill_random(2);
                                         for (auto _ : state) {
                                             kernel(query.span(), codes.span(), out.span());
                                             benchmark::DoNotOptimize(out.data());
                                             benchmark::ClobberMemory();
                                         }
                                         report(state, tokens, in_bytes);
                                     });
    };
    using codes_span = std::span<const Code>;
    using out_span = std::span<std::uint16_t>;
    add("naive", [words](codes_span query, codes_span codes, out_span out) {
        naive(query.data(), words, codes.data(), out.size(), out.data());
    });
    add("probe", [](codes_span, codes_span codes, out_span out) {
        benchmark::DoNotOptimize(probe_read_write(reinterpret_cast<const std::byte*>(codes.data()),
                                                  codes.size_bytes(),
                                                  reinterpret_cast<std::byte*>(out.data()),
                                                  out.size_bytes()));
    });
    for (const simd::isa rung : {simd::isa::scalar, simd::isa::avx2, simd::isa::avx512}) {
        if (rung <= simd::best()) {
            add(simd::name_of(rung), [rung](codes_span query, codes_span codes, out_span out) {
                simd::hamming_many(query, codes, out, rung);
            });
        }
    }
}

/// Scores of a million tokens: data-dependent branches must not learn their input.
const std::vector<float>& rotating_scores() {
    static const std::vector<float> scores = [] {
        std::vector<float> values(std::size_t{1} << 20);
        for (std::size_t i = 0; i < values.size(); ++i) {
            const float x = random_unit(5, 0, i);
            values[i] = x * x * x; // skewed, as attention is
        }
        return values;
    }();
    return scores;
}

void register_top_k(std::size_t tokens) {
    const std::size_t k = tokens / 4;
    const auto add = [&](const std::string& variant, auto kernel) {
        benchmark::RegisterBenchmark(
            fmt::format("top_k/{}/tokens:{}", variant, tokens).c_str(),
            [=](benchmark::State& state) {
                std::vector<token_index> out(tokens);
                std::size_t place = 0;
                for (auto _ : state) {
                    kernel(std::span(rotating_scores()).subspan(place, tokens), std::span(out));
                    benchmark::DoNotOptimize(out.data());
                    place = (place + tokens) % rotating_scores().size();
                }
                report(state, tokens, tokens * sizeof(float));
            });
    };
    using scores_span = std::span<const float>;
    using out_span = std::span<token_index>;
    add("naive", [k](scores_span scores, out_span out) { // the usual way: indices and nth_element
        std::iota(out.begin(), out.end(), 0U);
        std::nth_element(out.begin(),
                         out.begin() + static_cast<std::ptrdiff_t>(k),
                         out.end(),
                         [&](token_index a, token_index b) { return scores[a] > scores[b]; });
    });
    for (const simd::isa rung : {simd::isa::scalar, simd::isa::avx2, simd::isa::avx512}) {
        if (rung <= simd::best()) {
            add(simd::name_of(rung), [k, rung](scores_span scores, out_span out) {
                simd::top_k(scores, k, out, 0, rung);
            });
        }
    }
}

const bool registered = [] {
    for (const std::size_t tokens : std::initializer_list<std::size_t>{4096, 32768, 131072}) {
        register_hamming<std::uint8_t>(8, tokens);
        register_hamming<std::uint16_t>(16, tokens);
        register_hamming<std::uint32_t>(32, tokens);
        for (const std::size_t bits : std::initializer_list<std::size_t>{64, 128, 256, 1024}) {
            register_hamming<std::uint64_t>(bits, tokens);
        }
        register_top_k(tokens);
    }
    return true;
}();

} // namespace
} // namespace kvcrush::bench
