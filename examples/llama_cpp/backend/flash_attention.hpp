// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's FLASH_ATTN_EXT by the library's attention.
#pragma once

#include <kvcrush/core/types.hpp>

#include "visible_cells.hpp"

#include <cstddef>
#include <ggml.h>
#include <vector>

namespace kvcrush_ggml {

/// Whether a node is attention that compute() can do: f32 queries; keys and values each of any type that caches have, in
/// whole rows; a mask or none, soft-cap, sinks and ALiBi; any number of streams.
[[nodiscard]] bool can_attend(const ggml_tensor* node) noexcept;

/// One for each backend: it keeps its memory from node to node.
class flash_attention {
public:
    /// Writes a node's result.
    /// @pre   can_attend(node), and its tensors lie in memory of the host
    /// @param num_threads  at most so many take part
    /// @throws std::bad_alloc; std::logic_error if the library refuses what can_attend() took
    void compute(const ggml_tensor* node, std::size_t num_threads);

private:
    struct call;
    void attend_stream(const call& asked, std::size_t stream);
    void attend_run(const call& asked,
                    std::size_t stream,
                    std::size_t first_query,
                    std::size_t num_queries,
                    const seen_by_one& cells,
                    const mask_rows* mask);

    std::vector<float> memory_;
    std::vector<kvcrush::token_index> cells_;
};

} // namespace kvcrush_ggml
