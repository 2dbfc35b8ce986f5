// SPDX-License-Identifier: Apache-2.0
/// @file
/// The state of one sequence as llama_state_seq_get_data writes it, version 3 of that format: read strictly, and written
/// anew with fewer cells.
///
///     u32 magic, i32 sequence, then for each cache (sliding-window models have two):
///       u32 streams (1), u32 cells
///       per cell:  i32 position, u32 sequences (1), i32 sequence
///       u32 values transposed (0), u32 layers
///       per layer: i32 type, u64 bytes of a row, keys [cells, row bytes]
///       per layer: the same for values
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace client {

/// Keys or values of one layer: cells one after the other, all kv heads of a cell together.
struct blob_rows {
    std::int32_t type = 0;     ///< enum ggml_type
    std::size_t row_bytes = 0; ///< of all kv heads of a cell
    std::span<const std::byte> bytes;
};

/// One cache inside llama.cpp.
struct blob_cache {
    std::vector<std::int32_t> positions; ///< of each cell; of the first cache ascending, each once
    std::vector<blob_rows> keys;         ///< of each layer that this cache holds
    std::vector<blob_rows> values;       ///< likewise

    [[nodiscard]] std::size_t num_cells() const noexcept { return positions.size(); }
    [[nodiscard]] std::size_t num_layers() const noexcept { return keys.size(); }
};

/// Rows lie in the bytes that were read, which must outlive this.
struct state_blob {
    std::int32_t sequence = 0;
    std::vector<blob_cache> caches;
};

/// Nothing a state says is believed before it has been compared with the bytes that there are.
/// @param num_caches  1, or 2 for models with sliding-window layers: those with full attention, then the sliding ones
/// @throws lab::input_error naming what is wrong: another format or version, transposed values (flash attention off),
///         several streams, cells of other sequences, cells of the first cache that are not in the order of their
///         positions, no cells,
///         element types that no cache of this library has, bytes that are missing or left over
[[nodiscard]] state_blob parse_state(std::span<const std::byte> bytes, std::size_t num_caches = 1);

/// Bytes that are not cleared first: they are all written.
class state_bytes {
public:
    state_bytes() = default;
    explicit state_bytes(std::size_t size)
        : data_(std::make_unique_for_overwrite<std::byte[]>(size)), size_(size) {}
    [[nodiscard]] std::span<std::byte> all() noexcept { return {data_.get(), size_}; }
    [[nodiscard]] std::span<const std::byte> all() const noexcept { return {data_.get(), size_}; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

private:
    std::unique_ptr<std::byte[]> data_;
    std::size_t size_ = 0;
};

/// A state to be, whose rows in the first cache are still to be written.
struct state_draft {
    state_bytes bytes;
    std::vector<std::span<std::byte>> keys;   ///< of each layer of the first cache
    std::vector<std::span<std::byte>> values; ///< likewise
};

/// All that stands in a state but the rows of its first cache, for cells of these positions. Other caches are copied.
[[nodiscard]] state_draft draft_state(const state_blob& like,
                                      std::span<const std::int32_t> positions);

} // namespace client
