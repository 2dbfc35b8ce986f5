// SPDX-License-Identifier: Apache-2.0
#include "matrix.hpp"

#include <kvcrush/simd/logits.hpp>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <sys/mman.h>

namespace lab {
namespace {

constexpr std::size_t cache_line = 64;
constexpr std::size_t huge_page = std::size_t{1} << 21U;

} // namespace

void* allocate_pages(std::size_t bytes) {
    const std::size_t alignment = bytes >= 2 * huge_page ? huge_page : cache_line;
    if (bytes > std::numeric_limits<std::size_t>::max() - alignment) {
        throw std::bad_alloc();
    }
    const std::size_t rounded =
        (std::max)((bytes + alignment - 1) / alignment * alignment, alignment);
    void* memory = std::aligned_alloc(alignment, rounded);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    if (alignment == huge_page) {
        ::madvise(
            memory, rounded, MADV_HUGEPAGE); // a wish: decoding walks all weights for every token
    }
    return memory;
}

void free_pages(void* memory) noexcept { std::free(memory); }

packed_matrix::packed_matrix(const matrix& rows)
    : rows_(rows.rows()),
      cols_(rows.cols()),
      tiles_((rows_ + tile_rows - 1) / tile_rows * tile_rows * cols_) {
    for (std::size_t first = 0; first < rows_; first += tile_rows) {
        kvcrush::simd::pack_key_tile(rows.data() + first * cols_,
                                     cols_,
                                     (std::min)(tile_rows, rows_ - first),
                                     cols_,
                                     tiles_.data() + first * cols_);
    }
}

void packed_matrix::copy_row(std::size_t r, std::span<float> to) const {
    const float* const from = tile(r / tile_rows) + r % tile_rows;
    for (std::size_t c = 0; c < cols_; ++c) {
        to[c] = from[c * tile_rows];
    }
}

void multiply(const packed_matrix& weights,
              const float* inputs,
              std::size_t tokens,
              float* result) {
    const std::size_t num_tiles =
        (weights.rows() + packed_matrix::tile_rows - 1) / packed_matrix::tile_rows;
#ifdef _OPENMP
#    pragma omp parallel for schedule(static)
#endif
    for (std::size_t tile = 0; tile < num_tiles; ++tile) {
        const std::size_t first = tile * packed_matrix::tile_rows;
        kvcrush::simd::tile_logits(inputs,
                                   weights.cols(),
                                   tokens,
                                   weights.tile(tile),
                                   weights.cols(),
                                   1.0F,
                                   result + first,
                                   weights.rows(),
                                   (std::min)(packed_matrix::tile_rows, weights.rows() - first));
    }
}

} // namespace lab
