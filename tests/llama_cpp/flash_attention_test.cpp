// SPDX-License-Identifier: Apache-2.0
/// The backend's attention against ggml's own, node by node: shapes, types, masks, strides and streams as models and
/// caches have them, drawn at random.
#include <kvcrush/core/random.hpp>

#include "flash_attention.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstdio>
#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml.h>
#include <limits>
#include <string>
#include <vector>

namespace {

/// Random nodes. Fewer where the environment says so: each takes some 50 ms.
int num_cases() {
    const char* const asked = std::getenv("KVCRUSH_NUM_NODES");
    return asked == nullptr ? 2000 : std::max(1, std::atoi(asked));
}

/// Draws from a seed, one number after the other.
class draws {
public:
    explicit draws(std::uint64_t seed) : seed_(seed) {}
    float unit() { return kvcrush::random_unit(seed_, 17, next_++); }
    /// Of variance 1.
    float number() { return 3.4641F * (unit() - 0.5F); }
    template <typename T, std::size_t N>
    T one_of(const std::array<T, N>& choices) {
        return choices[static_cast<std::size_t>(unit() * static_cast<float>(N))];
    }
    bool chance(float share) { return unit() < share; }

private:
    std::uint64_t seed_;
    std::uint64_t next_ = 0;
};

enum class mask_kind { none, causal, gaps, window, sequences, biased, padded_alone };

struct node_shape {
    std::int64_t key_dim, value_dim, kv_heads, group, queries, cells, streams;
    ggml_type key_type, value_type;
    mask_kind mask;
    bool one_mask_for_all_streams, with_sinks, rows_of_all_heads_together;
    float max_bias, soft_cap;
    int threads;

