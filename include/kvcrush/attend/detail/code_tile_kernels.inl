// SPDX-License-Identifier: Apache-2.0
// Attention over tiles of codes (attend/code_tiles.hpp) in integers; included by simd/detail/rungs/each.inl.
//
// Centroids are rounded to +-127 for the largest one, queries to +-127 for their largest channel, weights times scales of
// a tile of 64 rows to 0 to 127 for the largest one, where what rounding drops of one row another one gets. Sums of their
// products are exact and hence the same on every rung; so is what is made of them in floats.

/// Registers that hold one vector of 64 codes.
inline constexpr std::size_t num_parts = 64 / ops::width;

/// Codes of part P of vector V of a block, as what they stand for.
template <std::size_t Bits, std::size_t V, std::size_t P>
KVCRUSH_PART ops::bytes decoded_part(const std::byte* block, ops::byte_table table) noexcept {
    constexpr unsigned m = Bits & ~1U;
    constexpr std::size_t in_64 = 8 / m;
    ops::bytes codes =
        ops::field<V % in_64 * m, m>(ops::load_bytes(block + V / in_64 * 64 + P * ops::width));
    if constexpr (m != Bits) {
        codes = ops::with_bit<V, m>(codes, ops::load_bytes(block + 64 * m + P * ops::width));
    }
    return ops::look_up<Bits>(table, codes);
}

/// Queries as signed bytes, each after the other: float step; int32 with which sums begin; 8 bytes unused; the channels,
/// zeros behind them up to a whole block.
KVCRUSH_KERNEL void prepare_tile_queries(const float* queries,
                                         std::size_t num_queries,
                                         std::size_t dim,
                                         std::byte* out) noexcept {
    constexpr std::size_t lanes = ops::width / 4;
    const std::size_t padded = tile_query_bytes(dim) - tile_query_head;
    for (std::size_t q = 0; q < num_queries; ++q, queries += dim, out += tile_query_bytes(dim)) {
        ops::floats high = ops::all_floats(0.0F);
        for (std::size_t c = 0; c < dim; c += lanes) {
            high = ops::larger(ops::magnitude(ops::load_floats(queries + c)), high);
        }
        const float step = ops::largest_lane(high) / 127.0F;
        // A step that is subnormal has no finite inverse.
        const ops::floats per_step = ops::all_floats(step >= 0x1p-126F ? 1.0F / step : 0.0F);
        auto* const whole = reinterpret_cast<std::int8_t*>(out + tile_query_head);
        for (std::size_t c = 0; c < dim; c += lanes) {
            ops::store_nearest(whole + c, ops::multiply(ops::load_floats(queries + c), per_step));
        }
        std::memset(whole + dim, 0, padded - dim);
        std::int32_t sum = 0;
        for (std::size_t c = 0; c < dim; ++c) {
            sum += whole[c];
        }
        const std::int32_t begin = ops::unsigned_first ? -128 * sum : 0;
        std::memcpy(out, &step, sizeof step);
        std::memcpy(out + sizeof step, &begin, sizeof begin);
    }
}

/// Asks memory for a part of the tile that will be read next where tile `t` of these rows is read now. A part at a time:
/// memory takes only so many requests at once.
template <std::size_t Bytes>
KVCRUSH_PART void prefetch_part(const tile_rows* next, std::size_t t, std::size_t offset) noexcept {
    if (next != nullptr && t * code_tile::num_rows < next->count) {
        const std::byte* const from = next->group[t * code_tile::num_rows] + offset;
        for (std::size_t i = 0; i < Bytes; i += 64) {
#if defined(__GNUC__)
            __builtin_prefetch(from + i, 0, 3);
#endif
        }
    }
}

