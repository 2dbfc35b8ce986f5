// SPDX-License-Identifier: Apache-2.0
// Softmax, see simd/softmax.hpp; included by simd/detail/rungs/each.inl, behind exp_kernels.inl. Sums run in sixteen lanes
// on every rung and are added up in the same order.

/// Registers that hold sixteen lanes, and those that hold a tile of logits.
inline constexpr std::size_t num_sixteen = 16 / lanes;
inline constexpr std::size_t num_tile = key_tile / lanes;

/// How many of the lanes from `at` on lie below `end`.
KVCRUSH_PART std::size_t lanes_below(std::size_t end, std::size_t at) noexcept {
    return end > at ? end - at : 0;
}

KVCRUSH_KERNEL float row_max(const float* in, std::size_t size) noexcept {
    const ops::floats lowest = ops::all_floats(-std::numeric_limits<float>::infinity());
    // What is NaN gives the running maximum.
    ops::floats a = lowest;
    ops::floats b = lowest;
    std::size_t i = 0;
    for (; i + 2 * lanes <= size; i += 2 * lanes) {
        a = ops::larger(ops::load_floats(in + i), a);
        b = ops::larger(ops::load_floats(in + i + lanes), b);
    }
    for (; i < size; i += lanes) {
        a = ops::larger(ops::load_first(in + i, size - i, lowest), a);
    }
    return ops::largest_lane(ops::larger(a, b));
}

/// Replaces logits by e^(logit - largest) and adds them to a sum.
KVCRUSH_PART void exp_step(float* row, ops::floats largest, ops::floats& sum) noexcept {
    const ops::floats weights = exp_of(ops::subtract(ops::load_floats(row), largest));
    ops::store_floats(row, weights);
    sum = ops::add(sum, weights);
}
KVCRUSH_PART void
exp_tail(float* row, std::size_t count, ops::floats largest, ops::floats& sum) noexcept {
    if (count == 0) {
        return;
    }
    const ops::floats x = ops::subtract(ops::load_first(row, count, largest), largest);
    const ops::floats weights = ops::keep_first(count, exp_of(x));
    ops::store_first(row, count, weights);
    sum = ops::add(sum, weights);
}

/// At most softmax_block logits, in float. Is: registers of 32 lanes; Ss: those of 16.
template <std::size_t... Is, std::size_t... Ss>
KVCRUSH_PART void exp_block(float* row,
                            std::size_t size,
                            ops::floats largest,
                            double* sums,
                            std::index_sequence<Is...>,
                            std::index_sequence<Ss...>) noexcept {
    ops::floats parts[sizeof...(Is)] = {((void)Is, ops::all_floats(0.0F))...};
    std::size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        (exp_step(row + i + Is * lanes, largest, parts[Is]), ...);
    }
    (exp_tail(row + i + Is * lanes, lanes_below(size, i + Is * lanes), largest, parts[Is]), ...);
    const ops::floats sixteen[num_sixteen] = {ops::add(parts[Ss], parts[num_sixteen + Ss])...};
    ops::add_sixteen(sixteen, sums);
}

/// Replaces logits by e^(logit - largest). @return the sum of the results
KVCRUSH_KERNEL double exp_row(float* row, std::size_t size, float largest) noexcept {
    double sums[16] = {};
    for (std::size_t begin = 0; begin < size; begin += softmax_block) {
        exp_block(row + begin,
                  (std::min)(softmax_block, size - begin),
                  ops::all_floats(largest),
                  sums,
                  std::make_index_sequence<2 * num_sixteen>(),
                  std::make_index_sequence<num_sixteen>());
    }
    double sum = 0.0;
    for (const double lane : sums) {
        sum += lane;
    }
    return sum;
}

/// out[i] += factor * in[i]
KVCRUSH_KERNEL void
add_scaled(const float* in, float factor, float* out, std::size_t size) noexcept {
    const ops::floats times = ops::all_floats(factor);
    const ops::floats zero = ops::all_floats(0.0F);
    std::size_t i = 0;
    for (; i + lanes <= size; i += lanes) {
        ops::store_floats(
            out + i, ops::multiply_add(times, ops::load_floats(in + i), ops::load_floats(out + i)));
    }
    if (i < size) {
        ops::store_first(out + i,
                         size - i,
                         ops::multiply_add(times,
                                           ops::load_first(in + i, size - i, zero),
                                           ops::load_first(out + i, size - i, zero)));
    }
}

KVCRUSH_KERNEL void scale(float* row, float factor, std::size_t size) noexcept {
    const ops::floats times = ops::all_floats(factor);
    std::size_t i = 0;
    for (; i + lanes <= size; i += lanes) {
        ops::store_floats(row + i, ops::multiply(times, ops::load_floats(row + i)));
    }
    if (i < size) {
        const ops::floats rest = ops::load_first(row + i, size - i, ops::all_floats(0.0F));
        ops::store_first(row + i, size - i, ops::multiply(times, rest));
    }
}

KVCRUSH_KERNEL void softmax_row(float* row, std::size_t size) noexcept {
    scale(row, inverse_or_zero(exp_row(row, size, row_max(row, size))), size);
}
KVCRUSH_KERNEL void add_softmax_row(float* row, float* sums, std::size_t size) noexcept {
    add_scaled(row, inverse_or_zero(exp_row(row, size, row_max(row, size))), sums, size);
}

