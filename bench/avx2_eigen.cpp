// SPDX-License-Identifier: Apache-2.0
#define Eigen kvcrush_bench_eigen_avx2

#include "eigen_product.hpp"

namespace kvcrush::bench {

void avx2_eigen_logits(const eigen_logits& work) { eigen_product(work); }

} // namespace kvcrush::bench
