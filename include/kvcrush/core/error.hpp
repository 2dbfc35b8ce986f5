// SPDX-License-Identifier: Apache-2.0
/// @file
/// The only place of kvcrush that throws. Planning functions (constructors of views, budgets, validate(), plan())
/// check what they are given here; hot functions are noexcept and never reach it.
#pragma once

#include <kvcrush/config.hpp>

#include <atomic>
#include <charconv>
#include <concepts>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// A piece of a message: text, or a number as std::ostream would write it. Not a template of its own for every length of
/// a literal, so that the hundreds of checks of this library share their code.
class message_part {
public:
    constexpr message_part(const char* text) noexcept
        : text_(text) {}                                   // NOLINT(google-explicit-constructor)
    constexpr message_part(std::string_view text) noexcept // NOLINT(google-explicit-constructor)
        : text_(text) {}
    message_part(const std::string& text) noexcept // NOLINT(google-explicit-constructor)
        : text_(text) {}
    template <std::unsigned_integral T>
    constexpr message_part(T value) noexcept // NOLINT(google-explicit-constructor)
        : kind_(kind::count), count_(value) {}
    template <std::signed_integral T>
    constexpr message_part(T value) noexcept // NOLINT(google-explicit-constructor)
        : kind_(kind::integer), integer_(value) {}
    template <std::floating_point T>
    constexpr message_part(T value) noexcept // NOLINT(google-explicit-constructor)
        : kind_(kind::real), real_(static_cast<double>(value)) {}

    void append_to(std::string& message) const {
        char digits[32];
        char* const last = digits + sizeof digits;
        char* end = digits;
        switch (kind_) {
        case kind::text: message += text_; return;
        case kind::count: end = std::to_chars(digits, last, count_).ptr; break;
        case kind::integer: end = std::to_chars(digits, last, integer_).ptr; break;
        case kind::real:
            end = std::to_chars(digits, last, real_, std::chars_format::general, 6).ptr;
            break;
        }
        message.append(digits, end);
    }

private:
    enum class kind : unsigned char { text, count, integer, real };
    kind kind_ = kind::text;
    union {
        std::string_view text_;
        unsigned long long count_;
        long long integer_;
        double real_;
    };
};

/// @throws std::invalid_argument "kvcrush::" and the parts, one after the other; std::abort without exceptions
[[noreturn]] KVCRUSH_COLD inline void fail(std::initializer_list<message_part> parts) {
#if KVCRUSH_EXCEPTIONS
    std::string message = "kvcrush::";
    for (const message_part& part : parts) {
        part.append_to(message);
    }
    throw std::invalid_argument(message);
#else
    static_cast<void>(parts);
    std::abort();
#endif
}

/// Costs the caller one branch: the message is only put together when the condition is false.
/// @param parts  by value: literals of any length are one type then
template <typename... Parts>
constexpr void require(bool condition, Parts... parts) {
    if (!condition) {
        fail({parts...});
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
