#pragma once
#include <functional>
#include <map>
#include <string>
#include <utility>

namespace emulator {

// Kernel is run thread by thread, or by a whole-grid replacement.
struct Kernel {
  std::function<void(void **)> thread;
  std::function<bool(unsigned gx, unsigned gy, unsigned block, unsigned shared, void **)> grid;
  int shared = 48 << 10;  // limit of its dynamic shared memory
};

std::map<std::string, Kernel> &registry();

template <typename... A, size_t... I>
void call(void (*fn)(A...), void **p, std::index_sequence<I...>) {
  fn(*static_cast<A *>(p[I])...);
}
template <typename... A>
bool add(const char *name, void (*fn)(A...)) {
  registry()[name].thread = [fn](void **p) { call(fn, p, std::index_sequence_for<A...>{}); };
  return true;
}

}  // namespace emulator
