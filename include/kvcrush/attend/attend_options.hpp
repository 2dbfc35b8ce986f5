// SPDX-License-Identifier: Apache-2.0
/// @file
/// What attend() is asked: rows in segments, what it is to give, and how it says that it could not.
#pragma once

#include <kvcrush/attend/attend_mask.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/core/layout.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// A run of rows of one kv head that are stored alike.
struct attend_segment {
    std::size_t count = 0;
    stored_rows keys{};
    const row_kernels* key_kernels = nullptr;
    stored_rows values{};
    const row_kernels* value_kernels = nullptr;
    /// What was subtracted from the keys before they were encoded, [key_dim]; nullptr for nothing.
    const float* key_mean = nullptr;
};

/// The segments of one kv head in the order of the sequence, such as sinks, encoded rows, recent rows. May be empty.
using attend_head = std::span<const attend_segment>;

struct attend_options {
    /// Of the logits; 0 stands for 1 / sqrt(head_dim).
    float scale = 0.0F;
    /// What each query sees and what is added to its logits; without one attention is causal.
    attend_mask mask{};
    /// If above 0, logits become soft_cap * tanh(logit / soft_cap) before the mask is added (Gemma 2: 50).
    float soft_cap = 0.0F;
    /// A logit per query head that takes part in the softmax and has no row, [num_q_heads]: its share of the weights goes
    /// nowhere (attention sinks of gpt-oss). Empty for none.
    std::span<const float> sinks{};
    /// Where the output of (query head, query, channel) lies [floats]; {} stands for [num_q_heads, num_queries, value_dim].
    /// {value_dim, num_q_heads * value_dim, 1} puts the heads of a token together.
    kv_strides output{};
    /// If not empty, receives the attention weights [num_q_heads, num_queries, weights_stride]: a row per query, one
    /// weight per row of its kv head, 0 for rows it must not see, nothing behind. For scorers that accumulate attention.
    std::span<float> weights{};
    /// 0 stands for the rows of the longest head.
    std::size_t weights_stride = 0;
    /// If not empty, receives the logarithm of the sum of e^logit, [num_q_heads, num_queries], for engines that merge
    /// with attention of their own.
    std::span<float> log_sum_exp{};
    /// Pieces of work that may run side by side. The answer is the same, bit for bit, for any number.
    std::size_t num_lanes = 1;
};

/// Whether attend() did anything; if not, nothing was written.
enum class [[nodiscard]] attend_status : std::uint8_t{
    done,
    heads_do_not_divide,     ///< num_q_heads is no multiple of the number of kv heads
    segment_without_kernels, ///< there are rows, but not both kernels
    output_too_small,        ///< or its strides put rows over one another
    weights_too_small,       ///< or their stride is below the longest head
    log_sum_exp_too_small,
    mask_too_small, ///< or its stride is below the longest head, or both kinds of elements were given
    not_one_per_head, ///< sinks or slopes that are not num_q_heads
    soft_cap_not_finite,
    workspace_too_small ///< see attend_workspace()
};

/// For messages.
[[nodiscard]] constexpr std::string_view describe(attend_status status) noexcept {
    switch (status) {
    case attend_status::done: return "done";
    case attend_status::heads_do_not_divide:
        return "num_q_heads is not a multiple of the number of kv heads";
    case attend_status::segment_without_kernels: return "a segment has rows but no kernels";
    case attend_status::output_too_small:
        return "output is too small for its strides, or they overlap";
    case attend_status::weights_too_small: return "weights or their stride are too small";
    case attend_status::log_sum_exp_too_small: return "log_sum_exp is too small";
    case attend_status::mask_too_small:
        return "mask or its stride is too small, or there are two masks";
    case attend_status::not_one_per_head: return "sinks or slopes are not one per query head";
    case attend_status::soft_cap_not_finite: return "soft_cap is negative, NaN or infinite";
    case attend_status::workspace_too_small: return "workspace is too small";
    }
    return "unknown";
}

} // namespace v0
} // namespace kvcrush
