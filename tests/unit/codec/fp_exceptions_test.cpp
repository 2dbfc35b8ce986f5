// SPDX-License-Identifier: Apache-2.0
/// Finite rows, rows of zeros among them, are stored and read without floating-point exceptions.
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/fp8.hpp>
#include <kvcrush/codec/hadamard.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/iq4_nl.hpp>
#include <kvcrush/codec/kivi.hpp>
#include <kvcrush/codec/mean_centred.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q4_1.hpp>
#include <kvcrush/codec/q5_0.hpp>
#include <kvcrush/codec/q5_1.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>

#include "unit/simd/every_rung.hpp"
#include "unit/simd/fp_exceptions.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace kvcrush {
namespace {

class CodecFpExceptions : public reference::every_rung {};

/// Rows that no format has trouble with, but for their zeros, and tiny ones.
template <typename C>
void expect_none(const C& codec, simd::isa rung) {
    constexpr std::size_t dim = 64;
    for (const float size : {0.0F, 1.0F, 1e-30F, 1e-38F, 1e-45F}) {
        for (const std::size_t spread : std::initializer_list<std::size_t>{1, 2, 64}) {
            std::vector<float> rows(codec.group_size() * dim);
            for (std::size_t i = 0; i < rows.size(); i += spread) {
                rows[i] = i % 3 == 0 ? size : -size;
            }
            std::vector<std::byte> bytes(codec.group_bytes(dim));
            EXPECT_EQ(reference::raised_exceptions([&] {
                          EXPECT_TRUE(codec.encode(rows, dim, bytes, rung));
                          codec.decode(bytes, dim, rows, rung);
                      }),
                      0)
                << C::name << ", values of " << size << ", one of " << spread;
        }
    }
}

TEST_P(CodecFpExceptions, NoneWhereRowsAreZeroOrTiny) {
    expect_none(dense_codec<f16>{}, rung());
    expect_none(dense_codec<bf16>{}, rung());
    expect_none(int8_row_codec{}, rung());
    expect_none(fp8_e4m3_codec{}, rung());
    expect_none(fp8_e5m2_codec{}, rung());
    expect_none(q8_0_codec{}, rung());
    expect_none(q4_0_codec{}, rung());
    expect_none(q4_1_codec{}, rung());
    expect_none(q5_0_codec{}, rung());
    expect_none(q5_1_codec{}, rung());
    expect_none(iq4_nl_codec{}, rung());
    expect_none(codebook_row_codec{}, rung());
    expect_none(turbo_quant_codec{}, rung());
    expect_none(hadamard_codec<q4_0_codec>{}, rung());
    expect_none(kivi_key_codec{}, rung());
    expect_none(kivi_value_codec{}, rung());
}

KVCRUSH_ON_EVERY_RUNG(CodecFpExceptions);

} // namespace
} // namespace kvcrush
