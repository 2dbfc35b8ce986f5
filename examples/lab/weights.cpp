// SPDX-License-Identifier: Apache-2.0
#include "weights.hpp"

#include "dequantise.hpp"
#include "error.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <unordered_set>

namespace lab {
namespace {

/// Far above any Llama model, and small enough that products of three counts fit 64 bits.
constexpr std::uint64_t max_count = 1U << 20U;

std::size_t checked_count(const gguf_file& file, const std::string& key, std::uint64_t value) {
    if (value == 0 || value > max_count) {
        fail("model ",
             file.name(),
             ": metadata key ",
             in_quotes(key),
             " is ",
             value,
             "; allowed: 1 to ",
             max_count);
    }
    return static_cast<std::size_t>(value);
}

std::size_t get_count(const gguf_file& file, const std::string& key) {
    return checked_count(file, key, file.get_uint(key));
}

/// For keys that must agree with what the other keys say.
void require_equal(const gguf_file& file, const std::string& key, std::size_t needed) {
    const auto value = file.find_uint(key);
    if (value && *value != needed) {
        fail("model ",
             file.name(),
             ": metadata key ",
             in_quotes(key),
             " is ",
             *value,
             "; supported: ",
             needed);
    }
}

double get_positive(const gguf_file& file, const std::string& key, double value) {
    if (!std::isfinite(value) || value <= 0.0) {
        fail("model ",
             file.name(),
             ": metadata key ",
             in_quotes(key),
             " is ",
             value,
             "; a positive number is needed");
    }
    return value;
}

std::string shape_in_words(std::span<const std::uint64_t> shape) {
    std::string text = "[";
    for (const std::uint64_t length : shape) {
        text += (text.size() > 1 ? ", " : "") + std::to_string(length);
    }
    return text + "]";
}

/// Hands out the tensors by name, and knows in the end which ones nobody asked for.
class tensor_reader {
public:
    explicit tensor_reader(const gguf_file& file) : file_(file) {}

    /// @param[in] shape  as in the file: the length of a row comes first
    const gguf_tensor& take(const std::string& name, std::vector<std::uint64_t> shape) {
        const gguf_tensor* tensor = file_.find_tensor(name);
        if (tensor == nullptr) {
            fail("model ",
                 file_.name(),
                 ": tensor ",
                 in_quotes(name),
                 " is missing; it is required");
        }
        if (tensor->shape != shape) {
            fail("model ",
                 file_.name(),
                 ": tensor ",
                 in_quotes(name),
                 " has shape ",
                 shape_in_words(tensor->shape),
                 "; ",
                 shape_in_words(shape),
                 " is needed");
        }
        used_.insert(tensor->name);
        return *tensor;
    }

    std::vector<float> vector(const std::string& name, std::size_t length) {
        const gguf_tensor& tensor = take(name, {length});
        std::vector<float> values(length);
        read(tensor, values);
        return values;
    }

    /// Writes a matrix from row `first` of `to` on. @return the row after it
    std::size_t rows(const std::string& name, std::size_t count, std::size_t first, matrix& to) {
        const gguf_tensor& tensor = take(name, {to.cols(), count});
        read(tensor, {to.data() + first * to.cols(), count * to.cols()});
        return first + count;
    }

    packed_matrix whole(const std::string& name, std::size_t num_rows, std::size_t num_cols) {
        take(name, {num_cols, num_rows}); // checked before memory is asked for
        matrix result(num_rows, num_cols);
        rows(name, num_rows, 0, result);
        return packed_matrix(result);
    }

    /// Biases, RoPE factors, experts: what is not read would silently be left out of the sums.
    void require_all_used() const {
        for (const gguf_tensor& tensor : file_.tensors()) {
            if (!used_.contains(tensor.name)) {
                fail("model ",
                     file_.name(),
                     ": tensor ",
                     in_quotes(tensor.name),
                     " is not supported; known are token_embd, output, output_norm and "
                     "blk.*.{attn_norm, attn_q, "
                     "attn_k, attn_v, attn_output, ffn_norm, ffn_gate, ffn_up, ffn_down}.weight");
            }
        }
    }

private:
    /// A NaN would make everything NaN, which compares with nothing: all policies would look perfect.
    void read(const gguf_tensor& tensor, std::span<float> values) const {
        if (!all_finite(tensor.type, tensor.data)) {
            fail("model ",
                 file_.name(),
                 ": tensor ",
                 in_quotes(tensor.name),
                 " holds NaN or infinity; finite numbers are needed");
        }
        dequantise(tensor.type, tensor.data, values);
    }

