// SPDX-License-Identifier: Apache-2.0
// select/share: scoring, selecting and compacting one layer, over the prefill of that layer, on one thread.
#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/presets.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/random.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/streaming_llm.hpp>
#include <kvcrush/select/top_k.hpp>
#include <kvcrush/simd/isa.hpp>

#include "bars.hpp"
#include "baseline_eigen.hpp"
#include "huge_buffer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>

namespace kvcrush::bench {
namespace {

constexpr std::size_t tokens = 4096;
/// The last queries that an engine hands over.
constexpr std::size_t num_queries = 256;

/// A layer whose cache is compressed.
class share_layer {
public:
    explicit share_layer(const prefill_shape& of)
        : of_(of),
          keys_(of.num_kv_heads * tokens * of.head_dim),
          values_(keys_.size()),
          queries_(of.num_q_heads * num_queries * of.head_dim) {
        for (std::size_t i = 0; i < keys_.size(); ++i) {
            keys_.data()[i] = to_f16(random_unit(61, 0, i) - 0.5F);
        }
        for (std::size_t i = 0; i < queries_.size(); ++i) {
            queries_.data()[i] = 8.0F * (random_unit(62, 0, i) - 0.5F);
        }
    }

    /// Adds a contestant that compresses the layer with these policies.
    template <typename Scorer, typename Selector, typename Allocator = uniform_allocator>
    void add(round_robin& turns,
             const char* name,
             const Scorer& scorer,
             const Selector& selector,
             const Allocator& allocator = {}) {
        using compressor_type = compressor<Scorer, Selector, Allocator>;
        auto crush = std::make_shared<compressor_type>(scorer, selector, allocator);
        crush->plan({shape(), of_.num_q_heads}, budget::keep_ratio(0.25));
        turns.add(name, [this, crush](std::size_t) {
            const kv_view<f16> kv(keys_.span(), values_.span(), shape());
            const query_view queries(queries_.span(), of_.num_q_heads, num_queries, of_.head_dim);
            if constexpr (Scorer::needs_attention || !std::is_same_v<Selector, top_k_selector>) {
                compact(kv, crush->select(kv, queries));
            } else {
                compact(kv, crush->select(kv));
            }
        });
    }

private:
    [[nodiscard]] kv_shape shape() const noexcept {
        return {of_.num_kv_heads, tokens, of_.head_dim, of_.head_dim};
    }

    prefill_shape of_;
    huge_buffer<f16> keys_;
    huge_buffer<f16> values_;
    huge_buffer<float> queries_;
};

/// What the prefill of the layer costs, from a slice of its tokens: the products grow with the tokens, and the slice of
/// the attention lies in the middle of the sequence, where a query sees half of it.
class share_prefill {
public:
    share_prefill(const prefill_shape& of, std::size_t slice)
        : of_(of),
          slice_(slice),
          weights_(of.intermediate * of.hidden),
          in_(slice * (std::max)(of.hidden, of.num_q_heads * of.head_dim)),
          out_(slice * (std::max)(2 * of.intermediate,
                                  (of.num_q_heads + 2 * of.num_kv_heads) * of.head_dim) +
               slice * of.hidden),
          keys_(tokens / 2 * of.head_dim),
          logits_(slice * tokens / 2) {
        for (const auto& buffer : {weights_.span(), in_.span(), keys_.span()}) {
            for (std::size_t i = 0; i < buffer.size(); ++i) {
                buffer[i] = 1e-2F * static_cast<float>(static_cast<int>(i * 37 % 101) - 50);
            }
        }
    }

