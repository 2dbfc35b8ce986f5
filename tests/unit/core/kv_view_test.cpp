// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace kvcrush {
namespace {

static_assert(KvSource<kv_view<float>> && KvSource<kv_view<const f16, nhd, const bf16>>);
static_assert(MutableKvSource<kv_view<f16, strided>> && !MutableKvSource<kv_view<const float>>);
static_assert(!MutableKvSource<kv_view<float, hnd, const float>>);
static_assert(std::is_trivially_copyable_v<kv_view<float>> &&
              std::is_trivially_copyable_v<kv_view<bf16, nhd>>);

template <typename F>
std::string message_of(F&& build) {
    try {
        build();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing was thrown";
}

TEST(KvView, ReadsHeadMajorAndTokenMajorLayouts) {
    std::vector<float> keys(2 * 3 * 4);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] = static_cast<float>(i);
    }
    const kv_shape shape{.num_kv_heads = 2, .seq_len = 3, .key_dim = 4, .value_dim = 4};
    const kv_view<float> by_head(keys, keys, shape);
    EXPECT_EQ(by_head.key(1, 2)[3], static_cast<float>((1 * 3 + 2) * 4 + 3));
    const kv_view<float, nhd> by_token(keys, keys, shape);
    EXPECT_EQ(by_token.key(1, 2)[3], static_cast<float>((2 * 2 + 1) * 4 + 3));
}

TEST(KvView, EveryLayoutHoldsTheSameNumbers) {
    const kv_shape shape{.num_kv_heads = 3, .seq_len = 10, .key_dim = 5, .value_dim = 7};
    test::with_every_layout<f16>(shape, [&](const auto& kv) {
        for (std::size_t head = 0; head < 3; ++head) {
            for (std::size_t token = 0; token < 10; ++token) {
                EXPECT_EQ(to_float(kv.key(head, token)[4]), test::marked(false, head, token, 4));
                EXPECT_EQ(to_float(kv.value(head, token)[6]), test::marked(true, head, token, 6));
            }
        }
    });
}

TEST(KvView, KeysAndValuesMayDifferInTypeAndWidth) {
    std::vector<f16> keys(2 * 3 * 8);
    std::vector<float> values(2 * 3 * 4);
    const kv_view kv(std::span<f16>{keys}, std::span<float>{values}, kv_shape{2, 3, 8, 4});
    static_assert(std::is_same_v<key_element_t<decltype(kv)>, f16>);
    EXPECT_EQ(kv.key(1, 2).size(), 8U);
    EXPECT_EQ(kv.value(1, 2).size(), 4U);
    EXPECT_EQ(kv.value(1, 2).data(), &values[(1 * 3 + 2) * 4]);
}

TEST(KvView, EmptySequencesNeedNoMemory) {
    const kv_view<float> none(std::span<float>{}, std::span<float>{}, kv_shape{4, 0, 64, 64});
    EXPECT_EQ(none.shape().seq_len, 0U);
}

TEST(KvView, SaysWhichSpanIsTooShort) {
    std::vector<float> keys(23);
    std::vector<float> values(24);
    const kv_shape shape{2, 3, 4, 4};
    EXPECT_EQ(message_of([&] { kv_view<float>(keys, values, shape); }),
              "kvcrush::kv_view: keys hold 23 elements; the shape needs 24");
    EXPECT_EQ(message_of([&] { kv_view<float>(values, keys, shape); }),
              "kvcrush::kv_view: values hold 23 elements; the shape needs 24");
}