    [[nodiscard]] std::int64_t q_heads() const { return kv_heads * group; }
    [[nodiscard]] std::string text() const {
        return std::string(ggml_type_name(key_type)) + "/" + ggml_type_name(value_type) + " dims " +
               std::to_string(key_dim) + "/" + std::to_string(value_dim) + " heads " +
               std::to_string(q_heads()) + "/" + std::to_string(kv_heads) + " queries " +
               std::to_string(queries) + " cells " + std::to_string(cells) + " streams " +
               std::to_string(streams) + " mask " + std::to_string(static_cast<int>(mask)) +
               " cap " + std::to_string(soft_cap) + " bias " + std::to_string(max_bias) +
               (with_sinks ? " sinks" : "") + (rows_of_all_heads_together ? " nhd" : " hnd");
    }
};

node_shape draw_shape(draws& draw) {
    constexpr std::array types{GGML_TYPE_F32,
                               GGML_TYPE_F16,
                               GGML_TYPE_BF16,
                               GGML_TYPE_Q8_0,
                               GGML_TYPE_Q5_1,
                               GGML_TYPE_Q5_0,
                               GGML_TYPE_Q4_1,
                               GGML_TYPE_Q4_0,
                               GGML_TYPE_IQ4_NL};
    node_shape shape{};
    shape.key_type = draw.one_of(types);
    shape.value_type = draw.chance(0.5F) ? shape.key_type : draw.one_of(types);
    const bool blocks = ggml_blck_size(shape.key_type) > 1 || ggml_blck_size(shape.value_type) > 1;
    shape.key_dim = blocks
                        ? draw.one_of(std::array<std::int64_t, 6>{64, 64, 96, 128, 256, 192})
                        : draw.one_of(std::array<std::int64_t, 7>{64, 40, 80, 112, 128, 256, 72});
    shape.value_dim = shape.key_dim;
    if (draw.chance(0.05F)) { // MLA
        shape.key_dim = 576;
        shape.value_dim = 512;
    }
    shape.kv_heads = draw.one_of(std::array<std::int64_t, 4>{1, 2, 3, 4});
    shape.group = draw.one_of(std::array<std::int64_t, 6>{1, 2, 3, 4, 7, 16});
    shape.queries = draw.one_of(std::array<std::int64_t, 8>{1, 1, 1, 2, 4, 7, 33, 75});
    shape.cells = draw.one_of(std::array<std::int64_t, 7>{1, 32, 64, 113, 256, 512, 1300});
    shape.cells = std::max(shape.cells, shape.queries);
    shape.streams = draw.one_of(std::array<std::int64_t, 4>{1, 1, 2, 4});
    shape.mask = draw.one_of(std::array{mask_kind::none,
                                        mask_kind::causal,
                                        mask_kind::causal,
                                        mask_kind::gaps,
                                        mask_kind::window,
                                        mask_kind::sequences,
                                        mask_kind::biased,
                                        mask_kind::padded_alone});
    shape.max_bias = shape.mask == mask_kind::biased && draw.chance(0.7F) ? 8.0F : 0.0F;
    shape.soft_cap = draw.chance(0.2F) ? draw.one_of(std::array{5.0F, 50.0F}) : 0.0F;
    shape.with_sinks = draw.chance(0.2F);
    shape.one_mask_for_all_streams = draw.chance(0.3F);
    shape.rows_of_all_heads_together = draw.chance(0.8F);
    shape.threads = draw.one_of(std::array{1, 2, 5});
    return shape;
}

float mask_at(const node_shape& shape, std::int64_t query, std::int64_t cell, draws& draw) {
    constexpr float hidden = -std::numeric_limits<float>::infinity();
    const std::int64_t used = std::max<std::int64_t>(shape.cells * 3 / 4, shape.queries);
    const std::int64_t own = used - shape.queries + query; // the cell of the query itself
    switch (shape.mask) {
    case mask_kind::causal: return cell <= own ? 0.0F : hidden;
    case mask_kind::gaps: return cell == own || (cell < own && draw.chance(0.4F)) ? 0.0F : hidden;
    case mask_kind::window: return cell <= own && cell + 40 > own ? 0.0F : hidden;
    case mask_kind::sequences: return cell % 4 == query % 4 && cell < used ? 0.0F : hidden;
    case mask_kind::biased: return cell <= own ? -static_cast<float>(own - cell) : hidden;
    case mask_kind::padded_alone: return query % 3 == 1 ? hidden : cell < used ? 0.0F : hidden;
    case mask_kind::none: break;
    }
    return 0.0F;
}

/// One node and its tensors. Rows in the types of the shape, or as the floats that those stand for.
struct attention_graph {
    attention_graph(const node_shape& shape, std::uint64_t seed, bool decoded) {
        ggml_init_params params{};
        params.mem_size = 64 * ggml_tensor_overhead() + ggml_graph_overhead();
        params.no_alloc = true;
        context.reset(ggml_init(params));
        const auto rows = [&](std::int64_t dim, ggml_type type) {
            type = decoded ? GGML_TYPE_F32 : type;
            if (shape.rows_of_all_heads_together) { // as llama.cpp's cache
                ggml_tensor* const cache = ggml_new_tensor_4d(
                    context.get(), type, dim, shape.kv_heads, shape.cells, shape.streams);
                return ggml_permute(context.get(), cache, 0, 2, 1, 3);
            }
            return ggml_new_tensor_4d(
                context.get(), type, dim, shape.cells, shape.kv_heads, shape.streams);
        };
        q = ggml_permute(context.get(),
                         ggml_new_tensor_4d(context.get(),
                                            GGML_TYPE_F32,
                                            shape.key_dim,
                                            shape.q_heads(),
                                            shape.queries,
                                            shape.streams),
                         0,
                         2,
                         1,
                         3);
        k = rows(shape.key_dim, shape.key_type);
        v = rows(shape.value_dim, shape.value_type);
        if (shape.mask != mask_kind::none) {
            mask = ggml_new_tensor_4d(context.get(),
                                      GGML_TYPE_F16,
                                      shape.cells,
                                      shape.queries,
                                      1,
                                      shape.one_mask_for_all_streams ? 1 : shape.streams);
        }
        node = ggml_flash_attn_ext(context.get(),
                                   q,
                                   k,
                                   v,
                                   mask,
                                   1.0F / std::sqrt(static_cast<float>(shape.key_dim)),
                                   shape.max_bias,
                                   shape.soft_cap);
        if (shape.with_sinks) {
            sinks = ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, shape.q_heads());
            ggml_flash_attn_ext_add_sinks(node, sinks);
        }
        buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(context.get(),
                                                              ggml_backend_cpu_buffer_type()));
        fill(shape, seed, decoded);
    }

    /// The same numbers whatever they are stored as.
    void fill(const node_shape& shape, std::uint64_t seed, bool decoded) {
        draws draw(seed * 7 + 1);
        put(base(q), GGML_TYPE_F32, GGML_TYPE_F32, draw);
        put(base(k), shape.key_type, decoded ? GGML_TYPE_F32 : shape.key_type, draw);
        put(base(v), shape.value_type, decoded ? GGML_TYPE_F32 : shape.value_type, draw);
        if (sinks != nullptr) {
            put(sinks, GGML_TYPE_F32, GGML_TYPE_F32, draw);
        }
        if (mask != nullptr) {
            auto* out = static_cast<ggml_fp16_t*>(mask->data);
            for (std::int64_t s = 0; s < mask->ne[3]; ++s) {
                for (std::int64_t query = 0; query < shape.queries; ++query) {
                    for (std::int64_t cell = 0; cell < shape.cells; ++cell) {
                        *out++ = ggml_fp32_to_fp16(mask_at(shape, query, cell, draw));
                    }
                }
            }
        }
    }

    [[nodiscard]] static ggml_tensor* base(ggml_tensor* tensor) {
        return tensor->view_src != nullptr ? tensor->view_src : tensor;
    }

    /// Numbers as `type` holds them, stored as `as`.
    static void put(ggml_tensor* tensor, ggml_type type, ggml_type as, draws& draw) {
        const std::int64_t dim = tensor->ne[0];
        const std::int64_t count = ggml_nrows(tensor);
        std::vector<float> numbers(static_cast<std::size_t>(dim * count));
        std::generate(numbers.begin(), numbers.end(), [&] { return draw.number(); });
        if (type == GGML_TYPE_F32) {
            std::copy(numbers.begin(), numbers.end(), static_cast<float*>(tensor->data));
            return;
        }
        std::vector<std::byte> codes(static_cast<std::size_t>(count) * ggml_row_size(type, dim));
        ggml_quantize_chunk(type, numbers.data(), codes.data(), 0, count, dim, nullptr);
        if (as == type) {
            std::copy(codes.begin(), codes.end(), static_cast<std::byte*>(tensor->data));
        } else {
            ggml_get_type_traits(type)->to_float(
                codes.data(), static_cast<float*>(tensor->data), dim * count);
        }
    }

    /// By ggml.
    [[nodiscard]] std::vector<float> compute_by_ggml() {
        ggml_cgraph* const graph = ggml_new_graph(context.get());
        ggml_build_forward_expand(graph, node);
        const ggml_backend_ptr cpu(
            ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
        EXPECT_EQ(ggml_backend_graph_compute(cpu.get(), graph), GGML_STATUS_SUCCESS);
        return result();
    }
    /// By the library.
    [[nodiscard]] std::vector<float> compute_by_kvcrush(int threads) {
        EXPECT_TRUE(kvcrush_ggml::can_attend(node));
        kvcrush_ggml::flash_attention attention;
        attention.compute(node, static_cast<std::size_t>(threads));
        return result();
    }
    [[nodiscard]] std::vector<float> result() const {
        const auto* const data = static_cast<const float*>(node->data);
        return {data, data + ggml_nelements(node)};
    }

    ggml_context_ptr context;
    ggml_backend_buffer_ptr buffer;
    ggml_tensor* q = nullptr;
    ggml_tensor* k = nullptr;
    ggml_tensor* v = nullptr;
    ggml_tensor* mask = nullptr;
    ggml_tensor* sinks = nullptr;
    ggml_tensor* node = nullptr;
};

