// gdn2_simple: the GDN-2 recurrence token by token with the gated output norm; plain and slow, for any GPU. The fast
// kernels are tested against it.
//
// One block per (value head, document), one thread per value channel v, which keeps column v of S [K, V] in registers,
// fp32:
//   s_i <- exp(g_i) s_i;  u = wv_v - sum_i bk_i s_i;  s_i <- s_i + k_i u
//   o_v = scale sum_i q_i s_i;  y_v = o_v rsqrt(mean o^2 + eps) o_norm_v silu(gate_v)
// Shapes, layouts, launch: docs/kernels/gdn2_api.md. The recurrence is stated in gdn2_recurrence.cuh.
#include "gdn2_recurrence.cuh"

namespace gdn2 {

template <typename E, int K>
__device__ __forceinline__ void simple(const E *__restrict__ q, const E *__restrict__ k, const E *__restrict__ bk,
                                       const E *__restrict__ wv, const __half *__restrict__ g,
                                       const act *__restrict__ gate, const float *__restrict__ o_norm,
                                       act *__restrict__ y, const int *__restrict__ cu_seqlens,
                                       const float *const *state_in, float *const *state_out, int64_t state_offset,
                                       int H, int HV, float scale, float eps) {
  __shared__ float sq[K], sk[K], sb[K], se[K], part[8];
  const int V = blockDim.x, v = threadIdx.x, hv = blockIdx.x, doc = blockIdx.y, h = hv / (HV / H);
  const int begin = cu_seqlens[doc], end = cu_seqlens[doc + 1];
  float s[K];
  const float *in = state_at(state_in, doc, state_offset);
#pragma unroll
  for (int i = 0; i < K; i++) s[i] = in ? in[(int64_t(hv) * K + i) * V + v] : 0.f;
  const float weight = o_norm[v];
  for (int t = begin; t < end; t++) {
    __syncthreads();
    for (int i = v; i < K; i += V) {
      const int64_t at = (int64_t(t) * H + h) * K + i;
      sq[i] = to_float(q[at]), sk[i] = to_float(k[at]), sb[i] = to_float(bk[at]), se[i] = expf(__half2float(g[at]));
    }
    __syncthreads();
    const int64_t at = (int64_t(t) * HV + hv) * V + v;
    float u[4] = {to_float(wv[at]), 0.f, 0.f, 0.f}, o[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
    for (int i = 0; i < K; i++) s[i] *= se[i], u[i % 4] -= sb[i] * s[i];
    const float ut = (u[0] + u[1]) + (u[2] + u[3]);
#pragma unroll
    for (int i = 0; i < K; i++) s[i] += sk[i] * ut, o[i % 4] += sq[i] * s[i];
    const float ot = scale * ((o[0] + o[1]) + (o[2] + o[3]));
    float sum = ot * ot;
#pragma unroll
    for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
    if (v % 32 == 0) part[v / 32] = sum;
    __syncthreads();
    sum = 0.f;
    for (int i = 0; i < V / 32; i++) sum += part[i];
    y[at] = to_act(ot * rsqrtf(sum / V + eps) * weight * silu(to_float32(gate[at])));
  }
  float *out = state_at(state_out, doc, state_offset);
  if (out) {
#pragma unroll
    for (int i = 0; i < K; i++) out[(int64_t(hv) * K + i) * V + v] = s[i];
  }
}

// o_raw fp32 [rows, V] -> y [rows, V]: the gated norm alone, one warp per row, for a V that is wider than a walk's
// slice.
__device__ __forceinline__ void norm_gate(const float *__restrict__ o, const act *__restrict__ gate,
                                          const float *__restrict__ o_norm, act *__restrict__ y, int64_t rows, int V,
                                          float eps) {
  const int lane = threadIdx.x % 32;
  const int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  o += row * V, gate += row * V, y += row * V;
  float sum = 0.f;
  for (int i = lane * 4; i < V; i += 128) {
    const float4 a = *reinterpret_cast<const float4 *>(o + i);
    sum += (a.x * a.x + a.y * a.y) + (a.z * a.z + a.w * a.w);
  }
#pragma unroll
  for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
  const float r = rsqrtf(sum / V + eps);
  for (int i = lane * 4; i < V; i += 128) {
    const float4 a = *reinterpret_cast<const float4 *>(o + i), w = *reinterpret_cast<const float4 *>(o_norm + i);
    const uint2 z = *reinterpret_cast<const uint2 *>(gate + i);
    using B = Pair<act>;
    uint2 out;
    out.x = B::pack(a.x * r * w.x * silu(B::lo(z.x)), a.y * r * w.y * silu(B::hi(z.x)));
    out.y = B::pack(a.z * r * w.z * silu(B::lo(z.y)), a.w * r * w.w * silu(B::hi(z.y)));
    *reinterpret_cast<uint2 *>(y + i) = out;
  }
}

}  // namespace gdn2

#define GDN2_SIMPLE(K, E, NAME)                                                                                        \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      NAME(const E *q, const E *k, const E *bk, const E *wv, const __half *g, const act *gate, const float *o_norm,    \
           act *y, const int *cu_seqlens, const float *const *state_in, float *const *state_out, int64_t state_offset, \
           int H, int HV, float scale, float eps) {                                                                    \
    gdn2::simple<E, K>(q, k, bk, wv, g, gate, o_norm, y, cu_seqlens, state_in, state_out, state_offset, H, HV, scale,  \
                       eps);                                                                                           \
  }
GDN2_SIMPLE(64, __nv_bfloat16, gdn2_simple_k64_bf16)
GDN2_SIMPLE(128, __nv_bfloat16, gdn2_simple_k128_bf16)
GDN2_SIMPLE(64, __half, gdn2_simple_k64_f16)
GDN2_SIMPLE(128, __half, gdn2_simple_k128_f16)

extern "C" __global__ void __launch_bounds__(256)
    gdn2_norm_gate(const float *o_raw, const act *gate, const float *o_norm, act *y, int64_t rows, int V, float eps) {
  gdn2::norm_gate(o_raw, gate, o_norm, y, rows, V, eps);
}
