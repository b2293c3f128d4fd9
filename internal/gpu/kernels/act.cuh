// The type of activations and of the weights of matrix products: fp16, which
// rounds eight times finer than bf16 at the same speed on tensor cores. Weights
// beyond its range are refused at load; activations beyond it result in a score
// that is not finite. The residual stream, sums and states are fp32. bf16 is for
// measurements: build with -DSURPRISAL_BF16.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#ifdef SURPRISAL_BF16
using act = __nv_bfloat16;
using act2 = __nv_bfloat162;
__device__ __forceinline__ act2 to_act2(float a, float b) { return __floats2bfloat162_rn(a, b); }
__device__ __forceinline__ float2 to_floats(act2 v) { return __bfloat1622float2(v); }
__device__ __forceinline__ act to_act(float x) { return __float2bfloat16(x); }
__device__ __forceinline__ float to_float32(act x) { return __bfloat162float(x); }
#else
using act = __half;
using act2 = __half2;
__device__ __forceinline__ act2 to_act2(float a, float b) { return __floats2half2_rn(a, b); }
__device__ __forceinline__ float2 to_floats(act2 v) { return __half22float2(v); }
__device__ __forceinline__ act to_act(float x) { return __float2half_rn(x); }
__device__ __forceinline__ float to_float32(act x) { return __half2float(x); }
#endif

// within_half clamps a number to fp16's range; NaN stays NaN, so that it shows in the score.
__device__ __forceinline__ float within_half(float x) {
#ifdef SURPRISAL_EMULATE
  return x != x ? x : x < -65504.f ? -65504.f : x > 65504.f ? 65504.f : x;
#else
  float y;
  asm("max.NaN.f32 %0, %1, 0fC77FE000;\n\tmin.NaN.f32 %0, %0, 0f477FE000;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// pack_half clamps two numbers as within_half does and rounds them to fp16, a in the low half; one instruction.
__device__ __forceinline__ unsigned pack_half(float a, float b) {
#ifdef SURPRISAL_EMULATE
  const __half2 h = __floats2half2_rn(within_half(a), within_half(b));
  return *reinterpret_cast<const unsigned *>(&h);
#else
  unsigned h;
  asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(h) : "f"(b), "f"(a));
  return h;
#endif
}
