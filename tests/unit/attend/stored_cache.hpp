// SPDX-License-Identifier: Apache-2.0
/// @file
/// Encoded rows in guarded memory, the floats they stand for, and attention over both.
#pragma once

#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/core/random.hpp>

#include "reference/attention.hpp"
#include "reference/guarded_buffer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <deque>
#include <span>
#include <string>
#include <vector>

namespace kvcrush::reference {

/// About normal, from a seed.
inline std::vector<float> normal_floats(std::size_t count, std::uint64_t seed) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) {
        float sum = -2.0F;
        for (std::uint64_t part = 0; part < 4; ++part) {
            sum += random_unit(seed, part, i);
        }
        values[i] = 1.7F * sum;
    }
    return values;
}

/// How rows are laid out in memory.
enum class placing { in_a_row, strided, selected, paged };

/// Grows head by head, segment by segment. Everything that tables and segments point to lives here.
class stored_cache {
public:
    stored_cache(std::size_t key_dim, std::size_t value_dim, simd::isa rung)
        : key_dim_(key_dim), value_dim_(value_dim), rung_(rung) {}

    void begin_head() {
        segments_.emplace_back();
        rows_.emplace_back();
    }

    /// @param make  codec -> row_kernels
    template <typename K, typename V>
    void add_segment(const K& key_codec,
                     const V& value_codec,
                     std::size_t count,
                     placing place = placing::in_a_row,
                     bool with_mean = false,
                     float key_size = 1.0F) {
        add_segment_of(key_codec,
                       value_codec,
                       count,
                       place,
                       with_mean,
                       key_size,
                       kernels_of(key_codec, rung_),
                       kernels_of(value_codec, rung_));
    }

    template <typename K, typename V>
    void add_segment_of(const K& key_codec,
                        const V& value_codec,
                        std::size_t count,
                        placing place,
                        bool with_mean,
                        float key_size,
                        const row_kernels& key_kernels,
                        const row_kernels& value_kernels) {
        attend_segment segment;
        segment.count = count;
        tables_.push_back(key_kernels);
        segment.key_kernels = &tables_.back();
        tables_.push_back(value_kernels);
        segment.value_kernels = &tables_.back();
        const float* mean = nullptr;
        if (with_mean) {
            means_.push_back(normal_floats(key_dim_, ++seed_));
            for (float& value : means_.back()) {
                value *= 5.0F;
            }
            mean = means_.back().data();
            segment.key_mean = mean;
        }
        rows_of_head& rows = rows_.back();
        segment.keys = place_rows(key_codec, count, key_dim_, place, key_size, rows.keys, mean);
        segment.values =
            place_rows(value_codec, count, value_dim_, place, 1.0F, rows.values, nullptr);
        rows.count += count;
        segments_.back().push_back(segment);
    }

    [[nodiscard]] std::vector<attend_head> heads() const {
        std::vector<attend_head> all;
        for (const auto& segments : segments_) {
            all.emplace_back(segments);
        }
        return all;
    }
    [[nodiscard]] std::span<const rows_of_head> rows() const { return rows_; }
    [[nodiscard]] std::size_t key_dim() const { return key_dim_; }
    [[nodiscard]] std::size_t value_dim() const { return value_dim_; }
    [[nodiscard]] simd::isa rung() const { return rung_; }

private:
    template <typename C>
    stored_rows place_rows(const C& codec,
                           std::size_t count,
                           std::size_t dim,
                           placing place,
                           float size,
                           std::vector<float>& decoded,
                           const float* mean) {
        const std::size_t group = codec.group_size();
        const std::size_t bytes = codec.group_bytes(dim);
        // Where each row of the sequence lies in memory.
        const std::size_t page = 2 * group;
        const std::size_t held =
            place == placing::selected ? 2 * count + group : (count + page - 1) / page * page;
        const std::size_t num_groups = (held + group - 1) / group;
        const std::size_t stride = place == placing::strided ? bytes + 12 : bytes;
        buffers_.emplace_back(num_groups == 0 ? 0 : (num_groups - 1) * stride + bytes);
        const std::span<std::byte> memory = buffers_.back().span();
        std::vector<float> all = normal_floats(num_groups * group * dim, ++seed_);
        for (float& value : all) {
            value *= size;
        }
        std::vector<float> again(all.size());
        for (std::size_t g = 0; g < num_groups; ++g) {
            const auto at = memory.subspan(g * stride, bytes);
            EXPECT_TRUE(codec.encode(
                std::span(all).subspan(g * group * dim, group * dim), dim, at, simd::best()));
            codec.decode(
                at, dim, std::span(again).subspan(g * group * dim, group * dim), simd::best());
        }
        stored_rows rows{.data = memory.data(), .stride = stride};
        if (place == placing::selected) {
            indices_.emplace_back();
            for (std::size_t i = 0; i < count; ++i) {
                indices_.back().push_back(static_cast<token_index>(2 * i + i % 2));
            }
            rows.index = indices_.back().data();
        }
        const std::size_t num_pages = held / page;
        if (place == placing::paged) { // in backward order
            pages_.emplace_back();
            for (std::size_t p = 0; p < num_pages; ++p) {
                pages_.back().push_back(static_cast<page_index>(num_pages - 1 - p));
            }
            rows.pages = pages_.back().data();
            rows.page_size = page;
            rows.page_stride = 2 * stride;
        }
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t from = place == placing::selected ? 2 * i + i % 2
                                     : place == placing::paged
                                         ? (num_pages - 1 - i / page) * page + i % page
                                         : i;
            for (std::size_t c = 0; c < dim; ++c) {
                decoded.push_back(again[from * dim + c] + (mean == nullptr ? 0.0F : mean[c]));
            }
        }
        return rows;
    }

    std::size_t key_dim_;
    std::size_t value_dim_;
    simd::isa rung_;
    std::uint64_t seed_ = 0;
    std::deque<row_kernels> tables_;
    std::deque<guarded_buffer<std::byte>> buffers_;
    std::deque<std::vector<token_index>> indices_;
    std::deque<std::vector<page_index>> pages_;
    std::deque<std::vector<float>> means_;
    std::vector<std::vector<attend_segment>> segments_;
    std::vector<rows_of_head> rows_;
};

