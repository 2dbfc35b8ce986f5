// SPDX-License-Identifier: Apache-2.0
/// @file
/// A Llama small enough to compute by obvious loops in double, written as a GGUF file.
#pragma once

#include "gguf_builder.hpp"
#include "model.hpp"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace lab_test {

/// Every size differs from the others, so that no two can be mixed up.
struct tiny_model {
    std::uint32_t num_layers = 2;
    std::uint32_t num_q_heads = 6;
    std::uint32_t num_kv_heads = 2;
    std::uint32_t head_dim = 8;
    std::uint32_t hidden = 20;
    std::uint32_t ffn = 28;
    std::uint32_t vocab = 50;
    std::uint32_t context_length = 700;
    float rope_theta = 500.0F;
    float rms_epsilon = 1e-5F;
    bool tied = false;
    std::map<std::string, std::vector<float>> tensors;

    explicit tiny_model(bool tie_output = false) : tied(tie_output) {
        const std::size_t q_width = num_q_heads * head_dim;
        const std::size_t kv_width = num_kv_heads * head_dim;
        fill("token_embd.weight", vocab, hidden);
        if (!tied) {
            fill("output.weight", vocab, hidden);
        }
        fill("output_norm.weight", 1, hidden);
        for (std::uint32_t i = 0; i < num_layers; ++i) {
            fill(block(i, "attn_norm"), 1, hidden);
            fill(block(i, "attn_q"), q_width, hidden);
            fill(block(i, "attn_k"), kv_width, hidden);
            fill(block(i, "attn_v"), kv_width, hidden);
            fill(block(i, "attn_output"), hidden, q_width);
            fill(block(i, "ffn_norm"), 1, hidden);
            fill(block(i, "ffn_gate"), ffn, hidden);
            fill(block(i, "ffn_up"), ffn, hidden);
            fill(block(i, "ffn_down"), hidden, ffn);
        }
    }

    static std::string block(std::uint32_t layer, const std::string& name) {
        return "blk." + std::to_string(layer) + "." + name + ".weight";
    }

    /// Everything but the tensors, so that tests can leave a key out or spoil it.
    [[nodiscard]] std::map<std::string, std::uint32_t> counts() const {
        return {{"llama.block_count", num_layers},
                {"llama.embedding_length", hidden},
                {"llama.feed_forward_length", ffn},
                {"llama.context_length", context_length},
                {"llama.attention.head_count", num_q_heads},
                {"llama.attention.head_count_kv", num_kv_heads},
                {"llama.attention.key_length", head_dim},
                {"llama.attention.value_length", head_dim},
                {"llama.rope.dimension_count", head_dim},
                {"llama.vocab_size", vocab}};
    }

    void add_tensors(gguf_builder& builder) const {
        for (const auto& [name, values] : tensors) {
            add_tensor(builder, name, values);
        }
    }
    void add_tensor(gguf_builder& builder,
                    const std::string& name,
                    const std::vector<float>& values) const {
        const std::size_t length = row_lengths_.at(name);
        if (values.size() == length) {
            builder.f32_tensor(name, {length}, values);
        } else {
            builder.f32_tensor(name, {length, values.size() / length}, values);
        }
    }

    [[nodiscard]] gguf_builder file() const {
        gguf_builder builder;
        builder.string("general.architecture", "llama");
        for (const auto& [key, value] : counts()) {
            builder.u32(key, value);
        }
        builder.f32("llama.rope.freq_base", rope_theta);
        builder.f32("llama.attention.layer_norm_rms_epsilon", rms_epsilon);
        add_tensors(builder);
        return builder;
    }

private:
    void fill(const std::string& name, std::size_t rows, std::size_t length) {
        std::vector<float> values(rows * length);
        for (float& value : values) {
            value = static_cast<float>(random_()) * 0x1p-32F - 0.5F;
        }
        if (rows == 1) { // norms are around 1
            for (float& value : values) {
                value += 1.0F;
            }
        }
        tensors[name] = values;
        row_lengths_[name] = length;
    }

    std::mt19937 random_{7};
    std::map<std::string, std::size_t> row_lengths_;
};

/// Writes the file, reads it and forgets it.
inline lab::llama load(const gguf_builder& builder) {
    const temporary_file file(builder.bytes(), "tiny.gguf");
    return lab::llama::load(lab::gguf_file(file.path()));
}

/// The forward pass as the dumb version: double, one token and one number at a time, RoPE on neighbouring rows as
/// the file stores them.
class tiny_reference {
public:
    explicit tiny_reference(const tiny_model& model)
        : model_(model), keys_(model.num_layers), values_(keys_) {}