/// Vector V of a block of some tiles. Ks: tile and part of it; Is: query and the same.
template <std::size_t Bits, std::size_t V, std::size_t... Ks, std::size_t... Is>
KVCRUSH_PART void add_key_products(ops::ints* sums,
                                   const std::byte* const* blocks,
                                   const std::byte* const* queries,
                                   std::size_t at,
                                   ops::byte_table table,
                                   std::index_sequence<Ks...>,
                                   std::index_sequence<Is...>) noexcept {
    constexpr std::size_t num_keys = sizeof...(Ks);
    ops::bytes keys[num_keys] = {
        decoded_part<Bits, V, Ks % num_parts>(blocks[Ks / num_parts], table)...};
    if constexpr (Bits == 8) {
        ((keys[Ks] = ops::as_first(keys[Ks])), ...);
    }
    ((sums[Is] = ops::dot_signed(
          sums[Is], keys[Is % num_keys], ops::load_quad(queries[Is / num_keys] + at + 4 * V))),
     ...);
}

template <std::size_t Bits, typename Keys, typename Sums, std::size_t... Vs>
KVCRUSH_PART void add_key_block(ops::ints* sums,
                                const std::byte* const* blocks,
                                const std::byte* const* queries,
                                std::size_t at,
                                ops::byte_table table,
                                std::index_sequence<Vs...>) noexcept {
    (add_key_products<Bits, Vs>(sums, blocks, queries, at, table, Keys{}, Sums{}), ...);
}

/// Some tiles of keys with some queries: logits of sixteen rows a tile.
/// @param next   the rows that are read next, or nullptr
/// @param first  the first of the tiles
template <std::size_t Bits, std::size_t Tiles, std::size_t... Is>
KVCRUSH_PART void dot_tiles(const tile_rows& rows,
                            const tile_rows* next,
                            std::size_t first,
                            const std::byte* const* queries,
                            std::size_t dim,
                            const float* scales,
                            float* out,
                            std::index_sequence<Is...>) noexcept {
    constexpr std::size_t num_keys = Tiles * num_parts;
    constexpr std::size_t lanes = ops::width / 4;
    using keys = std::make_index_sequence<num_keys>;
    const ops::byte_table table =
        ops::load_table<Bits>(tile_table<Bits, ops::unsigned_first>.data());
    constexpr std::size_t heads = code_tile::num_rows * tile_head_bytes<Bits>;
    constexpr std::size_t block_bytes = code_tile::block_bytes(Bits);
    const std::byte* blocks[Tiles];
    for (std::size_t i = 0; i < Tiles; ++i) {
        blocks[i] = rows.group[(first + i) * code_tile::num_rows] + heads;
    }
    scales += first * code_tile::num_rows;
    out += first * code_tile::num_rows;
    ops::ints sums[sizeof...(Is)];
    ((sums[Is] = ops::all_ints(tile_query_begin(queries[Is / num_keys]))), ...);
    const std::size_t end = tile_query_bytes(dim);
    std::size_t offset = heads;
    for (std::size_t at = tile_query_head; at < end; at += code_tile::block_channels) {
        for (std::size_t i = 0; i < Tiles; ++i) {
            prefetch_part<block_bytes>(next, first + i, offset);
        }
        offset += block_bytes;
        add_key_block<Bits, keys, std::index_sequence<Is...>>(
            sums, blocks, queries, at, table, std::make_index_sequence<8>());
        for (std::size_t i = 0; i < Tiles; ++i) {
            blocks[i] += block_bytes;
        }
    }
    (ops::store_floats(
         out + Is / num_keys * attend_tile + Is % num_keys * lanes,
         ops::multiply(ops::multiply(ops::all_floats(tile_query_step(queries[Is / num_keys])),
                                     ops::to_floats(sums[Is])),
                       ops::load_floats(scales + Is % num_keys * lanes))),
     ...);
}

/// Up to four queries with all tiles of `rows`.
template <std::size_t Bits, std::size_t Queries>
KVCRUSH_KERNEL void dot_some_queries(const tile_rows& rows,
                                     const tile_rows* next,
                                     const std::byte* queries,
                                     std::size_t dim,
                                     const float* scales,
                                     float* out) noexcept {
    const std::byte* each[Queries];
    for (std::size_t q = 0; q < Queries; ++q) {
        each[q] = queries + q * tile_query_bytes(dim);
    }
    constexpr std::size_t most = ops::num_sums / num_parts / Queries;
    constexpr std::size_t at_once = most >= 4 ? 4 : most >= 2 ? 2 : 1;
    std::size_t t = 0;
    const std::size_t count = (rows.count + code_tile::num_rows - 1) / code_tile::num_rows;
    for (; t + at_once <= count; t += at_once) {
        dot_tiles<Bits, at_once>(rows,
                                 next,
                                 t,
                                 each,
                                 dim,
                                 scales,
                                 out,
                                 std::make_index_sequence<Queries * at_once * num_parts>());
    }
    for (; t < count; ++t) {
        dot_tiles<Bits, 1>(
            rows, next, t, each, dim, scales, out, std::make_index_sequence<Queries * num_parts>());
    }
}