/// Squared error over the square of what is right.
double normalised_error(const std::vector<float>& got, const std::vector<float>& right) {
    double error = 0.0;
    double size = 1e-30;
    for (std::size_t i = 0; i < right.size(); ++i) {
        const double difference = static_cast<double>(got[i]) - static_cast<double>(right[i]);
        error += difference * difference;
        size += static_cast<double>(right[i]) * static_cast<double>(right[i]);
    }
    return error / size;
}

TEST(LlamaFlashAttention, IsAsExactAsGgmlOnEveryShapeTypeAndMask) {
    // What is right: ggml's own result in f32, over what the rows decode to.
    double worst = 0.0;
    double worst_of_ggml = 0.0;
    const int count = num_cases();
    for (int i = 0; i < count && !HasFailure(); ++i) {
        const auto seed = static_cast<std::uint64_t>(i);
        draws draw(seed);
        const node_shape shape = draw_shape(draw);
        const std::vector<float> right = attention_graph(shape, seed, true).compute_by_ggml();
        attention_graph graph(shape, seed, false);
        const std::vector<float> theirs = graph.compute_by_ggml();
        const std::vector<float> ours = graph.compute_by_kvcrush(shape.threads);
        const double error = normalised_error(ours, right);
        // Queries of 12 bits beside codes of 4: (2^-12)^2, with the differences of f16 sums that ggml has anyway.
        EXPECT_LE(error, 1e-6 + normalised_error(theirs, right)) << i << ": " << shape.text();
        worst = std::max(worst, error);
        worst_of_ggml = std::max(worst_of_ggml, normalised_error(theirs, right));
    }
    std::printf(
        "worst error, squared and normalised: kvcrush %.2e, ggml %.2e\n", worst, worst_of_ggml);
}

