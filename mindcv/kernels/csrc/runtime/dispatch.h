// The choice of the instruction set.
#pragma once

namespace mindcv {

// The name of the set in use.
const char* instruction_set();

// The sets that an operator may run on, best first, from the set in use to "generic"; null ends the list. An operator
// that was not compiled for the set in use runs on the next one.
const char* const* instruction_sets_in_use();

}  // namespace mindcv
