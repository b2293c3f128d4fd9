// The sources of gdn2_prepare's operands: memory, where the gates' kernels wrote them (Stored), or the layer's
// projections, by the gates' arithmetic (Projected).
//
// A source provides q, k, bk and the decays of a warp's 8 tokens, 2 N = K/32 channels per lane (keys, Exp), and a
// chunk's w v in panels of `width` value columns, shared among `threads` threads (fetch, compute). The columns of a key
// head's panels are contiguous.
//
// From projections, the four warps that have no part in the inverse compute w v meanwhile. Every warp computes the
// other operands of its own 8 tokens, for which it reads three more tokens of q and k. Roofline, 1.3B shape, a layer of
// 32,768 tokens: 805 MB are read (q, k, v, b, w, f); separate gates and prepare move 2.1 GB.
#pragma once
#include "gdn2_recurrence.cuh"
#include "short_conv.cuh"

namespace gdn2 {

__device__ __forceinline__ uint32_t smem_address(const void *p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void copy16_async(void *to, const void *from, bool valid) {
#ifdef HOPPER_RACECHECK
  *static_cast<uint4 *>(to) = valid ? *static_cast<const uint4 *>(from) : make_uint4(0, 0, 0, 0);
  return;
#endif
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(smem_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ float exp_nonpositive(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
  return y;
}

// N adjacent pairs of elements.
template <int N>
struct alignas(4 * N) Pairs {
  uint32_t w[N];
};
// Decays of 2 N channels in fp32. Rounded, they multiply pairs of elements.
template <int N>
struct alignas(8 * N) Factors {
  float x[2 * N];
  __device__ __forceinline__ Factors operator*(const Factors &o) const {
    Factors r;
#pragma unroll
    for (int i = 0; i < 2 * N; i++) r.x[i] = x[i] * o.x[i];
    return r;
  }
  __device__ __forceinline__ Factors operator*(float o) const {
    Factors r;
#pragma unroll
    for (int i = 0; i < 2 * N; i++) r.x[i] = x[i] * o;
    return r;
  }
};

// Hides an address's origin from the compiler, which would compute each row's address from the tensor's again.
__device__ __forceinline__ const char *opaque(const void *p) {
#ifndef SURPRISAL_EMULATE
  size_t global = __cvta_generic_to_global(p);
  asm("" : "+l"(global));
  p = __cvta_global_to_generic(global);
#endif
  return static_cast<const char *>(p);
}

// A chunk of a head.
struct Place {
  int first, count;  // first token in the batch; number of tokens
  bool starts;       // it is its document's first chunk in this batch
  int h, H;
};

// q, k, bk, g [T, H, K] and w v [T, HV, V] in memory.
template <typename E>
struct Stored {
  const E *q, *k, *bk, *wv;
  const __half *g;
  static constexpr bool computed = false;

  // keys reads the warp's rows. Rows past the chunk's last token are zero and do not decay.
  template <int K, int N, typename Shared>
  __device__ __forceinline__ void keys(Pairs<N> (&rq)[8], Pairs<N> (&rk)[8], Pairs<N> (&rb)[8], Pairs<N> (&rd)[8],
                                       Shared &, const Place &c, int warp, int lane) const {
    const int64_t at = (int64_t(c.first + 8 * warp) * c.H + c.h) * K + 2 * N * lane;
    const uint32_t step = uint32_t(c.H) * K * 2;
    const char *from_g = opaque(g + at), *from_k = opaque(k + at), *from_b = opaque(bk + at), *from_q = opaque(q + at);
    auto load = [&](const char *from, int i) { return *reinterpret_cast<const Pairs<N> *>(from + i * step); };
    const int left = c.count - 8 * warp;
    if (left >= 8) {
#pragma unroll
      for (int i = 0; i < 8; i++) rd[i] = load(from_g, i);
#pragma unroll
      for (int i = 0; i < 8; i++) rk[i] = load(from_k, i), rb[i] = load(from_b, i), rq[i] = load(from_q, i);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        rd[i] = rk[i] = rb[i] = rq[i] = Pairs<N>{};
        if (i < left)
          rd[i] = load(from_g, i), rk[i] = load(from_k, i), rb[i] = load(from_b, i), rq[i] = load(from_q, i);
      }
    }
  }

  // Exp computes exp(g) of a row of decays. column: the lane's first column of [H, K].
  template <int N>
  struct Exp {
    __device__ __forceinline__ Exp(const Stored &, int, int) {}
    __device__ __forceinline__ Factors<N> operator()(const Pairs<N> &row) const {
      Factors<N> e;
#pragma unroll
      for (int j = 0; j < N; j++)
        e.x[2 * j] = exp_nonpositive(Pair<__half>::lo(row.w[j])),
                e.x[2 * j + 1] = exp_nonpositive(Pair<__half>::hi(row.w[j]));
      return e;
    }
  };

  // fetch starts copying `width` of the `columns` value columns, from `column` on. Rows past the last token are zero.
  template <typename Shared>
  __device__ __forceinline__ void fetch(Shared &sh, const Place &c, int column, int width, int columns, int thread,
                                        int threads) const {
    const int shift = width == 128 ? 4 : 3, piece = thread & ((1 << shift) - 1);
    const E *from = wv + int64_t(c.first) * columns + column + piece * 8;
    for (int token = thread >> shift; token < C; token += threads >> shift)
      copy16_async(&sh.value[token][piece * 8], from + (token < c.count ? token : 0) * int64_t(columns),
                   token < c.count);
  }
};

// All operands from the layer's fused projections p [T, ldp], columns q|k (from 0 on), v, b, w, eta, and f_proj's
// output f [T, H K], as in gates.cu, except that the decays are not rounded in between:
//   exp(g) = 2^(-rate log2(1 + 2^((f + dt_bias) log2 e)))
// with an error far below that of f's rounding.
template <typename E>
struct Projected {
  const act *p, *f;
  const float *rate, *dt_bias;
  int64_t ldp;
  int b_col, v_col, w_col, eta_col;
  const float *conv_w, *conv_b, *eta_bias;
  const int *seq_of;
  const act *const *hist;  // [N], the inputs before carried sequences; see gates.cu
  int64_t hist_offset;
  int channels;  // of the convolutions; v's begin at v_col
  int flags;     // Gates
  float kaczmarz_eps;
  static constexpr bool computed = true;
  // Minus infinity, twice.
  static constexpr uint32_t no_decay = std::is_same_v<act, __half> ? 0xfc00fc00u : 0xff80ff80u;

  // kept points to the three inputs before the chunk's document; null means zeros.
  __device__ __forceinline__ const act *kept(const Place &c) const {
    if (!hist) return nullptr;
    const act *s = hist[seq_of[c.first]];
    return s ? s + hist_offset : nullptr;
  }

  // Sums of squares of eight tokens over a head's channels, added in the order of gates.cu: four channels, then lanes.
  // Lanes 4 i to 4 i + 3 get token i's sum.
  template <int W>
  static __device__ __forceinline__ float squares(const float (&x)[8][W], int lane) {
    float s[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      s[i] = fmaf(x[i][0], x[i][0], x[i][1] * x[i][1]);
      if constexpr (W == 4) s[i] += fmaf(x[i][2], x[i][2], x[i][3] * x[i][3]);
      else s[i] += __shfl_xor_sync(~0u, s[i], 1);
    }
#pragma unroll
    for (int n = 4; n > 0; n /= 2) {  // each half of the lanes continues with half of the tokens
      const bool upper = lane & 4 * n;
#pragma unroll
      for (int i = 0; i < n; i++) {
        const float away = upper ? s[i] : s[i + n];
        s[i] = (upper ? s[i + n] : s[i]) + __shfl_xor_sync(~0u, away, 4 * n);
      }
    }
    s[0] += __shfl_xor_sync(~0u, s[0], 2);
    return W == 4 ? s[0] + __shfl_xor_sync(~0u, s[0], 1) : s[0];
  }

  template <int W>
  static __device__ __forceinline__ Pairs<W / 2> packed(const float (&x)[W]) {
    Pairs<W / 2> r;
#pragma unroll
    for (int i = 0; i < W; i += 2) r.w[i / 2] = pack<E>(x[i], x[i + 1]);
    return r;
  }

  // The rows of a lane's channels: q and k from three tokens before the warp's first, b and f.
  template <int N>
  struct Rows {
    Row<2 * N> q[11], k[11], b[8];
  };
  template <int K, int N>
  __device__ __forceinline__ void load_rows(Rows<N> &x, Pairs<N> (&rd)[8], const Place &c, int warp, int lane) const {
    constexpr int W = 2 * N;
    const int t0 = 8 * warp, left = c.count - t0, HK = c.H * K, column = c.h * K + W * lane;
    const int64_t token = c.first + t0;
    const act *const row = p + token * ldp + column;
    const act *const decay = f + token * HK + column;
    auto load = [&](int i) {
      x.k[3 + i] = Row<W>::load(row + i * ldp + HK);
      x.q[3 + i] = Row<W>::load(row + i * ldp);
      x.b[i] = Row<W>::load(row + i * ldp + b_col);
      const Row<W> d = Row<W>::load(decay + i * HK);
      rd[i] = *reinterpret_cast<const Pairs<N> *>(&d);
    };
    if (warp == 0 && c.starts) {
      const act *from = kept(c);
#pragma unroll
      for (int i = 0; i < 3; i++) {
        x.q[i] = x.k[i] = Row<W>{};
        if (from) {
          x.q[i] = Row<W>::load(from + int64_t(i) * channels + column);
          x.k[i] = Row<W>::load(from + int64_t(i) * channels + HK + column);
        }
      }
    } else {  // a warp without tokens reads the chunk's first row and ignores it
      const act *from = row - (left > 0 ? 3 : t0) * ldp;
      const int64_t next = left > 0 ? ldp : 0;
#pragma unroll
      for (int i = 0; i < 3; i++) x.q[i] = Row<W>::load(from + i * next), x.k[i] = Row<W>::load(from + i * next + HK);
    }
    if (left >= 8) {
#pragma unroll
      for (int i = 0; i < 8; i++) load(i);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        x.k[3 + i] = x.q[3 + i] = x.b[i] = Row<W>{};
#pragma unroll
        for (int j = 0; j < N; j++) rd[i].w[j] = no_decay;
        if (i < left) load(i);
      }
    }
  }

  template <int K, int N, typename Shared>
  __device__ __forceinline__ void keys(Pairs<N> (&rq)[8], Pairs<N> (&rk)[8], Pairs<N> (&rb)[8], Pairs<N> (&rd)[8],
                                       Shared &sh, const Place &c, int warp, int lane) const {
    constexpr int W = 2 * N;
    const int t0 = 8 * warp, left = c.count - t0, HK = c.H * K, column = c.h * K + W * lane;
    Rows<N> rows;
    load_rows<K>(rows, rd, c, warp, lane);
    // Four lanes compute one token's inverse step.
    const int mine = lane / 4;
    float open = 1.f, inv_step = 1.f;
    if (flags & kKaczmarz)
      open =
          inverse_sigmoid(to_float32(p[(c.first + min(t0 + mine, c.count - 1)) * ldp + eta_col + c.h]) + eta_bias[c.h]);
    float x[8][W];
    auto convolve = [&](const Row<W>(&in)[11], int channel) {
      Conv<W> conv;
      conv.load(conv_w, conv_b, channel, channels);
      conv.start(in);
#pragma unroll
      for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < W; j++) {
          const float a = conv.push(j, in[3 + i][j]);
          x[i][j] = silu_of(a);
        }
    };
    auto normalize = [&](float squares) {
      const float scale = rsqrtf(squares + 1e-6f);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float s = __shfl_sync(~0u, scale, 4 * i);
#pragma unroll
        for (int j = 0; j < W; j++) x[i][j] *= s;
      }
    };
    convolve(rows.k, HK + column);
    if (flags & (kKaczmarz | kL2Norm)) {
      const float kk = squares(x, lane);
      if (flags & kKaczmarz) inv_step = inverse_step(open, kk, kaczmarz_eps);
      if (flags & kL2Norm) normalize(kk);
    }
    if (lane % 4 == 0) sh.inv_step[t0 + mine] = inv_step;
    const float least = least_gate(flags);
    inv_step *= least;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const float inv = __shfl_sync(~0u, inv_step, 4 * i);
      float y[W];
#pragma unroll
      for (int j = 0; j < W; j++) y[j] = erased(x[i][j], rows.b[i][j], inv, least);
      rk[i] = packed(x[i]), rb[i] = packed(y);
    }
    convolve(rows.q, column);
    if (flags & kL2Norm) normalize(squares(x, lane));
#pragma unroll
    for (int i = 0; i < 8; i++) rq[i] = packed(x[i]);
    if (left < 8) {
#pragma unroll
      for (int i = 0; i < 8; i++)
        if (i >= left) rq[i] = rk[i] = rb[i] = Pairs<N>{};
    }
  }

  template <int N>
  struct Exp {
    float dt[2 * N], rate;
    __device__ __forceinline__ Exp(const Projected &s, int h, int column) : rate(-s.rate[h]) {
#pragma unroll
      for (int i = 0; i < 2 * N; i++) dt[i] = kLog2e * s.dt_bias[column + i];
    }
    __device__ __forceinline__ Factors<N> operator()(const Pairs<N> &row) const {
      Factors<N> e;
#pragma unroll
      for (int j = 0; j < N; j++) {
        const float2 x = to_floats(*reinterpret_cast<const act2 *>(&row.w[j]));
        e.x[2 * j] = exp2_approx(rate * softplus2_short(fmaf(kLog2e, x.x, dt[2 * j])));
        e.x[2 * j + 1] = exp2_approx(rate * softplus2_short(fmaf(kLog2e, x.y, dt[2 * j + 1])));
      }
      return e;
    }
  };

  template <typename Shared>
  __device__ __forceinline__ void fetch(Shared &sh, const Place &c, int column, int width, int, int thread,
                                        int threads) const {
    const int shift = width == 128 ? 4 : 3, piece = thread & ((1 << shift) - 1), step = threads >> shift;
    const act *const v = p + int64_t(c.first) * ldp + v_col + column + piece * 8;
    const act *const w = v + (w_col - v_col);
    for (int token = thread >> shift; token < C; token += step) {
      const int64_t at = (token < c.count ? token : 0) * ldp;
      copy16_async(&sh.value[token][piece * 8], w + at, token < c.count);
      copy16_async(&sh.inputs[3 + token][piece * 8], v + at, token < c.count);
    }
    const int before = (thread >> shift) - 3;
    if (before >= 0) return;
    const act *from = v + before * ldp;
    bool valid = true;
    if (c.starts) {
      const act *rows = kept(c);
      valid = rows != nullptr;
      from = valid ? rows + int64_t(before + 3) * channels + v_col + column + piece * 8 : v;
    }
    copy16_async(&sh.inputs[3 + before][piece * 8], from, valid);
  }

  // compute replaces the fetched panel by w v. Rows past the chunk's last token are arbitrary; their keys are zero.
  // arrived waits for the copies; the convolution's weights are loaded before it.
  template <typename Shared, typename Arrived>
  __device__ __forceinline__ void compute(Shared &sh, const Place &c, int column, int width, int thread, int threads,
                                          Arrived arrived) const {
    const int shift = width == 128 ? 5 : 4, lanes = 1 << shift, tokens = (C << shift) / threads;
    const int t0 = (thread >> shift) * tokens, at = (thread & (lanes - 1)) * 4;
    Conv<4> conv;
    conv.load(conv_w, conv_b, v_col + column + at, channels);
    arrived();
    Row<4> before[3];
#pragma unroll
    for (int i = 0; i < 3; i++) before[i] = Row<4>::load(&sh.inputs[t0 + i][at]);
    conv.start(before);
#pragma unroll 4
    for (int i = t0; i < t0 + tokens; i++) {
      float y[4];
      act *const place = reinterpret_cast<act *>(&sh.value[i][at]);
      written(y, conv, Row<4>::load(&sh.inputs[3 + i][at]), Row<4>::load(place), sh.inv_step[i]);
      store(reinterpret_cast<E *>(place), y);
    }
  }
};

}  // namespace gdn2