TEST(LlamaFlashAttention, LeavesToGgmlWhatItDoesNotKnow) {
    draws draw(3);
    node_shape shape = draw_shape(draw);
    shape.key_type = shape.value_type = GGML_TYPE_F16;
    shape.mask = mask_kind::causal;
    shape.with_sinks = false;
    shape.max_bias = 0.0F;
    attention_graph graph(shape, 1, false);
    ASSERT_TRUE(kvcrush_ggml::can_attend(graph.node));
    const auto refused_with = [&](auto change, auto undo) {
        change();
        const bool refused = !kvcrush_ggml::can_attend(graph.node);
        undo();
        return refused;
    };
    EXPECT_TRUE(refused_with([&] { graph.node->op = GGML_OP_SOFT_MAX; },
                             [&] { graph.node->op = GGML_OP_FLASH_ATTN_EXT; }));
    EXPECT_TRUE(refused_with([&] { graph.k->type = GGML_TYPE_Q6_K; },
                             [&] { graph.k->type = GGML_TYPE_F16; }));
    EXPECT_TRUE(refused_with([&] { graph.q->type = GGML_TYPE_F16; },
                             [&] { graph.q->type = GGML_TYPE_F32; }));
    EXPECT_TRUE(refused_with([&] { graph.mask->type = GGML_TYPE_F32; },
                             [&] { graph.mask->type = GGML_TYPE_F16; }));
    EXPECT_TRUE(refused_with([&] { graph.mask->ne[2] = 2; }, [&] { graph.mask->ne[2] = 1; }));
    const std::size_t row = graph.v->nb[0];
    EXPECT_TRUE(refused_with([&] { graph.v->nb[0] = 2 * row; }, [&] { graph.v->nb[0] = row; }));
    EXPECT_TRUE(
        refused_with([&] { graph.node->src[1] = nullptr; }, [&] { graph.node->src[1] = graph.k; }));
    EXPECT_TRUE(kvcrush_ggml::can_attend(graph.node));
}

} // namespace
