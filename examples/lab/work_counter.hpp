// SPDX-License-Identifier: Apache-2.0
/// @file
/// How much of a long work is done, in pieces of different weight.
#pragma once

#include "experiment.hpp"

namespace lab {

/// Tells a step_callback, which has to live as long. Weights are those of pieces, so that a bar moves evenly.
class work_counter {
public:
    explicit work_counter(const step_callback& progress) : progress_(progress) {}

    void expect(double weight) { total_ += weight; }
    /// `part` of the work of that weight that is under way.
    void at(double weight, double part) const {
        if (progress_) {
            progress_(done_ + weight * part, total_);
        }
    }
    void finish(double weight) {
        done_ += weight;
        at(0.0, 0.0);
    }

private:
    const step_callback& progress_;
    double done_ = 0.0;
    double total_ = 0.0;
};

} // namespace lab
