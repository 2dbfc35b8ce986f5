// SPDX-License-Identifier: Apache-2.0
// A cache that holds its rows in codecs: what comes out again, what it weighs, and what attention makes of it.
#include <kvcrush/core/random.hpp>

#include "attention.hpp"
#include "codec_parser.hpp"
#include "compress.hpp"
#include "kv_cache.hpp"
#include "policy.hpp"
#include "tiny_model.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace lab {
namespace {

using testing::HasSubstr;

constexpr std::size_t num_layers = 2;
constexpr std::size_t num_kv_heads = 3;
constexpr std::size_t dim = 64;
constexpr std::size_t num_sinks = 4;
constexpr std::size_t num_rows = 205;
const std::vector<std::string> codecs{"f16",
                                      "bf16",
                                      "q8_0",
                                      "q4_0",
                                      "q4_1",
                                      "q5_0",
                                      "q5_1",
                                      "iq4_nl",
                                      "int8_row",
                                      "hadamard(q4_0,signs=1)",
                                      "turbo_quant(bits=4)",
                                      "turbo_quant(bits=3)",
                                      "kivi"};

/// About normal: the sum of twelve even draws.
float draw(std::uint64_t stream, std::uint64_t index) {
    double sum = -6.0;
    for (std::uint64_t i = 0; i < 12; ++i) {
        sum += static_cast<double>(kvcrush::random_bits(stream, index, i) >> 11) * 0x1p-53;
    }
    return static_cast<float>(sum);
}

/// One row; its channels have means, as those of keys do.
std::vector<float> random_row(std::uint64_t stream) {
    std::vector<float> row(dim);
    for (std::size_t i = 0; i < dim; ++i) {
        row[i] = draw(stream, i) + (i % 7 == 0 ? 3.0F : 0.0F);
    }
    return row;
}

/// Rows of all heads. Each lacks some tokens, and not the same.
kv_cache random_cache(cache_type type, std::size_t rows = num_rows) {
    kv_cache cache(type, num_layers, num_kv_heads, dim);
    cache.visit([&](auto& layers) {
        for (std::size_t l = 0; l < layers.size(); ++l) {
            for (std::size_t head = 0; head < num_kv_heads; ++head) {
                for (std::size_t r = 0; r < rows; ++r) {
                    const std::size_t stream = ((l * num_kv_heads + head) * rows + r) * 2;
                    const std::size_t position = r < num_sinks ? r : r + r / 8 * head;
                    layers[l].append(head,
                                     random_row(stream),
                                     random_row(stream + 1),
                                     static_cast<std::uint32_t>(position));
                }
            }
        }
    });
    cache.advance(3 * rows);
    return cache;
}

codec_choice choice_of(const std::string& text) {
    return parse_policy("knorm+" + text).codec.value_or(codec_choice{});
}
codec_choice one_codec(const std::string& codec, const std::string& keys = "") {
    const bool kivi = codec == "kivi"; // keys and values have one each
    return choice_of("codec(k=" +
                     (kivi           ? "kivi_key"
                      : keys.empty() ? codec
                                     : keys) +
                     ",v=" + (kivi ? "kivi_value" : codec) + ")");
}

/// What a cache holds of one head, decoded.
struct head_content {
    std::vector<float> keys;
    std::vector<float> values;
    std::vector<std::uint32_t> positions;
};

head_content content_of(const kv_cache& cache, std::size_t layer, std::size_t head) {
    const kv_cache dense = cache.is_coded() ? cache.decoded() : cache;
    head_content content;
    dense.visit([&](const auto& layers) {
        const auto& rows = layers[layer];
        for (const auto key : rows.keys(head)) {
            content.keys.push_back(kvcrush::to_float(key));
        }
        for (const auto value : rows.values(head)) {
            content.values.push_back(kvcrush::to_float(value));
        }
        content.positions.assign(rows.positions(head).begin(), rows.positions(head).end());
    });
    return content;
}

/// The most that a channel may be off, for codecs that round each channel of a block (or of a row) to a step.
double largest_error(const std::string& codec, std::span<const float> block) {
    const auto [low, high] = std::minmax_element(block.begin(), block.end());
    const auto range = static_cast<double>(*high) - static_cast<double>(*low);
    const double largest =
        (std::max)(std::abs(static_cast<double>(*high)), std::abs(static_cast<double>(*low)));
    // Scales and minima are f16: half a unit of 2^-10, times codes that span the block.
    const double half = 0x1p-11;
    if (codec == "f16") {
        return largest * half;
    }
    if (codec == "bf16") {
        return largest * 0x1p-8;
    }
    if (codec == "q8_0" || codec == "int8_row") {
        return largest * (0.5 / 127.0 + half);
    }
    if (codec == "q4_0") { // codes -8 to 7: the end without a code of its own is a whole step off
        return largest * (1.0 / 8.0 + half);
    }
    if (codec == "q5_0") {
        return largest * (1.0 / 16.0 + half);
    }
    const double steps = codec == "q4_1" ? 15.0 : 31.0; // q5_1
    return range * (0.5 / steps + half) + largest * half;
}

/// Calls `check` with each row before and after: (before, after, position).
void for_each_row(
    std::span<const float> before,
    std::span<const float> after,
    std::span<const std::uint32_t> positions,
    const std::function<void(std::span<const float>, std::span<const float>, std::uint32_t)>&
        check) {
    ASSERT_EQ(before.size(), after.size());
    ASSERT_EQ(before.size(), positions.size() * dim);
    for (std::size_t r = 0; r < positions.size(); ++r) {
        check(before.subspan(r * dim, dim), after.subspan(r * dim, dim), positions[r]);
    }
}

void expect_within_step(const std::string& codec,
                        std::span<const float> before,
                        std::span<const float> after) {
    const std::size_t block = codec == "int8_row" ? dim : 32;
    for (std::size_t i = 0; i < dim; ++i) {
        const double bound =
            largest_error(codec, before.subspan(i / block * block, block)) * 1.001 + 1e-7;
        const double error =
            std::abs(static_cast<double>(after[i]) - static_cast<double>(before[i]));
        EXPECT_LE(error, bound) << codec << ", channel " << i;
    }
}

void expect_decodes_within_step(cache_type type, const std::string& codec) {
    const kv_cache dense = random_cache(type);
    kv_cache coded = dense;
    coded.encode(one_codec(codec));
    ASSERT_TRUE(coded.is_coded());
    EXPECT_EQ(coded.num_layers(), num_layers);
    EXPECT_EQ(coded.tokens_seen(), dense.tokens_seen());
    for (std::size_t l = 0; l < num_layers; ++l) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            EXPECT_EQ(coded.rows(l, head), num_rows);
            const head_content before = content_of(dense, l, head);
            const head_content after = content_of(coded, l, head);
            EXPECT_EQ(after.positions, before.positions);
            const auto check = [&](auto from, auto to, std::uint32_t position) {
                expect_within_step(position < num_sinks ? "q8_0" : codec, from, to);
            };
            for_each_row(before.keys, after.keys, before.positions, check);
            for_each_row(before.values, after.values, before.positions, check);
        }
    }
}

