// The recurrence's operands from a layer's fused projections, where gdn2_prepare does
// not compute them itself (gdn2_source.cuh, to the same bits): short convolution, SiLU,
// erase and write gates, Kaczmarz step, l2 norm, log-decay.
// Formulas: the GDN-2 paper and the model card of its KLA update.
//
//   q, k, v = silu(conv(p.q)), silu(conv(p.k)), silu(conv(p.v))
//   step    = sigmoid(p.eta + eta_bias) / max(|k|^2, kaczmarz_eps)        KLA
//   q, k    = q / sqrt(|q|^2 + 1e-6), k / sqrt(|k|^2 + 1e-6)              l2 norm; after the step
//   b, w    = sigmoid(p.b), sigmoid(p.w);  KLA: min(. step, 1);  negative eigenvalues: b = 2 b
//   g       = -rate softplus(f + dt_bias),  rate = exp(A_log)
//   out     q, k, b k, g [T, H, K] and w v [T, HV, V], inv_step = 1/step [T, H]
//
// Shapes: p [T, ldp] with columns q|k|v|b|w|f0|g0|eta, f [T, H K],
// conv_w [4, C] and conv_b [C] fp32 with C = 2 H K + HV V in the order q|k|v (a
// model without convolution has taps 0, 0, 0, 1), E bf16 or fp16, g fp16.
// T H K and T HV V are below 2^32.
// History: hist [N] points to [.., 3, C] rows, the inputs before a carried
// sequence's first token, oldest first; null means zeros.
//
// A warp handles 128 channels (gates_key: one head of 128 or two of 64) or 256
// (gates_value) of a run of tokens. The convolution's window is three partial sums in
// registers, so every projection is read and converted once. Meanwhile the rows of the
// next tokens are copied to shared memory.
//
// At the clock of a hot GPU the limit would be instruction issue rather than memory. To
// save instructions, with a' = -log2(e) a, where the factor is in the convolution's
// weights,
//   silu(a) = a' / (-log2(e) (1 + 2^a')),  min(sigmoid(x) step, 1) = 1 / max((1 + 2^x') / step, 1)
// and w v needs one reciprocal for both. All arithmetic is fp32.
//
// Roofline, 1.3B shape, a token: reads 12 H K (q, k, b, f, v, w), writes 10 H K
// bytes (q, k, bk, g, wv): 45 KB, 0.35 ms for 32,768 tokens at 4.2 TB/s.
#include "short_conv.cuh"

namespace {

constexpr int kRun = 64;   // tokens per warp
constexpr int kAhead = 4;  // tokens whose rows fit in shared memory, a power of two
constexpr int kBlockWarps = 4;

// A warp's ring of rows in shared memory: kAhead places of kPlace bytes. Copies are
// asynchronous; each lane waits for its own.
constexpr int kPlace = 1024, kRing = kAhead * kPlace;
struct alignas(16) Ring {
  unsigned char rows[kRing];
};
#ifdef SURPRISAL_EMULATE
using Shared = uintptr_t;  // copies are synchronous
inline Shared shared(void *p) { return Shared(p); }
inline void copy16(Shared to, const act *from) { memcpy(reinterpret_cast<void *>(to), from, 16); }
inline void commit() {}
inline void await_oldest() {}
template <int W>
inline Row<W> load_shared(Shared from) {
  return *reinterpret_cast<const Row<W> *>(from);
}
#else
using Shared = unsigned;  // arithmetic is cheaper than with a pointer
__device__ __forceinline__ Shared shared(void *p) { return Shared(__cvta_generic_to_shared(p)); }
__device__ __forceinline__ void copy16(Shared to, const act *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from));
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;"); }
__device__ __forceinline__ void await_oldest() { asm volatile("cp.async.wait_group %0;" ::"n"(kAhead - 2) : "memory"); }
template <int W>
__device__ __forceinline__ Row<W> load_shared(Shared from) {
  Row<W> r;
  unsigned *u = reinterpret_cast<unsigned *>(&r);
  if constexpr (W == 4) asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(u[0]), "=r"(u[1]) : "r"(from));
  else
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(u[0]), "=r"(u[1]), "=r"(u[2]), "=r"(u[3])
                 : "r"(from));
  return r;
}
#endif

