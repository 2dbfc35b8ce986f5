// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keys and values of a layer that no cache holds, in rows or tiles of any codec, and a decode step over them.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/code_tiles.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/isa.hpp>

#include "huge_buffer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush::bench {

struct layer_shape {
    std::size_t num_q_heads;
    std::size_t num_kv_heads;
    std::size_t dim;

    [[nodiscard]] std::string name() const {
        return fmt::format("heads:{}/{}/dim:{}", num_q_heads, num_kv_heads, dim);
    }
    /// How many tokens take 64 MiB of keys and values in f16.
    [[nodiscard]] std::size_t tokens_of_64_mib() const noexcept {
        return (std::size_t{64} << 20) / (4 * num_kv_heads * dim);
    }
};

inline constexpr layer_shape llama{32, 8, 128};
inline constexpr layer_shape small_llama{9, 3, 64};

/// Keys and values of one layer in one codec.
class stored_layer {
public:
    template <typename C>
    stored_layer(const C& codec,
                 const layer_shape& shape,
                 std::size_t tokens,
                 const row_kernels& kernels)
        : row_bytes_(codec.group_bytes(shape.dim)),
          keys_(shape.num_kv_heads * tokens * row_bytes_),
          values_(keys_.size()),
          kernels_(kernels),
          value_kernels_(kernels) {
        constexpr std::size_t num_different = 1024;
        std::vector<std::byte> rows(num_different * row_bytes_);
        std::vector<float> row(shape.dim);
        for (std::size_t r = 0; r < num_different; ++r) {
            for (std::size_t c = 0; c < shape.dim; ++c) {
                row[c] = 4.0F * random_unit(71, r, c) - 2.0F;
            }
            // Finite by construction.
            static_cast<void>(
                codec.encode(row, shape.dim, std::span(rows).subspan(r * row_bytes_, row_bytes_)));
        }
        for (std::size_t i = 0; i < shape.num_kv_heads * tokens; ++i) {
            std::memcpy(keys_.data() + i * row_bytes_,
                        rows.data() + i * 7 % num_different * row_bytes_,
                        row_bytes_);
            std::memcpy(values_.data() + i * row_bytes_,
                        rows.data() + (i * 11 + 5) % num_different * row_bytes_,
                        row_bytes_);
        }
        add_segments(shape, tokens, tokens * row_bytes_, row_bytes_);
    }
    /// The same rows in tiles. @param tokens  a multiple of code_tile::num_rows
    stored_layer(const stored_layer& rows,
                 const any_codec& codec,
                 const layer_shape& shape,
                 std::size_t tokens,
                 simd::isa at_most)
        : row_bytes_(rows.row_bytes_),
          keys_(rows.keys_.size()),
          values_(keys_.size()),
          kernels_(codec.tile_kernels(tile_role::keys, at_most)),
          value_kernels_(codec.tile_kernels(tile_role::values, at_most)) {
        const auto fill = [&](tile_role role, std::span<const std::byte> from, std::byte* to) {
            const code_tile tile = *codec.tile(role, shape.dim);
            for (std::size_t i = 0; i < shape.num_kv_heads * tokens; ++i) {
                tile.put(from.subspan(i * row_bytes_, row_bytes_),
                         i % code_tile::num_rows,
                         to + i / code_tile::num_rows * tile.bytes());
            }
        };
        fill(tile_role::keys, rows.keys(), keys_.data());
        fill(tile_role::values, rows.values(), values_.data());
        add_segments(shape, tokens, tokens * row_bytes_, code_tile::num_rows * row_bytes_);
    }
    stored_layer(const stored_layer&) = delete;
    stored_layer& operator=(const stored_layer&) = delete;
    ~stored_layer() = default;

    /// From now on a head has so many rows.
    void use_first(std::size_t tokens) {
        heads_.clear();
        for (attend_segment& segment : segments_) {
            segment.count = tokens;
            heads_.emplace_back(&segment, 1);
        }
    }
    [[nodiscard]] std::span<const attend_head> heads() const noexcept { return heads_; }
    [[nodiscard]] std::span<const std::byte> keys() const noexcept { return keys_.span(); }
    [[nodiscard]] std::span<const std::byte> values() const noexcept { return values_.span(); }
    [[nodiscard]] std::size_t bytes() const noexcept { return 2 * keys_.size(); }

private:
    /// @param stride  from one row or tile to the next
    void add_segments(const layer_shape& shape,
                      std::size_t tokens,
                      std::size_t head_bytes,
                      std::size_t stride) {
        for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
            const std::size_t at = head * head_bytes;
            segments_.push_back({.count = tokens,
                                 .keys = {.data = keys_.data() + at, .stride = stride},
                                 .key_kernels = &kernels_,
                                 .values = {.data = values_.data() + at, .stride = stride},
                                 .value_kernels = &value_kernels_});
        }
        use_first(tokens);
    }

    std::size_t row_bytes_;
    huge_buffer<std::byte> keys_;
    huge_buffer<std::byte> values_;
    row_kernels kernels_;
    row_kernels value_kernels_;
    std::vector<attend_segment> segments_;
    std::vector<attend_head> heads_;
};

/// Queries, output and memory of calls that take turns.
class step {
public:
    /// @param reach  largest magnitude of a query's channels: the larger, the fewer tokens matter
    explicit step(const layer_shape& shape, float reach = 1.0F)
        : shape_(shape), queries_(shape.num_q_heads * shape.dim), output_(queries_.size()) {
        for (std::size_t i = 0; i < queries_.size(); ++i) {
            queries_[i] = reach * (2.0F * random_unit(72, 0, i) - 1.0F);
        }
    }
    template <typename E = serial_executor>
    void operator()(const stored_layer& layer,
                    std::size_t num_lanes = 1,
                    E&& execute = {},
                    simd::isa at_most = simd::best()) {
        const query_view view(queries_, shape_.num_q_heads, 1, shape_.dim);
        const attend_options options{.num_lanes = num_lanes};
        memory_.resize(
            (std::max)(memory_.size(), attend_workspace(view, layer.heads(), shape_.dim, options)));
        const attend_status status =
            attend(view, layer.heads(), shape_.dim, output_, memory_, options, execute, at_most);
        if (status != attend_status::done) {
            throw std::logic_error(std::string(describe(status)));
        }
    }
    [[nodiscard]] const std::vector<float>& queries() const noexcept { return queries_; }
    [[nodiscard]] std::vector<float>& output() noexcept { return output_; }

private:
    layer_shape shape_;
    std::vector<float> queries_;
    std::vector<float> output_;
    std::vector<float> memory_;
};

} // namespace kvcrush::bench
