// SPDX-License-Identifier: Apache-2.0
/// @file
/// How much a key is like the others of its head, without a [seq_len, seq_len] matrix.
///
/// The mean cosine of a key with all keys is its product with one vector, the sum of all unit keys. Only the question
/// which similar key is the newest needs pairs; it is asked of the newest keys alone, from the end, and each key leaves
/// the search once it is answered.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/math/window_logits.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>
#include <kvcrush/simd/norm.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Parameters of key_redundancy.
struct redundancy_rule {
    /// Keys are similar above this cosine.
    float threshold = 0.5F;
    /// Similar keys that each key forgives, the newest first.
    std::size_t num_forgiven = 1;
    /// Newest tokens among which similar keys are looked for.
    std::size_t search = 2048;
    /// A key without any similar one forgives the first key, as the authors of R-KV do by accident.
    bool else_forgive_first = false;
};

namespace detail {

/// What key_redundancy needs besides its result.
struct redundancy_buffers {
    std::span<float> row;       ///< [head_dim] one key
    std::span<float> inverse;   ///< [seq_len] 1 / norm, 0 for keys that have none
    std::span<double> total;    ///< [head_dim] sum of the unit keys
    std::span<double> forgiven; ///< [seq_len] cosines taken back
    std::span<float> asking;    ///< [key_tile, head_dim] unit keys under way
    std::span<float> rows;      ///< [key_tile, head_dim] unit keys about to be packed
    std::span<float> packed;    ///< [tiles, head_dim, key_tile] the newest unit keys
    std::span<float> cosines;   ///< [key_tile, key_tile]

