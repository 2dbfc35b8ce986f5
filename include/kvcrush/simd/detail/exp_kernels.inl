// SPDX-License-Identifier: Apache-2.0
// Exponentials, see simd/exp.hpp; included by simd/detail/rungs/each.inl.

inline constexpr std::size_t lanes = ops::width / 4;

/// e^x for x <= exp_highest; 0 for NaN and below exp_lowest.
KVCRUSH_PART ops::floats exp_of(ops::floats x) noexcept {
    const ops::floats lowest = ops::all_floats(exp_lowest);
    const ops::floats rounder = ops::all_floats(exp_rounder);
    const ops::floats bounded = ops::larger(x, lowest); // what counts for nothing would overflow
    const ops::floats shifted = ops::multiply_add(bounded, ops::all_floats(exp_log2e), rounder);
    const ops::floats n = ops::subtract(shifted, rounder);
    ops::floats r = ops::multiply_add(n, ops::all_floats(-exp_ln2_high), bounded);
    r = ops::multiply_add(n, ops::all_floats(-exp_ln2_low), r);
    ops::floats p = ops::all_floats(exp_c6);
    p = ops::multiply_add(p, r, ops::all_floats(exp_c5));
    p = ops::multiply_add(p, r, ops::all_floats(exp_c4));
    p = ops::multiply_add(p, r, ops::all_floats(exp_c3));
    p = ops::multiply_add(p, r, ops::all_floats(exp_c2));
    p = ops::multiply_add(p, r, ops::all_floats(1.0F));
    p = ops::multiply_add(p, r, ops::all_floats(1.0F));
    return ops::keep_from(lowest, x, ops::times_power_of_two(p, shifted));
}

KVCRUSH_PART ops::floats exp_of_any(ops::floats x) noexcept {
    // A NaN stays one, and gives 0.
    return exp_of(
        ops::larger(ops::all_floats(exp_least), ops::smaller(ops::all_floats(exp_highest), x)));
}

KVCRUSH_KERNEL void exp_many(const exp_args& args) noexcept {
    std::size_t i = 0;
    for (; i + lanes <= args.size; i += lanes) {
        ops::store_floats(args.out + i, exp_of_any(ops::load_floats(args.in + i)));
    }
    if (i < args.size) {
        const std::size_t rest = args.size - i;
        const ops::floats x = ops::load_first(args.in + i, rest, ops::all_floats(0.0F));
        ops::store_first(args.out + i, rest, exp_of_any(x));
    }
}