/// What the integers of each row are multiplied with, [attend_tile], zeros behind the rows.
template <std::size_t Bits>
KVCRUSH_KERNEL void
read_tile_scales(const tile_rows& rows, std::size_t dim, float* scales) noexcept {
    constexpr std::size_t lanes = ops::width / 4;
    const ops::floats step = ops::all_floats(tile_scale_step<Bits>(dim));
    for (std::size_t t = 0; t < rows.count; t += lanes) {
        const std::byte* const heads =
            rows.group[t] + t % code_tile::num_rows * tile_head_bytes<Bits>;
        if constexpr (Bits == 8) {
            ops::store_floats(scales + t, ops::load_floats(reinterpret_cast<const float*>(heads)));
        } else {
            ops::store_floats(scales + t, ops::multiply(ops::load_halves(heads), step));
        }
    }
    std::fill(scales + rows.count, scales + attend_tile, 0.0F);
}

/// out[q * attend_tile + t] = query q . row t, and anything behind the rows of the last tile.
/// @param scales  [attend_tile]
template <std::size_t Bits>
KVCRUSH_KERNEL void dot_queries(const tile_rows& rows,
                                const std::byte* queries,
                                std::size_t num_queries,
                                std::size_t dim,
                                const float* scales,
                                float* out) noexcept {
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const std::byte* const from = queries + q * tile_query_bytes(dim);
        float* const to = out + q * attend_tile;
        const tile_rows* const next = q == 0 ? rows.next : nullptr;
        switch (num_queries - q) {
        case 1: dot_some_queries<Bits, 1>(rows, next, from, dim, scales, to); break;
        case 2: dot_some_queries<Bits, 2>(rows, next, from, dim, scales, to); break;
        case 3: dot_some_queries<Bits, 3>(rows, next, from, dim, scales, to); break;
        default: dot_some_queries<Bits, 4>(rows, next, from, dim, scales, to); break;
        }
    }
}

/// Weights times scales of 64 rows as bytes. @return what 1 of them stands for
KVCRUSH_KERNEL float
round_tile_weights(const float* weights, const float* scales, std::int8_t* out) noexcept {
    constexpr std::size_t lanes = ops::width / 4;
    ops::floats high = ops::all_floats(0.0F);
    for (std::size_t t = 0; t < attend_tile; t += lanes) {
        high = ops::larger(
            ops::multiply(ops::load_floats(weights + t), ops::load_floats(scales + t)), high);
    }
    const float bound = ops::largest_lane(high);
    // Bounds that are tiny would have an infinite inverse; such a tile adds nothing that a float can tell.
    const bool adds = bound > 0x1p-100F;
    const ops::floats per_step = ops::all_floats(adds ? 127.0F / bound : 0.0F);
    const ops::floats one = ops::all_floats(1.0F);
    const ops::floats half = ops::all_floats(0.5F);
    for (std::size_t t = 0; t < attend_tile; t += lanes) {
        const ops::floats product =
            ops::multiply(ops::load_floats(weights + t), ops::load_floats(scales + t));
        const ops::floats threshold = ops::load_floats(rounding_thresholds.data() + t);
        // To the nearest, but for what would become 0 altogether, in which many rows may have a share.
        const ops::floats rounder = ops::add(
            threshold,
            ops::keep_from(one, ops::multiply(product, per_step), ops::subtract(half, threshold)));
        ops::store_truncated(out + t, ops::multiply_add(product, per_step, rounder));
    }
    return adds ? bound / 127.0F : 0.0F;
}

/// Rows 4 Quad to 4 Quad + 3 of a tile. Ks: sixteen channels and part of them; Is: query and the same.
template <std::size_t Bits,
          std::size_t First,
          std::size_t Quad,
          std::size_t... Ks,
          std::size_t... Is>
