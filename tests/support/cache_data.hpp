// SPDX-License-Identifier: Apache-2.0
/// @file
/// Caches of every layout filled with the same numbers, for tests.
#pragma once

#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/paged_kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/scratch.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcrush::test {

/// The number that stands in channel `dim` of key (or value) `token` of `head`: exact in f32, f16 and bf16.
[[nodiscard]] inline float
marked(bool is_value, std::size_t head, std::size_t token, std::size_t dim) {
    const std::uint64_t bits = random_bits(is_value ? 1 : 0, head, token * 1000 + dim);
    return (static_cast<float>(bits % 255) - 127.0F) / 64.0F;
}

/// Memory of one cache; `view()` of the derived kinds reads it.
template <Element T>
struct memory {
    std::vector<T> keys;
    std::vector<T> values;
};

template <MutableKvSource Kv>
void fill(const Kv& kv) {
    const kv_shape shape = kv.shape();
    for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
        for (std::size_t token = 0; token < shape.seq_len; ++token) {
            for (std::size_t dim = 0; dim < shape.key_dim; ++dim) {
                kv.key(head, token)[dim] =
                    from_float<key_element_t<Kv>>(marked(false, head, token, dim));
            }
            for (std::size_t dim = 0; dim < shape.value_dim; ++dim) {
                kv.value(head, token)[dim] =
                    from_float<value_element_t<Kv>>(marked(true, head, token, dim));
            }
        }
    }
}

/// Calls `use(view)` with one filled cache of each layout, all holding the same numbers.
template <Element T, typename Use>
void with_every_layout(const kv_shape& shape, Use&& use) {
    const std::size_t heads = shape.num_kv_heads;
    const std::size_t tokens = shape.seq_len;
    const auto run = [&](const auto& view) {
        fill(view);
        use(view);
    };
    memory<T> m;
    const auto sized = [&m](std::size_t keys, std::size_t values) {
        m.keys.assign(keys, T{});
        m.values.assign(values, T{});
    };
    {
        sized(heads * tokens * shape.key_dim, heads * tokens * shape.value_dim);
        run(kv_view<T, hnd>(m.keys, m.values, shape));
        run(kv_view<T, nhd>(m.keys, m.values, shape));
    }
    { // more room per head than tokens
        const std::size_t capacity = tokens + 5;
        sized(heads * capacity * shape.key_dim, heads * capacity * shape.value_dim);
        run(kv_view<T, hnd>(m.keys, m.values, shape, hnd{capacity}));
    }
    { // padded key rows, V transposed to [heads, dim, capacity]
        const std::size_t capacity = tokens + 3;
        const std::size_t row = shape.key_dim + 1;
        const strided layout{{tokens * row, row, 1}, {shape.value_dim * capacity, 1, capacity}};
        sized(heads * tokens * row, heads * capacity * shape.value_dim);
        run(kv_view<T, strided>(m.keys, m.values, shape, layout));
    }
    const std::size_t page_size = 4;
    const std::size_t pages = (tokens + page_size - 1) / page_size;
    { // pages in descending order of a pool with one page to spare
        std::vector<page_index> table;
        for (std::size_t i = 0; i < pages; ++i) {
            table.push_back(static_cast<page_index>(pages - i));
        }
        const page_pool pool{pages + 1,
                             page_size,
                             page_strides::hnd(heads, page_size, shape.key_dim),
                             page_strides::nhd(heads, page_size, shape.value_dim)};
        sized((pages + 1) * page_size * heads * shape.key_dim,
              (pages + 1) * page_size * heads * shape.value_dim);
        run(paged_kv_view<T>(m.keys, m.values, pool, shared_table{table}, shape));
    }
    { // each head has pages of its own
        std::vector<page_index> table;
        for (std::size_t i = 0; i < pages * heads; ++i) {
            table.push_back(static_cast<page_index>(pages * heads - 1 - i));
        }
        const page_pool pool{pages * heads,
                             page_size,
                             page_strides::per_head(page_size, shape.key_dim),
                             page_strides::per_head(page_size, shape.value_dim)};
        sized(pages * heads * page_size * shape.key_dim,
              pages * heads * page_size * shape.value_dim);
        run(paged_kv_view<T, per_head_table>(
            m.keys, m.values, pool, per_head_table{table, heads}, shape));
    }
}

/// Scores that differ everywhere, drawn from a seed.
[[nodiscard]] inline std::vector<float> random_scores(std::size_t count, std::uint64_t seed) {
    std::vector<float> scores(count);
    for (std::size_t i = 0; i < count; ++i) {
        scores[i] = random_unit(seed, 7, i);
    }
    return scores;
}

/// Copies a list of tokens, for comparison.
[[nodiscard]] inline std::vector<token_index> list(std::span<const token_index> tokens) {
    return {tokens.begin(), tokens.end()};
}

/// Scratch memory of a size, owned by the test.
class owned_scratch {
public:
    explicit owned_scratch(std::size_t bytes) : memory_(bytes) {}
    [[nodiscard]] scratch get() { return scratch{std::span(memory_)}; }

private:
    std::vector<std::byte> memory_;
};

} // namespace kvcrush::test
