// SPDX-License-Identifier: Apache-2.0
/// @file
/// What differs from layer to layer: policies that are chosen once for a model are told where they are used.
#pragma once

#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/rope.hpp>
#include <kvcrush/core/scorer.hpp>

#include <cstddef>
#include <cstdint>

namespace kvcrush {
inline namespace v0 {

struct layer_context {
    std::size_t layer = 0;
    /// The first of the kv heads that are looked at: 0 unless heads are looked at one by one.
    std::size_t first_head = 0;
    problem_size size{};
    /// How the model turns keys and queries.
    rope angles{};
    /// Queries that are at hand, for what calibrates itself; may be nullptr.
    const query_view* queries = nullptr;
};

namespace detail {

/// Layers, and heads that are looked at apart, draw apart: one seed for all would keep the same random tokens everywhere.
[[nodiscard]] constexpr std::uint64_t seed_at(std::uint64_t seed,
                                              const layer_context& where) noexcept {
    const std::uint64_t own = random_bits(seed, 1, where.layer);
    return where.first_head == 0 ? own : random_bits(own, 2, where.first_head);
}

} // namespace detail

/// A policy as it is to be in one layer: by its own at_layer(where), or the same with `seed`, `anchor.seed` and `rope`
/// set where it has such members.
template <typename P>
[[nodiscard]] auto policy_at_layer(const P& policy, const layer_context& where) {
    if constexpr (requires { policy.at_layer(where); }) {
        return policy.at_layer(where);
    } else {
        P own = policy;
        if constexpr (requires { own.seed; }) {
            own.seed = detail::seed_at(policy.seed, where);
        }
        if constexpr (requires { own.anchor.seed; }) {
            own.anchor.seed = detail::seed_at(policy.anchor.seed, where);
        }
        if constexpr (requires { own.rope; }) {
            own.rope = where.angles;
        }
        return own;
    }
}

} // namespace v0
} // namespace kvcrush