    void matmuls() { native_eigen_matmuls(of_, slice_, weights_.data(), in_.data(), out_.data()); }
    void attention() {
        native_eigen_attention(of_,
                               slice_,
                               tokens / 2,
                               keys_.data(),
                               keys_.data(),
                               in_.data(),
                               logits_.data(),
                               out_.data());
    }
    /// Slices in the prefill.
    [[nodiscard]] double num_slices() const noexcept {
        return static_cast<double>(tokens) / static_cast<double>(slice_);
    }
    /// Of the whole prefill.
    [[nodiscard]] double flop() const noexcept {
        return static_cast<double>(tokens) *
               (of_.matmul_flop() + of_.attention_flop(static_cast<double>(tokens) / 2.0));
    }

private:
    prefill_shape of_;
    std::size_t slice_;
    huge_buffer<float> weights_;
    huge_buffer<float> in_;
    huge_buffer<float> out_;
    huge_buffer<float> keys_;
    huge_buffer<float> logits_;
};

void measure_model(session& run, const char* model, const prefill_shape& of, std::size_t slice) {
    run.progress(fmt::format("select/share {}", model));
    share_layer layer(of);
    share_prefill prefill(of, slice);
    // A slice of a large layer takes half a second: few rounds of it, and the same of the rest, in turn.
    effort limits = run.limits;
    limits.min_rounds = (std::min)(limits.min_rounds, std::size_t{3});
    round_robin turns(limits);
    layer.add(turns, "kvcrush(snapkv)", snapkv_scorer{}, kvcrush_selector<>{});
    const auto several = kvcrush_auto();
    layer.add(turns, "kvcrush_auto", several.scorer, several.selector, several.allocator);
    layer.add(turns, "snapkv", snapkv_scorer{}, top_k_selector{});
    layer.add(
        turns, "kvcrush(h2o,last=256)", h2o_scorer{.last = num_queries}, kvcrush_selector<>{});
    layer.add(turns, "h2o,last=256", h2o_scorer{.last = num_queries}, top_k_selector{});
    layer.add(turns, "knorm", knorm_scorer{}, top_k_selector{});
    layer.add(turns, "random", random_scorer{}, top_k_selector{});
    layer.add(turns, "streaming_llm", streaming_llm_scorer{}, top_k_selector{});
    turns.add("matmuls", [&](std::size_t) { prefill.matmuls(); });
    turns.add("attention", [&](std::size_t) { prefill.attention(); });
    const timings times = turns.run();

    const double took =
        prefill.num_slices() * (times.median("matmuls") + times.median("attention"));
    for (const timings::contestant& one : times.contestants()) {
        if (one.name == "matmuls" || one.name == "attention") {
            continue;
        }
        row share{.name = fmt::format("select/share/{}/{}", model, one.name)};
        share.variant = one.name;
        set_times(share, times, tokens);
        share.bar = one.name == "kvcrush_auto" ? 0.01 : 0.005;
        share.side = better::lower;
        share.value = times.median(one.name) / took;
        share.spread = times.spread(one.name, "matmuls");
        share.baseline = fmt::format(
            "prefill of {} tokens, {:.2f} s at {:.0f} GFLOP/s (Eigen -O3 -march=native; {} times a "
            "slice of {}); we {:.2f} ms, a share of {:.5f}",
            tokens,
            1e-9 * took,
            prefill.flop() / took,
            tokens / slice,
            slice,
            1e-6 * times.median(one.name),
            *share.value);
        run.rows.add(std::move(share));
    }
}

} // namespace

void measure_share(session& run) {
#if KVCRUSH_BENCH_NATIVE
    const std::size_t slice = run.full ? 256 : 64;
    measure_model(run,
                  "hidden:4096",
                  {.hidden = 4096,
                   .intermediate = 14336,
                   .num_q_heads = 32,
                   .num_kv_heads = 8,
                   .head_dim = 128},
                  slice);
    measure_model(
        run,
        "hidden:576",
        {.hidden = 576, .intermediate = 1536, .num_q_heads = 9, .num_kv_heads = 3, .head_dim = 64},
        slice);
#else
    run.rows.add_void({.name = "select/share"}, "the compiler does not know -march=native");
#endif
}

} // namespace kvcrush::bench
