// SPDX-License-Identifier: Apache-2.0
// You will know how to make a cache, feed it, compress it and attend to it, and what each recipe takes and loses.
#include <kvcrush/kvcrush.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

using namespace kvcrush;
constexpr model_shape model{.num_layers = 2, .num_q_heads = 8, .num_kv_heads = 2, .head_dim = 64};
constexpr std::size_t prompt = 2040; // tokens

enum what : std::uint64_t { keys, values, queries };

/// Rows of tokens [first, first + count), [tokens, heads, 64], of a text that has 32 subjects, goes to another one every
/// 16 tokens, and comes back. A row is its subject and some noise.
std::vector<float> text(what kind, std::size_t layer, std::size_t first, std::size_t count) {
    const std::size_t heads = kind == queries ? model.num_q_heads : model.num_kv_heads;
    const float size = kind == queries ? 12.0F : 1.0F;
    std::vector<float> rows(count * heads * 64);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t at = first * heads * 64 + i;
        const std::size_t subject = random_bits(9, 0, at / 64 / heads / 16) % 32;
        const std::size_t kv_head = at / 64 % heads / (heads / model.num_kv_heads);
        rows[i] = size * (random_unit(1, subject, kv_head * 64 + at % 64) - 0.5F) +
                  random_unit(2, 3 * layer + kind, at) - 0.5F;
    }
    return rows;
}

struct outcome {
    double bytes = 0.0; // held after compression
    std::vector<float> output{}; // of attention, of the token behind the prompt, all layers
};

outcome run(const recipe& how) {
    kv_cache cache(model, how);
    outcome found;
    for (std::size_t i = 0; i < model.num_layers; ++i) {
        if (!cache.append(i, text(keys, i, 0, prompt), text(values, i, 0, prompt))) {
            return found; // NaN or infinity
        }
        cache.observe(i, text(queries, i, 0, prompt)); // the engine reads the prompt by itself
    }
    found.bytes = static_cast<double>(cache.compress().bytes_held);
    std::vector<float> output(model.num_q_heads * model.head_dim);
    for (std::size_t i = 0; i < model.num_layers; ++i) { // the next token
        if (!cache.append(i, text(keys, i, prompt, 1), text(values, i, prompt, 1))) {
            return found;
        }
        cache.attend(i, text(queries, i, prompt, 1), output);
        found.output.insert(found.output.end(), output.begin(), output.end());
    }
    return found;
}

int main() {
    const outcome exact = run({.rows = {.dense = {dense_codec<float>{}, dense_codec<float>{}}}});
    bool as_promised = true;
    const auto show = [&](const char* name, const recipe& how, double most_bytes, double most_off) {
        const outcome found = run(how);
        double error = 0.0, total = 0.0;
        for (std::size_t i = 0; i < exact.output.size(); ++i) {
            error += std::pow(found.output.at(i) - exact.output[i], 2);
            total += std::pow(exact.output[i], 2);
        }
        const double share = 100.0 * found.bytes / (0.5 * exact.bytes);
        const double off = 100.0 * std::sqrt(error / total);
        std::printf("%-25s %6.2f %% of the bytes, attention off by %5.2f %%\n", name, share, off);
        as_promised = as_promised && share < most_bytes && off < most_off;
    };
    show("f16", {}, 100.1, 0.1);
    show("four_times()", four_times(), 25, 10);
    show("kvcrush_auto_bytes(0.25)", kvcrush_auto_bytes(0.25), 25, 10);
    show("kvcrush_auto(0.25)", kvcrush_auto(0.25), 25.5, 15);
    show("eight_times()", eight_times(), 12.5, 15);
    show("sixteen_times()", sixteen_times(), 6.25, 20);
    return as_promised ? 0 : 1;
}
