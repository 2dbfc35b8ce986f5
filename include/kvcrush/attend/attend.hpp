// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention of new tokens, one or many, over rows as they are stored: dense, encoded, selected, in pages, another number
/// of them per kv head, keys and values of different codecs.
#pragma once

#include <kvcrush/attend/attend_options.hpp>
#include <kvcrush/attend/detail/attend_lanes.hpp>
#include <kvcrush/attend/detail/attend_work.hpp>
#include <kvcrush/core/executor.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <span>
#include <utility>

namespace kvcrush {
inline namespace v0 {

/// Floats of memory that attend() needs.
[[nodiscard]] inline std::size_t attend_workspace(const query_view& queries,
                                                  std::span<const attend_head> heads,
                                                  std::size_t value_dim,
                                                  const attend_options& options = {}) noexcept {
    return detail::plan_attend(queries, heads, value_dim, options, simd::isa::scalar).size();
}

/// Softmax attention of the queries over all rows of their kv head.
///
///     output[h, i] = sum over rows r of softmax over r of (scale * q[h, i] . key[r]) * value[r]
///
/// The queries are the last tokens of the sequence, whose own rows are the last ones: query i of n sees all rows but the
/// last n - 1 - i. A query that sees no row gives zeros. Products and sums are formed in fp32, each row is read once for
/// all queries of its kv head (with many queries once for each block of them), and the softmax runs along with the rows.
/// Rows are taken in parts of fixed length, whose results are put together in order.
/// @param[in]  queries    [num_q_heads, num_queries, key_dim], after RoPE, unscaled
/// @param[in]  heads      [num_kv_heads], any number of query heads to each
/// @param[out] output     [num_q_heads, num_queries, value_dim], or as options.output says
/// @param      workspace  attend_workspace(...) floats
/// @param      execute    runs `options.num_lanes` pieces of work
/// @return what is wrong with the arguments, and then nothing was written; extents of rows cannot be checked
/// @note O(num_q_heads * num_queries * rows * head_dim); memory does not depend on the number of queries, from 32 on not
///       on that of the rows either
template <Executor E = serial_executor>
[[nodiscard]] attend_status attend(const query_view& queries,
                                   std::span<const attend_head> heads,
                                   std::size_t value_dim,
                                   std::span<float> output,
                                   std::span<float> workspace,
                                   const attend_options& options = {},
                                   E&& execute = {},
                                   simd::isa at_most = simd::best()) noexcept {
    detail::attend_work work =
        detail::plan_attend(queries, heads, value_dim, options, simd::usable(at_most));
    const attend_status status = detail::check_attend(work, output, workspace);
    if (status != attend_status::done) {
        return status;
    }
    work.memory = workspace;
    if (work.many_queries) {
        detail::attend_many(work, output, std::forward<E>(execute));
    } else {
        detail::attend_few(work, output, std::forward<E>(execute));
    }
    return attend_status::done;
}

} // namespace v0
} // namespace kvcrush
