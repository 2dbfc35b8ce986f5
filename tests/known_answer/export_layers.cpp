// SPDX-License-Identifier: Apache-2.0
// Writes what two layers of the real model hold after a few hundred tokens, for make_kvpress_answers.py:
//
//     kvcrush-export-layers MODEL.gguf lm_windows.json smollm2_layers.safetensors
//
// The output is a safetensors file: eight bytes with the length of a JSON header, the header, then the arrays.
#include <kvcrush/core/types.hpp>

#include "files.hpp"
#include "gguf.hpp"
#include "model.hpp"
#include "weights.hpp"
#include "window.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iterator>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace {

using kvcrush::f16;

/// Ragged on purpose: divided by no block, chunk or vector length.
constexpr std::size_t num_tokens = 233;
constexpr std::array<std::size_t, 2> layers{4, 20};
/// The layer whose output projection is written as well.
constexpr std::size_t projected_layer = 4;

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

/// Collects named arrays.
class tensor_file {
public:
    template <typename T>
    void add(const std::string& name,
             const char* type,
             const std::vector<std::size_t>& shape,
             std::span<const T> values) {
        const std::size_t first = data_.size();
        const auto bytes = std::as_bytes(values);
        data_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        header_[name] = {
            {"dtype", type}, {"shape", shape}, {"data_offsets", {first, data_.size()}}};
    }
    void note(const std::string& key, const std::string& text) {
        header_["__metadata__"][key] = text;
    }

    [[nodiscard]] std::string bytes() const {
        std::string header = header_.dump();
        header.resize((header.size() + 7) / 8 * 8, ' ');
        const auto length = std::bit_cast<std::array<char, 8>>(std::uint64_t{header.size()});
        return std::string(length.begin(), length.end()) + header + data_;
    }

private:
    nlohmann::json header_;
    std::string data_;
};

/// [heads, tokens, dim]
[[nodiscard]] std::vector<f16> heads_first(const kvcrush::query_view& queries) {
    std::vector<f16> out;
    for (std::size_t h = 0; h < queries.num_q_heads(); ++h) {
        for (std::size_t t = 0; t < queries.num_queries(); ++t) {
            std::transform(queries.row(h, t),
                           queries.row(h, t) + queries.head_dim(),
                           std::back_inserter(out),
                           kvcrush::to_f16);
        }
    }
    return out;
}

/// The output projection in eight bits: w = scale[row] * q. Programs that read it use these weights, not the model's.
void add_projection(tensor_file& file,
                    const std::string& name,
                    const lab::packed_matrix& weights) {
    std::vector<std::int8_t> values;
    std::vector<float> scales;
    std::vector<float> row(weights.cols());
    for (std::size_t r = 0; r < weights.rows(); ++r) {
        weights.copy_row(r, row);
        float largest = 0.0F;
        for (const float w : row) {
            largest = (std::max)(largest, std::abs(w));
        }
        const float scale = largest == 0.0F ? 1.0F : largest / 127.0F;
        scales.push_back(scale);
        for (const float w : row) {
            values.push_back(static_cast<std::int8_t>(std::lround(w / scale)));
        }
    }
    file.add<std::int8_t>(name, "I8", {weights.rows(), weights.cols()}, values);
    file.add<float>(name + ".scale", "F32", {weights.rows()}, scales);
}

void export_layers(const std::string& model_path,
                   const std::string& windows_path,
                   const std::string& output_path) {
    lab::output_file output(output_path);
    const lab::gguf_file gguf(model_path);
    const lab::llama model = lab::llama::load(gguf);
    const lab::model_config& config = model.config();
    const lab::window text = lab::read_windows(windows_path).at(0);
    const std::span<const int> ids = std::span(text.context).first(num_tokens);

    kvcrush::kv_cache cache = model.make_cache(lab::cache_type::f16);
    static_cast<void>(model.forward(ids, cache, 0));

    tensor_file file;
    file.note("model", gguf.name());
    file.note("text", "the first " + std::to_string(num_tokens) + " tokens of " + text.name);
    file.note("rope_theta", std::to_string(config.rope_theta));
    for (const std::size_t layer : layers) {
        const kvcrush::sequence_access access(cache.layer(layer), cache.queries(layer));
        const std::string name = "layer" + std::to_string(layer) + ".";
        const std::vector<std::size_t> shape{config.num_kv_heads, num_tokens, config.head_dim};
        std::vector<float> keys(num_tokens * config.head_dim);
        std::vector<float> values(keys.size());
        std::vector<f16> all_keys;
        std::vector<f16> all_values;
        for (std::size_t head = 0; head < config.num_kv_heads; ++head) {
            access.read_keys(head, 0, num_tokens, keys.data());
            access.read_values(head, 0, num_tokens, values.data());
            std::ranges::transform(keys, std::back_inserter(all_keys), kvcrush::to_f16);
            std::ranges::transform(values, std::back_inserter(all_values), kvcrush::to_f16);
        }
        file.add<f16>(name + "keys", "F16", shape, all_keys);
        file.add<f16>(name + "values", "F16", shape, all_values);
        file.add<f16>(name + "queries",
                      "F16",
                      {config.num_q_heads, num_tokens, config.head_dim},
                      heads_first(cache.queries(layer).last(num_tokens)));
    }
    add_projection(file,
                   "layer" + std::to_string(projected_layer) + ".output",
                   lab::load_weights(gguf, config).layers.at(projected_layer).attention_output);
    output.commit(file.bytes());
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fputs("usage: kvcrush-export-layers MODEL.gguf WINDOWS.json OUTPUT.safetensors\n",
                   stderr);
        return 2;
    }
    try {
        export_layers(argv[1], argv[2], argv[3]);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "kvcrush-export-layers: %s\n", error.what());
        return 2;
    }
}
