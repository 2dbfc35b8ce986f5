// SPDX-License-Identifier: Apache-2.0
// score/gemm, eigen: dot products of the last 32 queries of 32 heads with the keys of 8 kv heads, 128 channels, f32.
// score/bf16: the same products of bf16 keys and queries, where the CPU has an instruction for them.
// score/softmax, pool, knorm: the other steps of scoring. Rows that end in /avx2 are about the AVX2 rung; their bars are
// what it reaches, not promises about AVX-512.
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/math/attention_mass.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/simd/convert.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>
#include <kvcrush/simd/logits_bf16.hpp>
#include <kvcrush/simd/pool.hpp>
#include <kvcrush/simd/softmax.hpp>

#include "bandwidth_probe.hpp"
#include "bars.hpp"
#include "baseline_eigen.hpp"
#include "baseline_scoring.hpp"
#include "bf16_peak.hpp"
#include "fma_peak.hpp"
#include "huge_buffer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace kvcrush::bench {
namespace {

constexpr std::size_t num_q_heads = 32;
constexpr std::size_t num_kv_heads = 8;
constexpr std::size_t group_size = num_q_heads / num_kv_heads;
constexpr std::size_t head_dim = 128;
constexpr std::size_t window = 32;
/// Queries that share the keys of a kv head.
constexpr std::size_t num_rows = group_size * window;

void fill_signed(std::span<float> out, std::uint64_t seed, float width) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = width * (random_unit(seed, 0, i) - 0.5F);
    }
}

std::string rung_suffix(simd::isa rung) { return rung == simd::isa::avx2 ? "/avx2" : ""; }

/// AVX-512 where there is one, and AVX2.
std::vector<simd::isa> vector_rungs(const session& run) {
    std::vector<simd::isa> rungs;
    if (run.avx512) {
        rungs.push_back(simd::isa::avx512);
    }
    if (simd::best() >= simd::isa::avx2) {
        rungs.push_back(simd::isa::avx2);
    }
    return rungs;
}

std::vector<std::size_t> sequence_lengths(const session& run) {
    return run.full ? std::vector<std::size_t>{4096, 8192, 16384, 32768}
                    : std::vector<std::size_t>{4096, 32768};
}

/// Queries and keys of one layer, and the logits of one kv head.
class window_products {
public:
    explicit window_products(std::size_t tokens)
        : tokens_(tokens),
          keys_(num_kv_heads * tokens * head_dim),
          queries_(num_q_heads * window * head_dim),
          logits_(num_rows * tokens),
          packed_(head_dim * simd::key_tile),
          staging_(head_dim * simd::key_tile),
          mass_(num_q_heads * tokens),
          workspace_(attention_mass_workspace(shape(), num_q_heads, window)) {
        fill_signed(keys_.span(), 31, 2.0F);
        fill_signed(queries_.span(), 32, 2.0F);
    }

    [[nodiscard]] double flop() const noexcept {
        return 2.0 * static_cast<double>(num_q_heads * window * head_dim * tokens_);
    }

    /// The products of attention_mass: each tile of keys is transposed once and multiplied with all rows.
    void ours(std::size_t head, simd::isa rung) {
        const kv_view<const float> kv(keys_.span(), keys_.span(), shape());
        const detail::attention_blocks blocks(shape(), num_q_heads, window);
        for (std::size_t t = 0; t < blocks.num_tiles; ++t) {
            detail::pack_keys(kv, head, t, packed_.data(), staging_.data(), blocks, rung);
            detail::multiply_tile(kv,
                                  head,
                                  t,
                                  queries_.data() + head * num_rows * head_dim,
                                  num_rows,
                                  packed_.data(),
                                  1.0F,
                                  logits_.data() + t * num_rows * simd::key_tile,
                                  blocks,
                                  false,
                                  rung);
        }
    }
    void ours(simd::isa rung) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            ours(head, rung);
        }
    }
    void whole(simd::isa rung) {
        const kv_view<const float> kv(keys_.span(), keys_.span(), shape());
        attention_mass(kv,
                       query_view(queries_.span(), num_q_heads, window, head_dim),
                       mass_.span(),
                       workspace_.span(),
                       1.0F / 16.0F,
                       rung);
    }
    [[nodiscard]] eigen_logits eigen(std::size_t head) const noexcept {
        return {.queries = queries_.data() + head * num_rows * head_dim,
                .keys = keys_.data() + head * tokens_ * head_dim,
                .logits = logits_.data(),
                .num_queries = num_rows,
                .num_tokens = tokens_,
                .head_dim = head_dim};
    }

    /// Whether a rival's logits are ours: both add 128 products of numbers below 1.
    template <typename Rival>
    [[nodiscard]] bool agrees(Rival&& rival) {
        ours(3, simd::best());
        const std::vector<float> mine(logits_.data(), logits_.data() + logits_.size());
        rival(eigen(3));
        for (std::size_t r = 0; r < num_rows; ++r) {
            for (std::size_t t = 0; t < tokens_; ++t) {
                const float a = mine[t / simd::key_tile * simd::key_tile * num_rows +
                                     r * simd::key_tile + t % simd::key_tile];
                if (!(std::fabs(a - logits_.data()[r * tokens_ + t]) < 1e-3F)) {
                    return false;
                }
            }
        }
        return true;
    }

