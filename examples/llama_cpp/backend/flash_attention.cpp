// SPDX-License-Identifier: Apache-2.0
#include "flash_attention.hpp"

#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/ggml_type.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

namespace kvcrush_ggml {
namespace {

/// Rows times channels from which on a second thread is worth waking.
constexpr std::size_t least_work_of_a_thread = std::size_t{1} << 15;

[[nodiscard]] std::size_t extent(const ggml_tensor* tensor, int axis) noexcept {
    return static_cast<std::size_t>(tensor->ne[axis]);
}

/// Kernels of all types that caches have, made once.
struct kernel_table {
    kernel_table() {
        for (int type = 0; type < GGML_TYPE_COUNT; ++type) {
            codecs[static_cast<std::size_t>(type)] = kvcrush::codec_of_ggml_type(type);
            if (const auto& codec = codecs[static_cast<std::size_t>(type)]) {
                kernels[static_cast<std::size_t>(type)] =
                    codec->kernels(kvcrush::arithmetic::integer);
            }
        }
    }
    std::array<std::optional<kvcrush::any_codec>, GGML_TYPE_COUNT> codecs;
    std::array<kvcrush::row_kernels, GGML_TYPE_COUNT> kernels{};
};

[[nodiscard]] const kernel_table& all_kernels() {
    static const kernel_table table;
    return table;
}

/// Rows in one piece each, as ggml lays them out.
[[nodiscard]] bool has_whole_rows(const ggml_tensor* tensor) noexcept {
    return tensor->nb[0] == ggml_type_size(tensor->type) &&
           tensor->ne[0] % ggml_blck_size(tensor->type) == 0;
}

[[nodiscard]] bool is_cache_type(ggml_type type) {
    return type >= 0 && type < GGML_TYPE_COUNT &&
           all_kernels().codecs[static_cast<std::size_t>(type)].has_value();
}

[[nodiscard]] bool are_floats_apart(const ggml_tensor* tensor) noexcept {
    return std::all_of(tensor->nb, tensor->nb + GGML_MAX_DIMS, [](std::size_t bytes) {
        return bytes % sizeof(float) == 0;
    });
}

[[nodiscard]] bool
mask_fits(const ggml_tensor* mask, const ggml_tensor* q, const ggml_tensor* k) noexcept {
    return mask->type == GGML_TYPE_F16 && mask->nb[0] == sizeof(ggml_fp16_t) &&
           mask->nb[1] % sizeof(ggml_fp16_t) == 0 && mask->nb[3] % sizeof(ggml_fp16_t) == 0 &&
           mask->ne[0] >= k->ne[1] && mask->ne[1] >= q->ne[1] && mask->ne[2] == 1 &&
           (mask->ne[3] == 1 || mask->ne[3] == q->ne[3]);
}

[[nodiscard]] float op_float(const ggml_tensor* node, int index) noexcept {
    float value = 0.0F;
    std::memcpy(&value, node->op_params + index, sizeof value);
    return value;
}

/// A factor per query head: powers of a base that depends on the number of heads, as ALiBi defines them.
/// @see arXiv:2108.12409
[[nodiscard]] std::vector<float> slopes_of(std::size_t num_heads, float max_bias) {
    std::vector<float> slopes(num_heads);
    const auto below =
        static_cast<std::size_t>(std::exp2(std::floor(std::log2(static_cast<double>(num_heads)))));
    const float even = std::pow(2.0F, -max_bias / static_cast<float>(below));
    const float odd = std::pow(2.0F, -max_bias / 2.0F / static_cast<float>(below));
    for (std::size_t h = 0; h < num_heads; ++h) {
        slopes[h] = h < below ? std::pow(even, static_cast<float>(h + 1))
                              : std::pow(odd, static_cast<float>(2 * (h - below) + 1));
    }
    return slopes;
}

} // namespace

bool can_attend(const ggml_tensor* node) noexcept {
    if (node->op != GGML_OP_FLASH_ATTN_EXT) {
        return false;
    }
    const ggml_tensor* const q = node->src[0];
    const ggml_tensor* const k = node->src[1];
    const ggml_tensor* const v = node->src[2];
    const ggml_tensor* const mask = node->src[3];
    const ggml_tensor* const sinks = node->src[4];
    if (q == nullptr || k == nullptr || v == nullptr) {
        return false;
    }
    try {
        if (!is_cache_type(k->type) || !is_cache_type(v->type)) {
            return false;
        }
    } catch (...) { // no memory for the table
        return false;
    }
    const bool types = q->type == GGML_TYPE_F32 && node->type == GGML_TYPE_F32;
    const bool rows = has_whole_rows(k) && has_whole_rows(v) && q->nb[0] == sizeof(float) &&
                      are_floats_apart(q) && are_floats_apart(node) && node->nb[0] == sizeof(float);
    const bool extents = q->ne[0] == k->ne[0] && k->ne[1] == v->ne[1] && k->ne[2] == v->ne[2] &&
                         k->ne[2] > 0 && q->ne[2] % k->ne[2] == 0 && q->ne[3] == k->ne[3] &&
                         q->ne[3] == v->ne[3] && k->ne[1] < (std::int64_t{1} << 31);
    const bool mask_ok = mask == nullptr ? op_float(node, 1) == 0.0F : mask_fits(mask, q, k);
    const bool sinks_ok =
        sinks == nullptr || (sinks->type == GGML_TYPE_F32 && sinks->nb[0] == sizeof(float) &&
                             ggml_nelements(sinks) == q->ne[2]);
    const float soft_cap = op_float(node, 2);
    return types && rows && extents && mask_ok && sinks_ok && soft_cap >= 0.0F &&
           std::isfinite(soft_cap);
}

/// What all streams of a node share.
struct flash_attention::call {
    explicit call(const ggml_tensor* op, std::size_t threads)
        : node(op), q(op->src[0]), k(op->src[1]), v(op->src[2]), mask(op->src[3]) {
        const float max_bias = op_float(op, 1);
        soft_cap = op_float(op, 2);
        scale = op_float(op, 0);
        if (max_bias > 0.0F) {
            slopes = slopes_of(extent(q, 2), max_bias);
        }
        if (const ggml_tensor* const tensor = op->src[4]; tensor != nullptr) {
            sinks = {static_cast<const float*>(tensor->data), extent(q, 2)};
        }
        num_threads = (std::max)(threads, std::size_t{1});
        key_kernels = &all_kernels().kernels[static_cast<std::size_t>(k->type)];
        value_kernels = &all_kernels().kernels[static_cast<std::size_t>(v->type)];
    }

