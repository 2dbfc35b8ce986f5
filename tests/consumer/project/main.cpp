// SPDX-License-Identifier: Apache-2.0
#include "system_macros.hpp"

#include <kvcrush/kvcrush.hpp>

#include <cstdio>

using best_function = kvcrush::simd::isa (*)() noexcept;
best_function best_of_the_other_file() noexcept;

int main() {
    // Both files hold the inline function, the program holds it once.
    const bool same = best_of_the_other_file() == &kvcrush::simd::best;
    std::printf("kvcrush %d.%d.%d, %s\n",
                KVCRUSH_VERSION_MAJOR,
                KVCRUSH_VERSION_MINOR,
                KVCRUSH_VERSION_PATCH,
                kvcrush::simd::name_of(kvcrush::simd::best()));
    return same ? 0 : 1;
}
