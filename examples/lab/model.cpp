// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include <kvcrush/codec/dense.hpp>

#include "eigen.hpp"
#include "error.hpp"
#include "executor.hpp"
#include "stopwatch.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lab {
namespace {

/// What one chunk of tokens needs on its way through the layers, allocated once per forward pass.
struct workspace {
    workspace(const model_config& config, std::size_t tokens)
        : residual(tokens, config.hidden),
          normed(tokens, config.hidden),
          qkv(tokens, config.q_width() + 2 * config.kv_width()),
          keys(tokens, config.kv_width()),
          values(tokens, config.kv_width()),
          attended(tokens, config.q_width()),
          gate_up(tokens, 2 * config.ffn),
          activated(tokens, config.ffn),
          change(tokens, config.hidden),
          cosine(tokens, config.head_dim / 2),
          sine(tokens, config.head_dim / 2) {}

    matrix residual;
    matrix normed;
    matrix qkv;
    matrix keys;   ///< of qkv, without gaps
    matrix values; ///< likewise
    matrix attended;
    matrix gate_up;
    matrix activated;
    matrix change; ///< what a sublayer adds to the residual
    matrix cosine;
    matrix sine;
};

/// to = from / sqrt(mean(from^2) + epsilon) * weights
void rms_norm(std::span<const float> from,
              std::span<const float> weights,
              float epsilon,
              std::span<float> to) {
    const const_array_map values(from.data(), index(from.size()));
    const float scale = 1.0F / std::sqrt(values.square().mean() + epsilon);
    array_map(to.data(), index(to.size())) =
        values * scale * const_array_map(weights.data(), index(weights.size()));
}

/// The angles of a chunk: position / theta^(2j / head_dim). In double, as positions reach thousands of radians.
void set_angles(const model_config& config,
                std::size_t first_position,
                std::size_t tokens,
                workspace& work) {
    for (std::size_t j = 0; j < config.head_dim / 2; ++j) {
        const double exponent = 2.0 * static_cast<double>(j) / static_cast<double>(config.head_dim);
        const double frequency = std::pow(config.rope_theta, -exponent);
        for (std::size_t t = 0; t < tokens; ++t) {
            const double angle = static_cast<double>(first_position + t) * frequency;
            work.cosine.row(t)[j] = static_cast<float>(std::cos(angle));
            work.sine.row(t)[j] = static_cast<float>(std::sin(angle));
        }
    }
}

/// Turns channel j of a head with channel j + head_dim / 2.
void rotate(float* head, std::span<const float> cosine, std::span<const float> sine) {
    const std::size_t half = cosine.size();
    for (std::size_t j = 0; j < half; ++j) {
        const float low = head[j];
        const float high = head[j + half];
        head[j] = low * cosine[j] - high * sine[j];
        head[j + half] = high * cosine[j] + low * sine[j];
    }
}

/// The new tokens become rows of a layer and look at all of them.
void attend(const model_config& config,
            std::size_t layer,
            std::size_t tokens,
            kvcrush::kv_cache& cache,
            workspace& work) {
    const std::size_t width = config.kv_width();
    for (std::size_t t = 0; t < tokens; ++t) {
        const auto row = work.qkv.row(t).subspan(config.q_width());
        std::copy_n(row.begin(), width, work.keys.row(t).begin());
        std::copy_n(row.begin() + static_cast<std::ptrdiff_t>(width), width, work.values.row(t).begin());
    }
    const std::size_t position = cache.layer(layer).tokens_seen();
    if (!cache.append(layer, {work.keys.data(), tokens * width}, {work.values.data(), tokens * width})) {
        fail("layer ",
             layer,
             ": the keys or values of the tokens from ",
             position,
             " on hold NaN, infinity, or more than the cache can");
    }
    std::size_t rows = 0;
    for (std::size_t head = 0; head < config.num_kv_heads; ++head) {
        rows += cache.layer(layer).rows(head);
    }
    const kvcrush::query_view queries({work.qkv.data(), (tokens - 1) * work.qkv.cols() + config.q_width()},
                                      config.num_q_heads,
                                      tokens,
                                      config.head_dim,
                                      {config.head_dim, work.qkv.cols(), 1});
    cache.attend(layer,
                 queries,
                 {work.attended.data(), tokens * config.q_width()},
                 {.output = {config.head_dim, config.q_width(), 1},
                  .num_lanes = lanes_for(rows * tokens)},
                 openmp_executor{});
}

void add_change(workspace& work, std::size_t tokens) {
    const Eigen::Index size = index(tokens * work.residual.cols());
    array_map(work.residual.data(), size) += const_array_map(work.change.data(), size);
}

/// Loops over tokens are shared by the threads where a chunk has many.
template <typename F>
void for_each_token(std::size_t tokens, const F& what) {
#ifdef _OPENMP
#    pragma omp parallel for schedule(static) if (tokens > 8)
#endif
    for (std::size_t t = 0; t < tokens; ++t) {
        what(t);
    }
}

/// @return what it took to look at the cache [ms]
double attention_sublayer(const model_config& config,
                          const layer_weights& layer,
                          std::size_t index,
                          std::size_t tokens,
                          kvcrush::kv_cache& cache,
                          workspace& work) {
    for_each_token(tokens, [&](std::size_t t) {
        rms_norm(
            work.residual.row(t), layer.attention_norm, config.rms_epsilon, work.normed.row(t));
    });
    multiply(layer.qkv, work.normed.data(), tokens, work.qkv.data());
    for_each_token(tokens, [&](std::size_t t) {
        for (std::size_t head = 0; head < config.num_q_heads + config.num_kv_heads; ++head) {
            rotate(work.qkv.row(t).data() + head * config.head_dim,
                   work.cosine.row(t),
                   work.sine.row(t));
        }
    });
    const stopwatch watch;
    attend(config, index, tokens, cache, work);
    const double milliseconds = watch.milliseconds();
    multiply(layer.attention_output, work.attended.data(), tokens, work.change.data());
    add_change(work, tokens);
    return milliseconds;
}

/// down(silu(gate(x)) * up(x))
void ffn_sublayer(const model_config& config,
                  const layer_weights& layer,
                  std::size_t tokens,
                  workspace& work) {
    for_each_token(tokens, [&](std::size_t t) {
        rms_norm(work.residual.row(t), layer.ffn_norm, config.rms_epsilon, work.normed.row(t));
    });
    multiply(layer.gate_up, work.normed.data(), tokens, work.gate_up.data());
    for_each_token(tokens, [&](std::size_t t) {
        const const_array_map gate(work.gate_up.row(t).data(), index(config.ffn));
        const const_array_map up(work.gate_up.row(t).data() + config.ffn, index(config.ffn));
        array_map(work.activated.row(t).data(), index(config.ffn)) =
            gate / (1.0F + (-gate).exp()) * up;
    });
    multiply(layer.down, work.activated.data(), tokens, work.change.data());
    add_change(work, tokens);
}

/// Weights may be finite and their sums not.
/// @param first  position of the token that the first row follows
void require_finite(const matrix& logits, std::size_t first) {
    for (std::size_t t = 0; t < logits.rows(); ++t) {
        const auto row = logits.row(t);
        // A sum of squares is finite only if all of them are; in double no square of a float overflows.
        const double squares =
            const_array_map(row.data(), index(row.size())).cast<double>().square().sum();
        if (!std::isfinite(squares)) {
            fail("the model computes NaN or infinity from the token at position ", first + t);
        }
    }
}

} // namespace