KVCRUSH_PART void add_value_products(ops::ints* sums,
                                     const std::byte* blocks,
                                     const std::int8_t* weights,
                                     ops::byte_table table,
                                     std::index_sequence<Ks...>,
                                     std::index_sequence<Is...>) noexcept {
    constexpr std::size_t num_values = sizeof...(Ks);
    const ops::bytes values[num_values] = {
        decoded_part<Bits, (First + Ks / num_parts) % 2 * 4 + Quad, Ks % num_parts>(
            blocks + (First + Ks / num_parts) / 2 * code_tile::block_bytes(Bits), table)...};
    ((sums[Is] =
          ops::dot_weights(sums[Is],
                           values[Is % num_values],
                           ops::load_quad(weights + Is / num_values * attend_tile + 4 * Quad))),
     ...);
}

template <std::size_t Bits, std::size_t First, typename Values, typename Sums, std::size_t... Quads>
KVCRUSH_PART void add_value_tile(ops::ints* sums,
                                 const std::byte* blocks,
                                 const std::int8_t* weights,
                                 ops::byte_table table,
                                 std::index_sequence<Quads...>) noexcept {
    (add_value_products<Bits, First, Quads>(sums, blocks, weights, table, Values{}, Sums{}), ...);
}

/// 16 * Units channels of all tiles, from the first or the second half of a block on.
/// @param offset  of that block in a tile
/// @param out     of the first of these channels, queries `dim` apart
template <std::size_t Bits, std::size_t First, std::size_t Units, std::size_t... Is>
KVCRUSH_PART void accumulate_units(const tile_rows& rows,
                                   const tile_rows* next,
                                   std::size_t offset,
                                   const std::int8_t* weights,
                                   const float* steps,
                                   std::size_t dim,
                                   float* out,
                                   std::index_sequence<Is...>) noexcept {
    constexpr std::size_t num_values = Units * num_parts;
    constexpr std::size_t lanes = ops::width / 4;
    using values = std::make_index_sequence<num_values>;
    const ops::byte_table table = ops::load_table<Bits>(tile_table<Bits, false>.data());
    ops::ints sums[sizeof...(Is)];
    ((sums[Is] = ops::all_ints(0)), ...);
    for (std::size_t t = 0; t < rows.count; t += code_tile::num_rows) {
        if constexpr (First == 0) {
            prefetch_part<(Units + 1) / 2 * code_tile::block_bytes(Bits)>(
                next, t / code_tile::num_rows, offset);
        }
        add_value_tile<Bits, First, values, std::index_sequence<Is...>>(
            sums, rows.group[t] + offset, weights + t, table, std::make_index_sequence<4>());
    }
    (ops::store_floats(out + Is / num_values * dim + Is % num_values * lanes,
                       ops::multiply_add(ops::to_floats(sums[Is]),
                                         ops::all_floats(steps[Is / num_values]),
                                         ops::load_floats(out + Is / num_values * dim +
                                                          Is % num_values * lanes))),
     ...);
}

template <std::size_t Bits, std::size_t Queries>
KVCRUSH_KERNEL void accumulate_some_queries(const tile_rows& rows,
                                            const tile_rows* next,
                                            const float* weights,
                                            const float* scales,
                                            std::size_t dim,
                                            float* out) noexcept {
    alignas(64) std::int8_t whole[Queries * attend_tile];
    float steps[Queries];
    for (std::size_t q = 0; q < Queries; ++q) {
        steps[q] = round_tile_weights(weights + q * attend_tile, scales, whole + q * attend_tile);
    }
    constexpr std::size_t most = ops::num_sums / num_parts / Queries;
    constexpr std::size_t block_bytes = code_tile::block_bytes(Bits);
    std::size_t offset = code_tile::num_rows * tile_head_bytes<Bits>;
    std::size_t c = 0;
    if constexpr (most >= 4) {
        for (; c + 64 <= dim; c += 64, offset += 2 * block_bytes) {
            accumulate_units<Bits, 0, 4>(rows,
                                         next,
                                         offset,
                                         whole,
                                         steps,
                                         dim,
                                         out + c,
                                         std::make_index_sequence<Queries * 4 * num_parts>());
        }
    }
    if constexpr (most >= 2) {
        for (; c + 32 <= dim; c += 32, offset += block_bytes) {
            accumulate_units<Bits, 0, 2>(rows,
                                         next,
                                         offset,
                                         whole,
                                         steps,
                                         dim,
                                         out + c,
                                         std::make_index_sequence<Queries * 2 * num_parts>());
        }
    }
    using sums = std::make_index_sequence<Queries * num_parts>;
    for (; c < dim; c += 32, offset += block_bytes) {
        accumulate_units<Bits, 0, 1>(rows, next, offset, whole, steps, dim, out + c, sums());
        if (c + 16 < dim) {
            accumulate_units<Bits, 1, 1>(
                rows, next, offset, whole, steps, dim, out + c + 16, sums());
        }
    }
}

