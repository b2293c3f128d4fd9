// From a layer's fused projections to the recurrence's operands: short
// convolution, SiLU, erase and write gates, Kaczmarz step, l2 norm, log-decay.
// Formulas: the GDN-2 paper and the model card of its KLA update.
//
//   q, k, v = silu(conv(p.q)), silu(conv(p.k)), silu(conv(p.v))
//   step    = sigmoid(p.eta + eta_bias) / max(|k|^2, kaczmarz_eps)        KLA
//   q, k    = q / sqrt(|q|^2 + 1e-6), k / sqrt(|k|^2 + 1e-6)              l2 norm; after the step
//   b, w    = sigmoid(p.b), sigmoid(p.w);  KLA: clamp(. step, 0, 1);  negative eigenvalues: b = 2 b
//   g       = -rate softplus(f + dt_bias),  rate = exp(A_log)
//   out     q, k, b k, g [T, H, K] and w v [T, HV, V], step [T, H]
//
// Shapes: p [T, ldp] with columns q|k|v|b|w|f0|g0|eta, f [T, H K],
// conv_w [4, C] and conv_b [C] fp32 with C = 2 H K + HV V in the order q|k|v (a
// model without convolution has taps 0, 0, 0, 1), E bf16 or fp16, g fp16.
// History: hist [N] points to [.., 3, C] rows, the inputs before a carried
// sequence's first token, oldest first; null is zeros.
//
// A group of K/4 lanes takes a head (gates_key), a warp 256 channels (gates_value),
// each for a run of tokens with the window of the convolution in registers, so
// that every projection is read once. Rows of the next tokens are loaded before the
// present ones are computed.
//
// Roofline, 1.3B shape, a token: reads 12 H K (q, k, b, f, v, w), writes 10 H K
// bytes (q, k, bk, g, wv): 45 KB, 0.35 ms for 32,768 tokens at 4.2 TB/s.
#include "common.cuh"

namespace {

constexpr int kRun = 32;   // tokens a warp walks over
constexpr int kAhead = 2;  // tokens in flight
constexpr int kBlockWarps = 4;

template <typename E>
struct Out;
template <>
struct Out<bf16> {
  static __device__ __forceinline__ unsigned pack(float a, float b) {
    __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<unsigned *>(&h);
  }
};
template <>
struct Out<__half> {
  static __device__ __forceinline__ unsigned pack(float a, float b) {
    __half2 h = __floats2half2_rn(within_half(a), within_half(b));
    return *reinterpret_cast<unsigned *>(&h);
  }
};

__device__ __forceinline__ float low(unsigned u) { return to_floats(*reinterpret_cast<act2 *>(&u)).x; }
__device__ __forceinline__ float high(unsigned u) { return to_floats(*reinterpret_cast<act2 *>(&u)).y; }

// W channels of a row: W/2 words of two.
template <int W>
struct Row {
  unsigned u[W / 2];
};

template <int W>
__device__ __forceinline__ Row<W> load_row(const act *p) {
  Row<W> r;
  if constexpr (W == 4) {
    const uint2 v = __ldcs(reinterpret_cast<const uint2 *>(p));
    r.u[0] = v.x, r.u[1] = v.y;
  } else {
    const uint4 v = __ldcs(reinterpret_cast<const uint4 *>(p));
    r.u[0] = v.x, r.u[1] = v.y, r.u[2] = v.z, r.u[3] = v.w;
  }
  return r;
}

template <typename E, int W>
__device__ __forceinline__ void store_row(E *p, const float *f) {
  if constexpr (W == 4) {
    *reinterpret_cast<uint2 *>(p) = make_uint2(Out<E>::pack(f[0], f[1]), Out<E>::pack(f[2], f[3]));
  } else {
    *reinterpret_cast<uint4 *>(p) = make_uint4(Out<E>::pack(f[0], f[1]), Out<E>::pack(f[2], f[3]), Out<E>::pack(f[4], f[5]), Out<E>::pack(f[6], f[7]));
  }
}

// The convolution of W channels: weights, and the three inputs before the present.
template <int W>
struct Conv {
  float w[4][W], bias[W];
  Row<W> past[3];  // oldest first

