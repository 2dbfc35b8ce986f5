// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/core/types.hpp>

#include "unit/codec/codec_properties.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>
#include <vector>

namespace kvcrush {
namespace {

using reference::decode_group;
using reference::encode_group;

template <typename T>
void expect_conversion(std::size_t dim) {
    const dense_codec<T> codec{};
    for (const auto& [name, row] : reference::kinds_of_rows(dim)) {
        for (const auto rung : {simd::isa::scalar, simd::isa::avx2, simd::isa::avx512}) {
            const auto group = encode_group(codec, row, dim, rung);
            ASSERT_TRUE(group.stored) << name;
            std::vector<float> wanted(dim);
            for (std::size_t i = 0; i < dim; ++i) {
                T element;
                std::memcpy(&element, group.bytes.data() + i * sizeof(T), sizeof(T));
                ASSERT_EQ(element, from_float<T>(row[i])) << name << ", channel " << i;
                wanted[i] = to_float(element);
            }
            ASSERT_EQ(reference::bits_of(decode_group(codec, group.bytes, dim, rung)),
                      reference::bits_of(wanted))
                << name;
        }
    }
}

TEST(DenseCodec, StoresRoundedElements) {
    for (const std::size_t dim : std::initializer_list<std::size_t>{1, 2, 7, 16, 31, 64, 80, 129}) {
        expect_conversion<float>(dim);
        expect_conversion<f16>(dim);
        expect_conversion<bf16>(dim);
    }
}

template <typename T>
void expect_limit(float limit) {
    const dense_codec<T> codec{};
    for (const float sign : {1.0F, -1.0F}) {
        std::vector<float> row(65, 1.0F);
        row[64] = sign * std::nextafter(limit, 0.0F);
        const auto group = encode_group(codec, row, row.size());
        ASSERT_TRUE(group.stored);
        EXPECT_TRUE(std::isfinite(decode_group(codec, group.bytes, row.size())[64]));
        row[64] = sign * limit;
        EXPECT_FALSE(encode_group(codec, row, row.size()).stored);
    }
}

TEST(DenseCodec, RefusesWhatWouldRoundToInfinity) {
    expect_limit<f16>(65520.0F);
    expect_limit<bf16>(0x1.FFp127F);
    const std::vector<float> huge(3, std::numeric_limits<float>::max());
    EXPECT_TRUE(encode_group(dense_codec<float>{}, huge, 3).stored);
    EXPECT_FALSE(encode_group(dense_codec<bf16>{}, huge, 3).stored);
}

template <typename T>
struct dense_case {
    static dense_codec<T> codec() { return {}; }
    static bool allows(std::size_t) { return true; }
    static std::size_t bytes(std::size_t dim) { return dim * sizeof(T); }
    static constexpr double gaussian_nmse = 0.0;
    static constexpr double rough_nmse = sizeof(T) == 4           ? 0.0
                                         : std::is_same_v<T, f16> ? 2.5e-7
                                                                  : 1.6e-5;
};
using cases = testing::Types<dense_case<float>, dense_case<f16>, dense_case<bf16>>;

} // namespace

namespace reference {
INSTANTIATE_TYPED_TEST_SUITE_P(Dense, CodecProperties, cases);
} // namespace reference
} // namespace kvcrush
