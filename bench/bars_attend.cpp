// SPDX-License-Identifier: Apache-2.0
// attend/*: one decode step of one layer, over keys and values that no cache holds. Rows of a head lie one after the other.
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/core/random.hpp>

#include "attend_layer.hpp"
#include "bandwidth_probe.hpp"
#include "bars.hpp"
#include "baseline_attend.hpp"
#include "ggml_rival.hpp"
#include "huge_buffer.hpp"
#include "pinned_threads.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace kvcrush::bench {
namespace {

row make_row(const std::string& name, const timings& times, std::size_t tokens, double bar) {
    row one{.name = name};
    one.bar = bar;
    set_times(one, times, tokens);
    return one;
}

void measure_codecs(session& run, const layer_shape& shape) {
    const std::size_t tokens = shape.tokens_of_64_mib();
    const std::string where = fmt::format("{}/tokens:{}", shape.name(), tokens);
    run.progress("attend/f16, int8, q4 " + where);
    constexpr dense_codec<f16> f16_rows{};
    constexpr int8_row_codec int8_rows{};
    constexpr q8_0_codec q8_0_rows{};
    constexpr q4_0_codec q4_0_rows{};
    const stored_layer f16_layer(f16_rows, shape, tokens, kernels_of(f16_rows));
    const stored_layer int8_layer(int8_rows, shape, tokens, kernels_of(int8_rows));
    const stored_layer q8_layer(q8_0_rows, shape, tokens, kernels_of(q8_0_rows));
    const stored_layer q4_layer(q4_0_rows, shape, tokens, kernels_of(q4_0_rows));
    const stored_layer int8_integer(
        int8_rows, shape, tokens, kernels_of(int8_rows, arithmetic::integer));
    const stored_layer q8_integer(
        q8_0_rows, shape, tokens, kernels_of(q8_0_rows, arithmetic::integer));
    const stored_layer q4_integer(
        q4_0_rows, shape, tokens, kernels_of(q4_0_rows, arithmetic::integer));
    step decode(shape);
    std::byte nowhere[64];
    round_robin turns(run.limits);
    turns.add("probe", [&](std::size_t) {
        probe_read_write(f16_layer.keys().data(), f16_layer.keys().size(), nowhere, 0);
        probe_read_write(f16_layer.values().data(), f16_layer.values().size(), nowhere, 0);
    });
    turns.add("f16", [&](std::size_t) { decode(f16_layer); });
    turns.add("int8", [&](std::size_t) { decode(int8_layer); });
    turns.add("int8/integer", [&](std::size_t) { decode(int8_integer); });
    turns.add("q8_0", [&](std::size_t) { decode(q8_layer); });
    turns.add("q8_0/integer", [&](std::size_t) { decode(q8_integer); });
    turns.add("q4", [&](std::size_t) { decode(q4_layer); });
    turns.add("q4/integer", [&](std::size_t) { decode(q4_integer); });
    const timings times = turns.run();

    row share = make_row("attend/f16/" + where, times, tokens, 0.75);
    share.variant = "f16";
    share.value = times.ratio("probe", "f16");
    share.spread = times.spread("probe", "f16");
    share.baseline = fmt::format("reading the same bytes, {:.1f} GB/s",
                                 static_cast<double>(f16_layer.bytes()) / times.median("probe"));
    run.rows.add(std::move(share));
    const std::pair<const char*, double> variants[] = {{"int8", 1.4},
                                                       {"int8/integer", 1.4},
                                                       {"q8_0", 1.4},
                                                       {"q8_0/integer", 1.4},
                                                       {"q4", 2.0},
                                                       {"q4/integer", 2.0}};
    for (const auto& [variant, bar] : variants) {
        row one = make_row(fmt::format("attend/{}/{}", variant, where), times, tokens, bar);
        one.variant = variant;
        one.value = times.ratio("f16", variant);
        one.spread = times.spread("f16", variant);
        one.baseline = "own f16";
        run.rows.add(std::move(one));
    }
}

void measure_naive(session& run, const layer_shape& shape) {
    const std::size_t tokens = 4096;
    const std::string where = fmt::format("{}/tokens:{}", shape.name(), tokens);
    run.progress("attend/naive " + where);
    constexpr dense_codec<float> f32_rows{};
    const stored_layer layer(f32_rows, shape, tokens, kernels_of(f32_rows));
    step decode(shape);
    std::vector<float> logits(tokens);
    std::vector<float> expected(shape.num_q_heads * shape.dim);
    const auto naive = [&](std::size_t) {
        attend_naively(decode.queries().data(),
                       reinterpret_cast<const float*>(layer.keys().data()),
                       reinterpret_cast<const float*>(layer.values().data()),
                       shape.num_q_heads,
                       shape.num_kv_heads,
                       tokens,
                       shape.dim,
                       logits.data(),
                       expected.data());
    };
    round_robin turns(run.limits);
    turns.add("f32", [&](std::size_t) { decode(layer); });
    turns.add("naive", naive);
    const timings times = turns.run();
    row one = make_row("attend/naive/" + where, times, tokens, 4.0);
    one.variant = "f32";
    one.value = times.ratio("naive", "f32");
    one.spread = times.spread("naive", "f32");
    one.baseline = "head by head, token by token, -O3, both f32";
    double error = 0.0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        error = (std::max)(error, std::fabs(static_cast<double>(expected[i] - decode.output()[i])));
    }
    if (error < 1e-4) {
        run.rows.add(std::move(one));
    } else {
        run.rows.add_void(std::move(one), fmt::format("outputs differ by {:.1e}", error));
    }
}