  __device__ __forceinline__ void load(const float *weight, const float *b, int channel, int C) {
#pragma unroll
    for (int i = 0; i < W; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) w[j][i] = weight[int64_t(j) * C + channel + i];
      bias[i] = b ? b[channel + i] : 0.0f;
    }
  }

  // start fetches what stands before token t of a sequence that starts at first.
  __device__ __forceinline__ void start(const act *p, int64_t ldp, const act *hist, int C, int channel, int t, int first) {
#pragma unroll
    for (int j = 0; j < 3; j++) {
      const int s = t - 3 + j;
      if (s >= first) past[j] = load_row<W>(p + s * ldp + channel);
      else if (hist) past[j] = load_row<W>(hist + int64_t(s - first + 3) * C + channel);
      else past[j] = Row<W>{};
    }
  }

  // step gives silu(conv) of the present input, which joins the past.
  __device__ __forceinline__ void step(const Row<W> &x, float *y) {
#pragma unroll
    for (int i = 0; i < W; i++) {
      const int o = i / 2;
      auto part = [&](const Row<W> &r) { return i % 2 ? high(r.u[o]) : low(r.u[o]); };
      float a = bias[i];
      a = fmaf(w[0][i], part(past[0]), a);
      a = fmaf(w[1][i], part(past[1]), a);
      a = fmaf(w[2][i], part(past[2]), a);
      a = fmaf(w[3][i], part(x), a);
      y[i] = siluf(a);
    }
    past[0] = past[1];
    past[1] = past[2];
    past[2] = x;
  }
};

__device__ __forceinline__ const act *history(const act *const *hist, int n, int64_t offset) {
  return hist && hist[n] ? hist[n] + offset : nullptr;
}

__device__ __forceinline__ float clamp01(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }

enum : int { kKaczmarz = 1, kL2Norm = 2, kNegative = 4 };

struct KeyRows {
  Row<4> q, k, b, f;
  act eta;
  int seq;
};

