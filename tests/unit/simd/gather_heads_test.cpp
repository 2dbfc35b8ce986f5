// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/simd/gather_heads.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>

namespace {

namespace simd = kvcrush::simd;
namespace reference = kvcrush::reference;

class GatherHeads : public reference::every_rung {};

/// Small whole numbers, exact in every element type.
float score(std::size_t head, std::size_t token) {
    return static_cast<float>((head * 37 + token * 5) % 251) - 100.0F;
}

template <typename T>
void expect_rows(std::size_t heads, std::size_t tokens, std::size_t head_stride, simd::isa rung) {
    const std::size_t token_stride = heads * head_stride;
    const std::size_t row_stride = tokens + 3;
    const bool empty = heads == 0 || tokens == 0;
    reference::guarded_buffer<T> scores(
        empty ? 0 : (tokens - 1) * token_stride + (heads - 1) * head_stride + 1);
    reference::guarded_buffer<float> rows(empty ? 0 : (heads - 1) * row_stride + tokens);
    std::fill(rows.span().begin(), rows.span().end(), 1000.0F);
    for (std::size_t h = 0; h < heads; ++h) {
        for (std::size_t t = 0; t < tokens; ++t) {
            scores[h * head_stride + t * token_stride] = kvcrush::from_float<T>(score(h, t));
        }
    }
    simd::gather_heads<T>({scores.span().data(),
                           head_stride,
                           token_stride,
                           heads,
                           tokens,
                           rows.span().data(),
                           row_stride},
                          rung);
    for (std::size_t i = 0; i < rows.span().size(); ++i) {
        const std::size_t token = i % row_stride;
        ASSERT_EQ(token < tokens ? score(i / row_stride, token) : 1000.0F, rows[i])
            << heads << " heads, " << tokens << " tokens";
    }
}

TEST_P(GatherHeads, TurnsTokensByHeadsIntoRows) {
    for (const std::size_t heads : std::initializer_list<std::size_t>{0, 1, 7, 8, 9, 16, 30}) {
        for (const std::size_t tokens :
             std::initializer_list<std::size_t>{0, 1, 7, 8, 9, 63, 64, 65, 100}) {
            for (const std::size_t stride : std::initializer_list<std::size_t>{1, 2}) {
                expect_rows<float>(heads, tokens, stride, rung());
                expect_rows<kvcrush::f16>(heads, tokens, stride, rung());
                expect_rows<kvcrush::bf16>(heads, tokens, stride, rung());
            }
        }
    }
}

KVCRUSH_ON_EVERY_RUNG(GatherHeads);

} // namespace
