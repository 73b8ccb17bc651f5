// See prefix_race.cpp.
#pragma once

// Whether no look-up in a prefix table saw a part of a change.
bool prefixes_are_never_mixed(int swaps);