    const gguf_file& file_;
    std::unordered_set<std::string_view> used_;
};

/// Row 2j + s of a head becomes row s * head_dim / 2 + j.
void split_halves(float* head, std::size_t head_dim, std::size_t length) {
    const std::vector<float> paired(head, head + head_dim * length);
    for (std::size_t row = 0; row < head_dim; ++row) {
        const std::size_t to = (row % 2) * (head_dim / 2) + row / 2;
        std::copy_n(paired.data() + row * length, length, head + to * length);
    }
}

layer_weights load_layer(tensor_reader& reader, const model_config& config, std::size_t number) {
    const std::string prefix = "blk." + std::to_string(number) + ".";
    // Checked before memory is asked for.
    reader.take(prefix + "attn_q.weight", {config.hidden, config.q_width()});
    reader.take(prefix + "ffn_gate.weight", {config.hidden, config.ffn});
    layer_weights layer;
    layer.attention_norm = reader.vector(prefix + "attn_norm.weight", config.hidden);
    matrix qkv(config.q_width() + 2 * config.kv_width(), config.hidden);
    std::size_t row = reader.rows(prefix + "attn_q.weight", config.q_width(), 0, qkv);
    row = reader.rows(prefix + "attn_k.weight", config.kv_width(), row, qkv);
    reader.rows(prefix + "attn_v.weight", config.kv_width(), row, qkv);
    for (std::size_t head = 0; head < config.num_q_heads + config.num_kv_heads; ++head) {
        split_halves(qkv.row(head * config.head_dim).data(), config.head_dim, config.hidden);
    }
    layer.qkv = packed_matrix(qkv);
    layer.attention_output =
        reader.whole(prefix + "attn_output.weight", config.hidden, config.q_width());
    layer.ffn_norm = reader.vector(prefix + "ffn_norm.weight", config.hidden);
    matrix gate_up(2 * config.ffn, config.hidden);
    row = reader.rows(prefix + "ffn_gate.weight", config.ffn, 0, gate_up);
    reader.rows(prefix + "ffn_up.weight", config.ffn, row, gate_up);
    layer.gate_up = packed_matrix(gate_up);
    layer.down = reader.whole(prefix + "ffn_down.weight", config.hidden, config.ffn);
    return layer;
}

void read_heads(const gguf_file& file, model_config& config) {
    config.num_q_heads = get_count(file, "llama.attention.head_count");
    const auto kv_heads = file.find_uint("llama.attention.head_count_kv");
    config.num_kv_heads = kv_heads ? checked_count(file, "llama.attention.head_count_kv", *kv_heads)
                                   : config.num_q_heads;
    if (config.num_q_heads % config.num_kv_heads != 0) {
        fail("model ",
             file.name(),
             ": ",
             config.num_q_heads,
             " query heads do not divide among ",
             config.num_kv_heads,
             " kv heads; a multiple is needed");
    }
    const auto key_length = file.find_uint("llama.attention.key_length");
    if (!key_length && config.hidden % config.num_q_heads != 0) {
        fail("model ",
             file.name(),
             ": width ",
             config.hidden,
             " does not divide among ",
             config.num_q_heads,
             " query heads; a multiple, or \"llama.attention.key_length\", is needed");
    }
    config.head_dim = key_length ? checked_count(file, "llama.attention.key_length", *key_length)
                                 : config.hidden / config.num_q_heads;
    if (config.head_dim % 2 != 0) {
        fail("model ",
             file.name(),
             ": head_dim is ",
             config.head_dim,
             "; RoPE needs an even number");
    }
    require_equal(file, "llama.attention.value_length", config.head_dim);
    require_equal(file, "llama.rope.dimension_count", config.head_dim);
}

} // namespace

model_config read_config(const gguf_file& file) {
    const std::string_view architecture = file.get_string("general.architecture");
    if (architecture != "llama") {
        fail("model ",
             file.name(),
             ": architecture is ",
             in_quotes(architecture),
             "; supported: \"llama\"");
    }
    model_config config;
    config.num_layers = get_count(file, "llama.block_count");
    config.hidden = get_count(file, "llama.embedding_length");
    config.ffn = get_count(file, "llama.feed_forward_length");
    config.context_length = get_count(file, "llama.context_length");
    read_heads(file, config);
    constexpr const char* theta_key = "llama.rope.freq_base";
    config.rope_theta = get_positive(file, theta_key, file.find_float(theta_key).value_or(10000.0));
    constexpr const char* epsilon_key = "llama.attention.layer_norm_rms_epsilon";
    config.rms_epsilon =
        static_cast<float>(get_positive(file, epsilon_key, file.get_float(epsilon_key)));
    const auto scaling = file.find_string("llama.rope.scaling.type");
    if (scaling && *scaling != "none") {
        fail("model ",
             file.name(),
             ": metadata key \"llama.rope.scaling.type\" is ",
             in_quotes(*scaling),
             "; supported: \"none\"");
    }
    const gguf_tensor* embedding = file.find_tensor("token_embd.weight");
    if (embedding == nullptr || embedding->shape.size() != 2) {
        fail("model ",
             file.name(),
             ": tensor \"token_embd.weight\" is ",
             embedding == nullptr ? "missing" : "not a matrix",
             "; [",
             config.hidden,
             ", vocabulary] is needed");
    }
    config.vocab = checked_count(file, "rows of token_embd.weight", embedding->shape.back());
    require_equal(file, "llama.vocab_size", config.vocab);
    return config;
}

model_weights load_weights(const gguf_file& file, const model_config& config) {
    tensor_reader reader(file);
    model_weights weights;
    weights.embedding = reader.whole("token_embd.weight", config.vocab, config.hidden);
    if (file.find_tensor("output.weight") != nullptr) {
        weights.output = reader.whole("output.weight", config.vocab, config.hidden);
    }
    weights.output_norm = reader.vector("output_norm.weight", config.hidden);
    for (std::size_t i = 0; i < config.num_layers; ++i) {
        weights.layers.push_back(load_layer(reader, config, i));
    }
    reader.require_all_used();
    return weights;
}

} // namespace lab
