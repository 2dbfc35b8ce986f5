// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/cache/free_pages.hpp>
#include <kvcrush/cache/position_map.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/isa.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace kvcrush {
namespace {

/// A ragged selection: each head keeps another share of the tokens.
selection ragged(std::size_t heads, std::size_t tokens, std::uint64_t seed) {
    selection kept;
    kept.reserve(heads, heads * tokens);
    for (std::size_t head = 0; head < heads; ++head) {
        for (std::size_t token = 0; token < tokens; ++token) {
            if (random_bits(seed, head, token) % (head + 2) == 0) {
                kept.extend(1)[0] = static_cast<token_index>(token);
            }
        }
        kept.end_head();
    }
    return kept;
}

template <typename Kv>
void expect_rows(const Kv& kv, const selection& kept) {
    const kv_shape shape = kv.shape();
    for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
        const auto tokens = kept.kept(head);
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            for (std::size_t d = 0; d < shape.key_dim; ++d) {
                ASSERT_EQ(to_float(kv.key(head, i)[d]), test::marked(false, head, tokens[i], d));
            }
            for (std::size_t d = 0; d < shape.value_dim; ++d) {
                ASSERT_EQ(to_float(kv.value(head, i)[d]), test::marked(true, head, tokens[i], d));
            }
        }
    }
}

TEST(Compact, MovesKeptRowsToTheFrontInEveryLayoutAndType) {
    for (const std::size_t tokens : std::initializer_list<std::size_t>{0, 1, 2, 17, 63, 64, 65}) {
        const kv_shape shape{3, tokens, 5, 7};
        const selection kept = ragged(3, tokens, tokens);
        const auto check = [&](const auto& kv) {
            compact(kv, kept);
            expect_rows(kv, kept);
        };
        test::with_every_layout<float>(shape, check);
        test::with_every_layout<f16>(shape, check);
        test::with_every_layout<bf16>(shape, check);
    }
}

#if KVCRUSH_X86_DISPATCH
TEST(Compact, StreamedRowsEndWhereCopiedOnesDo) {
    if (simd::best() < simd::isa::avx512) {
        GTEST_SKIP() << "no AVX-512 on this machine";
    }
    for (const std::size_t bytes : std::initializer_list<std::size_t>{64, 128, 256, 320, 576}) {
        for (const std::size_t tokens : std::initializer_list<std::size_t>{1, 2, 31, 33, 200}) {
            const std::size_t stride = bytes + 64 * (tokens % 3);
            std::vector<std::byte> memory(2 * tokens * stride + 128);
            const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
            std::byte* const copied = memory.data() + (64 - address % 64) % 64;
            std::byte* const streamed = copied + tokens * stride;
            for (std::size_t i = 0; i < tokens * stride; ++i) {
                copied[i] = streamed[i] = static_cast<std::byte>(random_bits(3, bytes, i));
            }
            std::vector<token_index> kept;
            for (std::size_t t = 0; t < tokens; ++t) {
                if (random_bits(4, tokens, t) % 3 != 1) {
                    kept.push_back(static_cast<token_index>(t));
                }
            }
            detail::compact_strided(kept, {copied, stride, bytes});
            detail::stream_strided_avx512(kept, {streamed, stride, bytes});
            EXPECT_TRUE(std::equal(copied, copied + tokens * stride, streamed))
                << bytes << " bytes, " << tokens << " tokens";
        }
    }
}
#endif

TEST(Compact, MovesResultsThatNoCacheHolds) {
    const kv_shape shape{2, 40000, 64, 64};
    std::vector<f16> keys(shape.num_kv_heads * shape.seq_len * shape.key_dim);
    std::vector<f16> values(keys.size());
    const auto mark = [](std::size_t head, std::size_t token, bool value) {
        return f16{static_cast<std::uint16_t>(random_bits(5, head, 2 * token + (value ? 1 : 0)))};
    };
    for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
        for (std::size_t t = 0; t < shape.seq_len; ++t) {
            const auto at = static_cast<std::ptrdiff_t>((head * shape.seq_len + t) * shape.key_dim);
            std::fill_n(keys.begin() + at, shape.key_dim, mark(head, t, false));
            std::fill_n(values.begin() + at, shape.key_dim, mark(head, t, true));
        }
    }
    selection kept; // all but the first token: above the size from which stores bypass the caches
    kept.reserve(2, 2 * shape.seq_len);
    for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
        kept.extend_range(1, static_cast<token_index>(shape.seq_len));
        kept.end_head();
    }
    ASSERT_GE(kept.total() * 2 * shape.key_dim * sizeof(f16), detail::streamed_from_bytes);
    const kv_view<f16> kv(keys, values, shape);
    compact(kv, kept);
    for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
        for (std::size_t t = 0; t + 1 < shape.seq_len; ++t) {
            for (std::size_t d = 0; d < shape.key_dim; d += 21) {
                ASSERT_EQ(kv.key(head, t)[d], mark(head, t + 1, false)) << head << ' ' << t;
                ASSERT_EQ(kv.value(head, t)[d], mark(head, t + 1, true)) << head << ' ' << t;
            }
        }
    }
}

