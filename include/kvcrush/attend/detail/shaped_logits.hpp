// SPDX-License-Identifier: Apache-2.0
/// @file
/// What may happen to the logits of a tile before their softmax: the mean of the keys, a soft-cap, a mask.
#pragma once

#include <kvcrush/attend/attend_mask.hpp>
#include <kvcrush/attend/detail/attend_work.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/simd/convert.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace detail {

inline constexpr float hidden_logit = -std::numeric_limits<float>::infinity();

/// How many of the rows [first, first + count) are seen up to the last that `query` may see.
[[nodiscard]] inline std::size_t last_seen(const attend_mask& mask,
                                           std::size_t query,
                                           std::size_t first,
                                           std::size_t count) noexcept {
    const std::size_t at = query * mask.stride + first;
    if (mask.halves.empty()) {
        while (count > 0 && mask.floats[at + count - 1] == hidden_logit) {
            --count;
        }
    } else {
        constexpr std::uint16_t hidden = 0xFC00; // -infinity
        while (count > 0 && std::bit_cast<std::uint16_t>(mask.halves[at + count - 1]) == hidden) {
            --count;
        }
    }
    return count;
}

/// The mask of a tile as floats, 0 behind `count`. @param out [attend_tile]
inline void read_mask(const attend_mask& mask,
                      std::size_t query,
                      std::size_t first,
                      std::size_t count,
                      float* out,
                      simd::isa rung) noexcept {
    const std::size_t at = query * mask.stride + first;
    if (mask.halves.empty()) {
        std::copy_n(mask.floats.data() + at, count, out);
    } else {
        simd::to_float(mask.halves.subspan(at, count), std::span(out, count), rung);
    }
    std::fill(out + count, out + attend_tile, 0.0F);
}

/// cap * tanh(x / cap), for attend_tile numbers.
inline void cap_logits(float* x, float cap, simd::isa rung) noexcept {
    float power[attend_tile];
    for (std::size_t t = 0; t < attend_tile; ++t) {
        // From 9 on tanh is 1 in fp32; NaN, which is neither larger nor smaller, stays what it is.
        const float y = x[t] / cap;
        power[t] = 2.0F * (y > 9.1F ? 9.1F : y < -9.1F ? -9.1F : y);
    }
    simd::exp_many(power, power, rung);
    for (std::size_t t = 0; t < attend_tile; ++t) {
        const float tanh = (power[t] - 1.0F) / (power[t] + 1.0F);
        x[t] = x[t] != x[t] ? x[t] : cap * tanh;
    }
}

/// Adds what the mean of the keys says, caps, and adds the mask.
/// @param seen    [rows of the block], how many of the tile's rows each sees; the logits of those that see none stay
/// @param bias    [rows of the block]
/// @param logits  [rows of the block][attend_tile]
/// @param before  rows of the head before the tile
inline void shape_logits(const attend_work& work,
                         std::size_t kv_head,
                         const query_block& block,
                         const std::size_t* seen,
                         std::size_t before,
                         const float* bias,
                         float* logits) noexcept {
    const attend_options& how = work.options;
    for (std::size_t q = 0; q < block.num_queries; ++q) {
        if (seen[q] == 0) { // the same for all heads
            continue;
        }
        float mask[attend_tile];
        if (!how.mask.empty()) {
            read_mask(how.mask, block.first_query + q, before, seen[q], mask, work.rung);
        }
        for (std::size_t h = 0; h < block.num_heads; ++h) {
            const std::size_t r = h * block.num_queries + q;
            float* const row = logits + r * attend_tile;
            std::fill(row + seen[q], row + attend_tile, 0.0F);
            for (std::size_t t = 0; t < attend_tile; ++t) {
                row[t] += bias[r];
            }
            if (how.soft_cap > 0.0F) {
                cap_logits(row, how.soft_cap, work.rung);
            }
            if (!how.mask.empty()) {
                const std::size_t head = kv_head * work.group + block.first_head + h;
                const float slope = how.mask.slopes.empty() ? 1.0F : how.mask.slopes[head];
                for (std::size_t t = 0; t < attend_tile; ++t) {
                    row[t] = mask[t] == hidden_logit ? hidden_logit : row[t] + slope * mask[t];
                }
            }
        }
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