    static constexpr std::size_t num_tiles(const kv_shape& shape, std::size_t search) noexcept {
        return ((std::min)(search, shape.seq_len) + simd::key_tile - 1) / simd::key_tile;
    }
    static constexpr std::size_t bytes(const kv_shape& shape, std::size_t search) noexcept {
        const std::size_t tile = simd::key_tile * shape.key_dim;
        return scratch::bytes<float>(shape.key_dim) + scratch::bytes<float>(shape.seq_len) +
               scratch::bytes<double>(shape.key_dim) + scratch::bytes<double>(shape.seq_len) +
               2 * scratch::bytes<float>(tile) +
               scratch::bytes<float>(num_tiles(shape, search) * tile) +
               scratch::bytes<float>(simd::key_tile * simd::key_tile);
    }
    redundancy_buffers(const kv_shape& shape, std::size_t search, scratch memory) noexcept
        : row(memory.take<float>(shape.key_dim)),
          inverse(memory.take<float>(shape.seq_len)),
          total(memory.take<double>(shape.key_dim)),
          forgiven(memory.take<double>(shape.seq_len)),
          asking(memory.take<float>(simd::key_tile * shape.key_dim)),
          rows(memory.take<float>(simd::key_tile * shape.key_dim)),
          packed(memory.take<float>(num_tiles(shape, search) * simd::key_tile * shape.key_dim)),
          cosines(memory.take<float>(simd::key_tile * simd::key_tile)) {}
};

/// key / (norm + 1e-8); zeros where the key has no finite norm.
template <KvSource Kv>
void unit_key(const Kv& kv,
              std::size_t head,
              std::size_t token,
              float inverse,
              std::span<float> out) noexcept {
    if (inverse == 0.0F) {
        std::fill(out.begin(), out.end(), 0.0F);
        return;
    }
    copy_row(kv.key(head, token), out.data());
    for (float& value : out) {
        value *= inverse;
    }
}

/// Unit keys [begin, begin + count), channel by channel.
template <KvSource Kv>
void pack_unit_keys(const Kv& kv,
                    std::size_t head,
                    std::size_t begin,
                    std::size_t count,
                    const redundancy_buffers& buffers,
                    float* tile,
                    simd::isa rung) noexcept {
    const std::size_t head_dim = buffers.row.size();
    for (std::size_t c = 0; c < count; ++c) {
        unit_key(kv,
                 head,
                 begin + c,
                 buffers.inverse[begin + c],
                 buffers.rows.subspan(c * head_dim, head_dim));
    }
    simd::pack_key_tile(buffers.rows.data(), head_dim, count, head_dim, tile, rung);
}

/// Dot product in double, in four chains.
template <typename T>
[[nodiscard]] double dot(std::span<const float> a, std::span<const T> b) noexcept {
    std::array<double, 4> sums{};
    std::size_t k = 0;
    for (; k + 4 <= a.size(); k += 4) {
        for (std::size_t i = 0; i < 4; ++i) {
            sums[i] += static_cast<double>(a[k + i]) * static_cast<double>(b[k + i]);
        }
    }
    for (; k < a.size(); ++k) {
        sums[0] += static_cast<double>(a[k]) * static_cast<double>(b[k]);
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// Norms and the sum of all unit keys.
/// @param[out] mark  0, or NaN for keys without a finite norm
template <KvSource Kv>
void sum_unit_keys(const Kv& kv,
                   std::size_t head,
                   const redundancy_buffers& buffers,
                   std::span<float> mark,
                   simd::isa rung) noexcept {
    std::fill(buffers.total.begin(), buffers.total.end(), 0.0);
    for (std::size_t j = 0; j < mark.size(); ++j) {
        copy_row(kv.key(head, j), buffers.row.data());
        const float square = simd::squared_norm(std::span<const float>(buffers.row), rung);
        const bool usable = square <= (std::numeric_limits<float>::max)();
        const float inverse = usable ? 1.0F / (std::sqrt(square) + 1e-8F) : 0.0F;
        buffers.inverse[j] = inverse;
        mark[j] = usable ? 0.0F : std::numeric_limits<float>::quiet_NaN();
        if (usable) {
            for (std::size_t k = 0; k < buffers.row.size(); ++k) {
                buffers.total[k] += static_cast<double>(buffers.row[k] * inverse);
            }
        }
    }
}

/// The keys of one block that still look for similar ones, [size, head_dim] in redundancy_buffers::asking.
struct redundancy_search {
    std::array<std::size_t, simd::key_tile> token;
    std::array<std::size_t, simd::key_tile> left;
    std::array<bool, simd::key_tile> found;
    std::size_t size = 0;

    /// Keys that are done give their place to the last.
    void drop_done(std::span<float> keys, std::size_t head_dim) noexcept {
        for (std::size_t r = size; r-- > 0;) {
            if (left[r] > 0) {
                continue;
            }
            const std::size_t last = --size;
            if (r != last) {
                std::copy_n(keys.data() + last * head_dim, head_dim, keys.data() + r * head_dim);
                token[r] = token[last];
                left[r] = left[last];
                found[r] = found[last];
            }
        }
    }
};

/// Looks at one tile of candidates [first, first + count) from its end.
inline void search_tile(redundancy_search& search,
                        const redundancy_rule& rule,
                        std::span<const float> cosines,
                        std::size_t first,
                        std::size_t count,
                        std::span<double> forgiven) noexcept {
    for (std::size_t r = 0; r < search.size; ++r) {
        const float* const row = cosines.data() + r * simd::key_tile;
        for (std::size_t c = count; c-- > 0 && search.left[r] > 0;) {
            if (row[c] > rule.threshold && first + c != search.token[r]) {
                forgiven[first + c] += static_cast<double>(row[c]);
                search.found[r] = true;
                --search.left[r];
            }
        }
    }
}

} // namespace detail

/// Bytes of scratch memory that key_redundancy needs.
[[nodiscard]] constexpr std::size_t key_redundancy_bytes(const kv_shape& shape,
                                                         std::size_t search) noexcept {
    return detail::redundancy_buffers::bytes(shape, search);
}

/// Mean cosine of each key with the other keys of its head, less what is forgiven.
///
///     M[i, j] = cosine of keys i and j, 0 for i = j and where M[i, j] is one of the newest `num_forgiven` entries of
///               row i above the threshold
///     out[j]  = mean over i of M[i, j]
///
/// So of a run of duplicates all but the newest are redundant. Keys of norm 0 are like no other.
/// @param[in]  kv    keys [num_kv_heads, seq_len, key_dim] of any layout and element type; V is not read
/// @param[out] out   [seq_len]; NaN where a key is not finite or its squares overflow
/// @note  O(seq_len * head_dim) and, for the search, at most O(seq_len * min(search, seq_len) * head_dim); memory
///        O(seq_len + search * head_dim). Exact for seq_len <= search. In longer sequences a key whose newest similar
///        key is older than the newest `search` tokens forgives none.
template <KvSource Kv>
void key_redundancy(const Kv& kv,
                    std::size_t kv_head,
                    const redundancy_rule& rule,
                    std::span<float> out,
                    scratch memory,
                    simd::isa at_most = simd::best()) noexcept {
    const kv_shape shape = kv.shape();
    const std::size_t seq_len = shape.seq_len;
    const std::size_t head_dim = shape.key_dim;
    KVCRUSH_ASSERT(kv_head < shape.num_kv_heads && out.size() == seq_len);
    const detail::redundancy_buffers buffers(shape, rule.search, memory);
    std::fill(buffers.forgiven.begin(), buffers.forgiven.end(), 0.0);
    detail::sum_unit_keys(kv, kv_head, buffers, out, at_most);
    const std::size_t num_tiles = detail::redundancy_buffers::num_tiles(shape, rule.search);
    const std::size_t oldest = seq_len - (std::min)(rule.search, seq_len);
    std::size_t packed_from = num_tiles; // tiles are packed as the search reaches them
    for (std::size_t first = 0; first < seq_len; first += simd::key_tile) {
        detail::redundancy_search search{};
        search.size = (std::min)(simd::key_tile, seq_len - first);
        for (std::size_t r = 0; r < search.size; ++r) {
            const std::span<float> key = buffers.asking.subspan(r * head_dim, head_dim);
            const std::size_t j = first + r;
            detail::unit_key(kv, kv_head, j, buffers.inverse[j], key);
            const double sum =
                detail::dot<double>(key, buffers.total) - detail::dot<float>(key, key);
            out[j] += static_cast<float>(sum / static_cast<double>(seq_len));
            search.token[r] = j;
            search.left[r] = rule.num_forgiven;
            search.found[r] = false;
        }
        for (std::size_t t = num_tiles; t-- > 0 && search.size > 0;) {
            const std::size_t begin = oldest + t * simd::key_tile;
            const std::size_t count = (std::min)(simd::key_tile, seq_len - begin);
            float* const tile = buffers.packed.data() + t * simd::key_tile * head_dim;
            if (t < packed_from) {
                detail::pack_unit_keys(kv, kv_head, begin, count, buffers, tile, at_most);
                packed_from = t;
            }
            simd::tile_logits(buffers.asking.data(),
                              head_dim,
                              search.size,
                              tile,
                              head_dim,
                              1.0F,
                              buffers.cosines.data(),
                              simd::key_tile,
                              count,
                              at_most);
            detail::search_tile(search, rule, buffers.cosines, begin, count, buffers.forgiven);
            search.drop_done(buffers.asking, head_dim);
        }
        if (rule.else_forgive_first && rule.num_forgiven > 0) {
            detail::unit_key(kv, kv_head, 0, buffers.inverse[0], buffers.row);
            for (std::size_t r = 0; r < search.size; ++r) {
                if (!search.found[r] && search.token[r] != 0) {
                    buffers.forgiven[0] += detail::dot<float>(
                        buffers.asking.subspan(r * head_dim, head_dim), buffers.row);
                }
            }
        }
    }
    for (std::size_t j = 0; j < seq_len; ++j) {
        out[j] -= static_cast<float>(buffers.forgiven[j] / static_cast<double>(seq_len));
    }
}

} // namespace v0
} // namespace kvcrush