// next is the same offset in the ring's next place.
__device__ __forceinline__ unsigned next(unsigned at) { return (at + kPlace) % kRing; }

// The tokens of a batch and the sequences they belong to.
struct Tokens {
  const int *seq_of, *cu_seqlens;
  const act *const *hist;
  int64_t hist_offset;
  int T;

  // next_start is the first of the 32 tokens from t that begins a sequence, or T.
  __device__ __forceinline__ int next_start(int t) const {
    const int s = t + threadIdx.x % 32;
    const unsigned starts = __ballot_sync(kFullWarp, s > 0 && s < T && seq_of[s] != seq_of[s - 1]);
    return starts ? t + __ffs(starts) - 1 : T;
  }

  __device__ __forceinline__ const act *history(int n) const {
    return hist && hist[n] ? hist[n] + hist_offset : nullptr;
  }
};

template <typename E, int K>
__device__ __forceinline__ void key(E *q_out, E *k_out, E *bk_out, __half *g_out, float *inv_step_out, const act *p,
                                    const act *f, const float *conv_w, const float *conv_b, const float *rate,
                                    const float *dt_bias, const float *eta_bias, const Tokens &tokens, int H, int C,
                                    int b_col, int eta_col, int64_t ldp, int flags, float kaczmarz_eps) {
  constexpr int kLanes = K / 4;        // lanes a head
  __shared__ Ring rings[kBlockWarps];  // a place: 128 channels of q, k, b, f
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, HK = H * K;
  const int c0 = (blockIdx.x * kBlockWarps + warp) * 128;
  const int t0 = blockIdx.y * kRun, t1 = min(t0 + kRun, tokens.T);
  if (c0 >= HK || t0 >= t1) return;
  const int spot = c0 + 4 * lane < HK ? lane : lane - 16;  // lanes past the last head repeat its work
  const int ch = c0 + 4 * spot, h = ch / K;
  Conv<4> cq, ck;
  cq.load(conv_w, conv_b, ch, C);
  ck.load(conv_w, conv_b, HK + ch, C);
  float dt[4];
#pragma unroll
  for (int i = 0; i < 4; i++) dt[i] = kLog2e * dt_bias[ch + i];
  const float a = -kLn2 * rate[h], eta_b = flags & kKaczmarz ? eta_bias[h] : 0.0f;
  const float least = least_gate(flags);

  // A lane copies 16 bytes of q or k, and of b or f.
  const Shared ring = shared(&rings[warp]);
  unsigned to = lane * 16, from = spot * 8;
  const bool upper = lane >= 16;
  const int piece = min(c0 + lane % 16 * 8, HK - 8);
  const act *first = p + t0 * ldp + (upper ? HK : 0) + piece;
  const act *second = upper ? f + int64_t(t0) * HK + piece : p + t0 * ldp + b_col + piece;
  const int64_t ld2 = upper ? HK : ldp;
  auto fetch = [&](int t) {
    if (t < t1) {
      copy16(ring + to, first);
      copy16(ring + to + 512, second);
    }
    commit();
    to = next(to), first += ldp, second += ld2;
  };

  for (int j = 0; j < kAhead - 1; j++) fetch(t0 + j);
  unsigned at = unsigned(t0) * HK + ch;
  for (int t = t0; t < t1;) {
    // Lane i of a head's lanes computes the inverse of the step's sigmoid for the i-th token from here.
    const int mine = t + lane % kLanes;
    float open = 1.0f, inv_step = 1.0f;
    if (flags & kKaczmarz) open = inverse_sigmoid(to_float32(p[min(mine, t1 - 1) * ldp + eta_col + h]) + eta_b);
    int start = t > t0 ? tokens.next_start(t) : t0;
    const int end = min(t + kLanes, t1);
#pragma unroll 1
    for (; t < end; t++, at += HK) {
      if (__builtin_expect(t == start, 0)) {
        const int n = tokens.seq_of[t], begin = tokens.cu_seqlens[n];
        const act *past = tokens.history(n);
        cq.start(p, ldp, past, C, ch, t, begin);
        ck.start(p, ldp, past, C, HK + ch, t, begin);
        start = tokens.next_start(t + 1);
      }
      await_oldest();
      __syncwarp();  // all lanes' copies have arrived, and the place of the last token is free
      fetch(t + kAhead - 1);
      const Row<4> xk = load_shared<4>(ring + from + 256), xq = load_shared<4>(ring + from),
                   xb = load_shared<4>(ring + from + 512), xf = load_shared<4>(ring + from + 768);
      from = next(from);
      float q[4], k[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float ak = ck.push(i, xk[i]), aq = cq.push(i, xq[i]);
        k[i] = silu_of(ak);
        q[i] = silu_of(aq);
      }
      const float kk = group_sum<kLanes>(fmaf(k[0], k[0], k[1] * k[1]) + fmaf(k[2], k[2], k[3] * k[3]));
      float inv = 1.0f;
      if (flags & kKaczmarz) {
        inv = inverse_step(__shfl_sync(kFullWarp, open, t - t0, kLanes), kk, kaczmarz_eps);
        if (mine == t) inv_step = inv;
      }
      if (flags & kL2Norm) {
        const float qs = rsqrtf(group_sum<kLanes>(fmaf(q[0], q[0], q[1] * q[1]) + fmaf(q[2], q[2], q[3] * q[3])) +
                                1e-6f),
                    ks = rsqrtf(kk + 1e-6f);
#pragma unroll
        for (int i = 0; i < 4; i++) q[i] *= qs, k[i] *= ks;
      }
      store(q_out + at, q);
      store(k_out + at, k);
#pragma unroll
      for (int i = 0; i < 4; i++) y[i] = a * softplus2f(fmaf(kLog2e, xf[i], dt[i]));
      store(g_out + at, y);
      inv *= least;
#pragma unroll
      for (int i = 0; i < 4; i++) y[i] = erased(k[i], xb[i], inv, least);
      store(bk_out + at, y);
    }
    if (flags & kKaczmarz && mine < t1) inv_step_out[int64_t(mine) * H + h] = inv_step;
  }
}