const std::vector<std::string> stepwise_codecs{
    "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "int8_row"};

TEST(CodedCache, DecodesWithinAStepOfItsCodec) {
    for (const std::string& codec : stepwise_codecs) {
        expect_decodes_within_step(cache_type::f16, codec);
    }
}

TEST(CodedCache, EncodesRowsOfFloatsAsTheyAre) {
    for (const std::string& codec : stepwise_codecs) {
        expect_decodes_within_step(cache_type::f32, codec);
    }
}

/// Squared error of all rows but sinks / their energy less the mean of each channel.
double relative_error(const std::vector<float>& before, const std::vector<float>& after) {
    const std::size_t rows = before.size() / dim;
    double error = 0.0;
    double energy = 0.0;
    for (std::size_t i = 0; i < dim; ++i) {
        double mean = 0.0;
        for (std::size_t r = num_sinks; r < rows; ++r) {
            mean +=
                static_cast<double>(before[r * dim + i]) / static_cast<double>(rows - num_sinks);
        }
        for (std::size_t r = num_sinks; r < rows; ++r) {
            const auto value = static_cast<double>(before[r * dim + i]);
            error += std::pow(static_cast<double>(after[r * dim + i]) - value, 2.0);
            energy += std::pow(value - mean, 2.0);
        }
    }
    return error / energy;
}

TEST(CodedCache, CentredKeysInFourBitsLoseWhatFourBitsLose) {
    const kv_cache dense = random_cache(cache_type::f16);
    kv_cache coded = dense;
    coded.encode(one_codec("turbo_quant(bits=3)", "mean_centred(turbo_quant(bits=4))"));
    for (std::size_t l = 0; l < num_layers; ++l) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            const head_content before = content_of(dense, l, head);
            const head_content after = content_of(coded, l, head);
            // The best 16 levels for normal numbers have a mean squared error of 0.0095 (Max 1960, table 1).
            const double keys = relative_error(before.keys, after.keys);
            EXPECT_GT(keys, 0.006);
            EXPECT_LT(keys, 0.013);
            // 8 levels: 0.0345, of an energy that the means are part of: (54 + 10 * 10) / 64 = 2.4 times as much.
            const double values = relative_error(before.values, after.values);
            EXPECT_GT(values, 0.05);
            EXPECT_LT(values, 0.11);
        }
    }
}

