// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/kvcrush.hpp>

using best_function = kvcrush::simd::isa (*)() noexcept;
best_function best_of_the_other_file() noexcept;

best_function best_of_the_other_file() noexcept { return &kvcrush::simd::best; }