TEST(Compact, KeepingEverythingChangesNothing) {
    selection all;
    all.reserve(2, 20);
    for (int head = 0; head < 2; ++head) {
        all.extend_range(0, 10);
        all.end_head();
    }
    test::with_every_layout<f16>(kv_shape{2, 10, 4, 4}, [&](const auto& kv) {
        compact(kv, all);
        expect_rows(kv, all);
    });
}

TEST(Compact, KeepingNothingIsAllowed) {
    selection none;
    none.reserve(2, 0);
    none.end_head();
    none.end_head();
    selection all;
    all.reserve(2, 20);
    for (int head = 0; head < 2; ++head) {
        all.extend_range(0, 10);
        all.end_head();
    }
    test::with_every_layout<float>(kv_shape{2, 10, 4, 4}, [&](const auto& kv) {
        compact(kv, none);
        expect_rows(kv, all); // what lies behind the kept rows is left as it was
    });
}

TEST(Compact, KeysMoveWhereThereAreNoValues) {
    const kv_shape shape{2, 17, 5, 0};
    const selection kept = ragged(2, 17, 3);
    test::with_every_layout<float>(shape, [&](const auto& kv) {
        compact(kv, kept);
        expect_rows(kv, kept);
    });
    std::vector<float> keys(2 * 17 * 5);
    const kv_view<float> kv(keys, {}, shape);
    compact(kv, kept);
    EXPECT_EQ(kv.value(0, 0).data(), nullptr) << "no byte of it is to be touched";
}

TEST(PositionMap, SaysWhereEachTokenWent) {
    selection kept;
    kept.reserve(2, 5);
    kept.extend_range(1, 3);
    kept.end_head();
    kept.extend_range(0, 1);
    kept.extend_range(3, 5);
    kept.end_head();
    std::vector<token_index> map(2 * 5);
    position_map(kept, map);
    EXPECT_EQ(
        map,
        (std::vector<token_index>{evicted, 0, 1, evicted, evicted, 0, evicted, evicted, 1, 2}));
}

constexpr std::size_t page_size = 4;

template <typename Table>
std::vector<page_index>
freed(const Table& table, std::size_t heads, std::size_t tokens, const selection& kept) {
    constexpr std::size_t num_pages = 16;
    const page_strides strides = Table::shared ? page_strides::hnd(heads, page_size, 1)
                                               : page_strides::per_head(page_size, 1);
    std::vector<float> memory(num_pages * heads * page_size);
    const paged_kv_view<float, Table> kv(memory,
                                         memory,
                                         page_pool{num_pages, page_size, strides, strides},
                                         table,
                                         kv_shape{heads, tokens, 1, 1});
    std::vector<page_index> free(num_pages);
    free.resize(free_pages(kv, kept, free));
    return free;
}

TEST(FreePages, ASharedPageIsFreeWhenNoHeadHasARowInIt) {
    selection kept;
    kept.reserve(2, 9);
    kept.extend_range(0, 3);
    kept.end_head();
    kept.extend_range(4, 9); // five rows: the second page is still in use
    kept.end_head();
    const std::vector<page_index> pages{7, 3, 9, 1};
    EXPECT_EQ(freed(shared_table{pages}, 2, 14, kept), (std::vector<page_index>{9, 1}));
}

TEST(FreePages, EachHeadFreesItsOwn) {
    selection kept;
    kept.reserve(2, 9);
    kept.extend_range(0, 4);
    kept.end_head();
    kept.end_head();
    const std::vector<page_index> pages{0, 1, 2, 5, 6, 7};
    EXPECT_EQ(freed(per_head_table{pages, 2}, 2, 12, kept),
              (std::vector<page_index>{1, 2, 5, 6, 7}));
}

} // namespace
} // namespace kvcrush