/// Eviction and growth: the same rows, some of them or all.
void measure_lengths(session& run, const layer_shape& shape) {
    const std::size_t tokens = 4 * shape.tokens_of_64_mib();
    const std::string where = fmt::format("{}/tokens:{}", shape.name(), tokens);
    run.progress("attend/evicted " + where);
    constexpr dense_codec<f16> f16_rows{};
    stored_layer layer(f16_rows, shape, tokens, kernels_of(f16_rows));
    step decode(shape);
    round_robin turns(run.limits);
    turns.add("all", [&](std::size_t) {
        layer.use_first(tokens);
        decode(layer);
    });
    turns.add("quarter", [&](std::size_t) {
        layer.use_first(tokens / 4);
        decode(layer);
    });
    const timings times = turns.run();
    row one = make_row("attend/evicted/" + where, times, tokens, 3.8);
    one.variant = "quarter";
    one.value = times.ratio("all", "quarter");
    one.spread = times.spread("all", "quarter");
    one.baseline = "all tokens, f16; a quarter is left";
    run.rows.add(std::move(one));
}

void measure_growth(session& run, const layer_shape& shape) {
    constexpr dense_codec<f16> f16_rows{};
    const std::size_t lengths[] = {1024, 4096, 16384, 65536, 131072};
    run.progress("attend/linear " + shape.name());
    stored_layer layer(f16_rows, shape, 131072, kernels_of(f16_rows));
    step decode(shape);
    round_robin turns(run.limits);
    for (const std::size_t tokens : lengths) {
        turns.add(fmt::format("tokens:{}", tokens), [&, tokens](std::size_t) {
            layer.use_first(tokens);
            decode(layer);
        });
    }
    const timings times = turns.run();
    const std::string base = "tokens:16384";
    for (const std::size_t tokens : lengths) {
        row one{.name = fmt::format("attend/linear/{}/tokens:{}", shape.name(), tokens)};
        one.side = better::lower;
        one.bar = 1.2;
        one.variant = fmt::format("tokens:{}", tokens);
        one.tokens = tokens;
        one.ns_per_token.emplace_back(one.variant,
                                      times.median(one.variant) / static_cast<double>(tokens));
        const double lengths_ratio = 16384.0 / static_cast<double>(tokens);
        one.value = lengths_ratio * times.ratio(one.variant, base);
        one.spread = times.spread(one.variant, base);
        one.baseline = "a token among 16384, f16";
        run.rows.add(std::move(one));
    }
}

void measure_two_threads(session& run, const layer_shape& shape) {
    const std::size_t tokens = 4 * shape.tokens_of_64_mib();
    row one{.name = fmt::format("attend/threads2/{}/tokens:{}", shape.name(), tokens)};
    one.variant = "two";
    one.bar = 1.8;
    one.baseline = "one thread, f16, time on the wall";
    run.progress(one.name);
    if (num_usable_cpus() < 2) {
        run.rows.add_void(std::move(one), "this process may use one CPU only");
        return;
    }
    constexpr dense_codec<f16> f16_rows{};
    const stored_layer layer(f16_rows, shape, tokens, kernels_of(f16_rows));
    step decode(shape);
    round_robin turns(run.limits, wall_seconds);
    turns.add("one", [&](std::size_t) { decode(layer); });
    turns.add("two", [&](std::size_t) { decode(layer, 2, pinned_threads{}); });
    const timings times = turns.run();
    set_times(one, times, tokens);
    one.value = times.ratio("one", "two");
    one.spread = times.spread("one", "two");
    run.rows.add(std::move(one));
}

