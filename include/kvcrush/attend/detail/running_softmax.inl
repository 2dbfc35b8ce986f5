// SPDX-License-Identifier: Apache-2.0
// See attend/detail/running_softmax.hpp; included by simd/detail/rungs/each.inl.

namespace exponentials = ::kvcrush::simd::detail::KVCRUSH_ON;

/// A row in which something is seen.
template <bool All>
KVCRUSH_PART void run_softmax_of_row(const running_softmax_args& args, std::size_t r) noexcept {
    float* const row = args.logits + r * attend_tile;
    const std::size_t seen = args.seen[r];
    const float before = args.largest[r];
    const float here = ops::largest_lane(exponentials::larger_seen<All>(
                           row, seen, ops::all_floats(-std::numeric_limits<float>::infinity()))) +
                       args.bias[r];
    const float largest = here > before ? here : before;
    if (largest != before) {
        const float factor = simd::detail::exp_scalar(before - largest);
        args.largest[r] = largest;
        args.sum[r] *= factor;
        exponentials::scale(args.values + r * args.value_dim, factor, args.value_dim);
    }
    ops::floats sixteen[exponentials::num_sixteen];
    exponentials::exp_tile<All>(row,
                                seen,
                                exponentials::row_bias{ops::all_floats(args.bias[r])},
                                ops::all_floats(largest),
                                sixteen,
                                std::make_index_sequence<exponentials::num_sixteen>());
    args.sum[r] += ops::sum_of_sixteen(sixteen);
}

KVCRUSH_KERNEL void run_softmax(const running_softmax_args& args) noexcept {
    static_assert(attend_tile == simd::key_tile);
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        if (args.seen[r] == attend_tile) {
            run_softmax_of_row<true>(args, r);
        } else if (args.seen[r] > 0) {
            run_softmax_of_row<false>(args, r);
        } else { // there may be no largest logit yet
            std::fill_n(args.logits + r * attend_tile, attend_tile, 0.0F);
        }
    }
}
