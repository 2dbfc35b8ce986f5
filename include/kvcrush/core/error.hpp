// SPDX-License-Identifier: Apache-2.0
/// @file
/// The only place of kvcrush that throws. Planning functions (constructors of views, budgets, validate(), plan())
/// check what they are given here; hot functions are noexcept and never reach it.
#pragma once

#include <kvcrush/config.hpp>

#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// @throws std::invalid_argument "kvcrush::" and the parts, one after the other; std::abort without exceptions
template <typename... Parts>
[[noreturn]] KVCRUSH_COLD void fail(const Parts&... parts) {
#if KVCRUSH_EXCEPTIONS
    std::ostringstream message;
    message << "kvcrush::";
    (message << ... << parts);
    throw std::invalid_argument(message.str());
#else
    (static_cast<void>(parts), ...);
    std::abort();
#endif
}

/// Costs the caller one branch: the message is only put together when the condition is false.
template <typename... Parts>
constexpr void require(bool condition, const Parts&... parts) {
    if (!condition) {
        fail(parts...);
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
