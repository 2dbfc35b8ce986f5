// SPDX-License-Identifier: Apache-2.0
// The rules that every allocator obeys, over ragged sizes and hostile scores.
#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/allocation/allocator.hpp>
#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/top_k.hpp>

#include "unit/simd/scores.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

namespace kvcrush {
namespace {

struct uniform_case {
    static uniform_allocator make() { return {}; }
    static std::size_t safe(std::size_t middle) { return middle; }
};
struct pooled_case {
    static ada_kv_allocator make() { return {}; }
    static std::size_t safe(std::size_t middle) {
        return static_cast<std::size_t>(0.2 * static_cast<double>(middle));
    }
};
struct bare_case {
    static ada_kv_allocator make() { return {.floor = 0.0}; }
    static std::size_t safe(std::size_t) { return 0; }
};
struct normalised_case {
    static ada_kv_allocator make() { return {.floor = 0.5, .normalise = true}; }
    static std::size_t safe(std::size_t middle) { return middle / 2; }
};
struct mixed_case {
    static ada_kv_allocator make() { return {.form = ada_kv_form::mixed, .floor = 0.5}; }
    static std::size_t safe(std::size_t middle) { return (middle + 1) / 2; }
};

/// Gives out the scores it was given: what a scorer of the engine's would do.
struct given_scores {
    static constexpr std::string_view name = "given";
    static constexpr bool needs_attention = false;
    const std::vector<float>* scores = nullptr;

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}
    template <KvSource Kv>
    void score(const Kv&, head_scores out) const noexcept {
        std::copy(scores->begin(), scores->end(), out.values().begin());
    }
};

template <typename Case>
class AllocationLaws : public testing::Test {};

using every_allocator =
    testing::Types<uniform_case, pooled_case, bare_case, normalised_case, mixed_case>;
TYPED_TEST_SUITE(AllocationLaws, every_allocator);

template <typename Use>
void with_every_layer(const Use& use) {
    for (const reference::score_kind kind : reference::all_score_kinds) {
        for (const std::size_t heads : std::initializer_list<std::size_t>{1, 3, 8}) {
            for (const std::size_t seq_len :
                 std::initializer_list<std::size_t>{0, 1, 35, 36, 37, 64, 101, 300}) {
                std::vector<float> scores(heads * seq_len);
                reference::fill_scores(scores, kind, heads + seq_len);
                for (const area_sizes sizes : {area_sizes{}, area_sizes{0, 0}, area_sizes{3, 1}}) {
                    const std::size_t always = areas(sizes, seq_len).num_protected();
                    for (const std::size_t part :
                         std::initializer_list<std::size_t>{0, 1, 3, 7, 8}) {
                        const std::size_t tokens = always + (seq_len - always) * part / 8;
                        use(scores, heads, areas(sizes, seq_len), tokens, sizes);
                    }
                }
            }
        }
    }
}

TYPED_TEST(AllocationLaws, TotalsAreExactFloorsHoldAndAnswersRepeat) {
    const auto allocator = TypeParam::make();
    with_every_layer([&](const std::vector<float>& scores,
                         std::size_t heads,
                         const areas& area,
                         std::size_t tokens,
                         const area_sizes&) {
        const problem_size size{{heads, area.seq_len, 1, 1}, 0};
        std::vector<std::byte> memory(allocator_scratch_bytes(allocator, size));
        std::vector<std::size_t> counts(heads, 999);
        std::vector<std::size_t> again(heads, 7);
        for (std::vector<std::size_t>* out : {&counts, &again}) {
            allocate_tokens(allocator,
                            const_head_scores(scores, heads, area.seq_len),
                            area,
                            tokens,
                            *out,
                            scratch(memory));
        }
        ASSERT_EQ(counts, again);
        ASSERT_EQ(std::accumulate(counts.begin(), counts.end(), std::size_t{0}), heads * tokens);
        for (const std::size_t count : counts) {
            ASSERT_LE(count, area.seq_len);
            ASSERT_GE(count, area.num_protected() + TypeParam::safe(tokens - area.num_protected()));
        }
    });
}

TYPED_TEST(AllocationLaws, SelectionsHoldExactlyWhatIsAllotted) {
    with_every_layer([&](const std::vector<float>& scores,
                         std::size_t heads,
                         const areas& area,
                         std::size_t tokens,
                         const area_sizes& sizes) {
        if (heads > 3 || area.seq_len > 101) {
            return;
        }
        const kv_shape shape{heads, area.seq_len, 1, 1};
        std::vector<float> keys(heads * area.seq_len);
        const kv_view<float> kv(keys, keys, shape);
        const auto check = [&](auto selector) {
            compressor crush(given_scores{&scores}, selector, TypeParam::make());
            crush.plan({shape, 0}, budget::tokens(tokens, sizes));
            const selection& kept = crush.select(kv);
            ASSERT_EQ(kept.total(), heads * tokens);
            for (std::size_t head = 0; head < heads; ++head) {
                const std::span<const token_index> list = kept.kept(head);
                for (std::size_t t = 0; t < area.seq_len; ++t) {
                    if (t < area.middle_begin || t >= area.middle_end) {
                        ASSERT_TRUE(std::binary_search(list.begin(), list.end(), t));
                    }
                }
                for (std::size_t i = 1; i < list.size(); ++i) {
                    ASSERT_LT(list[i - 1], list[i]);
                }
            }
        };
        check(top_k_selector{});
        check(kvcrush_selector<>{});
    });
}

} // namespace
} // namespace kvcrush
