// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/code_tiles.hpp>
#include <kvcrush/attend/detail/code_tile_kernels.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/turbo_quant.hpp>
#include <kvcrush/core/random.hpp>

#include "reference/attention.hpp"
#include "reference/guarded_buffer.hpp"
#include "unit/attend/stored_cache.hpp"
#include "unit/simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using reference::normal_floats;

/// Codes of every width, as a codec that can lie in tiles.
any_codec codec_of(std::size_t bits) {
    return bits == 8 ? any_codec(int8_row_codec{}) : any_codec(codebook_row_codec{.bits = bits});
}
constexpr std::size_t all_bits[] = {2, 3, 4, 5, 8};

/// Rows of a codec one by one and in tiles, the same codes, behind which memory ends.
struct tiled {
    tiled(const any_codec& codec, tile_role role, std::size_t count, std::size_t dim)
        : layout(*codec.tile(role, dim)),
          rows(normal_floats(count * dim, count + dim)),
          tiles((count + code_tile::num_rows - 1) / code_tile::num_rows * layout.bytes()) {
        std::vector<std::byte> row(layout.row_bytes());
        for (std::size_t t = 0; t < count; ++t) {
            const std::span<float> own(rows.data() + t * dim, dim);
            EXPECT_TRUE(codec.encode(own, dim, row));
            codec.decode(row, dim, own);
            layout.put(row,
                       t % code_tile::num_rows,
                       tiles.span().data() + t / code_tile::num_rows * layout.bytes());
        }
    }
    [[nodiscard]] stored_rows stored() const {
        return {.data = tiles.span().data(), .stride = layout.bytes()};
    }

    code_tile layout;
    std::vector<float> rows; ///< decoded
    reference::guarded_buffer<std::byte> tiles;
};

TEST(CodeTile, GivesBackTheBytesOfARowAndLeavesItsNeighboursAlone) {
    for (const std::size_t bits : all_bits) {
        const any_codec codec = codec_of(bits);
        for (const std::size_t dim : {16U, 48U, 64U, 80U, 128U, 576U}) {
            for (const tile_role role : {tile_role::keys, tile_role::values}) {
                const code_tile layout = *codec.tile(role, dim);
                ASSERT_EQ(layout.row_bytes(), codec.group_bytes(dim));
                std::vector<std::byte> tile(layout.bytes());
                std::vector<std::vector<std::byte>> rows(code_tile::num_rows);
                for (std::uint64_t round = 0; round < 40; ++round) {
                    const std::size_t slot = round < 16 ? round : random_bits(1, dim, round) % 16;
                    rows[slot].resize(layout.row_bytes());
                    ASSERT_TRUE(codec.encode(normal_floats(dim, round), dim, rows[slot]));
                    layout.put(rows[slot], slot, tile.data());
                    for (std::size_t i = 0; i < rows.size() && !rows[i].empty(); ++i) {
                        std::vector<std::byte> out(layout.row_bytes());
                        layout.get(tile.data(), i, out);
                        ASSERT_EQ(out, rows[i]) << bits << " bits, " << dim << " channels, slot "
                                                << i << " after slot " << slot;
                    }
                }
                std::vector<std::byte> all;
                for (const std::vector<std::byte>& row : rows) {
                    all.insert(all.end(), row.begin(), row.end());
                }
                std::vector<std::byte> filled(layout.bytes(), std::byte{0xA5});
                layout.fill(all, filled.data());
                ASSERT_EQ(filled, tile) << bits << " bits, " << dim << " channels, at once";
            }
        }
    }
}

TEST(CodeTile, TakesNoByteMoreThanItsRowsWhereBlocksAreWhole) {
    for (const std::size_t bits : all_bits) {
        const any_codec codec = codec_of(bits);
        for (const std::size_t dim : {32U, 64U, 96U, 128U, 576U}) {
            EXPECT_EQ(codec.tile(tile_role::keys, dim)->bytes(), 16 * codec.group_bytes(dim));
        }
        EXPECT_FALSE(codec.tile(tile_role::keys, 40).has_value());
    }
    EXPECT_FALSE(any_codec().tile(tile_role::values, 64).has_value());
}

/// The scalar kernels, which no table hands out.
row_kernels scalar_table(std::size_t bits) {
    row_kernels table;
    if (bits == 8) {
        detail::on_scalar::take_tile_kernels<8>(table);
    } else {
        detail::with_codebook_bits(
            bits, [&](auto constant) { detail::on_scalar::take_tile_kernels<constant>(table); });
    }
    table.turn = detail::turn_queries<codebook_row_codec>;
    return table;
}

class CodeTileKernels : public reference::every_rung {};

