#pragma once
#include <functional>

namespace emulator {
// run_block calls fn once in every thread of a block.
bool run_block(int threads, const std::function<void()> &fn);
}  // namespace emulator
