// SPDX-License-Identifier: Apache-2.0
#define KVCRUSH_DEFINE_INSTANCES
#include <kvcrush/kvcrush.hpp>
