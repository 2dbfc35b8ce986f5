// SPDX-License-Identifier: Apache-2.0
#define Eigen kvcrush_bench_eigen_native
#if defined(__GNUC__) && !defined(__clang__) // GCC 12's own header (gcc.gnu.org/PR105593)
#    pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#    pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include "eigen_product.hpp"

namespace kvcrush::bench {
namespace {

using eigen_block = Eigen::Map<eigen_matrix, 0, Eigen::OuterStride<>>;
using eigen_const_block = Eigen::Map<const eigen_matrix, 0, Eigen::OuterStride<>>;

} // namespace

void native_eigen_logits(const eigen_logits& work) { eigen_product(work); }

void native_eigen_matmuls(const prefill_shape& shape,
                          std::size_t slice,
                          const float* weights,
                          const float* in,
                          float* out) {
    const auto project = [&](const float* from, std::size_t inner, std::size_t columns, float* to) {
        const eigen_in rows(from, extent(slice), extent(inner));
        const eigen_in matrix(weights, extent(columns), extent(inner));
        eigen_out result(to, extent(slice), extent(columns));
        result.noalias() = rows * matrix.transpose();
    };
    const std::size_t q = shape.num_q_heads * shape.head_dim;
    const std::size_t kv = shape.num_kv_heads * shape.head_dim;
    project(in, shape.hidden, q, out);
    project(in, shape.hidden, kv, out + slice * q);
    project(in, shape.hidden, kv, out + slice * (q + kv));
    project(in, q, shape.hidden, out);
    project(in, shape.hidden, shape.intermediate, out);
    project(in, shape.hidden, shape.intermediate, out + slice * shape.intermediate);
    const Eigen::Index size = extent(slice * shape.intermediate);
    Eigen::Map<Eigen::ArrayXf> gate(out, size);
    const Eigen::Map<const Eigen::ArrayXf> up(out + size, size);
    gate = gate / (1.0F + (-gate).exp()) * up;
    project(out, shape.intermediate, shape.hidden, out + size);
}

void native_eigen_attention(const prefill_shape& shape,
                            std::size_t slice,
                            std::size_t num_keys,
                            const float* keys,
                            const float* values,
                            const float* in,
                            float* logits,
                            float* out) {
    const Eigen::Index dim = extent(shape.head_dim);
    const Eigen::OuterStride<> stride(extent(shape.num_q_heads * shape.head_dim));
    const eigen_in k(keys, extent(num_keys), dim);
    const eigen_in v(values, extent(num_keys), dim);
    eigen_out weights(logits, extent(slice), extent(num_keys));
    const float scale = 1.0F / static_cast<float>(shape.head_dim);
    for (std::size_t head = 0; head < shape.num_q_heads; ++head) {
        const eigen_const_block queries(in + head * shape.head_dim, extent(slice), dim, stride);
        eigen_block result(out + head * shape.head_dim, extent(slice), dim, stride);
        weights.noalias() = queries * k.transpose();
        for (Eigen::Index row = 0; row < weights.rows(); ++row) {
            auto line = weights.row(row).array();
            line = (scale * (line - line.maxCoeff())).exp();
            line /= line.sum();
        }
        result.noalias() = weights * v;
    }
}

} // namespace kvcrush::bench
