// SPDX-License-Identifier: Apache-2.0
/// @file
/// Moves the kept rows together in the memory they lie in.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Rows ahead; without it the gather is bound by latency.
inline constexpr std::size_t prefetch_distance = 32;

/// Inlined by force: GCC 12 takes a function that does nothing but prefetch for one without effects, and drops its calls.
template <Element T>
[[gnu::always_inline]] inline void prefetch_row(const row_view<T>& row) noexcept {
#if defined(__GNUC__)
    // Into L2: L1 has too few requests under way for all lines of the rows ahead (Zen 4: 1.3 times as fast from DRAM).
    // Of a row that is not contiguous, the first line alone: its elements may lie a page apart.
    constexpr std::size_t line = 64 / sizeof(T);
    const std::size_t size = row.contiguous() ? row.size() : (std::min)(row.size(), line);
    for (std::size_t d = 0; d < size; d += line) {
        __builtin_prefetch(row.data() + d, 0, 2);
    }
#else
    static_cast<void>(row);
#endif
}

/// Results from this size on bypass the caches [bytes]: they would not fit, and a store of a whole line need not read it
/// first. Below, whoever reads the rows next finds them in L2 or L3.
inline constexpr std::size_t streamed_from_bytes = std::size_t{16} << 20;

/// Rows of one head that lie `stride` bytes apart.
struct strided_rows {
    std::byte* first;
    std::size_t stride;
    std::size_t bytes; ///< of a row
};

[[gnu::always_inline]] inline void prefetch_bytes(const std::byte* row,
                                                  std::size_t bytes) noexcept {
#if defined(__GNUC__)
    for (std::size_t at = 0; at < bytes; at += 64) {
        __builtin_prefetch(row + at, 0, 2);
    }
#else
    static_cast<void>(row);
    static_cast<void>(bytes);
#endif
}

inline void compact_strided(std::span<const token_index> kept, const strided_rows& rows) noexcept {
    for (std::size_t i = 0; i < kept.size(); ++i) {
        if (i + prefetch_distance < kept.size()) {
            prefetch_bytes(rows.first + kept[i + prefetch_distance] * rows.stride, rows.bytes);
        }
        KVCRUSH_ASSERT(kept[i] >= i);
        if (kept[i] != i) {
            std::memcpy(
                rows.first + i * rows.stride, rows.first + kept[i] * rows.stride, rows.bytes);
        }
    }
}

#if KVCRUSH_X86_DISPATCH
/// The same past the caches. Stores of less than a line are no faster there than plain ones (Zen 4).
/// @pre rows begin at lines and are made of whole ones
KVCRUSH_TARGET_AVX512 inline void stream_strided_avx512(std::span<const token_index> kept,
                                                        const strided_rows& rows) noexcept {
    for (std::size_t i = 0; i < kept.size(); ++i) {
        if (i + prefetch_distance < kept.size()) {
            prefetch_bytes(rows.first + kept[i + prefetch_distance] * rows.stride, rows.bytes);
        }
        KVCRUSH_ASSERT(kept[i] >= i);
        if (kept[i] == i) {
            continue;
        }
        const std::byte* const from = rows.first + kept[i] * rows.stride;
        std::byte* const to = rows.first + i * rows.stride;
        std::size_t at = 0;
        for (; at + 256 <= rows.bytes; at += 256) {
            const __m512i a = _mm512_loadu_si512(from + at);
            const __m512i b = _mm512_loadu_si512(from + at + 64);
            const __m512i c = _mm512_loadu_si512(from + at + 128);
            const __m512i d = _mm512_loadu_si512(from + at + 192);
            _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at), a);
            _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at + 64), b);
            _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at + 128), c);
            _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at + 192), d);
        }
        for (; at < rows.bytes; at += 64) {
            _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at), _mm512_loadu_si512(from + at));
        }
    }
    _mm_sfence(); // such stores are not ordered with what the caller does next
}
#endif

