// SPDX-License-Identifier: Apache-2.0
// compact/l3, compact/dram: a random quarter of the rows of 8 heads of 128 f16 channels, K and V, moves to the front.
// The limit is a copy of as many bytes in one piece.
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/simd/isa.hpp>

#include "bars.hpp"
#include "baseline_scoring.hpp"
#include "huge_buffer.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

namespace kvcrush::bench {
namespace {

constexpr std::size_t num_heads = 8;
constexpr std::size_t head_dim = 128;
constexpr std::size_t row_bytes = head_dim * sizeof(f16);

selection random_quarter(std::size_t tokens) {
    selection kept;
    kept.reserve(num_heads, num_heads * tokens);
    for (std::size_t head = 0; head < num_heads; ++head) {
        for (std::size_t t = 0; t < tokens; ++t) {
            if (random_bits(51, head, t) % 4 == 0) {
                kept.extend(1)[0] = static_cast<token_index>(t);
            }
        }
        kept.end_head();
    }
    return kept;
}

void measure_level(session& run, const char* level, std::size_t tokens, double bar) {
    run.progress(fmt::format("compact/{} tokens:{}", level, tokens));
    huge_buffer<f16> keys(num_heads * tokens * head_dim);
    huge_buffer<f16> values(keys.size());
    const kv_shape shape{num_heads, tokens, head_dim, head_dim};
    const kv_view<f16> by_head(keys.span(), values.span(), shape);
    const kv_view<f16, nhd> by_token(keys.span(), values.span(), shape);
    const selection kept = random_quarter(tokens);
    const std::size_t bytes = kept.total() * row_bytes;
    const auto bytes_of = [](const huge_buffer<f16>& of) {
        return reinterpret_cast<std::byte*>(of.data());
    };

    // Both ways end with the same bytes.
    keys.fill_random(52);
    compact(by_head, kept);
    huge_buffer<f16> expected(keys.size());
    std::memcpy(expected.data(), keys.data(), keys.size() * sizeof(f16));
    keys.fill_random(52);
    const auto rows = [&](const huge_buffer<f16>& of) {
        for (std::size_t head = 0; head < num_heads; ++head) {
            copy_kept_rows(bytes_of(of) + head * tokens * row_bytes,
                           row_bytes,
                           kept.kept(head).data(),
                           kept.kept(head).size());
        }
    };
    rows(keys);
    const bool agree = std::memcmp(expected.data(), keys.data(), keys.size() * sizeof(f16)) == 0;

    round_robin turns(run.limits);
    turns.add("hnd", [&](std::size_t) { compact(by_head, kept); });
    turns.add("avx2", [&](std::size_t) { compact(by_head, kept, simd::isa::avx2); });
    turns.add("nhd", [&](std::size_t) { compact(by_token, kept); });
    turns.add("memcpy", [&](std::size_t) {
        // From the back, a quarter of the rows, to the front.
        std::memcpy(bytes_of(keys), bytes_of(keys) + 2 * bytes, bytes);
        std::memcpy(bytes_of(values), bytes_of(values) + 2 * bytes, bytes);
    });
    turns.add("rows", [&](std::size_t) {
        rows(keys);
        rows(values);
    });
    const timings times = turns.run();

    // The bars are about rows that lie one behind the other. Where the heads of a token lie side by side, and without
    // stores past the caches, they are what is reached.
    const std::pair<const char*, const char*> variants[] = {
        {"hnd", "hnd"}, {"avx2", "hnd/avx2"}, {"nhd", "nhd"}};
    for (const auto& [variant, name] : variants) {
        const std::string layout = variant;
        row one{.name = fmt::format("compact/{}/{}/tokens:{}", level, name, tokens)};
        one.variant = layout;
        set_times(one, times, tokens);
        one.bar = layout == "hnd" ? bar : 0.45;
        one.value = times.ratio("memcpy", layout);
        one.spread = times.spread("memcpy", layout);
        one.baseline = fmt::format("memcpy of the same bytes in one piece, {:.1f} GB/s",
                                   2.0 * static_cast<double>(bytes) / times.median("memcpy"));
        row gain = one;
        run.rows.add(std::move(one));
        if (layout != "hnd") {
            continue;
        }
        gain.name = fmt::format("compact/{}/rows/tokens:{}", level, tokens);
        gain.bar = 1.3;
        gain.value = times.ratio("rows", layout);
        gain.spread = times.spread("rows", layout);
        gain.baseline = "memcpy of each row, -O3";
        if (agree) {
            run.rows.add(std::move(gain));
        } else {
            run.rows.add_void(std::move(gain), "it ends with other bytes");
        }
    }
}

} // namespace

void measure_compact(session& run) {
    measure_level(run, "l3", 4096, 0.75);
    measure_level(run, "dram", 131072, 0.70);
}

} // namespace kvcrush::bench