TEST(KvView, DeducesItsElementsFromWhateverHoldsThem) {
    std::vector<f16> rows(4);
    const std::vector<f16> fixed(4);
    std::array<float, 4> array{};
    const kv_shape shape{1, 2, 2, 2};
    const kv_view of_vectors(rows, rows, shape);
    const kv_view of_const(fixed, fixed, shape);
    const kv_view mixed(array, fixed, shape, nhd{});
    const kv_view of_spans{std::span(rows), std::span(fixed), shape};
    static_assert(std::is_same_v<decltype(of_vectors), const kv_view<f16>>);
    static_assert(std::is_same_v<decltype(of_const), const kv_view<const f16>>);
    static_assert(std::is_same_v<decltype(mixed), const kv_view<float, nhd, const f16>>);
    static_assert(std::is_same_v<decltype(of_spans), const kv_view<f16, hnd, const f16>>);
    EXPECT_EQ(of_const.key(0, 0).data(), fixed.data());
    EXPECT_EQ(of_vectors.value(0, 1).data(), rows.data() + 2);
    EXPECT_EQ(mixed.key(0, 0).data(), array.data());
    EXPECT_EQ(of_spans.value(0, 0).data(), fixed.data());
}

TEST(KvView, RefusesOverflowAliasingAndShortCapacity) {
    std::vector<float> some(24);
    const std::size_t huge = (std::numeric_limits<std::size_t>::max)() / 2;
    EXPECT_THROW((kv_view<float>(some, some, kv_shape{huge, 3, 4, 4})), std::invalid_argument);
    EXPECT_THROW((kv_view<float>(some, some, kv_shape{1, std::size_t{1} << 32, 0, 0})),
                 std::invalid_argument);
    const strided aliased{{0, 4, 1}, {12, 4, 1}};
    EXPECT_THROW((kv_view<float, strided>(some, some, kv_shape{2, 3, 4, 4}, aliased)),
                 std::invalid_argument);
    const strided closer{{12, 3, 1}, {12, 4, 1}};
    EXPECT_THROW((kv_view<float, strided>(some, some, kv_shape{2, 3, 4, 4}, closer)),
                 std::invalid_argument)
        << "rows of 4 that lie 3 apart";
    const strided heads{{8, 4, 1}, {12, 4, 1}};
    EXPECT_THROW((kv_view<float, strided>(some, some, kv_shape{2, 3, 4, 4}, heads)),
                 std::invalid_argument)
        << "the last token of a head is the first of the next";
    const strided apart{{4, 8, 1}, {12, 1, 3}};
    EXPECT_NO_THROW((kv_view<float, strided>(some, some, kv_shape{2, 3, 4, 4}, apart)));
    const strided far{{huge, huge, huge}, {huge, huge, huge}};
    EXPECT_THROW((kv_view<float, strided>(some, some, kv_shape{3, 3, 3, 3}, far)),
                 std::invalid_argument);
    EXPECT_THROW((kv_view<float>(some, some, kv_shape{2, 3, 4, 4}, hnd{2})), std::invalid_argument);
    const std::size_t most = (std::numeric_limits<std::size_t>::max)();
    const strided wraps{{1, 1, most}, {1, 1, most}};
    EXPECT_THROW((kv_view<float, strided>(some, some, kv_shape{1, 1, 2, 2}, wraps)),
                 std::invalid_argument);
    const strided wraps_token{{1, most, 1}, {1, most, 1}};
    EXPECT_THROW((kv_view<float, strided>(some, some, kv_shape{2, 2, 1, 1}, wraps_token)),
                 std::invalid_argument);
    EXPECT_THROW(
        (kv_view<float>(some, some, kv_shape{2, 2, 4, 4}, hnd{(std::size_t{1} << 62) + 1})),
        std::invalid_argument);
}

TEST(KvView, FirstTokensKeepTheirPlaces) {
    std::vector<float> memory(2 * 6 * 4);
    const kv_view<float> kv(memory, memory, kv_shape{2, 6, 4, 4});
    const auto shorter = kv.first(2);
    EXPECT_EQ(shorter.shape().seq_len, 2U);
    EXPECT_EQ(shorter.key(1, 1).data(), kv.key(1, 1).data());
}

} // namespace
} // namespace kvcrush
