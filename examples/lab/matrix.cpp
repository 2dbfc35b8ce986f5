// SPDX-License-Identifier: Apache-2.0
#include "matrix.hpp"

#include "eigen.hpp"
#include "threads.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <sys/mman.h>

namespace lab {
namespace {

using strided = Eigen::Map<row_major, Eigen::Unaligned, Eigen::OuterStride<>>;

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

void multiply(const matrix& weights, const float* inputs, std::size_t tokens, float* result) {
    const std::size_t outputs = weights.rows();
    const std::size_t length = weights.cols();
    if (tokens == 0 || outputs == 0) {
        return;
    }
    // Each thread takes a slice of the outputs and multiplies it alone; Eigen sees that it runs in parallel.
    const std::size_t slice = (outputs + max_threads() - 1) / max_threads();
    const std::size_t num_slices = (outputs + slice - 1) / slice;
#ifdef _OPENMP
#    pragma omp parallel for schedule(static)
#endif
    for (std::size_t s = 0; s < num_slices; ++s) {
        const std::size_t first = s * slice;
        const std::size_t count = (std::min)(slice, outputs - first);
        const Eigen::Map<const row_major> rows(
            weights.data() + first * length, index(count), index(length));
        if (tokens == 1) {
            const Eigen::Map<const Eigen::VectorXf> input(inputs, index(length));
            Eigen::Map<Eigen::VectorXf>(result + first, index(count)).noalias() = rows * input;
        } else {
            const Eigen::Map<const row_major> input(inputs, index(tokens), index(length));
            strided(
                result + first, index(tokens), index(count), Eigen::OuterStride<>(index(outputs)))
                .noalias() = input * rows.transpose();
        }
    }
}

} // namespace lab
