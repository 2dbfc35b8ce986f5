// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/cache/gather.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using testing::HasSubstr;
using bytes = std::vector<std::byte>;

bytes random_bytes(std::size_t count, std::uint64_t seed) {
    bytes result(count);
    for (std::size_t i = 0; i < count; ++i) {
        result[i] = static_cast<std::byte>(random_bits(seed, i, 0) & 0xFFU);
    }
    return result;
}

/// In any order, some more than once; each head another number.
selection any_rows(std::size_t heads, std::size_t rows, std::uint64_t seed) {
    selection kept;
    kept.reserve(heads, heads * rows);
    for (std::size_t head = 0; head < heads; ++head) {
        const std::span<token_index> own = kept.extend(rows == 0 ? 0 : (rows + head) % (rows + 1));
        for (std::size_t i = 0; i < own.size(); ++i) {
            own[i] = static_cast<token_index>(random_bits(seed, head, i) % rows);
        }
        kept.end_head();
    }
    return kept;
}

selection of_heads(std::initializer_list<std::vector<token_index>> heads) {
    selection kept;
    kept.reserve(heads.size(), 64);
    for (const std::vector<token_index>& own : heads) {
        const std::span<token_index> room = kept.extend(own.size());
        std::copy(own.begin(), own.end(), room.begin());
        kept.end_head();
    }
    return kept;
}

std::string refusal(const std::function<void()>& work) {
    try {
        work();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing was refused";
}

TEST(Gather, PutsEachHeadsRowsOneAfterTheOtherInEveryLayout) {
    constexpr std::size_t heads = 3;
    for (const std::size_t rows : std::initializer_list<std::size_t>{0, 1, 2, 17, 63, 64, 65}) {
        for (const std::size_t row_bytes :
             std::initializer_list<std::size_t>{1, 18, 34, 128, 300}) {
            const bytes source = random_bytes(heads * rows * row_bytes, rows);
            const selection kept = any_rows(heads, rows, row_bytes);
            for (const bool tokens_first : {false, true}) {
                const auto extent = [&](std::size_t count, bool major) {
                    return major ? byte_extent::token_major(heads, count, row_bytes)
                                 : byte_extent::head_major(heads, count, row_bytes);
                };
                const byte_rows<const std::byte> from(source, extent(rows, tokens_first));
                bytes memory(heads * rows * row_bytes);
                const byte_rows<std::byte> to(memory, extent(rows, !tokens_first));
                gather(from, kept, to);
                for (std::size_t head = 0; head < heads; ++head) {
                    for (std::size_t i = 0; i < kept.kept(head).size(); ++i) {
                        ASSERT_EQ(std::memcmp(to.row(head, i),
                                              from.row(head, kept.kept(head)[i]),
                                              row_bytes),
                                  0)
                            << rows << " rows of " << row_bytes << " bytes, head " << head
                            << ", row " << i;
                    }
                }
            }
        }
    }
}

TEST(Gather, LeavesWhatLiesBehindTheKeptRows) {
    const bytes source = random_bytes(2 * 4 * 8, 1);
    bytes memory(2 * 4 * 8, std::byte{0x5A});
    const byte_rows<std::byte> to(memory, byte_extent::token_major(2, 4, 8));
    gather({source, byte_extent::token_major(2, 4, 8)}, of_heads({{3}, {}}), to);
    EXPECT_EQ(std::memcmp(to.row(0, 0), source.data() + 3 * 16, 8), 0);
    for (std::size_t i = 8; i < memory.size(); ++i) {
        ASSERT_EQ(memory[i], std::byte{0x5A}) << i;
    }
}

TEST(Gather, GivesWhatCompactGives) {
    const kv_shape shape{2, 65, 8, 8};
    std::vector<float> keys(2 * 65 * 8);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] = static_cast<float>(i);
    }
    std::vector<float> values = keys;
    const selection kept = of_heads({{0, 7, 8, 64}, {1, 2, 63}});
    std::vector<float> gathered(2 * 4 * 8);
    gather({std::as_bytes(std::span(keys)), byte_extent::head_major(2, 65, 32)},
           kept,
           {std::as_writable_bytes(std::span(gathered)), byte_extent::head_major(2, 4, 32)});
    const kv_view<float> view(keys, values, shape);
    compact(view, kept);
    for (std::size_t head = 0; head < 2; ++head) {
        for (std::size_t i = 0; i < kept.kept(head).size(); ++i) {
            for (std::size_t d = 0; d < 8; ++d) {
                ASSERT_EQ(view.key(head, i)[d], gathered[(head * 4 + i) * 8 + d]);
            }
        }
    }
}

TEST(Gather, RefusesWhatDoesNotFitBeforeAnythingIsWritten) {
    const bytes source = random_bytes(2 * 4 * 8, 2);
    bytes memory(2 * 4 * 8, std::byte{0x5A});
    const bytes before = memory;
    const byte_rows<const std::byte> from(source, byte_extent::token_major(2, 4, 8));
    const auto to = [&](const byte_extent& extent) { return byte_rows<std::byte>(memory, extent); };
    const byte_extent same = byte_extent::token_major(2, 4, 8);
    EXPECT_THAT(refusal([&] { gather(from, of_heads({{0}}), to(same)); }),
                HasSubstr("the selection has 1"));
    EXPECT_THAT(refusal([&] {
                    gather(from, of_heads({{0}, {0}}), to(byte_extent::token_major(1, 4, 8)));
                }),
                HasSubstr("the destination 1"));
    EXPECT_THAT(refusal([&] {
                    gather(from, of_heads({{0}, {4}}), to(same));
                }),
                HasSubstr("keeps row 4; there are 4"));
    EXPECT_THAT(refusal([&] {
                    gather(from, of_heads({{0, 1, 2}, {0}}), to(byte_extent::token_major(2, 2, 8)));
                }),
                HasSubstr("keeps 3 rows; the destination has room for 2"));
    EXPECT_THAT(refusal([&] {
                    gather(from, of_heads({{0}, {0}}), to(byte_extent::token_major(2, 4, 4)));
                }),
                HasSubstr("rows have 8 bytes, those of the destination 4"));
    const byte_rows<const std::byte> same_memory(memory, same);
    EXPECT_THAT(refusal([&] {
                    gather(same_memory, of_heads({{0}, {0}}), to(same));
                }),
                HasSubstr("overlaps"));
    EXPECT_EQ(memory, before);
}

TEST(ByteRows, RefusesShortMemoryOverlapAndOverflow) {
    const bytes memory(64);
    const auto view = [&](const byte_extent& extent) {
        return byte_rows<const std::byte>(memory, extent);
    };
    EXPECT_THAT(refusal([&] { static_cast<void>(view(byte_extent::token_major(2, 5, 8))); }),
                HasSubstr("64 bytes; the extent needs 80"));
    EXPECT_THAT(refusal([&] {
                    static_cast<void>(view({2, 4, 8, 4, 8}));
                }),
                HasSubstr("makes rows overlap"));
    constexpr std::size_t most = static_cast<std::size_t>(-1);
    EXPECT_THROW(static_cast<void>(view(byte_extent::token_major(most, most, most))),
                 std::invalid_argument);
    EXPECT_NO_THROW(static_cast<void>(view(byte_extent::token_major(0, most, 8))));
}

} // namespace
} // namespace kvcrush
