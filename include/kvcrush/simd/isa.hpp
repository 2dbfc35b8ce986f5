// SPDX-License-Identifier: Apache-2.0
/// @file
/// Which kernels this machine runs. Users compile with plain -O2: each kernel carries its own target attribute,
/// and one switch per batch picks the rung.
#pragma once

#include <kvcrush/config.hpp>

#include <cstdint>

#if KVCRUSH_X86_DISPATCH
#    include <cpuid.h>
#endif
#if KVCRUSH_NEON_DOTPROD && !defined(__ARM_FEATURE_DOTPROD) && defined(__linux__)
#    include <sys/auxv.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// A rung of kernels. Ordered: a machine that runs one rung runs all smaller ones of its architecture; those of others
/// stand for the best that it has below them.
enum class isa : std::uint8_t { scalar, neon, neon_dotprod, avx2, avx512 };

namespace detail {

inline isa detect_isa() noexcept {
#if KVCRUSH_X86_DISPATCH
    // The builtins ask the operating system (xgetbv) as well as the CPU. F16C has no builtin name in clang 14;
    // it is encoded like AVX, so what the system says of AVX2 covers it.
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1U << 29)) != 0;
    const bool avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                      __builtin_cpu_supports("popcnt");
    const bool avx512 =
        avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512bitalg") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
    return avx512 ? isa::avx512 : avx2 ? isa::avx2 : isa::scalar;
#elif KVCRUSH_NEON_DOTPROD && defined(__ARM_FEATURE_DOTPROD)
    return isa::neon_dotprod;
#elif KVCRUSH_NEON_DOTPROD && defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0 ? isa::neon_dotprod : isa::neon;
#elif KVCRUSH_NEON
    return isa::neon;
#else
    return isa::scalar;
#endif
}

} // namespace detail

/// The largest rung that this CPU and operating system run.
[[nodiscard]] inline isa best() noexcept {
    static const isa found = detail::detect_isa();
    return found;
}

/// Whether this machine runs the AVX-512 rung and also multiplies pairs of bf16 (AVX512_BF16). No rung of its own: the few
/// kernels that profit ask for it.
[[nodiscard]] inline bool has_bf16() noexcept {
#if KVCRUSH_X86_DISPATCH
    static const bool found =
        best() == isa::avx512 && static_cast<bool>(__builtin_cpu_supports("avx512bf16"));
    return found;
#else
    return false;
#endif
}

/// The rung that a call limited to `at_most` takes on this machine.
[[nodiscard]] inline isa usable(isa at_most) noexcept {
    const isa rung = at_most < best() ? at_most : best();
    const bool other = rung == isa::neon || rung == isa::neon_dotprod;
    return other && !KVCRUSH_NEON ? isa::scalar : rung;
}

[[nodiscard]] constexpr const char* name_of(isa rung) noexcept {
    switch (rung) {
    case isa::avx512: return "avx512";
    case isa::avx2: return "avx2";
    case isa::neon_dotprod: return "neon_dotprod";
    case isa::neon: return "neon";
    case isa::scalar: break;
    }
    return "scalar";
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
