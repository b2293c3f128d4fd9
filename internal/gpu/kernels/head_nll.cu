// The head's product and the negative log-likelihood of its rows, without logits in memory; sm_90a.
//
//   l = x [M, K] w [V, K]^T
//   nll[r] = ln sum_v exp(l[r, v]) - l[r, target[r]],   top1[r] = arg-max of l[r] is target[r]
// The lowest index wins a tie.
//
// head_nll: product.cuh's tiles of 256 logits, each reduced in registers to the row's maximum and the sum of
// exponentials relative to it (part [tiles, M]) and, in the target's tile, the target's logit and whether another logit
// of the tile is larger (goal [M]). nll_join: one warp per row joins the tiles in a fixed order. A row with NaN results
// in NaN and top1 = 0.
//
// rows [n]: the position that each row of x scores; targets, nll, top1 [T]. Rows n..M-1 are computed and ignored.
// Launch: head_nll as product.cuh says, 198,656 bytes; nll_join 256 threads, 8 rows.
//
// Roofline: 32,768 x 32,000 x 2304: 4.83 TFLOP, 6.8 ms at 710 TFLOP/s. The kernel avoids moving 4.2 GB of logits twice,
// 2 ms at 4.2 TB/s.
#include "product.cuh"
#include <math_constants.h>

static_assert(product::shared_bytes(0) == 198656, "the launch says so");

namespace head {

constexpr float kLog2e = 1.4426950408889634f;

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

struct Reduce {
  float2 *part, *goal;
  const int *rows, *targets;
  int n, M, vocab;
  int target[2];  // of this thread's two rows; -1: none

  __device__ __forceinline__ void begin(const product::Place &at, product::Tile t) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int r = t.rows + at.row() + 8 * h;
      target[h] = r < n ? targets[rows[r]] : -1;
    }
  }

  __device__ __forceinline__ void finish(float (&d)[128], const product::Place &at, product::Tile t) {
    if (t.columns + product::kN > vocab) {
#pragma unroll
      for (int i = 0; i < 128; i++)
        if (t.columns + i / 4 * 8 + 2 * at.quad + i % 2 >= vocab) d[i] = -CUDART_INF_F;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int r = t.rows + at.row() + 8 * h;
      float m[2] = {d[2 * h], d[2 * h + 1]};
#pragma unroll
      for (int j = 1; j < 32; j++) m[0] = fmaxf(m[0], d[4 * j + 2 * h]), m[1] = fmaxf(m[1], d[4 * j + 2 * h + 1]);
      float max = fmaxf(m[0], m[1]);
      max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 1));
      max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 2));
      float s[4] = {};
#pragma unroll
      for (int j = 0; j < 32; j++) {
        s[j % 2 * 2] += exp2_approx((d[4 * j + 2 * h] - max) * kLog2e);
        s[j % 2 * 2 + 1] += exp2_approx((d[4 * j + 2 * h + 1] - max) * kLog2e);
      }
      float sum = (s[0] + s[1]) + (s[2] + s[3]);
      sum += __shfl_xor_sync(kFullWarp, sum, 1);
      sum += __shfl_xor_sync(kFullWarp, sum, 2);
      if (at.quad == 0) part[int64_t(t.columns / product::kN) * M + r] = make_float2(max, sum);
      const int c = target[h] - t.columns;
      const bool here = c >= 0 && c < product::kN && target[h] >= 0;
      if (__any_sync(kFullWarp, here)) {
        float l = 0.f;
#pragma unroll
        for (int j = 0; j < 32; j++)
#pragma unroll
          for (int e = 0; e < 2; e++)
            if (8 * j + 2 * at.quad + e == c) l = d[4 * j + 2 * h + e];
        l += __shfl_xor_sync(kFullWarp, l, 1);  // the other lanes of the four have 0
        l += __shfl_xor_sync(kFullWarp, l, 2);
        bool beaten = false;
#pragma unroll
        for (int j = 0; j < 32; j++)
#pragma unroll
          for (int e = 0; e < 2; e++)
            beaten |= 8 * j + 2 * at.quad + e < c ? d[4 * j + 2 * h + e] >= l : d[4 * j + 2 * h + e] > l;
        const unsigned all = __ballot_sync(kFullWarp, beaten) >> (at.lane & ~3) & 15;
        if (here && at.quad == 0) goal[r] = make_float2(l, all ? 1.f : 0.f);
      }
    }
  }

  __device__ __forceinline__ void end(const product::Place &) {}
};

}  // namespace head

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
    head_nll(const CUtensorMap *maps, float2 *part, float2 *goal, const int *rows, const int *targets, int n, int pairs,
             int vocab, int K) {
  product::run(maps, pairs, vocab, K, head::Reduce{part, goal, rows, targets, n, pairs * 2 * product::kM, vocab, {}});
}

extern "C" __global__ void __launch_bounds__(256)
    nll_join(float *__restrict__ nll, unsigned char *__restrict__ top1, const float2 *__restrict__ part,
             const float2 *__restrict__ goal, const int *__restrict__ rows, const int *__restrict__ targets, int n,
             int M, int tiles) {
  const int r = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (r >= n) return;
  const int position = rows[r], home = targets[position] / product::kN;
  const float2 g = goal[r];
  float max = -CUDART_INF_F;
  bool beaten = g.y != 0.f;
  for (int t = lane; t < tiles; t += 32) {
    const float m = part[int64_t(t) * M + r].x;
    max = fmaxf(max, m);
    beaten |= t < home ? m >= g.x : t > home && m > g.x;
  }
#pragma unroll
  for (int i = 16; i > 0; i /= 2) max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, i));
  float sum = 0.f;
  for (int t = lane; t < tiles; t += 32) {
    const float2 p = part[int64_t(t) * M + r];
    sum += p.y * head::exp2_approx((p.x - max) * head::kLog2e);
  }
  sum = group_sum<32>(sum);
  beaten = __any_sync(kFullWarp, beaten);
  if (lane == 0) {
    nll[position] = logf(sum) + (max - g.x);
    top1[position] = sum == sum && !beaten;
  }
}
