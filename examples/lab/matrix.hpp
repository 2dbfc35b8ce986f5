// SPDX-License-Identifier: Apache-2.0
/// @file
/// Row-major floats in memory that suits large products, and the product of a model's weights with its inputs.
#pragma once

#include <kvcrush/simd/logits.hpp>

#include <cstddef>
#include <new>
#include <span>
#include <vector>

namespace lab {

/// @throws std::bad_alloc
[[nodiscard]] void* allocate_pages(std::size_t bytes);
void free_pages(void* memory) noexcept;

/// Aligned to a cache line, to huge pages from a few MB on; leaves new floats uninitialised.
template <typename T>
struct page_allocator {
    using value_type = T;

    page_allocator() = default;
    template <typename U>
    explicit page_allocator(const page_allocator<U>&) noexcept {}

    [[nodiscard]] T* allocate(std::size_t count) {
        return static_cast<T*>(allocate_pages(count * sizeof(T)));
    }
    void deallocate(T* memory, std::size_t) noexcept { free_pages(memory); }

    template <typename U>
    void construct(U* place) noexcept {
        ::new (static_cast<void*>(place)) U;
    }
    friend bool operator==(page_allocator, page_allocator) noexcept { return true; }
};

using float_buffer = std::vector<float, page_allocator<float>>;

/// [rows, cols], uninitialised until written.
class matrix {
public:
    matrix() = default;
    matrix(std::size_t rows, std::size_t cols) : rows_(rows), cols_(cols), values_(rows * cols) {}

    [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
    [[nodiscard]] std::size_t cols() const noexcept { return cols_; }
    [[nodiscard]] float* data() noexcept { return values_.data(); }
    [[nodiscard]] const float* data() const noexcept { return values_.data(); }
    [[nodiscard]] std::span<float> row(std::size_t r) noexcept {
        return {data() + r * cols_, cols_};
    }
    [[nodiscard]] std::span<const float> row(std::size_t r) const noexcept {
        return {data() + r * cols_, cols_};
    }

private:
    std::size_t rows_ = 0;
    std::size_t cols_ = 0;
    float_buffer values_;
};

/// A model's weights, as products read them: tiles of 64 rows, column by column, the last one filled up with zeros.
class packed_matrix {
public:
    static constexpr std::size_t tile_rows = kvcrush::simd::key_tile;

    packed_matrix() = default;
    explicit packed_matrix(const matrix& rows);

    [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
    [[nodiscard]] std::size_t cols() const noexcept { return cols_; }
    /// Rows 64 i to 64 i + 63: [cols, 64]
    [[nodiscard]] const float* tile(std::size_t i) const noexcept {
        return tiles_.data() + i * tile_rows * cols_;
    }
    /// @param[out] to  [cols]
    void copy_row(std::size_t r, std::span<float> to) const;

private:
    std::size_t rows_ = 0;
    std::size_t cols_ = 0;
    float_buffer tiles_;
};

/// result[t, o] = sum over i of inputs[t, i] * weights[o, i], for `tokens` inputs.
/// One token streams the weights once, limited by memory; several are a matrix product. All threads take part.
/// By the library's own kernel, which chooses AVX2 or AVX-512 at run time: Eigen's needs -march for that.
/// @param[in]  inputs  [tokens, weights.cols()]
/// @param[out] result  [tokens, weights.rows()], not overlapping inputs
void multiply(const packed_matrix& weights, const float* inputs, std::size_t tokens, float* result);

} // namespace lab