private:
    [[nodiscard]] kv_shape shape() const noexcept {
        return {num_kv_heads, tokens_, head_dim, head_dim};
    }

    std::size_t tokens_;
    huge_buffer<float> keys_;
    huge_buffer<float> queries_;
    huge_buffer<float> logits_;
    huge_buffer<float> packed_;
    huge_buffer<float> staging_;
    huge_buffer<float> mass_;
    huge_buffer<float> workspace_;
};

struct eigen_rival {
    const char* name;
    const char* flags;
    void (*run)(const eigen_logits&);
    double bar;
};

void measure_products(session& run, std::size_t tokens) {
    run.progress(fmt::format("score/gemm, score/eigen tokens:{}", tokens));
    const std::vector<simd::isa> rungs = vector_rungs(run);
    std::vector<eigen_rival> rivals;
#if KVCRUSH_BENCH_NATIVE
    if (simd::best() >= simd::isa::avx2) {
        rivals = {{"native", "-O3 -march=native", native_eigen_logits, 1.3},
                  {"avx2", "-O2 -mavx2 -mfma", avx2_eigen_logits, 1.8}};
    }
#endif
    window_products work(tokens);
    std::vector<char> agree;
    for (const eigen_rival& rival : rivals) {
        agree.push_back(work.agrees(rival.run) ? 1 : 0);
    }

    float peak_result = 1e-3F;
    round_robin turns(run.limits);
    for (const simd::isa rung : rungs) {
        const std::string name = simd::name_of(rung);
        turns.add(name, [&work, rung](std::size_t) { work.ours(rung); });
        turns.add("peak_" + name, [&peak_result, rung](std::size_t) {
            peak_result = 1e-3F * fma_peak(rung, 1e-3F + 1e-9F * peak_result);
        });
        turns.add("mass_" + name, [&work, rung](std::size_t) { work.whole(rung); });
    }
    for (const eigen_rival& rival : rivals) {
        turns.add(std::string("eigen_") + rival.name, [&work, &rival](std::size_t) {
            for (std::size_t head = 0; head < num_kv_heads; ++head) {
                rival.run(work.eigen(head));
            }
        });
    }
    const timings times = turns.run();

    for (const simd::isa rung : rungs) {
        const std::string name = simd::name_of(rung);
        const double flops = work.flop() / times.median(name);
        const double peak = peak_flop(lanes_of(rung)) / times.median("peak_" + name);
        row share{.name = fmt::format("score/gemm/tokens:{}{}", tokens, rung_suffix(rung))};
        share.variant = name;
        set_times(share, times, tokens);
        share.bar = 0.70;
        share.value = flops / peak;
        share.spread = times.spread("peak_" + name, name);
        share.baseline =
            fmt::format("f32 FMA peak, {:.0f} GFLOP/s; we {:.0f}, with softmax and sums {:.0f}",
                        peak,
                        flops,
                        work.flop() / times.median("mass_" + name));
        run.rows.add(std::move(share));
        for (std::size_t i = 0; i < rivals.size(); ++i) {
            const std::string rival = std::string("eigen_") + rivals[i].name;
            row gain{.name = fmt::format(
                         "score/eigen/{}/tokens:{}{}", rivals[i].name, tokens, rung_suffix(rung))};
            gain.variant = name;
            set_times(gain, times, tokens);
            gain.bar = rivals[i].bar;
            gain.baseline = fmt::format(
                "Eigen {}, {:.0f} GFLOP/s", rivals[i].flags, work.flop() / times.median(rival));
            gain.value = times.ratio(rival, name);
            gain.spread = times.spread(rival, name);
            const double limit = peak * times.median(rival) / work.flop();
            if (limit < gain.bar) {
                gain.note = fmt::format("the FMA peak is {:.2f} times its speed", limit);
            }
            if (agree[i] != 0) {
                run.rows.add(std::move(gain));
            } else {
                run.rows.add_void(std::move(gain), "its logits are not ours");
            }
        }
        if (rivals.empty()) {
            run.rows.add_void({.name = fmt::format("score/eigen/native/tokens:{}", tokens)},
                              "the compiler does not know -march=native and -mavx2");
        }
    }
}