    /// Bytes of a tensor's stream, head and row.
    template <typename T>
    [[nodiscard]] static T* at(const ggml_tensor* tensor,
                               std::size_t stream,
                               std::size_t plane = 0,
                               std::size_t row = 0) noexcept {
        return reinterpret_cast<T*>(static_cast<std::byte*>(tensor->data) + stream * tensor->nb[3] +
                                    plane * tensor->nb[2] + row * tensor->nb[1]);
    }

    const ggml_tensor* node;
    const ggml_tensor* q;
    const ggml_tensor* k;
    const ggml_tensor* v;
    const ggml_tensor* mask;
    float scale = 1.0F;
    float soft_cap = 0.0F;
    std::vector<float> slopes;
    std::span<const float> sinks;
    std::size_t num_threads = 1;
    const kvcrush::row_kernels* key_kernels = nullptr;
    const kvcrush::row_kernels* value_kernels = nullptr;
};

void flash_attention::compute(const ggml_tensor* node, std::size_t num_threads) {
    const call asked(node, num_threads);
    for (std::size_t stream = 0; stream < extent(asked.q, 3); ++stream) {
        attend_stream(asked, stream);
    }
}

void flash_attention::attend_stream(const call& asked, std::size_t stream) {
    mask_rows mask{.num_queries = extent(asked.q, 1), .num_cells = extent(asked.k, 1)};
    if (asked.mask != nullptr) {
        mask.data = call::at<const kvcrush::f16>(asked.mask, asked.mask->ne[3] == 1 ? 0 : stream);
        mask.stride = asked.mask->nb[1] / sizeof(kvcrush::f16);
    }
    const visible_cells seen = look_at(mask, asked.slopes.empty());
    const seen_by_one run{seen.first, seen.end - seen.first, {}};
    switch (seen.how) {
    case visibility::nothing: return attend_run(asked, stream, 0, mask.num_queries, {}, nullptr);
    case visibility::causal: return attend_run(asked, stream, 0, mask.num_queries, run, nullptr);
    case visibility::masked: return attend_run(asked, stream, 0, mask.num_queries, run, &mask);
    case visibility::each:
        for (std::size_t query = 0; query < mask.num_queries; ++query) {
            attend_run(asked, stream, query, 1, cells_of(mask, query, cells_), nullptr);
        }
    }
}

void flash_attention::attend_run(const call& asked,
                                 std::size_t stream,
                                 std::size_t first_query,
                                 std::size_t num_queries,
                                 const seen_by_one& cells,
                                 const mask_rows* mask) {
    const std::size_t num_q_heads = extent(asked.q, 2);
    const std::size_t num_kv_heads = extent(asked.k, 2);
    const std::size_t key_dim = extent(asked.q, 0);
    const std::size_t value_dim = extent(asked.v, 0);
    const auto floats_in = [](const ggml_tensor* tensor, int axis) {
        return tensor->nb[axis] / sizeof(float);
    };

    const auto locate = [&](const ggml_tensor* rows, std::size_t head) {
        return kvcrush::stored_rows{.data =
                                        call::at<const std::byte>(rows, stream, head, cells.first),
                                    .stride = rows->nb[1],
                                    .index = cells.list.empty() ? nullptr : cells.list.data()};
    };
    std::vector<kvcrush::attend_segment> segments(num_kv_heads);
    std::vector<kvcrush::attend_head> heads(num_kv_heads);
    for (std::size_t head = 0; head < num_kv_heads; ++head) {
        segments[head] = {.count = cells.count,
                          .keys = locate(asked.k, head),
                          .key_kernels = asked.key_kernels,
                          .values = locate(asked.v, head),
                          .value_kernels = asked.value_kernels};
        heads[head] = {&segments[head], 1};
    }

    const kvcrush::kv_strides from{floats_in(asked.q, 2), floats_in(asked.q, 1), 1};
    const kvcrush::kv_strides to{floats_in(asked.node, 1), floats_in(asked.node, 2), 1};
    const auto reach = [&](const kvcrush::kv_strides& strides, std::size_t dim) {
        return (num_q_heads - 1) * strides.head + (num_queries - 1) * strides.token + dim;
    };
    const kvcrush::query_view queries(
        {call::at<const float>(asked.q, stream, 0, first_query), reach(from, key_dim)},
        num_q_heads,
        num_queries,
        key_dim,
        from);
    kvcrush::attend_options options{
        .scale = asked.scale, .soft_cap = asked.soft_cap, .sinks = asked.sinks, .output = to};
    if (mask != nullptr) {
        options.mask = {.halves = {mask->data + first_query * mask->stride + cells.first,
                                   (num_queries - 1) * mask->stride + cells.count},
                        .stride = mask->stride,
                        .slopes = asked.slopes};
    }
    const std::size_t work = cells.count * num_q_heads * num_queries * key_dim;
    options.num_lanes =
        (std::clamp)(work / least_work_of_a_thread, std::size_t{1}, asked.num_threads);
    memory_.resize(
        (std::max)(memory_.size(), kvcrush::attend_workspace(queries, heads, value_dim, options)));

    // The same threads as ggml's own: both ask OpenMP for a team of that size.
    const auto on_threads = [](std::size_t num_tasks, const auto& task) {
#pragma omp parallel for schedule(static, 1)                                                       \
    num_threads(static_cast <int>(num_tasks)) if (num_tasks > 1)
        for (std::size_t i = 0; i < num_tasks; ++i) {
            task(i);
        }
    };
    const std::span<float> output(call::at<float>(asked.node, stream, first_query),
                                  reach(to, value_dim));
    const kvcrush::attend_status status =
        kvcrush::attend(queries, heads, value_dim, output, memory_, options, on_threads);
    if (status != kvcrush::attend_status::done) {
        throw std::logic_error("kvcrush: attention was refused: " +
                               std::string(kvcrush::describe(status)));
    }
}

} // namespace kvcrush_ggml
