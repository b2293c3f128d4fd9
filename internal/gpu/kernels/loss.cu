// Negative log-likelihood and arg-max from a slice of fp32 logits.
//
//   nll[r] = ln sum_v exp(l[r, v]) - l[r, target[r]],   v < vocab
//   top1[r] = arg-max of l[r] is target[r]; the lowest index wins a tie
//
//   logits [n, ld] fp32 (columns vocab..ld-1 are padding and never read),
//   rows [n]: the position each row scores; targets, nll, top1 [T]
//
// One block per row, in one pass: each thread keeps a running maximum, the sum of
// exponentials relative to it and the maximum's index over its columns; the block
// joins them in a fixed tree. A row with NaN results in NaN and top1 = 0.
//
// Roofline: reads 4 bytes a logit; a slice's logits come partly from L2. 1.0 ms
// for 32,768 x 32,000 at 4.2 TB/s.
#include "common.cuh"
#include <math_constants.h>

constexpr int kThreads = 512;

struct Running {
  float max, sum;
  int at;
};

__device__ __forceinline__ Running join(Running a, Running b) {
  // NaN maxima lose every comparison, so a NaN survives in the sum.
  const bool first = a.max > b.max || (a.max == b.max && a.at < b.at);
  const float m = first ? a.max : b.max;
  Running r;
  r.max = m;
  r.at = first ? a.at : b.at;
  const float ea = a.max == -CUDART_INF_F ? 0.0f : __expf(a.max - m),
              eb = b.max == -CUDART_INF_F ? 0.0f : __expf(b.max - m);
  r.sum = a.sum * ea + b.sum * eb;
  return r;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    nll_rows(float *__restrict__ nll, unsigned char *__restrict__ top1, const float *__restrict__ logits,
             const int *__restrict__ rows, const int *__restrict__ targets, int vocab, int64_t ld) {
  const float *l = logits + int64_t(blockIdx.x) * ld;
  Running a{-CUDART_INF_F, 0.0f, INT_MAX};
  bool nan = false;
  // Eight logits at a time: their maximum first, so that most steps rescale nothing.
  const int step = kThreads * 8;
  for (int c0 = threadIdx.x * 4; c0 < vocab; c0 += step) {
    float v[8];
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const int c = c0 + j * (kThreads * 4);
      if (c + 4 <= vocab) {
        const float4 f = __ldcs(reinterpret_cast<const float4 *>(l + c));
        v[4 * j] = f.x, v[4 * j + 1] = f.y, v[4 * j + 2] = f.z, v[4 * j + 3] = f.w;
      } else {
#pragma unroll
        for (int k = 0; k < 4; k++) v[4 * j + k] = c + k < vocab ? l[c + k] : -CUDART_INF_F;
      }
    }
    float m = a.max;
    int at = a.at;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const int c = c0 + (j / 4) * (kThreads * 4) + j % 4;
      nan |= v[j] != v[j];
      if (v[j] > m || (v[j] == m && c < at)) m = v[j], at = c;
    }
    if (m > a.max) {
      a.sum *= a.max == -CUDART_INF_F ? 0.0f : __expf(a.max - m);
      a.max = m;
    }
    a.at = at;
    if (a.max != -CUDART_INF_F) {
#pragma unroll
      for (int j = 0; j < 8; j++) a.sum += __expf(v[j] - a.max);
    }
  }
  __shared__ Running part[kThreads / 32];
  const bool any_nan = __syncthreads_or(nan);
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    Running b{__shfl_xor_sync(kFullWarp, a.max, d), __shfl_xor_sync(kFullWarp, a.sum, d),
              __shfl_xor_sync(kFullWarp, a.at, d)};
    // In both lanes of a pair the lower lane's part comes first.
    a = (threadIdx.x & d) ? join(b, a) : join(a, b);
  }
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = a;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < kThreads / 32; i++) a = join(a, part[i]);
    const int t = rows[blockIdx.x], goal = targets[t];
    nll[t] = any_nan ? CUDART_NAN_F : logf(a.sum) + (a.max - l[goal]);
    top1[t] = !any_nan && a.at == goal;
  }
}