template <typename E>
__device__ __forceinline__ void value(E *wv_out, const float *inv_step, const act *p, const float *conv_w,
                                      const float *conv_b, const Tokens &tokens, int H, int VD, int per_head, int C,
                                      int v_col, int w_col, int64_t ldp, int flags) {
  __shared__ Ring rings[kBlockWarps];  // a place: 256 channels of v, w
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, c0 = (blockIdx.x * kBlockWarps + warp) * 256;
  const int t0 = blockIdx.y * kRun, t1 = min(t0 + kRun, tokens.T);
  if (c0 >= VD || t0 >= t1) return;
  // Lanes past the last channel repeat other lanes' work.
  const int ch = c0 + 8 * (c0 + 8 * lane < VD ? lane : lane % 8), h = ch / per_head;
  Conv<8> cv;
  cv.load(conv_w, conv_b, v_col + ch, C);
  const Shared ring = shared(&rings[warp]);
  unsigned to = lane * 16, from = to;
  const act *first = p + t0 * ldp + v_col + ch, *second = p + t0 * ldp + w_col + ch;
  auto fetch = [&](int t) {
    if (t < t1) {
      copy16(ring + to, first);
      copy16(ring + to + 512, second);
    }
    commit();
    to = next(to), first += ldp, second += ldp;
  };

  for (int j = 0; j < kAhead - 1; j++) fetch(t0 + j);
  // Lane i of eight holds the inverse step of the i-th of the next eight tokens, and of
  // the eight after them.
  auto steps = [&](int t) { return flags & kKaczmarz ? inv_step[int64_t(min(t + lane % 8, t1 - 1)) * H + h] : 1.0f; };
  float later = steps(t0);
  unsigned at = unsigned(t0) * VD + ch;
  for (int t = t0, start = t0; t < t1;) {
    const float eight = later;
    later = steps(t + 8);
    if (t % 32 == 0 && t > t0) start = tokens.next_start(t);
    const int end = min(t + 8, t1);
#pragma unroll 1
    for (; t < end; t++, at += VD) {
      if (__builtin_expect(t == start, 0)) {
        const int n = tokens.seq_of[t], begin = tokens.cu_seqlens[n];
        cv.start(p, ldp, tokens.history(n), C, v_col + ch, t, begin);
        start = tokens.next_start(t + 1);
      }
      const float inv = __shfl_sync(kFullWarp, eight, t, 8);
      await_oldest();
      const Row<8> xv = load_shared<8>(ring + from), xw = load_shared<8>(ring + from + 512);
      from = next(from);
      fetch(t + kAhead - 1);
      float y[8];
      written(y, cv, xv, xw, inv);
      store(wv_out + at, y);
    }
  }
}

}  // namespace