/// Rows are distinct and each destination lies at or before its source, so walking the tokens in ascending order
/// never overwrites a row that is still to be read.
template <typename Row>
void compact_rows(std::span<const token_index> kept, Row&& row) noexcept {
    if (kept.empty() || row(0).size() == 0) {
        return; // there may be no memory at all
    }
    for (std::size_t i = 0; i < kept.size(); ++i) {
        if (i + prefetch_distance < kept.size()) {
            prefetch_row(row(kept[i + prefetch_distance]));
        }
        KVCRUSH_ASSERT(kept[i] >= i);
        if (kept[i] == i) {
            continue;
        }
        const auto from = row(kept[i]);
        const auto to = row(i);
        if (from.contiguous()) {
            std::memcpy(to.data(), from.data(), from.size() * sizeof(*from.data()));
        } else {
            for (std::size_t d = 0; d < from.size(); ++d) {
                to[d] = from[d];
            }
        }
    }
}

/// One head of K or V: at once where its rows lie evenly, else row by row.
/// @param strides  those of a kv_view, in elements
template <typename Row>
void compact_head(std::span<const token_index> kept,
                  const kv_strides& strides,
                  bool streamed,
                  Row&& row) noexcept {
    if (kept.empty()) {
        return;
    }
    const auto first = row(0);
    if (first.size() == 0) {
        return; // there may be no memory at all
    }
    if (!first.contiguous()) {
        return compact_rows(kept, row);
    }
    constexpr std::size_t size = sizeof(*first.data());
    const strided_rows rows{
        reinterpret_cast<std::byte*>(first.data()), strides.token * size, first.size() * size};
#if KVCRUSH_X86_DISPATCH
    if (streamed &&
        (reinterpret_cast<std::uintptr_t>(rows.first) | rows.stride | rows.bytes) % 64 == 0) {
        return stream_strided_avx512(kept, rows);
    }
#else
    static_cast<void>(streamed);
#endif
    compact_strided(kept, rows);
}

} // namespace detail

/// Moves the rows of the kept tokens of each kv head to tokens 0, 1, 2, ... of that head, K and V, in place.
/// Order is kept. What lies behind is left as it was: it is the caller's to reuse, shrink or free.
///
/// New tokens go on at the number of tokens *seen*, not stored: the rows keep the positions they were rotated for.
/// @pre kept.num_kv_heads() is kv.shape().num_kv_heads (or 0: nothing moves), its indices are ascending and below
///      seq_len
/// @note allocates nothing; O(kept rows)
template <MutableKvSource Kv>
void compact(const Kv& kv, const selection& kept, simd::isa at_most = simd::best()) noexcept {
    KVCRUSH_ASSERT(kept.num_kv_heads() == 0 || kept.num_kv_heads() == kv.shape().num_kv_heads);
    if (kept.total() == 0) {
        return;
    }
    const kv_shape shape = kv.shape();
    const std::size_t bytes = kept.total() * (shape.key_dim * sizeof(*kv.key(0, 0).data()) +
                                              shape.value_dim * sizeof(*kv.value(0, 0).data()));
    const bool streamed =
        bytes >= detail::streamed_from_bytes && simd::usable(at_most) == simd::isa::avx512;
    for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
        const std::span<const token_index> tokens = kept.kept(head);
        KVCRUSH_ASSERT(tokens.empty() || tokens.back() < shape.seq_len);
        const auto key = [&kv, head](std::size_t token) { return kv.key(head, token); };
        const auto value = [&kv, head](std::size_t token) { return kv.value(head, token); };
        if constexpr (requires { kv.layout().key_strides(shape); }) {
            detail::compact_head(tokens, kv.layout().key_strides(shape), streamed, key);
            detail::compact_head(tokens, kv.layout().value_strides(shape), streamed, value);
        } else {
            detail::compact_rows(tokens, key);
            detail::compact_rows(tokens, value);
        }
    }
}

} // namespace v0
} // namespace kvcrush
