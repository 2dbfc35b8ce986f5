// SPDX-License-Identifier: Apache-2.0
/// @file
/// The library as a loadable backend of ggml: a device that claims one operation, attention, and leaves all others to
/// whoever had them. Its buffers are the CPU's, so nothing is copied.
///
/// Written for GGML_BACKEND_API_VERSION 2, whose structures it fills; ggml refuses to load it where that differs.
#include "flash_attention.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <ggml-backend-impl.h>
#include <ggml-backend.h>
#include <new>
#include <string_view>

namespace {

static_assert(GGML_BACKEND_API_VERSION == 2, "this llama.cpp has another backend interface");

struct backend_context {
    kvcrush_ggml::flash_attention attention;
    std::size_t num_threads = 1;
};

/// Nodes computed since the program began, for whoever wants to know that the backend is at work.
std::atomic<std::uint64_t> nodes_computed{0};

/// A context that leaves flash attention to llama.cpp ("auto") first plans a graph of one token per sequence, and turns
/// flash attention off for good where that node is not on the device of its layer, which is the CPU. So the first graph
/// that a thread plans after it made a backend is not claimed: it has another number of tokens than those that follow.
class first_graph {
public:
    void begin() noexcept { tokens_ = unknown; }
    void end() noexcept { tokens_ = ended; }
    [[nodiscard]] bool has(const ggml_tensor* node) noexcept {
        if (tokens_ == ended) {
            return false;
        }
        const std::int64_t tokens = node->src[0]->ne[1] * node->src[0]->ne[3];
        if (tokens_ != unknown && tokens != tokens_) {
            end();
            return false;
        }
        tokens_ = tokens;
        return true;
    }

private:
    static constexpr std::int64_t unknown = -1;
    static constexpr std::int64_t ended = -2;
    std::int64_t tokens_ = ended;
};
thread_local first_graph first_planned;

// --- backend ---------------------------------------------------------------------------------------------------------

const char* backend_name(ggml_backend_t) { return "kvcrush"; }

void free_backend(ggml_backend_t backend) {
    delete static_cast<backend_context*>(backend->context);
    delete backend;
}

void set_n_threads(ggml_backend_t backend, int num_threads) {
    static_cast<backend_context*>(backend->context)->num_threads =
        static_cast<std::size_t>((std::max)(num_threads, 1));
    first_planned.end(); // it computes already
}

ggml_status compute_graph(ggml_backend_t backend, ggml_cgraph* graph) {
    auto& context = *static_cast<backend_context*>(backend->context);
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const ggml_tensor* const node = ggml_graph_node(graph, i);
        switch (node->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE: continue;
        default: break;
        }
        try {
            context.attention.compute(node, context.num_threads);
        } catch (const std::bad_alloc&) {
            return GGML_STATUS_ALLOC_FAILED;
        } catch (const std::exception& failure) {
            std::fprintf(stderr, "%s\n", failure.what());
            return GGML_STATUS_FAILED;
        }
        nodes_computed.fetch_add(1, std::memory_order_relaxed);
    }
    return GGML_STATUS_SUCCESS;
}

constexpr ggml_backend_i backend_interface = [] {
    ggml_backend_i calls{};
    calls.get_name = backend_name;
    calls.free = free_backend;
    calls.graph_compute = compute_graph;
    return calls;
}();

ggml_guid_t backend_guid() {
    static ggml_guid guid = {0x6b,
                             0x76,
                             0x63,
                             0x72,
                             0x75,
                             0x73,
                             0x68,
                             0x2e,
                             0x67,
                             0x67,
                             0x6d,
                             0x6c,
                             0x2e,
                             0x30,
                             0x30,
                             0x31};
    return &guid;
}

// --- device ----------------------------------------------------------------------------------------------------------

const char* device_name(ggml_backend_dev_t) { return "KVCRUSH"; }
const char* device_description(ggml_backend_dev_t) {
    return "attention over the KV cache, as it is stored";
}
void device_memory(ggml_backend_dev_t, std::size_t* free, std::size_t* total) {
    *free = 0; // none of its own
    *total = 0;
}
enum ggml_backend_dev_type device_type(ggml_backend_dev_t) {
    return GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

void device_properties(ggml_backend_dev_t device, ggml_backend_dev_props* properties) {
    *properties = {};
    properties->name = device_name(device);
    properties->description = device_description(device);
    properties->type = device_type(device);
    properties->caps.buffer_from_host_ptr = true;
}

ggml_backend_t init_backend(ggml_backend_dev_t device, const char*) {
    auto* const context = new (std::nothrow) backend_context;
    auto* const backend = new (std::nothrow) ggml_backend;
    if (context == nullptr || backend == nullptr) {
        delete context;
        delete backend;
        return nullptr;
    }
    *backend = {backend_guid(), backend_interface, device, context};
    first_planned.begin();
    return backend;
}

ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t) {
    return ggml_backend_cpu_buffer_type();
}
ggml_backend_buffer_t
buffer_from_host(ggml_backend_dev_t, void* memory, std::size_t size, std::size_t) {
    return ggml_backend_cpu_buffer_from_ptr(memory, size);
}
bool supports_op(ggml_backend_dev_t, const ggml_tensor* node) {
    return kvcrush_ggml::can_attend(node) && !first_planned.has(node);
}
bool supports_buffer_type(ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
    return ggml_backend_buft_is_host(type);
}

constexpr ggml_backend_device_i device_interface = [] {
    ggml_backend_device_i calls{};
    calls.get_name = device_name;
    calls.get_description = device_description;
    calls.get_memory = device_memory;
    calls.get_type = device_type;
    calls.get_props = device_properties;
    calls.init_backend = init_backend;
    calls.get_buffer_type = device_buffer_type;
    calls.buffer_from_host_ptr = buffer_from_host;
    calls.supports_op = supports_op;
    calls.supports_buft = supports_buffer_type;
    return calls;
}();

// --- registry --------------------------------------------------------------------------------------------------------

const char* registry_name(ggml_backend_reg_t) { return "kvcrush"; }
std::size_t device_count(ggml_backend_reg_t) { return 1; }
ggml_backend_dev_t device_at(ggml_backend_reg_t registry, std::size_t) {
    static ggml_backend_device device = {device_interface, registry, nullptr};
    return &device;
}

std::uint64_t count_nodes() { return nodes_computed.load(std::memory_order_relaxed); }

void* proc_address(ggml_backend_reg_t, const char* name) {
    const std::string_view wanted = name;
    if (wanted == "ggml_backend_set_n_threads") {
        return reinterpret_cast<void*>(set_n_threads);
    }
    return wanted == "kvcrush_nodes_computed" ? reinterpret_cast<void*>(count_nodes) : nullptr;
}

ggml_backend_reg_t the_registry() {
    static ggml_backend_reg registry = {
        GGML_BACKEND_API_VERSION, {registry_name, device_count, device_at, proc_address}, nullptr};
    return &registry;
}

/// For programs that know their backends from the start and load no others: LD_PRELOAD=.../libggml-kvcrush.so
[[gnu::constructor]] void register_if_preloaded() {
    const char* const preloaded = std::getenv("LD_PRELOAD");
    if (preloaded != nullptr && std::strstr(preloaded, "ggml-kvcrush") != nullptr) {
        ggml_backend_register(the_registry());
    }
}

} // namespace

extern "C" {
/// What ggml looks for in a library that it loads: GGML_BACKEND_PATH, ggml_backend_load().
__attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
    return the_registry();
}
}
