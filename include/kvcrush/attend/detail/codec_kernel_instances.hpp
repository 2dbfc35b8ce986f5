// SPDX-License-Identifier: Apache-2.0
/// @file
/// Kernels that programs with KVCRUSH_EXTERN_INSTANCES compile once.
#pragma once

#include <kvcrush/attend/detail/code_tile_kernels.hpp>
#include <kvcrush/attend/detail/codec_kernels.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q5_1.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <cstddef>

#if KVCRUSH_EXTERN_INSTANCES && KVCRUSH_X86_DISPATCH

namespace kvcrush {
inline namespace v0 {

KVCRUSH_INSTANCE void
detail::loaded_codebook<2>::take(const codebook_row_codec&, arithmetic, row_kernels&) noexcept;
KVCRUSH_INSTANCE void
detail::loaded_codebook<3>::take(const codebook_row_codec&, arithmetic, row_kernels&) noexcept;
KVCRUSH_INSTANCE void
detail::loaded_codebook<4>::take(const codebook_row_codec&, arithmetic, row_kernels&) noexcept;
KVCRUSH_INSTANCE void
detail::loaded_codebook<5>::take(const codebook_row_codec&, arithmetic, row_kernels&) noexcept;
KVCRUSH_INSTANCE void
detail::loaded_codes<detail::int8_codes, detail::int8_rows_avx512, detail::scaled_bytes>::take(
    const int8_row_codec&, arithmetic, row_kernels&) noexcept;
KVCRUSH_INSTANCE void detail::loaded_codes<detail::q8_0_codes, detail::q8_0_rows_avx512>::take(
    const q8_0_codec&, arithmetic, row_kernels&) noexcept;
KVCRUSH_INSTANCE void detail::loaded_codes<detail::q4_0_codes, detail::q4_0_rows_avx512>::take(
    const q4_0_codec&, arithmetic, row_kernels&) noexcept;
KVCRUSH_INSTANCE void detail::loaded_rows<detail::q5_1_rows_avx512>::take(const q5_1_codec&,
                                                                          arithmetic,
                                                                          row_kernels&) noexcept;
KVCRUSH_INSTANCE void
detail::loaded_rows<detail::dense_rows_avx512<float>, detail::elements<float>>::take(
    const dense_codec<float>&, arithmetic, row_kernels&) noexcept;
KVCRUSH_INSTANCE void
detail::loaded_rows<detail::dense_rows_avx512<f16>, detail::elements<f16>>::take(
    const dense_codec<f16>&, arithmetic, row_kernels&) noexcept;
KVCRUSH_INSTANCE void
detail::loaded_rows<detail::dense_rows_avx512<bf16>, detail::elements<bf16>>::take(
    const dense_codec<bf16>&, arithmetic, row_kernels&) noexcept;
KVCRUSH_INSTANCE void detail::take_tile_kernels<2>(row_kernels&) noexcept;
KVCRUSH_INSTANCE void detail::take_tile_kernels<3>(row_kernels&) noexcept;
KVCRUSH_INSTANCE void detail::take_tile_kernels<4>(row_kernels&) noexcept;
KVCRUSH_INSTANCE void detail::take_tile_kernels<5>(row_kernels&) noexcept;
KVCRUSH_INSTANCE void detail::take_tile_kernels<8>(row_kernels&) noexcept;
KVCRUSH_INSTANCE void detail::dots_avx512<detail::dense_rows_avx512<float>>(
    const tile_rows&, const float*, std::size_t, std::size_t, float*) noexcept;
KVCRUSH_INSTANCE void detail::accumulate_avx512<detail::dense_rows_avx512<float>>(
    const tile_rows&, const float*, std::size_t, std::size_t, float*) noexcept;
KVCRUSH_INSTANCE void detail::on_avx2::float_dots<detail::elements<float>>(
    const tile_rows&, const float*, std::size_t, std::size_t, float*) noexcept;
KVCRUSH_INSTANCE void detail::on_avx2::float_sums<detail::elements<float>>(
    const tile_rows&, const float*, std::size_t, std::size_t, float*) noexcept;

} // namespace v0
} // namespace kvcrush
#endif