/// As window_products with bf16 keys. The queries of a kv head become bf16 on the way, as query_view holds f32.
class bf16_products {
public:
    explicit bf16_products(std::size_t tokens)
        : tokens_(tokens),
          keys_(num_kv_heads * tokens * head_dim),
          queries_(num_q_heads * window * head_dim),
          narrow_(num_rows * head_dim),
          logits_(num_rows * tokens),
          packed_(simd::bf16_tile_size(head_dim)) {
        fill_signed(queries_.span(), 32, 2.0F);
        for (std::size_t i = 0; i < keys_.size(); ++i) {
            keys_.data()[i] = to_bf16(2.0F * (random_unit(31, 0, i) - 0.5F));
        }
    }

    [[nodiscard]] double flop() const noexcept {
        return 2.0 * static_cast<double>(num_q_heads * window * head_dim * tokens_);
    }

    void ours(std::size_t head, simd::isa rung) {
        const kv_view<const bf16> kv(
            keys_.span(), keys_.span(), {num_kv_heads, tokens_, head_dim, head_dim});
        simd::from_float(std::span<const float>(queries_.data() + head * num_rows * head_dim,
                                                num_rows * head_dim),
                         narrow_.span(),
                         rung);
        for (std::size_t first = 0; first < tokens_; first += simd::key_tile) {
            simd::pack_key_tile(keys_.data() + (head * tokens_ + first) * head_dim,
                                head_dim,
                                simd::key_tile,
                                head_dim,
                                packed_.data(),
                                rung);
            multiply(kv, head, first, rung);
        }
    }
    void ours(simd::isa rung) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            ours(head, rung);
        }
    }

    /// Whether the logits of a head are its dot products: 128 of numbers below 1, added in double.
    [[nodiscard]] bool correct(simd::isa rung) {
        constexpr std::size_t head = 3;
        ours(head, rung);
        for (std::size_t r = 0; r < num_rows; ++r) {
            for (std::size_t t = 0; t < tokens_; t += 61) {
                double sum = 0.0;
                for (std::size_t k = 0; k < head_dim; ++k) {
                    sum += static_cast<double>(to_float(narrow_.data()[r * head_dim + k])) *
                           static_cast<double>(
                               to_float(keys_.data()[(head * tokens_ + t) * head_dim + k]));
                }
                const float logit =
                    logits_.data()[(t / simd::key_tile * num_rows + r) * simd::key_tile +
                                   t % simd::key_tile];
                if (!(std::fabs(static_cast<double>(logit) - sum) < 1e-3)) {
                    return false;
                }
            }
        }
        return true;
    }

private:
    /// The loop of detail::multiply_tile, which asks for the next keys meanwhile.
    void
    multiply(const kv_view<const bf16>& kv, std::size_t head, std::size_t first, simd::isa rung) {
        constexpr std::size_t slice =
            6; // a register block; 24 rows, as for f32, ask for too many lines at once
        const std::size_t next = first + simd::key_tile;
        const std::size_t count = next < tokens_ ? simd::key_tile : 0;
        for (std::size_t r = 0; r < num_rows; r += slice) {
            const std::size_t end = (std::min)(r + slice, num_rows);
            detail::prefetch_keys(
                kv, head, next + r * count / num_rows, next + end * count / num_rows);
            simd::tile_logits(narrow_.data() + r * head_dim,
                              head_dim,
                              end - r,
                              packed_.data(),
                              head_dim,
                              1.0F,
                              logits_.data() + first * num_rows + r * simd::key_tile,
                              simd::key_tile,
                              simd::key_tile,
                              rung);
        }
    }

    std::size_t tokens_;
    huge_buffer<bf16> keys_;
    huge_buffer<float> queries_;
    huge_buffer<bf16> narrow_;
    huge_buffer<float> logits_;
    huge_buffer<bf16> packed_;
};

