// SPDX-License-Identifier: Apache-2.0
#include "ggml_rival.hpp"

#include <stdexcept>

#if KVCRUSH_BENCH_GGML
#    include <cmath>
#    include <cstdint>
#    include <ggml-cpu.h>
#    include <ggml.h>
#    include <vector>
#endif

namespace kvcrush::bench {

#if KVCRUSH_BENCH_GGML
namespace {

ggml_type type_of(ggml_rows format) {
    switch (format) {
    case ggml_rows::f16: return GGML_TYPE_F16;
    case ggml_rows::q8_0: return GGML_TYPE_Q8_0;
    case ggml_rows::q4_0: break;
    }
    return GGML_TYPE_Q4_0;
}

ggml_tensor* tensor_over(ggml_context* context,
                         ggml_type type,
                         std::size_t dim,
                         std::size_t tokens,
                         std::size_t heads,
                         const void* data) {
    ggml_tensor* tensor = ggml_new_tensor_3d(context,
                                             type,
                                             static_cast<std::int64_t>(dim),
                                             static_cast<std::int64_t>(tokens),
                                             static_cast<std::int64_t>(heads));
    tensor->data = const_cast<void*>(data); // an operand: it is only read
    return tensor;
}

} // namespace

bool has_ggml() { return true; }
std::string name_of_ggml() { return std::string("ggml ") + ggml_version(); }

void ggml_quantise(ggml_rows format, const float* x, std::size_t size, void* out) {
    ggml_get_type_traits_cpu(type_of(format))->from_float(x, out, static_cast<std::int64_t>(size));
}

void ggml_quantise_reference(ggml_rows format, const float* x, std::size_t size, void* out) {
    ggml_get_type_traits(type_of(format))->from_float_ref(x, out, static_cast<std::int64_t>(size));
}

struct ggml_attention::graph {
    ggml_context* context = nullptr;
    ggml_threadpool* threads = nullptr;
    ggml_cgraph* nodes = nullptr;
    ggml_cplan plan{};
    std::vector<std::uint8_t> memory{};

    graph() = default;
    graph(const graph&) = delete;
    graph& operator=(const graph&) = delete;
    ~graph() {
        ggml_threadpool_free(threads);
        ggml_free(context);
    }
};

ggml_attention::ggml_attention(ggml_rows format,
                               const float* queries,
                               const void* keys,
                               const void* values,
                               std::size_t num_q_heads,
                               std::size_t num_kv_heads,
                               std::size_t tokens,
                               std::size_t dim,
                               float* output)
    : graph_(std::make_unique<graph>()) {
    ggml_cpu_init();
    graph& own = *graph_;
    own.context = ggml_init({.mem_size = 16 * ggml_tensor_overhead() + ggml_graph_overhead(),
                             .mem_buffer = nullptr,
                             .no_alloc = true});
    if (own.context == nullptr) {
        throw std::runtime_error("ggml gives no context");
    }
    ggml_tensor* result = ggml_flash_attn_ext(
        own.context,
        tensor_over(own.context, GGML_TYPE_F32, dim, 1, num_q_heads, queries),
        tensor_over(own.context, type_of(format), dim, tokens, num_kv_heads, keys),
        tensor_over(own.context, type_of(format), dim, tokens, num_kv_heads, values),
        nullptr,
        1.0F / std::sqrt(static_cast<float>(dim)),
        0.0F,
        0.0F);
    result->data = output;
    own.nodes = ggml_new_graph(own.context);
    ggml_build_forward_expand(own.nodes, result);
    // Its pool is made once, so that calls do not pay for it.
    ggml_threadpool_params one_thread = ggml_threadpool_params_default(1);
    own.threads = ggml_threadpool_new(&one_thread);
    own.plan = ggml_graph_plan(own.nodes, 1, own.threads);
    own.memory.resize(own.plan.work_size);
    own.plan.work_data = own.memory.data();
}

ggml_attention::~ggml_attention() = default;

void ggml_attention::operator()() {
    if (ggml_graph_compute(graph_->nodes, &graph_->plan) != GGML_STATUS_SUCCESS) {
        throw std::runtime_error("ggml could not compute attention");
    }
}
#else
namespace {
[[noreturn]] void fail() { throw std::logic_error("kvcrush_bars was built without ggml"); }
} // namespace

bool has_ggml() { return false; }
std::string name_of_ggml() { return {}; }
void ggml_quantise(ggml_rows, const float*, std::size_t, void*) { fail(); }
void ggml_quantise_reference(ggml_rows, const float*, std::size_t, void*) { fail(); }

struct ggml_attention::graph {};
ggml_attention::ggml_attention(ggml_rows,
                               const float*,
                               const void*,
                               const void*,
                               std::size_t,
                               std::size_t,
                               std::size_t,
                               std::size_t,
                               float*) {
    fail();
}
ggml_attention::~ggml_attention() = default;
void ggml_attention::operator()() { fail(); }
#endif

} // namespace kvcrush::bench
