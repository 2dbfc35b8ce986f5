// SPDX-License-Identifier: Apache-2.0
/// @file
/// The only place of kvcrush that throws. Planning functions (constructors of views, budgets, validate(), plan())
/// check what they are given here; hot functions are noexcept and never reach it.
#pragma once

#include <kvcrush/config.hpp>

#include <atomic>
#include <cstdlib>
#include <exception>
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

/// Carries the first exception out of tasks, which must not throw, to the caller of the executor. Without exceptions
/// there is nothing to carry.
class task_failure {
public:
    template <typename Work>
    void guard(const Work& work) noexcept {
#if KVCRUSH_EXCEPTIONS
        try {
            work();
        } catch (...) {
            if (!caught_.test_and_set()) {
                first_ = std::current_exception();
            }
        }
#else
        work();
#endif
    }
    /// @throws what a guarded task threw, if one did; all of them must have ended
    void rethrow() const {
#if KVCRUSH_EXCEPTIONS
        if (first_) {
            std::rethrow_exception(first_);
        }
#endif
    }

private:
#if KVCRUSH_EXCEPTIONS
    std::atomic_flag caught_{};
    std::exception_ptr first_{};
#endif
};

} // namespace detail
} // namespace v0
} // namespace kvcrush