/// What the rows of one store take: whole groups, and a bit per token of the span of positions, in words.
std::size_t expected_bytes(const kvcrush::row_store& store, const kvcrush::codec_pair& codec) {
    const std::vector<kvcrush::token_index> positions = store.positions().values();
    if (positions.empty()) {
        return 0;
    }
    const auto groups = [&](const kvcrush::any_codec& of) {
        return (store.size() + of.group_size() - 1) / of.group_size();
    };
    return groups(codec.keys) * codec.keys.group_bytes(dim) +
           groups(codec.values) * codec.values.group_bytes(dim) +
           (positions.back() / 64 - positions.front() / 64 + 1) * sizeof(std::uint64_t);
}

std::size_t expected_bytes(const kv_cache& cache) {
    std::size_t bytes = 0;
    for (const kvcrush::kv_sequence& layer : cache.coded()) {
        const kvcrush::sequence_options& how = layer.options();
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            const auto stores = layer.stores(head);
            bytes += expected_bytes(stores.front(), how.sinks);
            for (std::size_t t = 0; t < how.tiers.size(); ++t) {
                bytes += expected_bytes(stores[1 + t], how.tiers[t]);
                bytes += how.tiers[t].keys.centres_keys() ? dim * sizeof(float) : 0;
            }
            bytes += expected_bytes(stores.back(), how.dense);
        }
    }
    return bytes;
}

TEST(CodedCache, HoldsTheBytesThatItsCodecsSay) {
    std::vector<std::string> all = codecs;
    for (const char* centred : {"mean_centred(q4_0)", "mean_centred(turbo_quant(bits=4))"}) {
        all.emplace_back(centred);
    }
    for (const std::string& codec : all) {
        const bool centred = codec.starts_with("mean_centred");
        kv_cache cache = random_cache(cache_type::f16);
        cache.encode(centred ? one_codec("q4_0", codec) : one_codec(codec));
        EXPECT_EQ(cache.bytes_held(), expected_bytes(cache)) << codec;
    }
    // By hand, a head without gaps: 4 sinks of 68 bytes, 201 rows of 36, twice each; positions in 1 and 4 words.
    kv_cache cache(cache_type::f16, 1, 1, dim);
    for (std::uint32_t r = 0; r < num_rows; ++r) {
        cache.layers<kvcrush::f16>()[0].append(0, random_row(r), random_row(r + num_rows), r);
    }
    cache.encode(one_codec("q4_0"));
    EXPECT_EQ(cache.bytes_held(), 2U * (4 * 68 + 201 * 36) + 5 * 8);
}

TEST(CodedCache, RowsGoToTheTierTheyWereGiven) {
    const kv_cache dense = random_cache(cache_type::f16);
    const codec_choice how = choice_of("tiered(k=q8_0,v=q8_0,k2=q4_1,v2=q4_1)");
    std::vector<std::vector<std::vector<std::uint8_t>>> tiers(
        num_layers, std::vector<std::vector<std::uint8_t>>(num_kv_heads));
    for (std::size_t l = 0; l < num_layers; ++l) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            for (std::size_t r = 0; r < num_rows; ++r) {
                tiers[l][head].push_back(
                    static_cast<std::uint8_t>(kvcrush::random_bits(l, head, r) % 2));
            }
        }
    }
    kv_cache coded = dense;
    coded.encode(how, tiers);
    EXPECT_EQ(coded.bytes_held(), expected_bytes(coded));
    for (std::size_t l = 0; l < num_layers; ++l) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            const auto second = static_cast<std::size_t>(
                std::count(tiers[l][head].begin() + num_sinks, tiers[l][head].end(), 1));
            EXPECT_EQ(coded.coded()[l].stores(head)[2].size(), second);
            const head_content before = content_of(dense, l, head);
            const head_content after = content_of(coded, l, head);
            ASSERT_EQ(after.positions, before.positions);
            for (std::size_t r = 0; r < num_rows; ++r) {
                const bool precise = r < num_sinks || tiers[l][head][r] == 0;
                expect_within_step(precise ? "q8_0" : "q4_1",
                                   std::span(before.keys).subspan(r * dim, dim),
                                   std::span(after.keys).subspan(r * dim, dim));
            }
        }
    }
}

