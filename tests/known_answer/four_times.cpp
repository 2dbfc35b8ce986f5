// SPDX-License-Identifier: Apache-2.0
// four_times FILE.safetensors: two layers of the real model in a quarter of the bytes; fails unless both answers are known.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <kvcrush/kvcrush.hpp>
using namespace kvcrush;
/// An array [heads, 233, 64] of f16 in a safetensors file, as [233, heads, 64].
std::vector<float> read(const std::string& file, const std::string& name, std::size_t heads) {
    std::uint64_t header = 0;
    std::memcpy(&header, file.data(), sizeof(header));
    const char* const place = std::strstr(std::strstr(file.data() + 8, name.c_str()), "offsets") + 10;
    std::vector<f16> stored(233 * heads * 64);
    std::memcpy(stored.data(), file.data() + 8 + header + std::strtoul(place, nullptr, 10), 2 * stored.size());
    std::vector<float> rows(stored.size());
    for (std::size_t i = 0, n = heads; i < rows.size(); ++i) { rows[i] = to_float(stored[(i / 64 % n * 233 + i / 64 / n) * 64 + i % 64]); }
    return rows;
}
int main(int, char** arguments) {
    std::ifstream in(arguments[1], std::ios::binary);
    const std::string file(std::istreambuf_iterator<char>(in), {});
    const model_shape one_layer{.num_layers = 1, .num_q_heads = 9, .num_kv_heads = 3, .head_dim = 64};
    double bytes = 0.0, error = 0.0, total = 0.0;
    for (const std::string layer : {"layer4", "layer20"}) {
        kv_cache full(one_layer), small(one_layer, four_times());
        const auto keys = read(file, layer + ".keys", 3), values = read(file, layer + ".values", 3);
        const auto queries = read(file, layer + ".queries", 9);
        std::vector<float> wanted(queries.size()), found(9 * 64);
        if (!full.append(0, keys, values) || !small.append(0, keys, values)) { return 1; }
        full.attend(0, queries, wanted);
        small.observe(0, queries); // as an engine does whose own attention reads the prompt
        bytes += static_cast<double>(small.compress().bytes_held) / (2 * 2 * 233 * 3 * 64);
        small.attend(0, std::span(queries).last(9 * 64), found); // the last token looks once more
        const float* const full_row = wanted.data() + wanted.size() - found.size();
        for (std::size_t i = 0; i < found.size(); ++i) { error += std::pow(found[i] - full_row[i], 2), total += std::pow(full_row[i], 2); }
    }
    const double share = 50.0 * bytes, off = 100.0 * std::sqrt(error / total);
    std::printf("%.2f %% of the f16 bytes, attention off by %.2f %%\n", share, off);
    return std::abs(share - 25.57) < 0.01 && std::abs(off - 8.12) < 0.1 ? 0 : 1;
}