llama llama::load(const gguf_file& file) {
    const model_config config = read_config(file);
    return {config, load_weights(file, config)};
}

kvcrush::kv_cache llama::make_cache(cache_type type) const {
    kvcrush::recipe everything{.keep = kvcrush::cache_budget::everything()};
    if (type == cache_type::f32) {
        everything.rows.dense = {kvcrush::dense_codec<float>{}, kvcrush::dense_codec<float>{}};
    }
    kvcrush::kv_cache cache({.num_layers = config_.num_layers,
                             .num_q_heads = config_.num_q_heads,
                             .num_kv_heads = config_.num_kv_heads,
                             .head_dim = config_.head_dim,
                             .angles = {.theta = config_.rope_theta}},
                            everything);
    cache.remember_queries(config_.context_length);
    return cache;
}

void llama::check(std::span<const int> ids,
                  const kvcrush::kv_cache& cache,
                  std::size_t num_logits) const {
    for (const int id : ids) {
        if (id < 0 || static_cast<std::size_t>(id) >= config_.vocab) {
            fail("token id is ", id, "; allowed: 0 to ", config_.vocab - 1);
        }
    }
    if (cache.tokens_seen() > config_.context_length ||
        ids.size() > config_.context_length - cache.tokens_seen()) {
        fail("text has ",
             cache.tokens_seen(),
             " tokens so far and ",
             ids.size(),
             " new ones; the model reads ",
             config_.context_length,
             " at most");
    }
    if (num_logits > ids.size()) {
        fail("logits are asked for ", num_logits, " tokens; there are ", ids.size());
    }
    const kvcrush::model_shape& shape = cache.shape();
    const bool fits = shape.num_layers == config_.num_layers &&
                      shape.num_q_heads == config_.num_q_heads &&
                      shape.num_kv_heads == config_.num_kv_heads &&
                      shape.extent().key_dim == config_.head_dim &&
                      shape.extent().value_dim == config_.head_dim;
    if (!fits) {
        fail("the cache has another shape; ",
             config_.num_layers,
             " layers of ",
             config_.num_kv_heads,
             " kv heads with head_dim ",
             config_.head_dim,
             " are needed");
    }
}

matrix llama::forward(std::span<const int> ids,
                      kvcrush::kv_cache& cache,
                      std::size_t num_logits,
                      double* attention_ms,
                      const progress_callback& progress) const {
    check(ids, cache, num_logits);
    workspace work(config_, (std::min)(chunk_size, ids.size()));
    matrix last(num_logits, config_.hidden); // normed, of the tokens that are predicted after
    const std::size_t first_wanted = ids.size() - num_logits;
    for (std::size_t done = 0; done < ids.size();) {
        const std::size_t tokens = (std::min)(chunk_size, ids.size() - done);
        for (std::size_t t = 0; t < tokens; ++t) {
            weights_.embedding.copy_row(static_cast<std::size_t>(ids[done + t]),
                                        work.residual.row(t));
        }
        set_angles(config_, cache.tokens_seen(), tokens, work);
        for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
            const double milliseconds =
                attention_sublayer(config_, weights_.layers[i], i, tokens, cache, work);
            if (attention_ms != nullptr) {
                *attention_ms += milliseconds;
            }
            ffn_sublayer(config_, weights_.layers[i], tokens, work);
        }
        for (std::size_t t = (std::max)(done, first_wanted); t < done + tokens; ++t) {
            rms_norm(work.residual.row(t - done),
                     weights_.output_norm,
                     config_.rms_epsilon,
                     last.row(t - first_wanted));
        }
        done += tokens;
        if (progress) {
            progress(done, ids.size());
        }
    }
    matrix logits(num_logits, config_.vocab);
    const packed_matrix& output =
        weights_.output.rows() != 0 ? weights_.output : weights_.embedding;
    multiply(output, last.data(), num_logits, logits.data());
    require_finite(logits, cache.tokens_seen() - num_logits);
    return logits;
}

} // namespace lab
