// SPDX-License-Identifier: Apache-2.0
/// @file
/// How much a token's value can move the output of a layer.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/convert.hpp>
#include <kvcrush/simd/l1_norm.hpp>
#include <kvcrush/simd/logits.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// Sum of the magnitudes of a row, in fp32.
template <Element T>
[[nodiscard]] float l1_norm(const row_view<T>& row) noexcept {
    if constexpr (std::is_same_v<std::remove_const_t<T>, float>) {
        if (row.contiguous()) {
            return simd::l1_norm(std::span<const float>(row.elements()));
        }
    }
    std::array<float, 256> buffer;
    float sum = 0.0F;
    for (std::size_t begin = 0; begin < row.size(); begin += buffer.size()) {
        const std::span<float> part(buffer.data(), (std::min)(buffer.size(), row.size() - begin));
        if (row.contiguous()) {
            simd::to_float(
                std::span<const std::remove_const_t<T>>(row.elements()).subspan(begin, part.size()),
                part);
        } else {
            for (std::size_t i = 0; i < part.size(); ++i) {
                part[i] = to_float(row[begin + i]);
            }
        }
        sum += simd::l1_norm(part);
    }
    return sum;
}

/// The matrix that turns the outputs of all query heads into the output of the layer, in fp32: W_o, `o_proj.weight` of
/// most models, [hidden_size, num_q_heads * value_dim], row-major.
class output_projection {
public:
    /// @throws std::invalid_argument if `weights` is shorter than the extents need or if sizes overflow
    output_projection(std::span<const float> weights,
                      std::size_t hidden_size,
                      std::size_t num_q_heads,
                      std::size_t value_dim)
        : data_(weights.data()),
          hidden_size_(hidden_size),
          num_q_heads_(num_q_heads),
          value_dim_(value_dim) {
        const std::size_t needed = detail::checked_multiply(
            detail::checked_multiply(num_q_heads, value_dim, "output_projection"),
            hidden_size,
            "output_projection");
        detail::require(weights.size() >= needed,
                        "output_projection: weights hold ",
                        weights.size(),
                        " elements; the shape needs ",
                        needed);
    }

    [[nodiscard]] std::size_t hidden_size() const noexcept { return hidden_size_; }
    [[nodiscard]] std::size_t num_q_heads() const noexcept { return num_q_heads_; }
    [[nodiscard]] std::size_t value_dim() const noexcept { return value_dim_; }
    /// Elements between neighbouring rows.
    [[nodiscard]] std::size_t row_stride() const noexcept { return num_q_heads_ * value_dim_; }
    /// What channel `row` of the output takes from query head `head`.
    [[nodiscard]] const float* row(std::size_t head, std::size_t row) const noexcept {
        return data_ + row * row_stride() + head * value_dim_;
    }

private:
    const float* data_;
    std::size_t hidden_size_;
    std::size_t num_q_heads_;
    std::size_t value_dim_;
};

namespace detail {
/// Rows of the projection that share a packed tile of values; their products stay in L1.
inline constexpr std::size_t projection_rows = 64;
} // namespace detail

/// Scratch memory of projected_value_norms [bytes].
[[nodiscard]] constexpr std::size_t
projected_value_norms_scratch_bytes(const kv_shape& shape) noexcept {
    return 2 * scratch::bytes<float>(shape.value_dim * simd::key_tile) +
           scratch::bytes<float>(detail::projection_rows * simd::key_tile);
}

/// L1 norm of what each value becomes in the output of the layer, averaged over the query heads that read it.
///
///     norms[k, j] = mean over the query heads h of kv head k of || W_o,h v[k, j] ||_1
/// @param[in]  kv     values [num_kv_heads, seq_len, value_dim] of any layout and element type; K is not read
/// @param[out] norms  [num_kv_heads, seq_len]
/// @pre   projection.num_q_heads() is a multiple of num_kv_heads, projection.value_dim() == value_dim
/// @note  O(num_q_heads * seq_len * value_dim * hidden_size): as much as the projection itself cost in the prefill.
///        Sums run in double over blocks of 64 floats.
template <KvSource Kv>
void projected_value_norms(const Kv& kv,
                           const output_projection& projection,
                           head_scores norms,
                           scratch memory) noexcept {
    const kv_shape shape = kv.shape();
    KVCRUSH_ASSERT(norms.num_heads() == shape.num_kv_heads && norms.seq_len() == shape.seq_len);
    KVCRUSH_ASSERT(projection.value_dim() == shape.value_dim);
    if (shape.num_kv_heads == 0) {
        return;
    }
    constexpr std::size_t width = simd::key_tile;
    const std::size_t group = projection.num_q_heads() / shape.num_kv_heads;
    const std::size_t dim = shape.value_dim;
    const std::span<float> packed = memory.take<float>(dim * width);
    const std::span<float> rows = memory.take<float>(dim * width);
    const std::span<float> products = memory.take<float>(detail::projection_rows * width);
    for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
        for (std::size_t first = 0; first < shape.seq_len; first += width) {
            const std::size_t count = (std::min)(width, shape.seq_len - first);
            for (std::size_t t = 0; t < count; ++t) {
                const auto value = kv.value(head, first + t);
                for (std::size_t k = 0; k < dim; ++k) {
                    rows[t * dim + k] = to_float(value[k]);
                }
            }
            simd::pack_key_tile(rows.data(), dim, count, dim, packed.data());
            std::array<double, width> sums{};
            for (std::size_t h = head * group; h < (head + 1) * group; ++h) {
                for (std::size_t r = 0; r < projection.hidden_size();
                     r += detail::projection_rows) {
                    const std::size_t num_rows =
                        (std::min)(detail::projection_rows, projection.hidden_size() - r);
                    simd::tile_logits(projection.row(h, r),
                                      projection.row_stride(),
                                      num_rows,
                                      packed.data(),
                                      dim,
                                      1.0F,
                                      products.data(),
                                      width,
                                      width);
                    std::array<float, width> block{};
                    for (std::size_t i = 0; i < num_rows; ++i) {
                        for (std::size_t t = 0; t < width; ++t) {
                            block[t] += std::fabs(products[i * width + t]);
                        }
                    }
                    for (std::size_t t = 0; t < width; ++t) {
                        sums[t] += static_cast<double>(block[t]);
                    }
                }
            }
            const double scale = group == 0 ? 0.0 : 1.0 / static_cast<double>(group);
            for (std::size_t t = 0; t < count; ++t) {
                norms.row(head)[first + t] = static_cast<float>(sums[t] * scale);
            }
        }
    }
}

} // namespace v0
} // namespace kvcrush
