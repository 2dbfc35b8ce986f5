// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/convert.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;

class Convert : public kvcrush::reference::every_rung {};

template <typename T>
std::vector<T> all_elements() {
    std::vector<T> elements(65536);
    for (std::size_t i = 0; i < elements.size(); ++i) {
        elements[i].bits = static_cast<std::uint16_t>(i);
    }
    return elements;
}

/// Every value of both 16-bit formats, the middle between it and the next one and the neighbours of
/// that, both signs, and random bits: ties, subnormals, overflow, quiet and signalling NaN.
std::vector<float> interesting_floats() {
    std::vector<float> floats;
    for (std::uint32_t i = 0; i < 65536; ++i) {
        const auto half = std::bit_cast<std::uint32_t>(
            kvcrush::to_float(kvcrush::f16{static_cast<std::uint16_t>(i)}));
        for (const std::uint32_t base : {half, half + 0x1000U, i << 16, (i << 16) + 0x8000U}) {
            for (const std::uint32_t bits : {base - 1, base, base + 1}) {
                floats.push_back(std::bit_cast<float>(bits));
            }
        }
    }
    for (std::uint64_t i = 0; i < 300000; ++i) {
        floats.push_back(
            std::bit_cast<float>(static_cast<std::uint32_t>(kvcrush::random_bits(1, 2, i))));
    }
    return floats;
}

template <typename T>
void expect_widened(simd::isa rung) {
    const std::vector<T> elements = all_elements<T>();
    std::vector<float> floats(elements.size());
    simd::to_float<T>(elements, floats, rung);
    for (std::size_t i = 0; i < elements.size(); ++i) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(kvcrush::to_float(elements[i])),
                  std::bit_cast<std::uint32_t>(floats[i]))
            << "bits " << i;
    }
}

template <typename T>
void expect_narrowed(simd::isa rung) {
    const std::vector<float> floats = interesting_floats();
    std::vector<T> elements(floats.size());
    simd::from_float<T>(floats, elements, rung);
    for (std::size_t i = 0; i < elements.size(); ++i) {
        ASSERT_EQ(kvcrush::from_float<T>(floats[i]).bits, elements[i].bits)
            << "float of bits " << std::bit_cast<std::uint32_t>(floats[i]);
    }
}

template <typename T>
void expect_ragged_sizes(simd::isa rung) {
    for (std::size_t n = 0; n <= 70; ++n) {
        kvcrush::reference::guarded_buffer<T> elements(n);
        kvcrush::reference::guarded_buffer<float> floats(n);
        for (std::size_t i = 0; i < n; ++i) {
            elements[i] = kvcrush::from_float<T>(static_cast<float>(i) - 20.0F);
        }
        simd::to_float<T>(elements.span(), floats.span(), rung);
        kvcrush::reference::guarded_buffer<T> back(n);
        simd::from_float<T>(floats.span(), back.span(), rung);
        for (std::size_t i = 0; i < n; ++i) {
            ASSERT_EQ(static_cast<float>(i) - 20.0F, floats[i]) << n;
            ASSERT_EQ(elements[i], back[i]) << n;
        }
    }
}

TEST_P(Convert, WidensEveryHalfAsTheScalarFunctionDoes) { expect_widened<kvcrush::f16>(rung()); }
TEST_P(Convert, WidensEveryBfloatAsTheScalarFunctionDoes) { expect_widened<kvcrush::bf16>(rung()); }
TEST_P(Convert, NarrowsToHalfAsTheScalarFunctionDoes) { expect_narrowed<kvcrush::f16>(rung()); }
TEST_P(Convert, NarrowsToBfloatAsTheScalarFunctionDoes) { expect_narrowed<kvcrush::bf16>(rung()); }

TEST_P(Convert, TakesRaggedSizes) {
    expect_ragged_sizes<kvcrush::f16>(rung());
    expect_ragged_sizes<kvcrush::bf16>(rung());
    expect_ragged_sizes<float>(rung());
}

TEST_P(Convert, CopiesFloatsBitForBit) {
    const std::vector<float> floats = interesting_floats();
    std::vector<float> copy(floats.size());
    simd::to_float<float>(floats, copy, rung());
    std::vector<float> back(floats.size());
    simd::from_float<float>(copy, back, rung());
    for (std::size_t i = 0; i < floats.size(); ++i) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(floats[i]), std::bit_cast<std::uint32_t>(back[i]));
    }
}

TEST_P(Convert, TakesElementTypesThatAreConst) {
    const std::vector<float> floats{1.0F, -2.5F, 0.0F};
    const std::vector<kvcrush::f16> halves{kvcrush::to_f16(1.0F), kvcrush::to_f16(-2.5F), {}};
    std::vector<float> out(3);
    simd::to_float<const float>(floats, out, rung());
    EXPECT_EQ(out, floats);
    out.assign(3, 7.0F);
    simd::to_float<const kvcrush::f16>(halves, out, rung());
    EXPECT_EQ(out, floats);
}

KVCRUSH_ON_EVERY_RUNG(Convert);

} // namespace
