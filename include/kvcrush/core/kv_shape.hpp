// SPDX-License-Identifier: Apache-2.0
/// @file
/// The extents of one layer's KV cache.
#pragma once

#include <cstddef>

namespace kvcrush {
inline namespace v0 {

/// One layer of a KV cache: K is [num_kv_heads, seq_len, key_dim], V is [num_kv_heads, seq_len, value_dim].
struct kv_shape {
    std::size_t num_kv_heads = 0;
    std::size_t seq_len = 0;
    std::size_t key_dim = 0;
    std::size_t value_dim = 0;

    friend constexpr bool operator==(const kv_shape&, const kv_shape&) = default;
};

} // namespace v0
} // namespace kvcrush