void measure_bf16(session& run, std::size_t tokens) {
    run.progress(fmt::format("score/bf16 tokens:{}", tokens));
    bf16_products work(tokens);
    const bool right = work.correct(simd::isa::avx512);
    float peak_result = 1e-3F;
    round_robin turns(run.limits);
    turns.add("avx512", [&work](std::size_t) { work.ours(simd::isa::avx512); });
    turns.add("peak", [&peak_result](std::size_t) {
        peak_result = 1e-3F * bf16_peak(1e-3F + 1e-9F * peak_result);
    });
    turns.add("avx2", [&work](std::size_t) { work.ours(simd::isa::avx2); });
    const timings times = turns.run();
    const double flops = work.flop() / times.median("avx512");
    const double peak = bf16_peak_flop() / times.median("peak");
    row share{.name = fmt::format("score/bf16/tokens:{}", tokens)};
    share.variant = "avx512";
    set_times(share, times, tokens);
    share.bar = 0.80;
    share.value = flops / peak;
    share.spread = times.spread("peak", "avx512");
    share.baseline = fmt::format("bf16 dot-product peak, {:.0f} GFLOP/s; we {:.0f}, AVX2 {:.0f}",
                                 peak,
                                 flops,
                                 work.flop() / times.median("avx2"));
    if (right) {
        run.rows.add(std::move(share));
    } else {
        run.rows.add_void(std::move(share), "its logits are not the dot products");
    }
}

/// The softmax of attention_mass: tiles of logits become weights while they are in cache, and are added up once the sums
/// of their rows are known. The same over whole rows beside it.
void measure_softmax(session& run, std::size_t tokens) {
    run.progress(fmt::format("score/softmax tokens:{}", tokens));
    const std::vector<simd::isa> rungs = vector_rungs(run);
    const std::size_t num_scores = window * tokens;
    huge_buffer<float> logits(num_scores);
    huge_buffer<float> sums(tokens);
    fill_signed(logits.span(), 33, 16.0F);
    const huge_buffer<float> fresh(num_scores);
    std::copy_n(logits.data(), num_scores, fresh.data());

    const auto rows_of = [&](simd::isa rung) {
        for (std::size_t r = 0; r < window; ++r) {
            simd::softmax_add(logits.span().subspan(r * tokens, tokens), sums.span(), rung);
        }
    };
    const auto naive = [&] {
        for (std::size_t r = 0; r < window; ++r) {
            exp_softmax_add(logits.data() + r * tokens, tokens, sums.data());
        }
    };
    rows_of(simd::best());
    const std::vector<float> mine(sums.data(), sums.data() + tokens);
    std::copy_n(fresh.data(), num_scores, logits.data());
    std::fill_n(sums.data(), tokens, 0.0F);
    naive();
    bool agree = true;
    for (std::size_t t = 0; t < tokens; ++t) {
        agree = agree && std::fabs(mine[t] - sums.data()[t]) <= 1e-3F * sums.data()[t];
    }

    round_robin turns(run.limits);
    for (const simd::isa rung : rungs) {
        turns.add(simd::name_of(rung), [&, rung](std::size_t) { rows_of(rung); });
    }
    turns.add("std::exp", [&](std::size_t) { naive(); });
    const timings times = turns.run();
    for (const simd::isa rung : rungs) {
        const std::string name = simd::name_of(rung);
        const bool widest = rung == simd::isa::avx512;
        row speed{.name = fmt::format(
                      "score/softmax/ns_per_score/tokens:{}{}", tokens, rung_suffix(rung))};
        speed.variant = name;
        set_times(speed, times, num_scores);
        speed.tokens = tokens;
        speed.bar = widest ? 0.3 : 0.6;
        speed.side = better::lower;
        speed.value = speed.own_ns_per_token();
        speed.baseline = "absolute: softmax and sum over 32 queries, ns per score";
        row gain = speed;
        gain.name = fmt::format("score/softmax/exp/tokens:{}{}", tokens, rung_suffix(rung));
        gain.bar = widest ? 12.0 : 8.0;
        gain.side = better::higher;
        gain.value = times.ratio("std::exp", name);
        gain.spread = times.spread("std::exp", name);
        gain.baseline = "std::exp in a loop, -O3";
        run.rows.add(std::move(speed));
        if (agree) {
            run.rows.add(std::move(gain));
        } else {
            run.rows.add_void(std::move(gain), "its sums are not ours");
        }
    }
}

