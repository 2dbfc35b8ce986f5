// SPDX-License-Identifier: Apache-2.0
// Includes an algorithm once for every rung that this compiler builds. Before it is included, inside a namespace,
// KVCRUSH_ALGORITHM is the `*.inl` in angle brackets. Its text finds
//     ops                  the operations of the rung, see simd/detail/rungs/scalar.hpp
//     KVCRUSH_KERNEL       in front of its functions
//     KVCRUSH_PART         in front of those that are parts of others
//     KVCRUSH_ON           its own namespace: what another algorithm says is detail::KVCRUSH_ON::name
// and stands in the namespaces on_scalar, on_avx2 and so on, which KVCRUSH_ON_RUNG (on_rung.hpp) chooses from. With
// KVCRUSH_SCALAR_BY_HAND defined, on_scalar is left to the caller: compilers make slow code of four floats in a struct.
// A new rung is a file of operations, its detection in isa.hpp and a paragraph in each of these two.

#ifndef KVCRUSH_SCALAR_BY_HAND
namespace on_scalar {
#    define KVCRUSH_ON on_scalar
#    define KVCRUSH_KERNEL inline
#    define KVCRUSH_PART inline
namespace ops = ::kvcrush::simd::scalar_rung;
#    include KVCRUSH_ALGORITHM
#    undef KVCRUSH_ON
#    undef KVCRUSH_KERNEL
#    undef KVCRUSH_PART
} // namespace on_scalar
#endif

#if KVCRUSH_X86_DISPATCH
namespace on_avx2 {
#    define KVCRUSH_ON on_avx2
#    define KVCRUSH_KERNEL KVCRUSH_TARGET_AVX2 inline
#    define KVCRUSH_PART [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline
namespace ops = ::kvcrush::simd::avx2_rung;
#    include KVCRUSH_ALGORITHM
#    undef KVCRUSH_ON
#    undef KVCRUSH_KERNEL
#    undef KVCRUSH_PART
} // namespace on_avx2

namespace on_avx512 {
#    define KVCRUSH_ON on_avx512
#    define KVCRUSH_KERNEL KVCRUSH_TARGET_AVX512 inline
#    define KVCRUSH_PART [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline
namespace ops = ::kvcrush::simd::avx512_rung;
#    include KVCRUSH_ALGORITHM
#    undef KVCRUSH_ON
#    undef KVCRUSH_KERNEL
#    undef KVCRUSH_PART
} // namespace on_avx512
#endif

#if KVCRUSH_NEON
namespace on_neon {
#    define KVCRUSH_ON on_neon
#    define KVCRUSH_KERNEL inline
#    define KVCRUSH_PART [[gnu::always_inline]] inline
namespace ops = ::kvcrush::simd::neon_rung;
#    include KVCRUSH_ALGORITHM
#    undef KVCRUSH_ON
#    undef KVCRUSH_KERNEL
#    undef KVCRUSH_PART
} // namespace on_neon
#endif
#if KVCRUSH_NEON_DOTPROD
namespace on_neon_dotprod {
#    define KVCRUSH_ON on_neon_dotprod
#    define KVCRUSH_KERNEL KVCRUSH_TARGET_NEON_DOTPROD inline
#    define KVCRUSH_PART [[gnu::always_inline]] KVCRUSH_TARGET_NEON_DOTPROD inline
namespace ops = ::kvcrush::simd::neon_dotprod_rung;
#    include KVCRUSH_ALGORITHM
#    undef KVCRUSH_ON
#    undef KVCRUSH_KERNEL
#    undef KVCRUSH_PART
} // namespace on_neon_dotprod
#endif

#undef KVCRUSH_ALGORITHM
#undef KVCRUSH_SCALAR_BY_HAND