    /// @return the logits after this token
    std::vector<double> read(int id) {
        const auto& embedding = model_.tensors.at("token_embd.weight");
        std::vector<double> x(model_.hidden);
        for (std::size_t i = 0; i < x.size(); ++i) {
            x[i] = static_cast<double>(embedding[static_cast<std::size_t>(id) * x.size() + i]);
        }
        for (std::uint32_t layer = 0; layer < model_.num_layers; ++layer) {
            add(x, attention(layer, norm(x, model_.block(layer, "attn_norm"))));
            const auto y = norm(x, model_.block(layer, "ffn_norm"));
            auto gate = product(model_.block(layer, "ffn_gate"), y);
            const auto up = product(model_.block(layer, "ffn_up"), y);
            for (std::size_t i = 0; i < gate.size(); ++i) {
                gate[i] = gate[i] / (1.0 + std::exp(-gate[i])) * up[i];
            }
            add(x, product(model_.block(layer, "ffn_down"), gate));
        }
        ++position_;
        return product(model_.tied ? "token_embd.weight" : "output.weight",
                       norm(x, "output_norm.weight"));
    }

    /// Keys of a layer after RoPE, in the order of the file: [tokens][kv_width].
    [[nodiscard]] const std::vector<std::vector<double>>& keys(std::size_t layer) const {
        return keys_[layer];
    }

    /// Rows of a layer and kv head that no later token sees.
    void hide(std::size_t layer, std::size_t head, std::size_t row) {
        hidden_.insert({layer, head, row});
    }

private:
    static void add(std::vector<double>& to, const std::vector<double>& from) {
        for (std::size_t i = 0; i < to.size(); ++i) {
            to[i] += from[i];
        }
    }
    [[nodiscard]] std::vector<double> norm(const std::vector<double>& x,
                                           const std::string& name) const {
        double squares = 0.0;
        for (const double value : x) {
            squares += value * value;
        }
        const double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) +
                                             static_cast<double>(model_.rms_epsilon));
        std::vector<double> y(x.size());
        for (std::size_t i = 0; i < x.size(); ++i) {
            y[i] = x[i] * scale * static_cast<double>(model_.tensors.at(name)[i]);
        }
        return y;
    }
    [[nodiscard]] std::vector<double> product(const std::string& name,
                                              const std::vector<double>& x) const {
        const auto& weights = model_.tensors.at(name);
        std::vector<double> y(weights.size() / x.size());
        for (std::size_t o = 0; o < y.size(); ++o) {
            for (std::size_t i = 0; i < x.size(); ++i) {
                y[o] += static_cast<double>(weights[o * x.size() + i]) * x[i];
            }
        }
        return y;
    }
    void rotate(std::vector<double>& x) const {
        for (std::size_t i = 0; i < x.size(); i += 2) {
            const auto pair = static_cast<double>(i % model_.head_dim);
            const double angle =
                static_cast<double>(position_) *
                std::pow(static_cast<double>(model_.rope_theta), -pair / model_.head_dim);
            const double a = x[i];
            const double b = x[i + 1];
            x[i] = a * std::cos(angle) - b * std::sin(angle);
            x[i + 1] = b * std::cos(angle) + a * std::sin(angle);
        }
    }
    std::vector<double> attention(std::uint32_t layer, const std::vector<double>& x) {
        auto queries = product(model_.block(layer, "attn_q"), x);
        auto key = product(model_.block(layer, "attn_k"), x);
        rotate(queries);
        rotate(key);
        keys_[layer].push_back(key);
        values_[layer].push_back(product(model_.block(layer, "attn_v"), x));
        std::vector<double> output(queries.size());
        const std::size_t dim = model_.head_dim;
        for (std::size_t head = 0; head < model_.num_q_heads; ++head) {
            const std::size_t kv = head / (model_.num_q_heads / model_.num_kv_heads);
            std::vector<double> weights;
            double sum = 0.0;
            for (std::size_t r = 0; r < keys_[layer].size(); ++r) {
                double dot = 0.0;
                for (std::size_t i = 0; i < dim; ++i) {
                    dot += queries[head * dim + i] * keys_[layer][r][kv * dim + i];
                }
                const bool seen = !hidden_.contains({layer, kv, r});
                weights.push_back(seen ? std::exp(dot / std::sqrt(static_cast<double>(dim))) : 0.0);
                sum += weights.back();
            }
            for (std::size_t r = 0; r < weights.size(); ++r) {
                for (std::size_t i = 0; i < dim; ++i) {
                    output[head * dim + i] += weights[r] / sum * values_[layer][r][kv * dim + i];
                }
            }
        }
        return product(model_.block(layer, "attn_output"), output);
    }

    const tiny_model& model_;
    std::vector<std::vector<std::vector<double>>> keys_;
    std::vector<std::vector<std::vector<double>>> values_;
    std::set<std::array<std::size_t, 3>> hidden_;
    std::size_t position_ = 0;
};

} // namespace lab_test