/// Keeps about every second row, others in each head.
kvcrush::selection some_rows(const kv_cache& cache, std::size_t layer) {
    kvcrush::selection kept;
    kept.reserve(num_kv_heads, num_kv_heads * cache.rows(layer, 0));
    for (std::size_t head = 0; head < num_kv_heads; ++head) {
        for (std::size_t r = 0; r < cache.rows(layer, head); ++r) {
            if (kvcrush::random_bits(layer, head, r + 1000) % (2 + head) == 0) {
                kept.extend(1)[0] = static_cast<kvcrush::token_index>(r);
            }
        }
        kept.end_head();
    }
    return kept;
}

/// softmax(q k / sqrt(dim)) v of one query, by the obvious loops.
std::vector<double> attention(std::span<const float> query, const head_content& rows) {
    const std::size_t count = rows.positions.size();
    std::vector<double> logits(count, 0.0);
    for (std::size_t r = 0; r < count; ++r) {
        for (std::size_t i = 0; i < dim; ++i) {
            logits[r] +=
                static_cast<double>(query[i]) * static_cast<double>(rows.keys[r * dim + i]);
        }
        logits[r] /= std::sqrt(static_cast<double>(dim));
    }
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    std::vector<double> output(dim, 0.0);
    for (std::size_t r = 0; r < count; ++r) {
        const double weight = std::exp(logits[r] - largest);
        sum += weight;
        for (std::size_t i = 0; i < dim; ++i) {
            output[i] += weight * static_cast<double>(rows.values[r * dim + i]);
        }
    }
    for (double& value : output) {
        value /= sum;
    }
    return output;
}

TEST(CodedCache, ADecodeStepAfterEvictionIsAttentionOverTheDecodedRows) {
    constexpr std::size_t group = 3;
    std::vector<float> queries;
    for (std::size_t head = 0; head < num_kv_heads * group; ++head) {
        const std::vector<float> query = random_row(90000 + head);
        queries.insert(queries.end(), query.begin(), query.end());
    }
    for (const std::string& codec : codecs) {
        kv_cache cache = random_cache(cache_type::f16);
        codec_choice how =
            codec == "q4_0" ? one_codec(codec, "mean_centred(q4_0)") : one_codec(codec);
        how.attention = kvcrush::arithmetic::exact;
        cache.encode(how);
        attention_workspace workspace;
        for (std::size_t l = 0; l < num_layers; ++l) {
            std::vector<head_content> before;
            for (std::size_t head = 0; head < num_kv_heads; ++head) {
                before.push_back(content_of(cache, l, head));
            }
            const kvcrush::selection kept = some_rows(cache, l);
            cache.coded()[l].evict(kept);
            for (std::size_t head = 0; head < num_kv_heads; ++head) {
                const head_content after = content_of(cache, l, head);
                const auto rows = kept.kept(head);
                ASSERT_EQ(after.positions.size(), rows.size()) << codec;
                for (std::size_t i = 0; i < rows.size(); ++i) { // moved, and not encoded again
                    EXPECT_EQ(after.positions[i], before[head].positions[rows[i]]);
                    EXPECT_TRUE(std::equal(
                        after.keys.begin() + static_cast<std::ptrdiff_t>(i * dim),
                        after.keys.begin() + static_cast<std::ptrdiff_t>((i + 1) * dim),
                        before[head].keys.begin() + static_cast<std::ptrdiff_t>(rows[i] * dim)))
                        << codec << ", row " << i;
                }
                const auto position = static_cast<kvcrush::token_index>(cache.tokens_seen());
                ASSERT_TRUE(cache.coded()[l].append_row(
                    head, random_row(80000 + head), random_row(81000 + head), position));
            }
            std::vector<float> output(num_kv_heads * group * dim, -7.0F);
            attend(cache.coded()[l],
                   {1, num_kv_heads * group, queries.data(), queries.size(), output.data()},
                   workspace);
            for (std::size_t head = 0; head < num_kv_heads * group; ++head) {
                const auto expected = attention(std::span(queries).subspan(head * dim, dim),
                                                content_of(cache, l, head / group));
                for (std::size_t i = 0; i < dim; ++i) { // sums of 200 terms of size 5 in float
                    EXPECT_NEAR(static_cast<double>(output[head * dim + i]), expected[i], 2e-4)
                        << codec << ", layer " << l << ", head " << head << ", channel " << i;
                }
            }
        }
    }
}

