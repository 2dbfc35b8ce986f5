// SPDX-License-Identifier: Apache-2.0
// Compiled by several tests, each with flags of its own.
#include <kvcrush/kvcrush.hpp>

#ifdef EIGEN_WORLD_VERSION
#    error "the umbrella includes Eigen"
#endif
