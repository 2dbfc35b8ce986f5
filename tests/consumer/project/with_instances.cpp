// SPDX-License-Identifier: Apache-2.0
// A program whose kernels are compiled in instances.cpp alone.
#include <kvcrush/kvcrush.hpp>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <vector>

#if KVCRUSH_EXTERN_INSTANCES != 1
#    error "this program is about KVCRUSH_EXTERN_INSTANCES"
#endif

int main() {
    constexpr std::size_t num_tokens = 200;
    kvcrush::kv_cache cache({.num_layers = 1, .num_q_heads = 4, .num_kv_heads = 2, .head_dim = 64},
                            kvcrush::four_times());
    std::vector<float> rows(2 * 64);
    std::vector<float> queries(4 * 64, 0.1F);
    std::vector<float> output(4 * 64);
    for (std::size_t t = 0; t < num_tokens; ++t) {
        rows[t % rows.size()] += 1.0F;
        if (!cache.append(0, rows, rows)) {
            return 1;
        }
        cache.attend(0, queries, output);
    }
    const auto done = cache.compress();
    cache.attend(0, queries, output);
    std::printf("%zu bytes became %zu\n", done.bytes_before, done.bytes_held);
    return done.bytes_held < done.bytes_before && std::isfinite(output.front()) ? 0 : 1;
}