/// All outputs of one call, in memory that ends at an unreadable page.
struct attended {
    std::vector<float> output;
    std::vector<float> log_sum_exp;
    std::vector<float> weights;
    std::size_t stride = 0;
};

template <typename E = serial_executor>
attended run_attend(const stored_cache& cache,
                    std::span<const float> queries,
                    std::size_t num_q_heads,
                    std::size_t num_queries,
                    std::size_t num_lanes = 1,
                    float scale = 0.0F,
                    bool with_weights = true,
                    E&& execute = {},
                    attend_options options = {}) {
    attended result;
    for (const rows_of_head& rows : cache.rows()) {
        result.stride = std::max(result.stride, rows.count + 3);
    }
    result.log_sum_exp.resize(num_q_heads * num_queries);
    result.weights.assign(num_q_heads * num_queries * result.stride, 7.0F);
    const query_view view(queries, num_q_heads, num_queries, cache.key_dim());
    const std::vector<attend_head> heads = cache.heads();
    options.scale = scale;
    options.log_sum_exp = result.log_sum_exp;
    options.num_lanes = num_lanes;
    if (with_weights) {
        options.weights = result.weights;
        options.weights_stride = result.stride;
    }
    guarded_buffer<float> output(num_q_heads * num_queries * cache.value_dim());
    guarded_buffer<float> memory(attend_workspace(view, heads, cache.value_dim(), options));
    EXPECT_EQ(attend(view,
                     heads,
                     cache.value_dim(),
                     output.span(),
                     memory.span(),
                     options,
                     execute,
                     cache.rung()),
              attend_status::done);
    result.output.assign(output.span().begin(), output.span().end());
    return result;
}

/// Attention over what is stored against attention over what it decodes to.
/// @param tolerance  of the sum of absolute terms
inline void expect_exact(const stored_cache& cache,
                         std::size_t num_q_heads,
                         std::size_t num_queries,
                         const std::string& what,
                         double tolerance = 1e-5,
                         float query_size = 1.0F,
                         std::size_t num_lanes = 1,
                         const logit_shaping& shaping = {},
                         const attend_options& options = {}) {
    std::vector<float> queries =
        normal_floats(num_q_heads * num_queries * cache.key_dim(), 991 + num_q_heads);
    for (float& value : queries) {
        value *= query_size;
    }
    const double scale = 1.0 / std::sqrt(static_cast<double>(cache.key_dim()));
    const attention_result expected = attention_over_rows(
        queries,
        cache.rows(),
        num_q_heads,
        num_queries,
        cache.key_dim(),
        cache.value_dim(),
        scale,
        shaping);
    const attended got = run_attend(
        cache, queries, num_q_heads, num_queries, num_lanes, 0.0F, true, serial_executor{}, options);
    for (std::size_t i = 0; i < expected.output.size(); ++i) {
        ASSERT_NEAR(static_cast<double>(got.output[i]),
                    expected.output[i],
                    tolerance * expected.magnitude[i])
            << what << ", element " << i;
    }
    for (std::size_t i = 0; i < expected.log_sum_exp.size(); ++i) {
        const double lse = expected.log_sum_exp[i];
        if (std::isinf(lse)) {
            ASSERT_EQ(static_cast<double>(got.log_sum_exp[i]), lse) << what;
        } else {
            ASSERT_NEAR(
                static_cast<double>(got.log_sum_exp[i]), lse, tolerance * (1 + std::abs(lse)))
                << what;
        }
        const std::vector<double>& weights = expected.weights[i];
        for (std::size_t t = 0; t < got.stride; ++t) {
            const auto weight = static_cast<double>(got.weights[i * got.stride + t]);
            if (t < weights.size()) {
                ASSERT_NEAR(weight, weights[t], 2 * tolerance * weights[t] + 1e-30)
                    << what << ", row " << t;
            } else {
                ASSERT_EQ(weight, 7.0) << what << ", behind the last row";
            }
        }
    }
}

} // namespace kvcrush::reference
