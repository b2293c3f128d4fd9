// Small device helpers that every kernel file shares.
#pragma once
#include "act.cuh"
#include <cstdint>

using bf16 = __nv_bfloat16;

constexpr unsigned kFullWarp = 0xffffffffu;

// Eight activations as they lie in 16 bytes.
struct alignas(16) Act8 {
  act2 v[4];
};

__device__ __forceinline__ void unpack8(const Act8 &p, float *f) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float2 a = to_floats(p.v[i]);
    f[2 * i] = a.x;
    f[2 * i + 1] = a.y;
  }
}

__device__ __forceinline__ Act8 pack8(const float *f) {
  Act8 p;
#pragma unroll
  for (int i = 0; i < 4; i++) p.v[i] = to_act2(f[2 * i], f[2 * i + 1]);
  return p;
}

// 16-byte loads that are read once and need not stay in L1.
__device__ __forceinline__ Act8 load8(const act *p) {
  uint4 u = __ldcs(reinterpret_cast<const uint4 *>(p));
  return *reinterpret_cast<Act8 *>(&u);
}

__device__ __forceinline__ void store8(act *p, const Act8 &v) { *reinterpret_cast<Act8 *>(p) = v; }

__device__ __forceinline__ float rcp_approx(float x) {
#ifdef SURPRISAL_EMULATE
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// sigmoid through one exp2 and one reciprocal, relative error below 1e-6; exp
// overflows to infinity, whose reciprocal is 0, the limit. NaN stays NaN.
__device__ __forceinline__ float sigmoidf(float x) { return rcp_approx(1.0f + __expf(-x)); }

__device__ __forceinline__ float siluf(float x) { return x * sigmoidf(x); }

// ln(1 + e^x): exact to fp32 rounding where it matters, e^x for very negative x
// (down to fp32's smallest) and x for large.
__device__ __forceinline__ float softplusf(float x) {
  const float e = __expf(-fabsf(x)); // in (0, 1]
  // ln(1+e): the plain logarithm loses e below 2^-24, a short series does not.
  const float l = e < 0.0078125f ? e * (1.0f - e * (0.5f - e * 0.33333334f)) : __logf(1.0f + e);
  return fmaxf(x, 0.0f) + l;
}

// Sum over a group of W lanes (a power of two), the same in every lane. The order
// is fixed.
template <int W>
__device__ __forceinline__ float group_sum(float x) {
#pragma unroll
  for (int d = W / 2; d > 0; d /= 2) x += __shfl_xor_sync(kFullWarp, x, d);
  return x;
}