void measure_pool(session& run, std::size_t tokens) {
    run.progress(fmt::format("score/pool tokens:{}", tokens));
    constexpr std::size_t kernel = 7;
    const std::vector<simd::isa> rungs = vector_rungs(run);
    huge_buffer<float> in(num_kv_heads * tokens);
    huge_buffer<float> out(num_kv_heads * tokens);
    fill_signed(in.span(), 34, 1.0F);
    const auto heads = [&](auto&& pool) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            pool(in.span().subspan(head * tokens, tokens),
                 out.span().subspan(head * tokens, tokens));
        }
    };
    round_robin turns(run.limits);
    for (const simd::isa rung : rungs) {
        turns.add(std::string("max_") + simd::name_of(rung), [&, rung](std::size_t) {
            heads([rung](std::span<const float> from, std::span<float> to) {
                simd::max_pool(from, to, kernel, rung);
            });
        });
        turns.add(std::string("avg_") + simd::name_of(rung), [&, rung](std::size_t) {
            heads([rung](std::span<const float> from, std::span<float> to) {
                simd::avg_pool(from, to, kernel, rung);
            });
        });
    }
    const timings times = turns.run();
    for (const simd::isa rung : rungs) {
        for (const char* pool : {"max", "avg"}) {
            row one{.name =
                        fmt::format("score/pool/{}/tokens:{}{}", pool, tokens, rung_suffix(rung))};
            one.variant = std::string(pool) + "_" + simd::name_of(rung);
            set_times(one, times, num_kv_heads * tokens);
            one.tokens = tokens;
            one.bar = rung == simd::isa::avx512 ? 0.2 : 0.3;
            one.side = better::lower;
            one.value = one.own_ns_per_token();
            one.baseline = "absolute: kernel 7, ns per token of a head";
            run.rows.add(std::move(one));
        }
    }
}

/// Bytes of keys per second, against a read of the same bytes.
template <typename Key>
void measure_knorm(session& run, const char* type, std::size_t tokens) {
    run.progress(fmt::format("score/knorm/{} tokens:{}", type, tokens));
    huge_buffer<Key> keys(num_kv_heads * tokens * head_dim);
    huge_buffer<float> scores(num_kv_heads * tokens);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys.data()[i] = from_float<Key>(random_unit(35, 0, i) - 0.5F);
    }
    const kv_view<const Key> kv(
        keys.span(), keys.span(), {num_kv_heads, tokens, head_dim, head_dim});
    std::uint64_t probed = 0;
    round_robin turns(run.limits);
    turns.add("ours", [&](std::size_t) {
        knorm_scorer{}.score(kv, head_scores(scores.span(), num_kv_heads, tokens));
    });
    turns.add("probe", [&](std::size_t) {
        probed ^= probe_read_write(reinterpret_cast<const std::byte*>(keys.data()),
                                   keys.size() * sizeof(Key),
                                   reinterpret_cast<std::byte*>(scores.data()),
                                   scores.size() * sizeof(float));
    });
    const timings times = turns.run();
    const double bytes = static_cast<double>(keys.size() * sizeof(Key));
    row one{.name = fmt::format("score/knorm/{}/tokens:{}", type, tokens)};
    one.variant = "ours";
    set_times(one, times, tokens);
    one.bar = 0.85;
    one.value = times.ratio("probe", "ours");
    one.spread = times.spread("probe", "ours");
    one.baseline = fmt::format("reading the keys and writing the scores, {:.0f} GB/s",
                               bytes / times.median("probe"));
    run.rows.add(std::move(one));
}

} // namespace

void measure_score(session& run) {
    if (simd::best() == simd::isa::scalar) {
        run.rows.skip("score", "no vector kernels on this machine");
        return;
    }
    for (const std::size_t tokens : sequence_lengths(run)) {
        measure_products(run, tokens);
    }
    if (run.avx512 && simd::has_bf16()) {
        for (const std::size_t tokens : sequence_lengths(run)) {
            measure_bf16(run, tokens);
        }
    } else {
        run.rows.skip("score/bf16", "no dot products of bf16 pairs on this machine");
    }
    for (const std::size_t tokens : std::initializer_list<std::size_t>{4096, 32768}) {
        measure_softmax(run, tokens);
        measure_pool(run, tokens);
        measure_knorm<float>(run, "f32", tokens);
        measure_knorm<f16>(run, "f16", tokens);
    }
}

} // namespace kvcrush::bench
