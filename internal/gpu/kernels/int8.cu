// The engine's eight-bit steps that need no Hopper instructions.
//
//   rms_norm_s8_<NC>, _wide  y[r] s[r] = RMSNorm(x[r]) w: s8, a scale for each row; x [T, D] fp32, D a multiple of 4
//   quantize_blocks          x [T, C] act, s8 with a scale for each 128 columns of a row, ys [C / 128, M]
//   quantize_rows            weights [N, K] act, s8 with a scale for each row, in the order that a product wants
//   s8_plain, s8_swiglu,     what int8_product.cu computes, one element a thread: for GPUs without wgmma, and for the
//   s8_residual              emulator. Equal to the bit, since the sums are integers, but for the exponential
//
// In the norm v is x w; what the row is divided by is in its scale alone. A row with NaN or infinity gets a scale that
// is not finite, and so do the numbers computed from it.
#include "eight_bit_quantize.cuh"

namespace {

constexpr int kWarps = 8;  // rows of a block

__device__ __forceinline__ float4 times(float4 a, float4 b) {
  return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}
__device__ __forceinline__ float max4(float4 v) {
  return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}
__device__ __forceinline__ float square4(float4 v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }
__device__ __forceinline__ float4 load4(const float *p) { return *reinterpret_cast<const float4 *>(p); }
__device__ __forceinline__ void store4(int8_t *p, float4 v, float inverse) {
  *reinterpret_cast<uint32_t *>(p) = eight::quantize4(v.x, v.y, v.z, v.w, inverse);
}
__device__ __forceinline__ float norm_scale(float max, float square, int D, float eps) {
  return max * (rsqrtf(square / float(D) + eps) / 127.f);
}

// One warp for each row of up to 128 NC numbers, kept in registers.
template <int NC>
__device__ __forceinline__ void norm_rows(int8_t *y, float *scales, const float *x, const float *w, int n, int D,
                                          float eps) {
  const int r = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (r >= n) return;
  const float4 zero = make_float4(0, 0, 0, 0);
  float4 v[NC];
#pragma unroll
  for (int i = 0; i < NC; i++) {
    const int c = i * 128 + lane * 4;
    v[i] = c < D ? load4(x + int64_t(r) * D + c) : zero;
  }
  float square = 0, max = 0;
#pragma unroll
  for (int i = 0; i < NC; i++) {
    const int c = i * 128 + lane * 4;
    square += square4(v[i]);
    v[i] = times(v[i], c < D ? load4(w + c) : zero);
    max = fmaxf(max, max4(v[i]));
  }
  max = eight::group_max<32>(max), square = group_sum<32>(square);
  const float inverse = eight::inverse_scale(max);
  if (lane == 0) scales[r] = norm_scale(max, square, D, eps);
#pragma unroll
  for (int i = 0; i < NC; i++) {
    const int c = i * 128 + lane * 4;
    if (c < D) store4(y + int64_t(r) * D + c, v[i], inverse);
  }
}

__device__ __forceinline__ int product_of(const int8_t *x, const int8_t *w, int from, int to) {
  int s = 0;
  for (int k = from; k < to; k++) s += int(x[k]) * int(w[k]);
  return s;
}

}  // namespace

#define NORM(NC)                                                                                        \
  extern "C" __global__ void __launch_bounds__(32 * kWarps)                                             \
      rms_norm_s8_##NC(int8_t *__restrict__ y, float *__restrict__ scales, const float *__restrict__ x, \
                       const float *__restrict__ w, int n, int D, float eps) {                          \
    norm_rows<NC>(y, scales, x, w, n, D, eps);                                                          \
  }
NORM(4)
NORM(8)
NORM(18)
NORM(32)

extern "C" __global__ void __launch_bounds__(32 * kWarps)
    rms_norm_s8_wide(int8_t *__restrict__ y, float *__restrict__ scales, const float *__restrict__ x,
                     const float *__restrict__ w, int n, int D, float eps) {
  const int r = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (r >= n) return;
  const float *in = x + int64_t(r) * D;
  float square = 0, max = 0;
  for (int c = lane * 4; c < D; c += 128) {
    const float4 v = load4(in + c);
    square += square4(v), max = fmaxf(max, max4(times(v, load4(w + c))));
  }
  max = eight::group_max<32>(max), square = group_sum<32>(square);
  const float inverse = eight::inverse_scale(max);
  if (lane == 0) scales[r] = norm_scale(max, square, D, eps);
  for (int c = lane * 4; c < D; c += 128) store4(y + int64_t(r) * D + c, times(load4(in + c), load4(w + c)), inverse);
}

