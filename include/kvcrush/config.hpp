// SPDX-License-Identifier: Apache-2.0
/// @file
/// Every macro of kvcrush. All of them may be set before the first include; all of them must then have the
/// same value in every translation unit of a program.
#pragma once

#define KVCRUSH_VERSION_MAJOR 0
#define KVCRUSH_VERSION_MINOR 1
#define KVCRUSH_VERSION_PATCH 0

/// Checks a precondition of a hot function: in debug and sanitizer builds (no NDEBUG) only.
#ifndef KVCRUSH_ASSERT
#    include <cassert>
#    define KVCRUSH_ASSERT(condition) assert(condition)
#endif

/// 1 where planning functions throw; 0 (no exceptions in this build) where they call std::abort instead.
#ifndef KVCRUSH_EXCEPTIONS
#    if defined(__cpp_exceptions) || defined(_CPPUNWIND)
#        define KVCRUSH_EXCEPTIONS 1
#    else
#        define KVCRUSH_EXCEPTIONS 0
#    endif
#endif

/// 1 where single functions can be compiled for AVX2 and AVX-512 and chosen at run time. cl.exe and clang-cl,
/// 32-bit x86 and every other architecture take the scalar rung.
#ifndef KVCRUSH_X86_DISPATCH
#    if defined(__x86_64__) && defined(__GNUC__) && !defined(_MSC_VER)
#        define KVCRUSH_X86_DISPATCH 1
#    else
#        define KVCRUSH_X86_DISPATCH 0
#    endif
#endif

/// 1 where NEON can be taken for granted: 64-bit Arm.
#ifndef KVCRUSH_NEON
#    if defined(__aarch64__) && defined(__GNUC__)
#        define KVCRUSH_NEON 1
#    else
#        define KVCRUSH_NEON 0
#    endif
#endif

/// 1 where single functions can be compiled for its products of bytes (dotprod). Clang has their names only where the
/// whole program is compiled for them.
#ifndef KVCRUSH_NEON_DOTPROD
#    if KVCRUSH_NEON && (defined(__ARM_FEATURE_DOTPROD) || !defined(__clang__))
#        define KVCRUSH_NEON_DOTPROD 1
#    else
#        define KVCRUSH_NEON_DOTPROD 0
#    endif
#endif

#if KVCRUSH_NEON_DOTPROD && defined(__ARM_FEATURE_DOTPROD)
#    define KVCRUSH_TARGET_NEON_DOTPROD
#elif KVCRUSH_NEON_DOTPROD
/// Armv8.2 with dotprod: Cortex-A76, Graviton 2, Apple M1 and later.
#    define KVCRUSH_TARGET_NEON_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

#if KVCRUSH_X86_DISPATCH
/// Every x86-64-v3 CPU (Haswell, Zen 1 and later).
#    define KVCRUSH_TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2,fma,f16c,popcnt")))
/// Ice Lake, Zen 4 and later. CPUs with AVX-512 but without one of these, the server chips before them, take the AVX2
/// rung.
#    define KVCRUSH_TARGET_AVX512                                                                  \
        __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,avx512bitalg,"   \
                              "avx512vnni,avx512vbmi,avx2,bmi,bmi2,fma,f16c,popcnt")))
/// Not a rung of its own: Zen 4, Sapphire Rapids and later. simd::has_bf16() asks for it.
#    define KVCRUSH_TARGET_AVX512_BF16                                                             \
        __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,avx512bitalg,"   \
                              "avx512vnni,avx512vbmi,avx512bf16,avx2,bmi,bmi2,fma,f16c,popcnt")))
#endif

/// 0: every source file compiles what it uses of this library, kernels included, which takes most of the time. 1, for a
/// whole program: what attention, codecs and the policies of presets.hpp are made of is compiled in one source file alone,
/// and others refer to it. That file is
///
///     #define KVCRUSH_DEFINE_INSTANCES
///     #include <kvcrush/kvcrush.hpp>
#ifndef KVCRUSH_EXTERN_INSTANCES
#    define KVCRUSH_EXTERN_INSTANCES 0
#endif
#if KVCRUSH_EXTERN_INSTANCES && !defined(KVCRUSH_DEFINE_INSTANCES)
#    define KVCRUSH_DEFINES_INSTANCES 0
#else
#    define KVCRUSH_DEFINES_INSTANCES 1
#endif
/// Begins an explicit instantiation that such programs share.
#if KVCRUSH_DEFINES_INSTANCES
#    define KVCRUSH_INSTANCE template
#else
#    define KVCRUSH_INSTANCE extern template
#endif
/// Begins a function, no template, that such programs share; its file is included where KVCRUSH_DEFINES_INSTANCES.
#if KVCRUSH_EXTERN_INSTANCES
#    define KVCRUSH_INLINE
#else
#    define KVCRUSH_INLINE inline
#endif

/// Keeps the throwing path out of line.
#if defined(__GNUC__)
#    define KVCRUSH_COLD __attribute__((noinline, cold))
#else
#    define KVCRUSH_COLD
#endif
