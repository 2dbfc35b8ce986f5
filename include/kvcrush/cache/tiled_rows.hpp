// SPDX-License-Identifier: Apache-2.0
/// @file
/// Encoded rows of one kv head in whole tiles.
#pragma once

#include <kvcrush/attend/code_tiles.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Rows are bytes as their codec wrote them; they are put into tiles and read from them, never decoded.
class tiled_rows {
public:
    explicit tiled_rows(const code_tile& layout) noexcept : layout_(layout) {}

    [[nodiscard]] const code_tile& layout() const noexcept { return layout_; }
    [[nodiscard]] std::size_t size() const noexcept {
        return bytes_.size() / layout_.bytes() * code_tile::num_rows;
    }
    /// @param size  a multiple of code_tile::num_rows. What is added holds zeros
    void resize(std::size_t size) {
        KVCRUSH_ASSERT(size % code_tile::num_rows == 0);
        const std::size_t bytes = size / code_tile::num_rows * layout_.bytes();
        if (bytes > bytes_.capacity()) { // an eighth more: doubling would hold twice what is used
            bytes_.reserve(bytes + bytes / 8);
        }
        bytes_.resize(bytes);
    }
    void get(std::size_t row, std::span<std::byte> out) const noexcept {
        KVCRUSH_ASSERT(row < size());
        layout_.get(bytes_.data() + row / code_tile::num_rows * layout_.bytes(),
                    row % code_tile::num_rows,
                    out);
    }
    void put(std::size_t row, std::span<const std::byte> from) noexcept {
        KVCRUSH_ASSERT(row < size());
        layout_.put(from,
                    row % code_tile::num_rows,
                    bytes_.data() + row / code_tile::num_rows * layout_.bytes());
    }

    /// All rows of a tile. @param from  [num_rows, row_bytes]
    void fill(std::size_t tile, std::span<const std::byte> from) noexcept {
        KVCRUSH_ASSERT(tile < size() / code_tile::num_rows);
        layout_.fill(from, bytes_.data() + tile * layout_.bytes());
    }

    /// For attend(); valid until rows are added or dropped.
    [[nodiscard]] stored_rows rows() const noexcept {
        return {.data = bytes_.data(), .stride = layout_.bytes()};
    }
    [[nodiscard]] std::size_t bytes_held() const noexcept { return bytes_.capacity(); }
    void shrink_to_fit() {
        if (bytes_.capacity() > bytes_.size()) {
            bytes_ = std::vector<std::byte>(bytes_.begin(), bytes_.end());
        }
    }

private:
    code_tile layout_;
    std::vector<std::byte> bytes_;
};

} // namespace v0
} // namespace kvcrush
