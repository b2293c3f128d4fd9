// Quantizers for the operands of eight_bit_product.cuh.
//
//   norm_rows        RMSNorm of fp32 rows to s8, a scale for each row: y[r] s = x[r] / sqrt(mean(x[r]^2) + eps) w
//   quantize_blocks  fp16 [T, C] to s8, a scale for each 128 columns of a row, ys [C / 128, M]
//   quantize_rows    weights fp32 [N, K] to s8, a scale for each row; row r goes to position[r]
//
// The scale is max |v| / 127, and q = v (127 / max |v|), rounded once to the nearest even integer. In norm_rows v is
// x w; the root mean square is part of the scale only. A row with NaN or infinity gets a scale that is not finite.
#pragma once
#include "../common.cuh"
#include <math_constants.h>

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
__device__ __forceinline__ float max4(float4 v) {
  return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}
template <int W>
__device__ __forceinline__ float group_max(float x) {
#pragma unroll
  for (int d = W / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, d));
  return x;
}

// One warp for each row; D at most 128 NC, a multiple of 4.
template <int NC>
__global__ void __launch_bounds__(256)
    norm_rows(int8_t *__restrict__ y, float *__restrict__ scales, const float *__restrict__ x,
              const float *__restrict__ w, int n, int D, float eps) {
  const int r = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (r >= n) return;
  float4 v[NC];
  float square = 0, max = 0;
#pragma unroll
  for (int i = 0; i < NC; i++) {
    const int c = i * 128 + lane * 4;
    v[i] = c < D ? *reinterpret_cast<const float4 *>(x + int64_t(r) * D + c) : make_float4(0, 0, 0, 0);
  }
#pragma unroll
  for (int i = 0; i < NC; i++) {
    const int c = i * 128 + lane * 4;
    square += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
    const float4 u = c < D ? *reinterpret_cast<const float4 *>(w + c) : make_float4(0, 0, 0, 0);
    v[i].x *= u.x, v[i].y *= u.y, v[i].z *= u.z, v[i].w *= u.w;
    max = fmaxf(max, max4(v[i]));
  }
  max = group_max<32>(max);
  const float inverse = inverse_scale(max);
  square = group_sum<32>(square);
  if (lane == 0) scales[r] = max * (rsqrtf(square / float(D) + eps) / 127.f);
#pragma unroll
  for (int i = 0; i < NC; i++) {
    const int c = i * 128 + lane * 4;
    if (c < D)
      *reinterpret_cast<uint32_t *>(y + int64_t(r) * D + c) = quantize4(v[i].x, v[i].y, v[i].z, v[i].w, inverse);
  }
}

// 16 lanes for each block of 128 columns. blocks: T C / 128.
__global__ void __launch_bounds__(256) quantize_blocks(int8_t *__restrict__ y, float *__restrict__ ys,
                                                       const __half *__restrict__ x, int64_t blocks, int C, int64_t M) {
  const int64_t b = (int64_t(blockIdx.x) * 256 + threadIdx.x) / 16;
  const int lane = threadIdx.x % 16;
  float v[8] = {};
  if (b < blocks) {
    const uint4 u = *reinterpret_cast<const uint4 *>(x + b * 128 + lane * 8);
    const uint32_t words[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const float2 f = __half22float2(*reinterpret_cast<const __half2 *>(&words[e]));
      v[2 * e] = f.x, v[2 * e + 1] = f.y;
    }
  }
  float max = 0;
  bool bad = false;
#pragma unroll
  for (int e = 0; e < 8; e++) max = fmaxf(max, fabsf(v[e])), bad |= v[e] != v[e];
  max = group_max<16>(bad ? CUDART_INF_F : max);
  if (b >= blocks) return;
  const float inverse = inverse_scale(max);
  if (lane == 0) ys[b % (C / 128) * M + b / (C / 128)] = max / 127.f;
  *reinterpret_cast<uint2 *>(y + b * 128 + lane * 8) =
      make_uint2(quantize4(v[0], v[1], v[2], v[3], inverse), quantize4(v[4], v[5], v[6], v[7], inverse));
}

// One warp for each row; K a multiple of 4.
__global__ void __launch_bounds__(256)
    quantize_rows(int8_t *__restrict__ y, float *__restrict__ scales, const float *__restrict__ w,
                  const int *__restrict__ position, int N, int K) {
  const int r = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (r >= N) return;
  const float *in = w + int64_t(r) * K;
  float max = 0;
  for (int c = lane * 4; c < K; c += 128) max = fmaxf(max, max4(*reinterpret_cast<const float4 *>(in + c)));
  max = group_max<32>(max);
  const float inverse = inverse_scale(max);
  const int64_t to = position[r];
  if (lane == 0) scales[to] = max / 127.f;
  for (int c = lane * 4; c < K; c += 128) {
    const float4 v = *reinterpret_cast<const float4 *>(in + c);
    *reinterpret_cast<uint32_t *>(y + to * K + c) = quantize4(v.x, v.y, v.z, v.w, inverse);
  }
}

}  // namespace eight
