// The parts of CUDA C++ that this project's kernels without tensor-core instructions
// use, for a host compiler. A thread is a fiber; see fibers.cc.
#pragma once
#define SURPRISAL_EMULATE 1

#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <algorithm>

#include <cuda_runtime_api.h>  // vector types
#include <vector_functions.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

using std::isfinite;
using std::max;
using std::min;

namespace emulator {

struct Thread {
  uint3 index;
  int rank;
};
extern Thread *current;
extern uint3 block_index;
extern dim3 block_size, grid_size;

void block_barrier();
bool block_or(bool);
// exchange returns the arguments of all lanes of the warp, by lane.
const uint64_t *exchange(uint64_t mine);

}  // namespace emulator

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)

inline void __syncthreads() { emulator::block_barrier(); }
inline int __syncthreads_or(int x) { return emulator::block_or(x); }
template <typename T>
inline T __shfl_xor_sync(unsigned, T x, int d) {
  uint64_t u = 0;
  memcpy(&u, &x, sizeof x);
  u = emulator::exchange(u)[emulator::current->rank % 32 ^ d];
  memcpy(&x, &u, sizeof x);
  return x;
}
template <typename T>
inline T __shfl_sync(unsigned, T x, int from, int width = 32) {
  uint64_t u = 0;
  memcpy(&u, &x, sizeof x);
  u = emulator::exchange(u)[emulator::current->rank % 32 & -width | from & width - 1];
  memcpy(&x, &u, sizeof x);
  return x;
}
inline unsigned __ballot_sync(unsigned, bool x) {
  const uint64_t *all = emulator::exchange(x);
  unsigned s = 0;
  for (int i = 0; i < 32; i++) s |= unsigned(all[i]) << i;
  return s;
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline void __syncwarp() { emulator::exchange(0); }
inline unsigned __reduce_add_sync(unsigned, unsigned x) {
  const uint64_t *all = emulator::exchange(x);
  unsigned s = 0;
  for (int i = 0; i < 32; i++) s += unsigned(all[i]);
  return s;
}
template <typename T>
inline T atomicAdd(T *p, T v) {
  T old = *p;
  *p += v;
  return old;
}
template <typename T>
inline T __ldcs(const T *p) {
  return *p;
}
template <typename T>
inline void __stcs(T *p, T v) {
  *p = v;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which) {
  const uint64_t both = uint64_t(b) << 32 | a;
  unsigned out = 0;
  for (int i = 0; i < 4; i++) out |= unsigned(both >> 8 * (which >> 4 * i & 7) & 255) << 8 * i;
  return out;
}
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __uint_as_float(unsigned u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
inline float __int_as_float(int u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
inline unsigned __float_as_uint(float f) {
  unsigned u;
  memcpy(&u, &f, 4);
  return u;
}