/// The logits that are seen of a register that lies at `at`, -infinity for the others. Where all are, masks would take a
/// tenth of the time.
template <bool All>
KVCRUSH_PART ops::floats load_seen(const float* row, std::size_t seen, std::size_t at) noexcept {
    if constexpr (All) {
        return ops::load_floats(row + at);
    } else {
        return ops::load_first(row + at,
                               lanes_below(seen, at),
                               ops::all_floats(-std::numeric_limits<float>::infinity()));
    }
}
/// The larger ones of a tile's logits and `than`, lane by lane; `than` for what is NaN.
template <bool All>
KVCRUSH_PART ops::floats
larger_seen(const float* row, std::size_t seen, ops::floats than) noexcept {
    for (std::size_t i = 0; i < key_tile; i += lanes) {
        than = ops::larger(load_seen<All>(row, seen, i), than);
    }
    return than;
}
/// What is added to the logits of a row, or nothing.
struct no_bias {
    KVCRUSH_PART ops::floats added_to(ops::floats x) const noexcept { return x; }
};
struct row_bias {
    ops::floats bias;
    KVCRUSH_PART ops::floats added_to(ops::floats x) const noexcept { return ops::add(x, bias); }
};
template <bool All, typename Bias>
KVCRUSH_PART ops::floats
exp_seen(float* row, std::size_t seen, std::size_t at, Bias bias, ops::floats largest) noexcept {
    const ops::floats x = bias.added_to(load_seen<All>(row, seen, at));
    const ops::floats weights = exp_of(ops::subtract(x, largest));
    ops::store_floats(row + at, weights);
    return weights;
}
/// Replaces a tile's logits by e^(logit + bias - largest), those that are not seen by 0.
/// @param[out] sixteen  their sums in sixteen lanes
template <bool All, typename Bias, std::size_t... Ss>
KVCRUSH_PART void exp_tile(float* row,
                           std::size_t seen,
                           Bias bias,
                           ops::floats largest,
                           ops::floats* sixteen,
                           std::index_sequence<Ss...>) noexcept {
    static_assert(key_tile == 64);
    const ops::floats low[] = {
        ops::add(exp_seen<All>(row, seen, Ss * lanes, bias, largest),
                 exp_seen<All>(row, seen, 16 + Ss * lanes, bias, largest))...};
    const ops::floats high[] = {
        ops::add(exp_seen<All>(row, seen, 32 + Ss * lanes, bias, largest),
                 exp_seen<All>(row, seen, 48 + Ss * lanes, bias, largest))...};
    ((sixteen[Ss] = ops::add(low[Ss], high[Ss])), ...);
}

template <bool All>
KVCRUSH_PART void softmax_tile_row(float* row, std::size_t count, softmax_state& state) noexcept {
    const ops::floats top =
        larger_seen<All>(row, count, ops::all_floats(-std::numeric_limits<float>::infinity()));
    float shrink = 1.0F;
    // After the first tiles a larger logit is rare: only then lanes are searched and sums scaled.
    if (ops::any_above(top, ops::all_floats(state.largest))) {
        const float largest = ops::largest_lane(top);
        float ratio[lanes];
        ops::store_floats(ratio, exp_of(ops::all_floats(state.largest - largest)));
        shrink = ratio[0];
        state.largest = largest;
    }
    ops::floats sixteen[num_sixteen];
    exp_tile<All>(row,
                  count,
                  no_bias(),
                  ops::all_floats(state.largest),
                  sixteen,
                  std::make_index_sequence<num_sixteen>());
    ops::add_eight(sixteen, shrink, state.sums.data());
}

template <bool All>
KVCRUSH_KERNEL void softmax_tile_rows(const softmax_tile_args& args) noexcept {
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        softmax_tile_row<All>(args.tile + r * key_tile, args.count, args.states[r]);
        args.largest[r] = args.states[r].largest;
    }
}
KVCRUSH_KERNEL void softmax_tile(const softmax_tile_args& args) noexcept {
    return args.count == key_tile ? softmax_tile_rows<true>(args) : softmax_tile_rows<false>(args);
}

template <std::size_t... Is>
KVCRUSH_PART void add_tile_columns(const add_tile_args& args, std::index_sequence<Is...>) noexcept {
    const ops::floats zero = ops::all_floats(0.0F);
    ops::floats added[num_tile] = {((void)Is, zero)...};
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        const ops::floats factor = ops::all_floats(args.factors[r]);
        const float* const row = args.tile + r * key_tile;
        ((added[Is] = ops::multiply_add(factor, ops::load_floats(row + Is * lanes), added[Is])),
         ...);
    }
    (ops::store_first(
         args.sums + Is * lanes,
         lanes_below(args.count, Is * lanes),
         ops::add(
             ops::load_first(args.sums + Is * lanes, lanes_below(args.count, Is * lanes), zero),
             added[Is])),
     ...);
}

KVCRUSH_KERNEL void add_tile(const add_tile_args& args) noexcept {
    add_tile_columns(args, std::make_index_sequence<num_tile>());
}
