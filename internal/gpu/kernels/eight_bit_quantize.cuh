// To eight bits. The scale of numbers v is max |v| / 127, and q = v (127 / max |v|), rounded once to the nearest even
// integer. NaN among them must show in the scale: the callers see to it.
#pragma once
#include "common.cuh"

namespace eight {

// 1.5 2^23: added to a number up to 2^22, it leaves the rounded integer in the low bits.
constexpr float kToInteger = 12582912.f;

__device__ __forceinline__ float inverse_scale(float max) { return max > 1e-30f ? __fdiv_rn(127.f, max) : 0.f; }

__device__ __forceinline__ uint32_t quantize4(float a, float b, float c, float d, float inverse) {
  const uint32_t ab =
      __byte_perm(__float_as_uint(fmaf(a, inverse, kToInteger)), __float_as_uint(fmaf(b, inverse, kToInteger)), 0x0040);
  const uint32_t cd =
      __byte_perm(__float_as_uint(fmaf(c, inverse, kToInteger)), __float_as_uint(fmaf(d, inverse, kToInteger)), 0x0040);
  return __byte_perm(ab, cd, 0x5410);
}

// Over W lanes (a power of two), the same in each.
template <int W>
__device__ __forceinline__ float group_max(float x) {
#pragma unroll
  for (int d = W / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, d));
  return x;
}

// Where column c of the output is among the rows of w: eight_bit_endings.cuh says why. which: 0 for w1, 1 for w2.
enum Order { plain_order, residual_order, swiglu_order };
__host__ __device__ inline int position_plain(int c) { return c / 32 * 32 + c % 8 / 2 * 8 + c % 32 / 8 * 2 + c % 2; }
__host__ __device__ inline int position_residual(int c) { return c / 16 * 16 + c % 4 / 2 * 8 + c % 16 / 4 * 2 + c % 2; }
__host__ __device__ inline int position_swiglu(int c, int which) {
  const int o = c % 128 / 64 * 16 + c % 16;  // among a thread's 32
  return c / 128 * 256 + (o / 2 * 2 + which) * 8 + c % 64 / 16 * 2 + c % 2;
}

}  // namespace eight