/// A tile of up to 64 rows, by two tables.
struct one_tile {
    std::vector<float> logits;
    std::vector<float> sums;
};
one_tile work_on(const row_kernels& key_table,
                 const row_kernels& value_table,
                 const tiled& keys,
                 const tiled& values,
                 std::size_t count,
                 std::size_t num_queries) {
    const std::size_t dim = keys.layout.dim;
    const std::vector<float> queries = normal_floats(num_queries * dim, 3);
    std::vector<float> weights(num_queries * attend_tile, 0.0F);
    for (std::size_t q = 0; q < num_queries; ++q) {
        for (std::size_t t = 0; t < count; ++t) {
            weights[q * attend_tile + t] = std::pow(random_unit(q, 4, t), 8.0F);
        }
    }
    std::vector<float> prepared(key_table.prepared_size(num_queries, dim));
    std::vector<float> scratch(kernel_scratch(code_tile::num_rows, dim));
    one_tile out{std::vector<float>(num_queries * attend_tile, -1.0F),
                 normal_floats(num_queries * dim, 5)};
    tile_rows rows;
    locate_rows(keys.stored(), code_tile::num_rows, 0, count, rows);
    key_table.prepare(key_table, queries.data(), num_queries, dim, prepared.data());
    key_table.dots(
        key_table, rows, prepared.data(), num_queries, dim, out.logits.data(), scratch.data());
    locate_rows(values.stored(), code_tile::num_rows, 0, count, rows);
    value_table.accumulate(
        value_table, rows, weights.data(), num_queries, dim, out.sums.data(), scratch.data());
    for (std::size_t q = 0; q < num_queries; ++q) { // what lies behind the rows may be anything
        std::fill(out.logits.begin() + static_cast<std::ptrdiff_t>(q * attend_tile + count),
                  out.logits.begin() + static_cast<std::ptrdiff_t>((q + 1) * attend_tile),
                  0.0F);
    }
    return out;
}

TEST_P(CodeTileKernels, GiveTheBitsOfTheScalarOnes) {
    if (rung() == simd::isa::scalar) {
        GTEST_SKIP() << "these are the scalar ones";
    }
    for (const std::size_t bits : all_bits) {
        const any_codec codec = codec_of(bits);
        const row_kernels scalar = scalar_table(bits);
        const row_kernels key_table = codec.tile_kernels(tile_role::keys, rung());
        const row_kernels value_table = codec.tile_kernels(tile_role::values, rung());
        for (const std::size_t dim : {16U, 64U, 80U, 96U, 112U, 128U, 192U, 256U, 512U, 576U}) {
            for (const std::size_t count : {1U, 15U, 16U, 17U, 50U, 64U}) {
                const tiled keys(codec, tile_role::keys, count, dim);
                const tiled values(codec, tile_role::values, count, dim);
                for (const std::size_t queries : {1U, 2U, 3U, 4U, 7U, 9U}) {
                    const one_tile wanted = work_on(scalar, scalar, keys, values, count, queries);
                    const one_tile got =
                        work_on(key_table, value_table, keys, values, count, queries);
                    ASSERT_EQ(got.logits, wanted.logits)
                        << bits << " bits, " << dim << " channels, " << count << " rows, "
                        << queries << " queries";
                    ASSERT_EQ(got.sums, wanted.sums) << bits << " bits, " << dim << " channels, "
                                                     << count << " rows, " << queries << " queries";
                }
            }
        }
    }
}

/// Query heads to a kv head, and queries of each.
struct block_of_queries {
    std::size_t group;
    std::size_t num_queries;
};

/// Attention over tiles against a double loop over what the codes decode to. Centroids, queries and weights are rounded
/// to 127 steps, so the bound is one of norms: 2 % of what the values come to.
TEST_P(CodeTileKernels, AttendAsADoubleLoopOverDecodedRows) {
    for (const std::size_t bits : all_bits) {
        const any_codec codec = codec_of(bits);
        const row_kernels key_table = codec.tile_kernels(tile_role::keys, rung());
        const row_kernels value_table = codec.tile_kernels(tile_role::values, rung());
        for (const std::size_t dim : {64U, 80U, 128U}) {
            for (const std::size_t count : {1U, 33U, 64U, 200U, 1100U}) {
                const tiled keys(codec, tile_role::keys, count, dim);
                const tiled values(codec, tile_role::values, count, dim);
                const attend_segment segment{.count = count,
                                             .keys = keys.stored(),
                                             .key_kernels = &key_table,
                                             .values = values.stored(),
                                             .value_kernels = &value_table};
                const attend_head head(&segment, 1);
                for (const block_of_queries& block :
                     {block_of_queries{1, 1}, {3, 1}, {4, 1}, {71, 1}, {2, 8}, {1, 40}}) {
                    const std::size_t group = block.group;
                    const std::size_t num_queries = block.num_queries;
                    const std::vector<float> data = normal_floats(group * num_queries * dim, 9);
                    const query_view queries(data, group, num_queries, dim);
                    std::vector<float> out(group * num_queries * dim);
                    std::vector<float> workspace(attend_workspace(queries, {&head, 1}, dim, {}));
                    ASSERT_EQ(attend(queries,
                                     {&head, 1},
                                     dim,
                                     out,
                                     workspace,
                                     {},
                                     serial_executor{},
                                     rung()),
                              attend_status::done);
                    for (std::size_t r = 0; r < group * num_queries; ++r) {
                        const std::size_t hidden = num_queries - 1 - r % num_queries;
                        const std::size_t seen = count > hidden ? count - hidden : 0;
                        std::vector<double> logits(seen);
                        for (std::size_t t = 0; t < seen; ++t) {
                            logits[t] = reference::dot(std::span(data).subspan(r * dim, dim),
                                                       std::span(keys.rows).subspan(t * dim, dim)) /
                                        std::sqrt(static_cast<double>(dim));
                        }
                        const std::vector<double> weights = reference::softmax(logits);
                        double error = 0.0;
                        double size = 0.0;
                        for (std::size_t c = 0; c < dim; ++c) {
                            double sum = 0.0;
                            double squares = 0.0;
                            for (std::size_t t = 0; t < seen; ++t) {
                                const double value = double{values.rows[t * dim + c]};
                                sum += weights[t] * value;
                                squares += weights[t] * value * value;
                            }
                            error += std::pow(double{out[r * dim + c]} - sum, 2.0);
                            size += squares;
                        }
                        ASSERT_LE(std::sqrt(error), 0.02 * std::sqrt(size) + 1e-6)
                            << bits << " bits, " << dim << " channels, " << count << " rows, query "
                            << r << " of " << group << " x " << num_queries;
                    }
                }
            }
        }
    }
}

