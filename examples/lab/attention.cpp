// SPDX-License-Identifier: Apache-2.0
#include "attention.hpp"

#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/simd/convert.hpp>

#include "eigen.hpp"
#include "threads.hpp"

#include <algorithm>
#include <cmath>

namespace lab {
namespace {

/// Query tokens per task. Times the group of heads that share a kv head: enough rows for a product to pay.
constexpr std::size_t query_block = 64;
/// Cache rows that are converted to f32 and multiplied at a time; they stay in the second-level cache.
constexpr std::size_t row_block = 512;

/// Some tokens of all query heads that share one kv head.
struct task {
    std::size_t kv_head;
    std::size_t first; ///< token
    std::size_t count; ///< tokens
};

void copy_floats(const float* from, std::size_t count, float* to) noexcept {
    std::copy_n(from, count, to);
}
void copy_floats(const kvcrush::f16* from, std::size_t count, float* to) noexcept {
    kvcrush::simd::to_float(std::span<const kvcrush::f16>(from, count),
                            std::span<float>(to, count));
}

/// Some rows of a head as floats: f32 rows where they lie, unless some are hidden; others copied to `buffer`.
/// @param[in] visible  the rows that are seen; empty if all are
template <typename T>
const_rows_map float_rows(std::span<const T> all,
                          std::span<const std::uint32_t> visible,
                          std::size_t first,
                          std::size_t count,
                          std::size_t head_dim,
                          float_buffer& buffer) {
    if (!visible.empty()) {
        for (std::size_t r = 0; r < count; ++r) {
            copy_floats(
                all.data() + visible[first + r] * head_dim, head_dim, buffer.data() + r * head_dim);
        }
        return {buffer.data(), index(count), index(head_dim)};
    }
    const T* from = all.data() + first * head_dim;
    if constexpr (std::same_as<T, float>) {
        return {from, index(count), index(head_dim)};
    } else {
        copy_floats(from, count * head_dim, buffer.data());
        return {buffer.data(), index(count), index(head_dim)};
    }
}

/// Turns one query's scores into weights that are not yet divided by their sum; those it must not see become 0.
/// @return the sum
float exponentiate(Eigen::Ref<Eigen::RowVectorXf> scores, std::size_t visible) {
    auto seen = scores.head(index(visible));
    const float largest = seen.maxCoeff();
    seen = (seen.array() - largest).exp();
    scores.tail(scores.size() - index(visible)).setZero();
    return seen.sum();
}

/// Where query q of a task stands: the queries of one head follow one another.
struct place {
    std::size_t token;
    std::size_t head;
};

place place_of(const task& work, std::size_t q, std::size_t group) noexcept {
    return {work.first + q % work.count, work.kv_head * group + q / work.count};
}

template <typename T>
void run(const task& work,
         const layer_cache<T>& cache,
         const attention_batch& batch,
         std::span<const std::uint32_t> visible,
         attention_workspace::per_thread& memory) {
    const std::size_t head_dim = cache.head_dim();
    const std::size_t group = batch.num_q_heads / cache.num_kv_heads();
    const std::size_t num_queries = group * work.count;
    const std::size_t all_rows = visible.empty() ? cache.rows(work.kv_head) : visible.size();
    const std::size_t old_rows = all_rows - batch.num_tokens;
    // What the last token of the block sees.
    const std::size_t num_rows = old_rows + work.first + work.count;

    rows_map queries(memory.queries.data(), index(num_queries), index(head_dim));
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    for (std::size_t q = 0; q < num_queries; ++q) {
        const auto [token, head] = place_of(work, q, group);
        const float* from = batch.queries + token * batch.query_stride + head * head_dim;
        queries.row(index(q)) = Eigen::Map<const Eigen::RowVectorXf>(from, index(head_dim)) * scale;
    }

    rows_map scores(memory.scores.data(), index(num_queries), index(num_rows));
    for (std::size_t r = 0; r < num_rows; r += row_block) {
        const std::size_t count = (std::min)(row_block, num_rows - r);
        const auto keys =
            float_rows(cache.keys(work.kv_head), visible, r, count, head_dim, memory.rows);
        auto target = scores.middleCols(index(r), index(count));
        if (work.count == 1) { // too few rows to pay for packing
            target.noalias() = queries.lazyProduct(keys.transpose());
        } else {
            target.noalias() = queries * keys.transpose();
        }
    }
    rows_map sums(memory.sums.data(), index(num_queries), 1);
    for (std::size_t q = 0; q < num_queries; ++q) {
        const std::size_t seen = old_rows + place_of(work, q, group).token + 1;
        sums(index(q), 0) = exponentiate(scores.row(index(q)), seen);
    }

    rows_map output(memory.output.data(), index(num_queries), index(head_dim));
    output.setZero();
    for (std::size_t r = 0; r < num_rows; r += row_block) {
        const std::size_t count = (std::min)(row_block, num_rows - r);
        const auto values =
            float_rows(cache.values(work.kv_head), visible, r, count, head_dim, memory.rows);
        output.noalias() += scores.middleCols(index(r), index(count)) * values;
    }
    for (std::size_t q = 0; q < num_queries; ++q) {
        const auto [token, head] = place_of(work, q, group);
        float* to = batch.output + (token * batch.num_q_heads + head) * head_dim;
        Eigen::Map<Eigen::RowVectorXf>(to, index(head_dim)) =
            output.row(index(q)) / sums(index(q), 0);
    }
}

/// The rows of a head that are not hidden; nothing if no row is, so that they need not be gathered.
template <typename T>
std::vector<std::uint32_t>
visible_rows(const layer_cache<T>& cache, std::size_t head, std::size_t num_new) {
    const auto& hidden = cache.hidden(head);
    const std::size_t num_old = cache.rows(head) - num_new;
    std::vector<std::uint32_t> rows;
    if (std::ranges::any_of(hidden, [](std::uint8_t flag) { return flag != 0; })) {
        for (std::size_t row = 0; row < cache.rows(head); ++row) {
            if (row >= num_old || row >= hidden.size() || hidden[row] == 0) {
                rows.push_back(static_cast<std::uint32_t>(row));
            }
        }
    }
    return rows;
}

/// Lends kvcrush the threads of OpenMP.
struct openmp_executor {
    template <typename Task>
    void operator()(std::size_t num_tasks, const Task& task) const noexcept {
#ifdef _OPENMP
#    pragma omp parallel for schedule(static, 1) if (num_tasks > 1)
#endif
        for (std::size_t i = 0; i < num_tasks; ++i) {
            task(i);
        }
    }
};

/// Rows that pay for one more thread: waking it takes as long as attending to some thousand rows.
constexpr std::size_t rows_per_thread = 8192;

[[nodiscard]] kvcrush::attend_options options_for(std::size_t num_rows) {
    return {.num_lanes = (std::min)(max_threads(), 1 + num_rows / rows_per_thread)};
}

/// The queries of a batch as the library sees them.
[[nodiscard]] kvcrush::query_view view_of(const attention_batch& batch, std::size_t head_dim) {
    const std::size_t floats =
        (batch.num_tokens - 1) * batch.query_stride + batch.num_q_heads * head_dim;
    return {std::span(batch.queries, floats),
            batch.num_q_heads,
            batch.num_tokens,
            head_dim,
            {head_dim, batch.query_stride, 1}};
}

/// kvcrush::attend gives [num_q_heads, num_tokens, head_dim].
void tokens_first(std::span<const float> heads_first,
                  const attention_batch& batch,
                  std::size_t head_dim) {
    for (std::size_t head = 0; head < batch.num_q_heads; ++head) {
        for (std::size_t t = 0; t < batch.num_tokens; ++t) {
            std::copy_n(heads_first.data() + (head * batch.num_tokens + t) * head_dim,
                        head_dim,
                        batch.output + (t * batch.num_q_heads + head) * head_dim);
        }
    }
}

/// One new token looks at dense rows where they lie.
template <typename T>
void attend_one(const layer_cache<T>& cache,
                const attention_batch& batch,
                attention_workspace& workspace) {
    const kvcrush::dense_codec<T> codec;
    const kvcrush::row_kernels kernels = kvcrush::kernels_of(codec);
    const std::size_t dim = cache.head_dim();
    std::vector<kvcrush::attend_segment> segments(cache.num_kv_heads());
    std::vector<kvcrush::attend_head> heads;
    std::size_t num_rows = 0;
    for (std::size_t head = 0; head < cache.num_kv_heads(); ++head) {
        const auto rows = [&](std::span<const T> elements) {
            return kvcrush::stored_rows{.data = reinterpret_cast<const std::byte*>(elements.data()),
                                        .stride = dim * sizeof(T)};
        };
        segments[head] = {.count = cache.rows(head),
                          .keys = rows(cache.keys(head)),
                          .key_kernels = &kernels,
                          .values = rows(cache.values(head)),
                          .value_kernels = &kernels};
        heads.emplace_back(&segments[head], 1);
        num_rows += cache.rows(head);
    }
    const kvcrush::query_view queries = view_of(batch, dim);
    const kvcrush::attend_options how = options_for(num_rows);
    const std::size_t floats = kvcrush::attend_workspace(queries, heads, dim, how);
    if (workspace.stored.size() < floats) {
        workspace.stored = float_buffer(floats + floats / 2);
    }
    kvcrush::attend(queries,
                    heads,
                    dim,
                    {batch.output, batch.num_q_heads * dim},
                    {workspace.stored.data(), workspace.stored.size()},
                    how,
                    openmp_executor{});
}

} // namespace

void attend(kvcrush::kv_sequence& cache,
            const attention_batch& batch,
            attention_workspace& workspace) {
    const std::size_t dim = cache.options().value_dim;
    std::size_t num_rows = 0;
    for (std::size_t head = 0; head < cache.options().num_kv_heads; ++head) {
        num_rows += cache.rows(head);
    }
    const std::size_t floats = batch.num_tokens * batch.num_q_heads * dim;
    if (workspace.stored.size() < floats) {
        workspace.stored = float_buffer(floats);
    }
    const std::span<float> output(workspace.stored.data(), floats);
    cache.attend(
        view_of(batch, cache.options().key_dim), output, options_for(num_rows), openmp_executor{});
    tokens_first(output, batch, dim);
}

template <kvcrush::Element T>
void attend(const layer_cache<T>& cache,
            const attention_batch& batch,
            attention_workspace& workspace) {
    std::vector<task> tasks;
    std::vector<std::vector<std::uint32_t>> visible;
    std::size_t most_rows = 0;
    bool all_visible = true;
    for (std::size_t head = 0; head < cache.num_kv_heads(); ++head) {
        most_rows = (std::max)(most_rows, cache.rows(head));
        visible.push_back(visible_rows(cache, head, batch.num_tokens));
        all_visible = all_visible && visible.back().empty();
        for (std::size_t first = 0; first < batch.num_tokens; first += query_block) {
            tasks.push_back({head, first, (std::min)(query_block, batch.num_tokens - first)});
        }
    }
    if (batch.num_tokens == 1 && all_visible) {
        return attend_one(cache, batch, workspace);
    }
    // All memory is there before threads start: an exception could not leave them.
    const std::size_t queries =
        batch.num_q_heads / cache.num_kv_heads() * (std::min)(query_block, batch.num_tokens);
    workspace.threads.resize((std::max)(workspace.threads.size(), max_threads()));
    for (auto& memory : workspace.threads) {
        const auto grow = [](float_buffer& buffer, std::size_t size) {
            if (buffer.size() < size) {
                buffer = float_buffer(size);
            }
        };
        grow(memory.queries, queries * cache.head_dim());
        grow(memory.output, queries * cache.head_dim());
        grow(memory.sums, queries);
        grow(memory.scores, queries * most_rows);
        grow(memory.rows, row_block * cache.head_dim());
    }
#ifdef _OPENMP
#    pragma omp parallel for schedule(dynamic)
#endif
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        run(tasks[i], cache, batch, visible[tasks[i].kv_head], workspace.threads[this_thread()]);
    }
}

template void attend(const layer_cache<float>&, const attention_batch&, attention_workspace&);
template void
attend(const layer_cache<kvcrush::f16>&, const attention_batch&, attention_workspace&);

} // namespace lab
