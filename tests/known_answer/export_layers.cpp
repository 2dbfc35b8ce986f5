// SPDX-License-Identifier: Apache-2.0
// Writes what two layers of the real model hold after a few hundred tokens, for make_kvpress_answers.py:
//
//     kvcrush-export-layers MODEL.gguf lm_windows.json smollm2_layers.safetensors
//
// The output is a safetensors file: eight bytes with the length of a JSON header, the header, then the arrays.
#include <kvcrush/core/types.hpp>

#include "files.hpp"
#include "gguf.hpp"
#include "kv_cache.hpp"
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

/// [tokens, heads, dim] to [heads, tokens, dim]
[[nodiscard]] std::vector<f16>
heads_first(std::span<const float> in, std::size_t tokens, std::size_t heads, std::size_t dim) {
    std::vector<f16> out(in.size());
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t h = 0; h < heads; ++h) {
            for (std::size_t d = 0; d < dim; ++d) {
                out[(h * tokens + t) * dim + d] =
                    kvcrush::from_float<f16>(in[(t * heads + h) * dim + d]);
            }
        }
    }
    return out;
}

template <typename T>
[[nodiscard]] std::vector<T> joined(std::size_t heads, const auto& rows_of) {
    std::vector<T> all;
    for (std::size_t h = 0; h < heads; ++h) {
        const std::span<const T> rows = rows_of(h);
        all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
}

/// The output projection in eight bits: w = scale[row] * q. Programs that read it use these weights, not the model's.
void add_projection(tensor_file& file, const std::string& name, const lab::matrix& weights) {
    std::vector<std::int8_t> values;
    std::vector<float> scales;
    for (std::size_t r = 0; r < weights.rows(); ++r) {
        float largest = 0.0F;
        for (const float w : weights.row(r)) {
            largest = (std::max)(largest, std::abs(w));
        }
        const float scale = largest == 0.0F ? 1.0F : largest / 127.0F;
        scales.push_back(scale);
        for (const float w : weights.row(r)) {
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

    lab::kv_cache cache = model.make_cache(lab::cache_type::f16);
    lab::query_log queries;
    static_cast<void>(model.forward(ids, cache, 0, &queries));

    tensor_file file;
    file.note("model", gguf.name());
    file.note("text", "the first " + std::to_string(num_tokens) + " tokens of " + text.name);
    file.note("rope_theta", std::to_string(config.rope_theta));
    for (const std::size_t layer : layers) {
        const auto& held = cache.layers<f16>().at(layer);
        const std::string name = "layer" + std::to_string(layer) + ".";
        const std::vector<std::size_t> shape{config.num_kv_heads, num_tokens, config.head_dim};
        file.add<f16>(
            name + "keys", "F16", shape, joined<f16>(config.num_kv_heads, [&](std::size_t h) {
                return held.keys(h);
            }));
        file.add<f16>(
            name + "values", "F16", shape, joined<f16>(config.num_kv_heads, [&](std::size_t h) {
                return held.values(h);
            }));
        file.add<f16>(
            name + "queries",
            "F16",
            {config.num_q_heads, num_tokens, config.head_dim},
            heads_first(queries.layers.at(layer), num_tokens, config.num_q_heads, config.head_dim));
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
