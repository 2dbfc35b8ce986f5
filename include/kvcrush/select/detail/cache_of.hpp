// SPDX-License-Identifier: Apache-2.0
/// @file
/// The cache among what an engine gave, for selectors that read keys or values.
#pragma once

#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/shape_only.hpp>

#include <concepts>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// The cache is the first input where there is one; attention weights come without.
template <KvSource Kv, typename... Rest>
[[nodiscard]] constexpr const Kv& cache_of(const Kv& kv, const Rest&...) noexcept {
    return kv;
}

template <typename... Inputs>
concept HasCache = requires(const Inputs&... inputs) { cache_of(inputs...); } &&
                   (!std::same_as<Inputs, shape_only> && ...);

} // namespace detail
} // namespace v0
} // namespace kvcrush
