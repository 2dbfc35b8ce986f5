// SPDX-License-Identifier: Apache-2.0
/// @file
/// How an engine with a layout of its own hands a layer to kvcrush: a model of kvcrush::KvSource, no copy.
#pragma once

#include <kvcrush/core/concepts.hpp>

#include "kv_cache.hpp"

#include <cstddef>

namespace lab {

/// The rows of one layer, whose heads lie in memory of their own. All heads must hold the same number of rows.
template <kvcrush::Element T>
class layer_view {
public:
    explicit layer_view(layer_cache<T>& layer) noexcept : layer_(&layer) {}

    [[nodiscard]] kvcrush::kv_shape shape() const noexcept {
        const std::size_t heads = layer_->num_kv_heads();
        return {heads, heads == 0 ? 0 : layer_->rows(0), layer_->head_dim(), layer_->head_dim()};
    }
    [[nodiscard]] kvcrush::row_view<T> key(std::size_t head, std::size_t token) const noexcept {
        return {layer_->keys(head).data() + token * layer_->head_dim(), layer_->head_dim()};
    }
    [[nodiscard]] kvcrush::row_view<T> value(std::size_t head, std::size_t token) const noexcept {
        return {layer_->values(head).data() + token * layer_->head_dim(), layer_->head_dim()};
    }

private:
    layer_cache<T>* layer_;
};

static_assert(kvcrush::MutableKvSource<layer_view<kvcrush::f16>>);

} // namespace lab