// 16 lanes for each block of 128 columns; C a multiple of 128.
extern "C" __global__ void __launch_bounds__(256)
    quantize_blocks(int8_t *__restrict__ y, float *__restrict__ ys, const act *__restrict__ x, int T, int C, int M) {
  const int64_t b = (int64_t(blockIdx.x) * 256 + threadIdx.x) / 16;
  const int lane = threadIdx.x % 16, columns = C / 128;
  const bool here = b < int64_t(T) * columns;
  float v[8] = {}, max = 0, sum = 0;
  if (here) unpack8(load8(x + b * 128 + lane * 8), v);
#pragma unroll
  for (int e = 0; e < 8; e++) max = fmaxf(max, fabsf(v[e])), sum += v[e];
  max = eight::group_max<16>(max), sum = group_sum<16>(sum);
  if (!here) return;
  const float inverse = eight::inverse_scale(max);
  if (lane == 0) ys[b % columns * M + b / columns] = sum != sum ? sum : max / 127.f;  // infinity shows by itself
  uint2 q;
  q.x = eight::quantize4(v[0], v[1], v[2], v[3], inverse), q.y = eight::quantize4(v[4], v[5], v[6], v[7], inverse);
  *reinterpret_cast<uint2 *>(y + b * 128 + lane * 8) = q;
}

// One warp for each row; K a multiple of 8. For swiglu_order the first half of the rows is w1.
extern "C" __global__ void __launch_bounds__(32 * kWarps)
    quantize_rows(int8_t *__restrict__ y, float *__restrict__ scales, const act *__restrict__ w, int N, int K,
                  int order) {
  const int r = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (r >= N) return;
  const act *in = w + int64_t(r) * K;
  float max = 0, v[8];
  for (int c = lane * 8; c < K; c += 256) {
    unpack8(load8(in + c), v);
#pragma unroll
    for (int e = 0; e < 8; e++) max = fmaxf(max, fabsf(v[e]));
  }
  max = eight::group_max<32>(max);
  const float inverse = eight::inverse_scale(max);
  const int64_t to = order == eight::plain_order      ? eight::position_plain(r)
                     : order == eight::residual_order ? eight::position_residual(r)
                                                      : eight::position_swiglu(r % (N / 2), r / (N / 2));
  if (lane == 0) scales[to] = max / 127.f;
  for (int c = lane * 8; c < K; c += 256) {
    unpack8(load8(in + c), v);
    uint2 q;
    q.x = eight::quantize4(v[0], v[1], v[2], v[3], inverse), q.y = eight::quantize4(v[4], v[5], v[6], v[7], inverse);
    *reinterpret_cast<uint2 *>(y + to * K + c) = q;
  }
}

// y [M, N] fp16.
extern "C" __global__ void __launch_bounds__(256)
    s8_plain(act *__restrict__ y, const int8_t *__restrict__ x, const float *__restrict__ rs,
             const int8_t *__restrict__ w, const float *__restrict__ cs, int M, int N, int K) {
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i >= int64_t(M) * N) return;
  const int row = int(i / N), p = eight::position_plain(int(i % N));
  y[i] = to_act(float(product_of(x + int64_t(row) * K, w + int64_t(p) * K, 0, K)) * rs[row] * cs[p]);
}

// r [M, N] fp32 +=; xs [K / 128, stride].
extern "C" __global__ void __launch_bounds__(256)
    s8_residual(float *__restrict__ r, const int8_t *__restrict__ x, const float *__restrict__ xs,
                const int8_t *__restrict__ w, const float *__restrict__ cs, int M, int N, int K, int stride) {
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i >= int64_t(M) * N) return;
  const int row = int(i / N), p = eight::position_residual(int(i % N));
  float s = 0;
  for (int k = 0; k < K; k += 128)
    s = fmaf(float(product_of(x + int64_t(row) * K, w + int64_t(p) * K, k, min(K, k + 128))),
             xs[int64_t(k / 128) * stride + row], s);
  r[i] = __fadd_rn(r[i], __fmul_rn(s, cs[p]));
}

// y [M, I] s8, ys [I / 128, stride]; one warp for 128 columns of a row, blocks: M ceil(I / 128).
extern "C" __global__ void __launch_bounds__(32 * kWarps)
    s8_swiglu(int8_t *__restrict__ y, float *__restrict__ ys, const int8_t *__restrict__ x,
              const float *__restrict__ rs, const int8_t *__restrict__ w, const float *__restrict__ cs, int M, int I,
              int K, int stride) {
  const int64_t b = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32, blocks = (I + 127) / 128, first = int(b % blocks) * 128 + lane * 4;
  const int64_t row = b / blocks;
  if (row >= M) return;
  const float r = rs[row];
  float v[4] = {}, max = 0;
  for (int e = 0; e < 4 && first + e < I; e++) {
    const int p1 = eight::position_swiglu(first + e, 0), p2 = eight::position_swiglu(first + e, 1);
    const float a = float(product_of(x + row * K, w + int64_t(p1) * K, 0, K)) * cs[p1];
    const float g = float(product_of(x + row * K, w + int64_t(p2) * K, 0, K)) * cs[p2];
    v[e] = a * g * rcp_approx(1.f + exp2_approx(fminf(a * (r * -1.44269504f), 57.f)));
    max = fmaxf(max, fabsf(v[e]));
  }
  max = eight::group_max<32>(max);
  if (lane == 0) ys[b % blocks * stride + row] = max * (r * r / 127.f);
  if (first < I)
    *reinterpret_cast<uint32_t *>(y + row * I + first) =
        eight::quantize4(v[0], v[1], v[2], v[3], eight::inverse_scale(max));
}
