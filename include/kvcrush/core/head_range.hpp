// SPDX-License-Identifier: Apache-2.0
/// @file
/// Some kv heads of a cache, as a cache of its own: what one thread of several looks at.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/kv_shape.hpp>

#include <cstddef>

namespace kvcrush {
inline namespace v0 {

/// The kv heads [first, first + count) of another view, which must outlive it.
template <KvSource Kv>
class head_range {
public:
    /// @pre first + count <= num_kv_heads of kv
    head_range(const Kv& kv, std::size_t first, std::size_t count) noexcept
        : kv_(&kv), first_(first), count_(count) {
        KVCRUSH_ASSERT(first + count <= kv.shape().num_kv_heads);
    }

    [[nodiscard]] kv_shape shape() const noexcept {
        kv_shape part = kv_->shape();
        part.num_kv_heads = count_;
        return part;
    }
    [[nodiscard]] auto key(std::size_t head, std::size_t token) const noexcept {
        return kv_->key(first_ + head, token);
    }
    [[nodiscard]] auto value(std::size_t head, std::size_t token) const noexcept {
        return kv_->value(first_ + head, token);
    }

private:
    const Kv* kv_;
    std::size_t first_;
    std::size_t count_;
};

} // namespace v0
} // namespace kvcrush