template <typename E, int K>
__device__ __forceinline__ void key(E *qo, E *ko, E *bk, __half *g, float *step_out, const act *p, const act *f, const float *conv_w,
                                    const float *conv_b, const float *rate, const float *dt_bias, const float *eta_bias, const int *seq_of,
                                    const int *cu_seqlens, const act *const *hist, int64_t hist_offset, int T, int H, int C, int b_col,
                                    int eta_col, int64_t ldp, int flags, float kaczmarz_eps) {
  constexpr int kLanes = K / 4, kHeads = 32 / kLanes;  // lanes a head, heads a warp
  const int lane = threadIdx.x % 32, sub = lane / kLanes, c = lane % kLanes * 4;
  const int head = (blockIdx.x * kBlockWarps + threadIdx.x / 32) * kHeads + sub;
  const bool alive = head < H;
  const int h = alive ? head : H - 1;  // lanes past the last head compute its values and store nothing
  const int t0 = blockIdx.y * kRun, t1 = min(t0 + kRun, T);
  const int HK = H * K, ch = h * K + c;
  Conv<4> cq, ck;
  cq.load(conv_w, conv_b, ch, C);
  ck.load(conv_w, conv_b, HK + ch, C);
  float dt[4];
#pragma unroll
  for (int i = 0; i < 4; i++) dt[i] = dt_bias[ch + i];
  const float a = -rate[h], eta_b = flags & kKaczmarz ? eta_bias[h] : 0.0f;

  auto fetch = [&](int t) {
    KeyRows r;
    t = min(t, t1 - 1);
    const act *row = p + t * ldp;
    r.q = load_row<4>(row + ch);
    r.k = load_row<4>(row + HK + ch);
    r.b = load_row<4>(row + b_col + ch);
    r.f = load_row<4>(f + int64_t(t) * HK + ch);
    r.eta = flags & kKaczmarz ? row[eta_col + h] : to_act(0.0f);
    r.seq = seq_of[t];
    return r;
  };

  KeyRows next[kAhead];
#pragma unroll
  for (int j = 0; j < kAhead; j++) next[j] = fetch(t0 + j);
  int seq = next[0].seq;
  cq.start(p, ldp, history(hist, seq, hist_offset), C, ch, t0, cu_seqlens[seq]);
  ck.start(p, ldp, history(hist, seq, hist_offset), C, HK + ch, t0, cu_seqlens[seq]);
  for (int t = t0; t < t1; t += kAhead) {
    KeyRows cur[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; j++) cur[j] = next[j];
    if (t + kAhead < t1) {
#pragma unroll
      for (int j = 0; j < kAhead; j++) next[j] = fetch(t + kAhead + j);
    }
#pragma unroll
    for (int j = 0; j < kAhead; j++) {
      if (t + j >= t1) break;
      const KeyRows &r = cur[j];
      if (r.seq != seq) {  // a sequence's first token
        seq = r.seq;
        const act *past = history(hist, seq, hist_offset);
        cq.start(p, ldp, past, C, ch, t + j, t + j);
        ck.start(p, ldp, past, C, HK + ch, t + j, t + j);
      }
      float q[4], k[4], y[4];
      cq.step(r.q, q);
      ck.step(r.k, k);
      const float kk = group_sum<kLanes>(k[0] * k[0] + k[1] * k[1] + k[2] * k[2] + k[3] * k[3]);
      float step = 1.0f;
      if (flags & kKaczmarz) step = __fdividef(sigmoidf(to_float32(r.eta) + eta_b), fmaxf(kk, kaczmarz_eps));
      if (flags & kL2Norm) {
        const float qs = rsqrtf(group_sum<kLanes>(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]) + 1e-6f), ks = rsqrtf(kk + 1e-6f);
#pragma unroll
        for (int i = 0; i < 4; i++) q[i] *= qs, k[i] *= ks;
      }
      const int64_t at = int64_t(t + j) * HK + ch;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float b = sigmoidf(i % 2 ? high(r.b.u[i / 2]) : low(r.b.u[i / 2]));
        if (flags & kKaczmarz) b = clamp01(b * step);
        if (flags & kNegative) b *= 2.0f;
        y[i] = b * k[i];
      }
      if (alive) {
        store_row<E, 4>(qo + at, q);
        store_row<E, 4>(ko + at, k);
        store_row<E, 4>(bk + at, y);
      }
#pragma unroll
      for (int i = 0; i < 4; i++) y[i] = fmaxf(a * softplusf((i % 2 ? high(r.f.u[i / 2]) : low(r.f.u[i / 2])) + dt[i]), -65504.0f);
      if (alive) {
        store_row<__half, 4>(g + at, y);
        if (c == 0 && (flags & kKaczmarz)) step_out[int64_t(t + j) * H + h] = step;
      }
    }
  }
}

struct ValueRows {
  Row<8> v, w;
  float step;
  int seq;
};

template <typename E>
__device__ __forceinline__ void value(E *wv, const float *step_in, const act *p, const float *conv_w, const float *conv_b, const int *seq_of,
                                      const int *cu_seqlens, const act *const *hist, int64_t hist_offset, int T, int H, int VD, int per_head,
                                      int C, int v_col, int w_col, int64_t ldp, int flags) {
  const int c = (blockIdx.x * kBlockWarps + threadIdx.x / 32) * 256 + threadIdx.x % 32 * 8;
  if (c >= VD) return;  // no shuffles below
  const int h = c / per_head, t0 = blockIdx.y * kRun, t1 = min(t0 + kRun, T);
  Conv<8> cv;
  cv.load(conv_w, conv_b, v_col + c, C);

  auto fetch = [&](int t) {
    ValueRows r;
    t = min(t, t1 - 1);
    const act *row = p + t * ldp;
    r.v = load_row<8>(row + v_col + c);
    r.w = load_row<8>(row + w_col + c);
    r.step = flags & kKaczmarz ? step_in[int64_t(t) * H + h] : 1.0f;
    r.seq = seq_of[t];
    return r;
  };

  ValueRows next[kAhead];
#pragma unroll
  for (int j = 0; j < kAhead; j++) next[j] = fetch(t0 + j);
  int seq = next[0].seq;
  cv.start(p, ldp, history(hist, seq, hist_offset), C, v_col + c, t0, cu_seqlens[seq]);
  for (int t = t0; t < t1; t += kAhead) {
    ValueRows cur[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; j++) cur[j] = next[j];
    if (t + kAhead < t1) {
#pragma unroll
      for (int j = 0; j < kAhead; j++) next[j] = fetch(t + kAhead + j);
    }
#pragma unroll
    for (int j = 0; j < kAhead; j++) {
      if (t + j >= t1) break;
      const ValueRows &r = cur[j];
      if (r.seq != seq) {
        seq = r.seq;
        cv.start(p, ldp, history(hist, seq, hist_offset), C, v_col + c, t + j, t + j);
      }
      float v[8];
      cv.step(r.v, v);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        float w = sigmoidf(i % 2 ? high(r.w.u[i / 2]) : low(r.w.u[i / 2]));
        if (flags & kKaczmarz) w = clamp01(w * r.step);
        v[i] *= w;
      }
      store_row<E, 8>(wv + int64_t(t + j) * VD + c, v);
    }
  }
}

}  // namespace

