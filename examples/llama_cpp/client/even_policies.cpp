// SPDX-License-Identifier: Apache-2.0
#include "even_policies.hpp"

#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/text/catalogue.hpp>

#include "error.hpp"

#include <fmt/format.h>

#include <utility>

namespace client {

even_policies make_even(std::vector<lab::policy> policies) {
    even_policies result;
    for (lab::policy& own : policies) {
        kvcrush::recipe& how = own.how;
        std::string dropped;
        if (how.model_allocator) {
            dropped = how.model_allocator.policy_name();
            if (kvcrush::catalogue::whole_models::contains(dropped)) {
                lab::fail("policy ",
                          lab::in_quotes(own.text),
                          " chooses another number of rows for each head; llama.cpp's state "
                          "has one number for all; allowed: policies that score tokens");
            }
        } else if (how.allocator.policy_name() != kvcrush::uniform_allocator::name) {
            dropped = how.allocator.policy_name();
        }
        if (!dropped.empty()) {
            how.allocator = kvcrush::uniform_allocator{};
            how.model_allocator = {};
            result.notes.push_back(fmt::format(
                "{}: every head keeps as many rows, as llama.cpp's state demands, not what {} says",
                own.text,
                dropped));
        }
        if (how.rows.encodes()) {
            result.notes.push_back(fmt::format("{}: its codecs' loss is in the cells, their size "
                                               "is not; MiB: as the library would hold them",
                                               own.text));
        }
    }
    result.policies = std::move(policies);
    return result;
}

} // namespace client
