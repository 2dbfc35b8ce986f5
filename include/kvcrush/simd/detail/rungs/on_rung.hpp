// SPDX-License-Identifier: Apache-2.0
/// @file
/// The operations of all rungs, and the choice between what each.inl made of an algorithm.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/rungs/avx2.hpp>
#include <kvcrush/simd/detail/rungs/avx512.hpp>
#include <kvcrush/simd/detail/rungs/neon.hpp>
#include <kvcrush/simd/detail/rungs/neon_dotprod.hpp>
#include <kvcrush/simd/detail/rungs/scalar.hpp>
#include <kvcrush/simd/isa.hpp>

/// Returns from a function what the kernel of that rung returns: KVCRUSH_ON_RUNG(detail, usable(at_most), row_max(x, n)).
/// KVCRUSH_ON_VECTOR_RUNG goes on where the rung is the scalar one; KVCRUSH_ON_NARROW_RUNG also where it is AVX-512, for
/// kernels of which that has its own.
#if KVCRUSH_X86_DISPATCH
#    define KVCRUSH_ON_WIDE_RUNG(where, rung, ...)                                                 \
        if ((rung) == ::kvcrush::simd::isa::avx512) {                                              \
            return where::on_avx512::__VA_ARGS__;                                                  \
        }
#    define KVCRUSH_ON_NARROW_RUNG(where, rung, ...)                                               \
        if ((rung) == ::kvcrush::simd::isa::avx2) {                                                \
            return where::on_avx2::__VA_ARGS__;                                                    \
        }
#elif KVCRUSH_NEON_DOTPROD
#    define KVCRUSH_ON_WIDE_RUNG(where, rung, ...)
#    define KVCRUSH_ON_NARROW_RUNG(where, rung, ...)                                               \
        if ((rung) == ::kvcrush::simd::isa::neon_dotprod) {                                        \
            return where::on_neon_dotprod::__VA_ARGS__;                                            \
        }                                                                                          \
        if ((rung) == ::kvcrush::simd::isa::neon) {                                                \
            return where::on_neon::__VA_ARGS__;                                                    \
        }
#elif KVCRUSH_NEON
#    define KVCRUSH_ON_WIDE_RUNG(where, rung, ...)
#    define KVCRUSH_ON_NARROW_RUNG(where, rung, ...)                                               \
        if ((rung) == ::kvcrush::simd::isa::neon) {                                                \
            return where::on_neon::__VA_ARGS__;                                                    \
        }
#else
#    define KVCRUSH_ON_WIDE_RUNG(where, rung, ...)
#    define KVCRUSH_ON_NARROW_RUNG(where, rung, ...) static_cast<void>(rung);
#endif
#define KVCRUSH_ON_VECTOR_RUNG(where, rung, ...)                                                   \
    KVCRUSH_ON_WIDE_RUNG(where, rung, __VA_ARGS__)                                                 \
    KVCRUSH_ON_NARROW_RUNG(where, rung, __VA_ARGS__)
#define KVCRUSH_ON_RUNG(where, rung, ...)                                                          \
    KVCRUSH_ON_VECTOR_RUNG(where, rung, __VA_ARGS__)                                               \
    return where::on_scalar::__VA_ARGS__;
