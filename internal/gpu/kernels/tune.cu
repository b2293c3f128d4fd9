// Kernels for loading, for choosing matrix-product algorithms, and for tests.
//
//   fill_random: values in about -1..1 from a counter and a seed
//   count_differences: how many 32-bit words of a and b differ
//   narrow_<type>: n elements of a checkpoint's type to activations. They are the
//   elements first, first + 1 … of a matrix, which leaves a gap of `run` elements in
//   y after every `run` of its elements (0: none). *bad counts the elements that are
//   out of the type's range
#include "common.cuh"

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ void narrow(act *__restrict__ y, const T *__restrict__ x, int64_t first, int64_t n,
                                       int64_t run, unsigned long long *__restrict__ bad) {
  unsigned mine = 0;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t at = first + i;
    const act a = to_act(widen(x[i]));
    y[run ? at + at / run * run : at] = a;
    mine += !isfinite(to_float32(a));
  }
  mine = __reduce_add_sync(kFullWarp, mine);
  if (threadIdx.x % 32 == 0 && mine) atomicAdd(bad, (unsigned long long)mine);
}

#define NARROW(name, T)                                                                         \
  extern "C" __global__ void __launch_bounds__(256)                                             \
      name(act *__restrict__ y, const T *__restrict__ x, int64_t first, int64_t n, int64_t run, \
           unsigned long long *__restrict__ bad) {                                              \
    narrow(y, x, first, n, run, bad);                                                           \
  }
NARROW(narrow_float32, float)
NARROW(narrow_float16, __half)
NARROW(narrow_bfloat16, __nv_bfloat16)

extern "C" __global__ void __launch_bounds__(256)
    fill_random(act *__restrict__ p, int64_t n, unsigned seed, float scale) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    uint64_t z = (uint64_t(seed) << 40) + uint64_t(i) + 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    p[i] = to_act(scale * (float(int32_t(z >> 32)) * (1.0f / 2147483648.0f)));
  }
}

extern "C" __global__ void __launch_bounds__(256)
    count_differences(unsigned long long *__restrict__ count, const unsigned *__restrict__ a,
                      const unsigned *__restrict__ b, int64_t n) {
  unsigned mine = 0;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x)
    mine += a[i] != b[i];
  mine = __reduce_add_sync(kFullWarp, mine);
  if (threadIdx.x % 32 == 0 && mine) atomicAdd(count, (unsigned long long)mine);
}