/// sums[q * dim + c] += sum over t of weights[q * attend_tile + t] * row t
/// @param weights  at least 0, and 0 behind the rows
template <std::size_t Bits>
KVCRUSH_KERNEL void accumulate_queries(const tile_rows& rows,
                                       const float* weights,
                                       std::size_t num_queries,
                                       std::size_t dim,
                                       const float* scales,
                                       float* sums) noexcept {
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const float* const from = weights + q * attend_tile;
        float* const to = sums + q * dim;
        const tile_rows* const next = q == 0 ? rows.next : nullptr;
        switch (num_queries - q) {
        case 1: accumulate_some_queries<Bits, 1>(rows, next, from, scales, dim, to); break;
        case 2: accumulate_some_queries<Bits, 2>(rows, next, from, scales, dim, to); break;
        case 3: accumulate_some_queries<Bits, 3>(rows, next, from, scales, dim, to); break;
        default: accumulate_some_queries<Bits, 4>(rows, next, from, scales, dim, to); break;
        }
    }
}

/// As row_kernels wants them.
KVCRUSH_KERNEL void prepare_for_tiles(const row_kernels& self,
                                      const float* queries,
                                      std::size_t num_queries,
                                      std::size_t dim,
                                      float* prepared) noexcept {
    float* const turned = prepared + num_queries * tile_query_bytes(dim) / sizeof(float);
    self.turn(self, queries, num_queries, dim, turned);
    prepare_tile_queries(turned, num_queries, dim, reinterpret_cast<std::byte*>(prepared));
}

template <std::size_t Bits>
KVCRUSH_KERNEL void dots_of_tiles(const row_kernels& self,
                                  const tile_rows& rows,
                                  const float* prepared,
                                  std::size_t num_queries,
                                  std::size_t dim,
                                  float* out,
                                  float* scratch) noexcept {
    if (!rows.in_order) {
        const float* const turned = prepared + num_queries * tile_query_bytes(dim) / sizeof(float);
        return dots_of_decoded(self, rows, turned, num_queries, dim, out, scratch);
    }
    alignas(64) float scales[attend_tile];
    read_tile_scales<Bits>(rows, dim, scales);
    dot_queries<Bits>(
        rows, reinterpret_cast<const std::byte*>(prepared), num_queries, dim, scales, out);
}

template <std::size_t Bits>
KVCRUSH_KERNEL void accumulate_tiles(const row_kernels& self,
                                     const tile_rows& rows,
                                     const float* weights,
                                     std::size_t num_queries,
                                     std::size_t dim,
                                     float* sums,
                                     float* scratch) noexcept {
    if (!rows.in_order) {
        return accumulate_decoded(self, rows, weights, num_queries, dim, sums, scratch);
    }
    alignas(64) float scales[attend_tile];
    read_tile_scales<Bits>(rows, dim, scales);
    accumulate_queries<Bits>(rows, weights, num_queries, dim, scales, sums);
}

template <std::size_t Bits>
void take_tile_kernels(row_kernels& table) noexcept {
    table.prepared_size = prepared_size_for_tiles;
    table.prepare = prepare_for_tiles;
    table.dots = dots_of_tiles<Bits>;
    table.accumulate = accumulate_tiles<Bits>;
    table.decoding_from = (std::numeric_limits<std::size_t>::max)();
}