TEST(CodedCache, EvictingGivesMemoryBack) {
    for (const std::string& codec : codecs) {
        kv_cache cache = random_cache(cache_type::f16);
        cache.encode(one_codec(codec));
        const std::size_t before = cache.bytes_held();
        for (std::size_t l = 0; l < num_layers; ++l) {
            cache.coded()[l].evict(some_rows(cache, l));
        }
        if (codec != "kivi") { // a group goes when its last row does
            EXPECT_EQ(cache.bytes_held(), expected_bytes(cache)) << codec;
        }
        EXPECT_LT(cache.bytes_held(), before) << codec;
    }
}

TEST(CodedCache, IsEncodedOnceAndFromFiniteRows) {
    const auto message_of = [](kv_cache& cache) -> std::string {
        try {
            cache.encode(one_codec("q8_0"));
        } catch (const input_error& error) {
            return error.what();
        }
        return "nothing was thrown";
    };
    kv_cache cache = random_cache(cache_type::f16, 8);
    const auto rows_of = [&](std::size_t layer) -> layer_cache<kvcrush::f16>& {
        return cache.layers<kvcrush::f16>()[layer];
    };
    rows_of(1).keys(2)[5 * dim + 3] =
        kvcrush::from_float<kvcrush::f16>(std::numeric_limits<float>::quiet_NaN());
    EXPECT_THAT(message_of(cache), HasSubstr("layer 1, kv head 2: row 5 holds NaN or infinity"));
    cache = random_cache(cache_type::f16, 8);
    rows_of(0).values(1)[0] =
        kvcrush::from_float<kvcrush::f16>(std::numeric_limits<float>::infinity());
    EXPECT_THAT(message_of(cache), HasSubstr("layer 0, kv head 1: row 0"));
    cache = random_cache(cache_type::f16, 8);
    EXPECT_EQ(message_of(cache), "nothing was thrown");
    EXPECT_THAT(message_of(cache), HasSubstr("encoded once"));
}

TEST(CodedCache, AnEmptyCacheStaysEmpty) {
    kv_cache cache = random_cache(cache_type::f16, 0);
    cache.encode(one_codec("q4_0"));
    EXPECT_EQ(cache.rows(1, 2), 0U);
    EXPECT_EQ(cache.bytes_held(), 0U);
    EXPECT_EQ(cache.decoded().rows(1, 2), 0U);
}

// Through the whole model: prefill, compress, go on; then compress what is coded already and go on again.
TEST(CodedCache, AModelGoesOnAsOnTheDecodedRows) {
    const llama model = lab_test::load(lab_test::tiny_model().file());
    std::vector<int> tokens;
    for (std::size_t i = 0; i < 300; ++i) {
        tokens.push_back(static_cast<int>(kvcrush::random_bits(3, 0, i) % 50));
    }
    for (const char* text :
         {"knorm+codec(k=int8_row,v=int8_row,sinks=int8_row)",
          "full+codec(k=mean_centred(int8_row),v=f16,sinks=f16)",
          "knorm+tiered(k=f16,v=f16,k2=int8_row,v2=int8_row,sinks=f16,share=0.5)"}) {
        const policy how = parse_policy(text);
        kv_cache cache = model.make_cache(cache_type::f16);
        query_log queries;
        static_cast<void>(model.forward(tokens, cache, 0, &queries));
        const compression done =
            compress(cache, {model, tokens, queries}, how, budget_for(how, 0.5, tokens.size()));
        ASSERT_TRUE(cache.is_coded()) << text;
        EXPECT_EQ(done.kept_tokens_mean, how.full ? 300.0 : 150.0) << text;
        EXPECT_EQ(done.bytes_held, cache.bytes_held()) << text;
        kv_cache decoded = cache.decoded();
        for (const int id : {7, 41, 3, 3, 19}) {
            const std::vector<int> next{id};
            const matrix coded_logits = model.forward(next, cache, 1);
            const matrix logits = model.forward(next, decoded, 1);
            for (std::size_t i = 0; i < logits.cols(); ++i) {
                // The new rows are f16 in the one cache and f32 in the other.
                EXPECT_NEAR(coded_logits.row(0)[i], logits.row(0)[i], 2e-3) << text;
            }
        }
        EXPECT_EQ(cache.tokens_seen(), 305U);
    }
}

} // namespace
} // namespace lab