/// Pages hold whole tiles; chosen rows lie anywhere in them.
TEST_P(CodeTileKernels, ReadPagesAndChosenRows) {
    const turbo_quant_codec codec{.bits = 4};
    const any_codec any = codec;
    const std::size_t dim = 64;
    const std::size_t count = 150;
    const row_kernels key_table = any.tile_kernels(tile_role::keys, rung());
    const row_kernels value_table = any.tile_kernels(tile_role::values, rung());
    const tiled keys(any, tile_role::keys, count, dim);
    const tiled values(any, tile_role::values, count, dim);
    const std::size_t tile_bytes = keys.layout.bytes();
    const std::vector<float> data = normal_floats(4 * dim, 9);
    const query_view queries(data, 4, 1, dim);
    const auto output = [&](stored_rows key_rows, stored_rows value_rows, std::size_t rows) {
        const attend_segment segment{.count = rows,
                                     .keys = key_rows,
                                     .key_kernels = &key_table,
                                     .values = value_rows,
                                     .value_kernels = &value_table};
        const attend_head head(&segment, 1);
        std::vector<float> out(4 * dim);
        std::vector<float> workspace(attend_workspace(queries, {&head, 1}, dim, {}));
        EXPECT_EQ(attend(queries, {&head, 1}, dim, out, workspace, {}, serial_executor{}, rung()),
                  attend_status::done);
        return out;
    };
    const std::vector<float> wanted = output(keys.stored(), values.stored(), count);

    for (const std::size_t page_size : {16U, 32U, 64U}) {
        const std::size_t page_bytes = page_size / 16 * tile_bytes;
        const std::size_t num_pages = (count + page_size - 1) / page_size;
        std::vector<std::byte> key_pool(num_pages * page_bytes);
        std::vector<std::byte> value_pool(num_pages * page_bytes);
        std::vector<page_index> table(num_pages);
        for (std::size_t p = 0; p < num_pages; ++p) { // the last page first
            table[p] = static_cast<page_index>(num_pages - 1 - p);
            const std::size_t size =
                std::min(page_bytes, keys.tiles.span().size() - p * page_bytes);
            std::copy_n(keys.tiles.span().begin() + static_cast<std::ptrdiff_t>(p * page_bytes),
                        size,
                        key_pool.begin() + table[p] * static_cast<std::ptrdiff_t>(page_bytes));
            std::copy_n(values.tiles.span().begin() + static_cast<std::ptrdiff_t>(p * page_bytes),
                        size,
                        value_pool.begin() + table[p] * static_cast<std::ptrdiff_t>(page_bytes));
        }
        const auto paged = [&](const std::vector<std::byte>& pool) {
            return stored_rows{.data = pool.data(),
                               .stride = tile_bytes,
                               .pages = table.data(),
                               .page_size = page_size,
                               .page_stride = page_bytes};
        };
        EXPECT_EQ(output(paged(key_pool), paged(value_pool), count), wanted) << page_size;
    }

    // All rows chosen: decoded one by one, so not to the last bit.
    std::vector<token_index> all(count);
    std::iota(all.begin(), all.end(), token_index{0});
    stored_rows key_rows = keys.stored();
    stored_rows value_rows = values.stored();
    key_rows.index = all.data();
    value_rows.index = all.data();
    const std::vector<float> chosen = output(key_rows, value_rows, count);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        EXPECT_NEAR(chosen[i], wanted[i], 0.02F);
    }
}

KVCRUSH_ON_EVERY_RUNG(CodeTileKernels);

} // namespace
} // namespace kvcrush
