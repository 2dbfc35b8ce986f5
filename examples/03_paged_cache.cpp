// SPDX-License-Identifier: Apache-2.0
// You will know two ways in which a paged cache gets pages back: policies that keep whole pages, so that no row moves, and
// policies of tokens, after which the rows are moved into the first pages.
#include <kvcrush/kvcrush.hpp>

#include <algorithm>
#include <cstdio>
#include <span>
#include <vector>

using namespace kvcrush;
constexpr std::size_t page_size = 16, num_pages = 100, num_kv_heads = 2, num_q_heads = 8, dim = 64;
constexpr std::size_t num_tokens = 1000; // 63 pages, the last of them half full

/// The pool of an engine, [num_pages, page_size, num_kv_heads, dim], and the block table of one sequence.
struct paged_cache {
    std::vector<f16> keys = std::vector<f16>(num_pages * page_size * num_kv_heads * dim);
    std::vector<f16> values = keys;
    std::vector<page_index> table{};

    paged_cache() {
        for (std::size_t i = 0; i < 63; ++i) {
            table.push_back(static_cast<page_index>(i * 37 % num_pages)); // pages lie anywhere
        }
        for (std::size_t t = 0; t < num_tokens; ++t) {
            for (std::size_t c = 0; c < num_kv_heads * dim; ++c) {
                view().key(c / dim, t)[c % dim] = to_f16(random_unit(t, 0, c) - 0.5F);
                view().value(c / dim, t)[c % dim] = to_f16(static_cast<float>(t)); // its place
            }
        }
    }
    paged_kv_view<f16> view(std::size_t tokens = num_tokens) {
        const page_strides strides = page_strides::nhd(num_kv_heads, page_size, dim);
        const page_pool pool{num_pages, page_size, strides, strides};
        return {keys, values, pool, {table}, {num_kv_heads, tokens, dim, dim}};
    }
};

/// Whether the first rows of the view are those that were kept, in order.
bool shows(const paged_kv_view<f16>& kv, const selection& kept) {
    bool right = true;
    for (std::size_t i = 0; i < kept.kept(1).size(); ++i) {
        right = right && to_float(kv.value(1, i)[0]) == static_cast<float>(kept.kept(1)[i]);
    }
    return right;
}

int main() {
    const budget quarter = budget::keep_ratio(0.25, {.num_sink_tokens = page_size});
    const std::vector<float> queries(num_q_heads * 32 * dim, 0.5F); // of the last 32 tokens
    const query_view last(queries, num_q_heads, 32, dim);
    std::vector<page_index> free(num_pages);

    paged_cache a; // whole pages: all heads keep the same ones, the block table closes the gaps
    compressor pages(snapkv_scorer{},
                     page_selector<>{.page_size = page_size, .table = page_table::shared});
    pages.plan({a.view().shape(), num_q_heads}, quarter);
    const selection& whole = pages.select(a.view(), last);
    const auto dropped = std::span(free).first(droppable_pages(a.view(), whole, free));
    std::erase_if(a.table, [&](page_index page) { return std::ranges::count(dropped, page) > 0; });
    std::printf("whole pages: %zu tokens stay, %zu of 63 pages come free, no row has moved\n",
                whole.longest(),
                dropped.size());
    bool right = dropped.size() == 47 && shows(a.view(whole.longest()), whole);

    paged_cache b; // tokens: each head keeps its own, the rows move into the first pages
    compressor tokens(snapkv_scorer{}, kvcrush_selector<>{});
    tokens.plan({b.view().shape(), num_q_heads}, quarter);
    const selection& best = tokens.select(b.view(), last);
    compact(b.view(), best);
    const std::size_t empty = free_pages(b.view(), best, free);
    std::printf("tokens: %zu stay, %zu of 63 pages come free\n", best.longest(), empty);
    right = right && empty == 47 && shows(b.view(best.longest()), best);
    return right ? 0 : 1;
}