/// Both read the same keys and values, bit for bit.
template <typename C>
void measure_ggml(session& run,
                  const C& codec,
                  ggml_rows format,
                  double bar,
                  const layer_shape& shape,
                  std::size_t tokens) {
    constexpr bool is_dense = std::is_same_v<C, dense_codec<f16>>;
    const std::string format_name = is_dense ? "f16" : std::string(C::name);
    const std::string where = fmt::format("{}/tokens:{}", shape.name(), tokens);
    const auto make = [&](const std::string& variant, bool in_integers) {
        row one{.name = fmt::format(
                    "attend/ggml/{}{}/{}", format_name, in_integers ? "/integer" : "", where)};
        one.bar = bar;
        one.variant = variant;
        one.baseline = fmt::format("flash_attn_ext of {} over the same bytes",
                                   has_ggml() ? name_of_ggml() : "ggml");
        return one;
    };
    if (!has_ggml()) {
        run.rows.add_void(make("kvcrush", false), "ggml was not built");
        return;
    }
    run.progress(fmt::format("attend/ggml/{} {}", format_name, where));
    // Queries that make some tokens matter: a mean over all of them would look right with wrong logits, too.
    constexpr float reach = 3.0F;
    const stored_layer layer(codec, shape, tokens, kernels_of(codec));
    step decode(shape, reach);
    step decode_in_integers(shape, reach);
    std::vector<float> theirs(decode.output().size());
    ggml_attention rival(format,
                         decode.queries().data(),
                         layer.keys().data(),
                         layer.values().data(),
                         shape.num_q_heads,
                         shape.num_kv_heads,
                         tokens,
                         shape.dim,
                         theirs.data());
    const stored_layer integer(
        codec,
        shape,
        is_dense ? 1 : tokens,
        kernels_of(codec, is_dense ? arithmetic::exact : arithmetic::integer));
    round_robin turns(run.limits);
    turns.add("ggml", [&](std::size_t) { rival(); });
    turns.add("kvcrush", [&](std::size_t) { decode(layer); });
    if (!is_dense) {
        turns.add("kvcrush/integer", [&](std::size_t) { decode_in_integers(integer); });
    }
    const timings times = turns.run();
    const auto add = [&](row one, const std::vector<float>& ours) {
        set_times(one, times, tokens);
        one.value = times.ratio("ggml", one.variant);
        one.spread = times.spread("ggml", one.variant);
        double error = 0.0;
        for (std::size_t i = 0; i < ours.size(); ++i) {
            error = (std::max)(error, std::fabs(static_cast<double>(ours[i]) - theirs[i]));
        }
        // ggml sums f16 values in f16, whose rounding grows with the tokens, and quantises queries to q8_0 before they
        // meet quantised keys. The largest outputs are about 1.
        const double tolerance =
            is_dense ? 0.025 * std::sqrt(static_cast<double>(tokens) / 4096.0) : 0.02;
        if (error <= tolerance) {
            run.rows.add(std::move(one));
        } else {
            run.rows.add_void(std::move(one), fmt::format("outputs differ by {:.1e}", error));
        }
    };
    add(make("kvcrush", false), decode.output());
    if (!is_dense) {
        add(make("kvcrush/integer", true), decode_in_integers.output());
    }
}

} // namespace

void measure_attend(session& run) {
    for (const layer_shape& shape : {llama, small_llama}) {
        measure_codecs(run, shape);
        measure_naive(run, shape);
        measure_lengths(run, shape);
        measure_two_threads(run, shape);
    }
    measure_growth(run, run.full ? llama : small_llama);
    for (const layer_shape& shape : {llama, small_llama}) {
        for (const std::size_t tokens : std::initializer_list<std::size_t>{4096, 32768}) {
            measure_ggml(run, dense_codec<f16>{}, ggml_rows::f16, 4.0, shape, tokens);
            measure_ggml(run, q8_0_codec{}, ggml_rows::q8_0, 10.0, shape, tokens);
            measure_ggml(run, q4_0_codec{}, ggml_rows::q4_0, 15.0, shape, tokens);
        }
    }
}

} // namespace kvcrush::bench
