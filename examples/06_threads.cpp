// SPDX-License-Identifier: Apache-2.0
// You will know how to lend the library your threads, of which it starts none, and that the answer is the same, bit for
// bit, with any number of them.
#include <kvcrush/kvcrush.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <span>
#include <thread>
#include <vector>

using namespace kvcrush;
/// An executor is any callable that runs task(0) ... task(num_tasks - 1) and returns when all are done. Engines hand over
/// the pool they have; this one starts threads anew each time, the caller's being one of them.
struct threads {
    std::size_t count = 1;

    template <typename Task>
    void operator()(std::size_t num_tasks, const Task& task) const {
        std::atomic<std::size_t> next = 0;
        const auto work = [&] {
            for (std::size_t i = next++; i < num_tasks; i = next++) {
                task(i);
            }
        };
        std::vector<std::thread> others;
        for (std::size_t i = 1; i < count; ++i) {
            others.emplace_back(work);
        }
        work();
        std::for_each(others.begin(), others.end(), [](std::thread& other) { other.join(); });
    }
};
static_assert(Executor<threads>);

int main() {
    constexpr model_shape model{
        .num_layers = 4, .num_q_heads = 8, .num_kv_heads = 4, .head_dim = 64};
    constexpr std::size_t kv_width = 4 * 64, q_width = 8 * 64, tokens = 1000;
    std::vector<float> numbers(2 * q_width * tokens);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        numbers[i] = random_unit(1, 0, i) - 0.5F;
    }
    const std::span<const float> all(numbers);
    kv_cache read(model, kvcrush_auto_bytes(0.25));
    for (std::size_t layer = 0; layer < model.num_layers; ++layer) {
        const auto keys = all.subspan(7 * layer, tokens * kv_width);
        if (!read.append(layer, keys, all.last(keys.size()))) {
            return 1; // NaN or infinity
        }
        read.observe(layer, all.subspan(11 * layer, tokens * q_width));
    }

    std::size_t bytes_alone = 0;
    std::vector<float> output_alone(q_width);
    bool same = true;
    for (const std::size_t lanes : {1U, 2U, 3U, 7U}) {
        const threads pool{lanes};
        kv_cache cache = read; // a copy is a snapshot
        std::vector<float> output(q_width);
        const auto start = std::chrono::steady_clock::now();
        const compression done = cache.compress({.num_lanes = lanes}, pool); // shares out layers
        cache.attend(0, all.first(q_width), output, lanes, pool); // shares out heads and rows
        const std::chrono::duration<double, std::milli> took =
            std::chrono::steady_clock::now() - start;
        if (lanes == 1) {
            bytes_alone = done.bytes_held;
            output_alone = output;
        }
        std::printf("%zu threads: %zu bytes, %5.1f ms\n", lanes, done.bytes_held, took.count());
        same = same && done.bytes_held == bytes_alone && output == output_alone;
    }
    std::puts(same ? "the same answer, bit for bit" : "not the same answer");
    return same ? 0 : 1;
}