// grid (ceil(H K / 512), ceil(T / 64)), block 128
#define GATES_KEY(K, E, NAME)                                                                                          \
  extern "C" __global__ void __launch_bounds__(32 * kBlockWarps, 4)                                                    \
      NAME(E *__restrict__ q, E *__restrict__ k, E *__restrict__ bk, __half *__restrict__ g,                           \
           float *__restrict__ inv_step, const act *__restrict__ p, const act *__restrict__ f,                         \
           const float *__restrict__ conv_w, const float *__restrict__ conv_b, const float *__restrict__ rate,         \
           const float *__restrict__ dt_bias, const float *__restrict__ eta_bias, const int *__restrict__ seq_of,      \
           const int *__restrict__ cu_seqlens, const act *const *__restrict__ hist, int64_t hist_offset, int T, int H, \
           int C, int b_col, int eta_col, int64_t ldp, int flags, float kaczmarz_eps) {                                \
    key<E, K>(q, k, bk, g, inv_step, p, f, conv_w, conv_b, rate, dt_bias, eta_bias,                                    \
              Tokens{seq_of, cu_seqlens, hist, hist_offset, T}, H, C, b_col, eta_col, ldp, flags, kaczmarz_eps);       \
  }
GATES_KEY(64, bf16, gates_key_k64_bf16)
GATES_KEY(128, bf16, gates_key_k128_bf16)
GATES_KEY(64, __half, gates_key_k64_f16)
GATES_KEY(128, __half, gates_key_k128_f16)

// VD = HV V channels; per_head = VD / H of them share a key head's step.
// grid (ceil(VD / 1024), ceil(T / 64)), block 128; after gates_key
#define GATES_VALUE(E, NAME)                                                                                           \
  extern "C" __global__ void __launch_bounds__(32 * kBlockWarps, 4)                                                    \
      NAME(E *__restrict__ wv, const float *__restrict__ inv_step, const act *__restrict__ p,                          \
           const float *__restrict__ conv_w, const float *__restrict__ conv_b, const int *__restrict__ seq_of,         \
           const int *__restrict__ cu_seqlens, const act *const *__restrict__ hist, int64_t hist_offset, int T, int H, \
           int VD, int per_head, int C, int v_col, int w_col, int64_t ldp, int flags) {                                \
    value<E>(wv, inv_step, p, conv_w, conv_b, Tokens{seq_of, cu_seqlens, hist, hist_offset, T}, H, VD, per_head, C,    \
             v_col, w_col, ldp, flags);                                                                                \
  }
GATES_VALUE(bf16, gates_value_bf16)
GATES_VALUE(__half, gates_value_f16)

// keep_inputs saves the last three inputs of each carried sequence's convolution
// for the next batch; after the gates. grid (N, ceil(C / 256)), block 256
extern "C" __global__ void __launch_bounds__(256)
    keep_inputs(act *const *__restrict__ hist, int64_t hist_offset, const act *__restrict__ p,
                const int *__restrict__ cu_seqlens, int C, int64_t ldp) {
  const int n = blockIdx.x, c = blockIdx.y * blockDim.x + threadIdx.x;
  if (!hist[n] || c >= C) return;
  act *h = hist[n] + hist_offset + c;
  const int first = cu_seqlens[n], last = cu_seqlens[n + 1];
  for (int j = 0; j < 3; j++) {  // in this order a row is read before it is overwritten
    const int s = last - 3 + j;
    h[int64_t(j) * C] = s >= first ? p[s * ldp + c] : h[int64_t(s - first + 3) * C];
  }
}