// grid (ceil(H / (4 * 128/K)), ceil(T / 32)), block 128
#define GATES_KEY(K, E, NAME)                                                                                                                        \
  extern "C" __global__ void __launch_bounds__(32 * kBlockWarps) NAME(                                                                               \
      E *__restrict__ q, E *__restrict__ k, E *__restrict__ bk, __half *__restrict__ g, float *__restrict__ step, const act *__restrict__ p,        \
      const act *__restrict__ f, const float *__restrict__ conv_w, const float *__restrict__ conv_b, const float *__restrict__ rate,                \
      const float *__restrict__ dt_bias, const float *__restrict__ eta_bias, const int *__restrict__ seq_of, const int *__restrict__ cu_seqlens,     \
      const act *const *__restrict__ hist, int64_t hist_offset, int T, int H, int C, int b_col, int eta_col, int64_t ldp, int flags,                \
      float kaczmarz_eps) {                                                                                                                          \
    key<E, K>(q, k, bk, g, step, p, f, conv_w, conv_b, rate, dt_bias, eta_bias, seq_of, cu_seqlens, hist, hist_offset, T, H, C, b_col, eta_col, ldp, \
              flags, kaczmarz_eps);                                                                                                                  \
  }
GATES_KEY(64, bf16, gates_key_k64_bf16)
GATES_KEY(128, bf16, gates_key_k128_bf16)
GATES_KEY(64, __half, gates_key_k64_f16)
GATES_KEY(128, __half, gates_key_k128_f16)

// VD = HV V channels of which per_head = VD / H share a key head's step.
// grid (ceil(VD / 1024), ceil(T / 32)), block 128; after gates_key
#define GATES_VALUE(E, NAME)                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(32 * kBlockWarps) NAME(                                                                           \
      E *__restrict__ wv, const float *__restrict__ step, const act *__restrict__ p, const float *__restrict__ conv_w,                          \
      const float *__restrict__ conv_b, const int *__restrict__ seq_of, const int *__restrict__ cu_seqlens, const act *const *__restrict__ hist, \
      int64_t hist_offset, int T, int H, int VD, int per_head, int C, int v_col, int w_col, int64_t ldp, int flags) {                            \
    value<E>(wv, step, p, conv_w, conv_b, seq_of, cu_seqlens, hist, hist_offset, T, H, VD, per_head, C, v_col, w_col, ldp, flags);               \
  }
GATES_VALUE(bf16, gates_value_bf16)
GATES_VALUE(__half, gates_value_f16)

// keep_inputs saves the last three inputs of each carried sequence's convolution
// for the next batch; after the gates. grid (N, ceil(C / 256)), block 256
extern "C" __global__ void __launch_bounds__(256) keep_inputs(act *const *__restrict__ hist, int64_t hist_offset, const act *__restrict__ p,
                                                               const int *__restrict__ cu_seqlens, int C, int64_t ldp) {
  const int n = blockIdx.x, c = blockIdx.y * blockDim.x + threadIdx.x;
  if (!hist[n] || c >= C) return;
  act *h = hist[n] + hist_offset + c;
  const int first = cu_seqlens[n], last = cu_seqlens[n + 1];
  for (int j = 0; j < 3; j++) {  // a row that moves down is read before it is written
    const int s = last - 3 + j;
    h[int64_t(j) * C] = s >= first ? p[s * ldp + c] : h[int64_t(s - first + 3) * C];
  }
}
