// SPDX-License-Identifier: Apache-2.0
/// @file
/// The product of native_eigen.cpp and avx2_eigen.cpp. Each renames Eigen before it includes this file: the linker would
/// keep one copy of Eigen's functions otherwise, with the flags of either.
#pragma once

#include "baseline_eigen.hpp"

#include <Eigen/Core>

namespace kvcrush::bench {
namespace {

using eigen_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using eigen_in = Eigen::Map<const eigen_matrix>;
using eigen_out = Eigen::Map<eigen_matrix>;

Eigen::Index extent(std::size_t n) { return static_cast<Eigen::Index>(n); }

void eigen_product(const eigen_logits& work) {
    const eigen_in queries(work.queries, extent(work.num_queries), extent(work.head_dim));
    const eigen_in keys(work.keys, extent(work.num_tokens), extent(work.head_dim));
    eigen_out logits(work.logits, extent(work.num_queries), extent(work.num_tokens));
    logits.noalias() = queries * keys.transpose();
}

} // namespace
} // namespace kvcrush::bench
