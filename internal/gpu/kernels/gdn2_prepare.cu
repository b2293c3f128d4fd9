// gdn2_prepare: everything of the GDN-2 recurrence that needs no state, one block a (key head, chunk of 64 tokens); tensor cores throughout.
//
//   A[t,s] = sum_i bk_t,i k_s,i exp(G_t,i - G_s,i)  s < t        X = (I+A)^-1 (bk exp G)      q' = scale q exp G
//   P[t,s] = scale sum_i q_t,i k_s,i exp(G_t,i - G_s,i)  s <= t  Z = (I+A)^-1 wv              k' = k exp(G_C - G)
//
// Range: g has no lower bound, so exp(G_t - G_s) is never split at a point outside [s, t]. Warp w has tokens 8w..8w+7, a lane one token and K/4
// channels, in the order of the tensor core's fragments. exp(g) is taken once an element; every other factor is a product of such
// numbers over consecutive tokens, all in [0, 1]: nothing overflows, and what underflows is truly that small. Pairs inside a warp's 8 tokens are split at
// the start of the odd half of the smallest aligned block of 2, 4 or 8 that holds both (3 products, each element picks its own); pairs of different
// warps at the start of t's 8 tokens. Inverse: 16 x 16 diagonal blocks by substitution in fp32, then block rows with operands split in two (hi + lo).
// Shapes, layouts, launch: GDN2_API.md.
#include "gdn2_recurrence.cuh"

namespace gdn2 {

template <typename E>
__device__ __forceinline__ void mma16816(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void mma16816<__nv_bfloat16>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma16816<__half>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t smem_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
__device__ __forceinline__ uint4 ldmatrix4(const void* p) {
  uint4 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "r"(smem_address(p)) : "memory");
  return r;
}
__device__ __forceinline__ uint4 ldmatrix4_trans(const void* p) {
  uint4 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "r"(smem_address(p)) : "memory");
  return r;
}
__device__ __forceinline__ void copy16_async(void* to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smem_address(to)), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_async_wait() { asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory"); }
__device__ __forceinline__ float exp_nonpositive(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
  return y;
}

constexpr int prepare_threads = 256;
constexpr int value_panel = 128;  // value columns solved at a time

template <typename E, int K>
struct PrepareShared {
  union {
    uint2 k_suffix[8][K / 16][32];              // while A, P are made: k decayed to the end of its 8 tokens, as B fragments
    unsigned char x_tile[K * C * 2];            // after: X as it goes to the record
  };
  E erase[C][K + 8];                            // bk exp G
  E value[C][value_panel + 8];                  // wv
  E hi[C][C + 8], lo[C][C + 8];                 // 16 x 16 blocks: -A off the diagonal, (I+A)^-1 of the block on it; split in two
  unsigned char p_tile[C * C * 2];
  float total[8][K], before[8][K], after[8][K];  // exp of g summed over 8 tokens, over all tokens before them, over all after them
  float a_diag[4][16][20];
};
static_assert(sizeof(PrepareShared<__half, 128>) <= 98304 && sizeof(PrepareShared<__half, 64>) <= 81920, "GDN2_API.md");

// Splits x, y into the sum of two elements each.
template <typename E>
__device__ __forceinline__ void split(float x, float y, uint32_t& hi, uint32_t& lo) {
  hi = Pair<E>::pack(x, y);
  lo = Pair<E>::pack(x - Pair<E>::lo(hi), y - Pair<E>::hi(hi));
}

// Solves (I+A) X = Y for 16 columns of Y [64 tokens][columns]: out[r] is X^T of tokens 16r.., as accumulators of (16 columns, 2 x 8 tokens).
template <typename E>
__device__ __forceinline__ void solve(float (&out)[4][2][4], const E* y, int stride, const E (*hi)[C + 8], const E (*lo)[C + 8], int lane) {
  uint32_t xh[3][4], xl[3][4];
  const int row = (lane / 16) * 8 + lane % 8, column = (lane / 8 % 2) * 8;
#pragma unroll
  for (int r = 0; r < 4; r++) {
    float acc[2][4];
    const uint4 start = ldmatrix4_trans(y + (16 * r + row) * stride + column);
    acc[0][0] = Pair<E>::lo(start.x), acc[0][1] = Pair<E>::hi(start.x), acc[0][2] = Pair<E>::lo(start.y), acc[0][3] = Pair<E>::hi(start.y);
    acc[1][0] = Pair<E>::lo(start.z), acc[1][1] = Pair<E>::hi(start.z), acc[1][2] = Pair<E>::lo(start.w), acc[1][3] = Pair<E>::hi(start.w);
#pragma unroll
    for (int c = 0; c < r; c++) {
      const uint4 h = ldmatrix4(&hi[16 * r + row][16 * c + column]), l = ldmatrix4(&lo[16 * r + row][16 * c + column]);
      mma16816<E>(acc[0], xh[c][0], xh[c][1], xh[c][2], xh[c][3], h.x, h.y);
      mma16816<E>(acc[1], xh[c][0], xh[c][1], xh[c][2], xh[c][3], h.z, h.w);
      mma16816<E>(acc[0], xl[c][0], xl[c][1], xl[c][2], xl[c][3], h.x, h.y);
      mma16816<E>(acc[1], xl[c][0], xl[c][1], xl[c][2], xl[c][3], h.z, h.w);
      mma16816<E>(acc[0], xh[c][0], xh[c][1], xh[c][2], xh[c][3], l.x, l.y);
      mma16816<E>(acc[1], xh[c][0], xh[c][1], xh[c][2], xh[c][3], l.z, l.w);
    }
    uint32_t ah[4], al[4];
    split<E>(acc[0][0], acc[0][1], ah[0], al[0]), split<E>(acc[0][2], acc[0][3], ah[1], al[1]);
    split<E>(acc[1][0], acc[1][1], ah[2], al[2]), split<E>(acc[1][2], acc[1][3], ah[3], al[3]);
    const uint4 h = ldmatrix4(&hi[16 * r + row][16 * r + column]), l = ldmatrix4(&lo[16 * r + row][16 * r + column]);
#pragma unroll
    for (int i = 0; i < 4; i++) out[r][0][i] = out[r][1][i] = 0.f;
    mma16816<E>(out[r][0], ah[0], ah[1], ah[2], ah[3], h.x, h.y);
    mma16816<E>(out[r][1], ah[0], ah[1], ah[2], ah[3], h.z, h.w);
    mma16816<E>(out[r][0], al[0], al[1], al[2], al[3], h.x, h.y);
    mma16816<E>(out[r][1], al[0], al[1], al[2], al[3], h.z, h.w);
    mma16816<E>(out[r][0], ah[0], ah[1], ah[2], ah[3], l.x, l.y);
    mma16816<E>(out[r][1], ah[0], ah[1], ah[2], ah[3], l.z, l.w);
    if (r < 3) {
      split<E>(out[r][0][0], out[r][0][1], xh[r][0], xl[r][0]), split<E>(out[r][0][2], out[r][0][3], xh[r][1], xl[r][1]);
      split<E>(out[r][1][0], out[r][1][1], xh[r][2], xl[r][2]), split<E>(out[r][1][2], out[r][1][3], xh[r][3], xl[r][3]);
    }
  }
}

template <typename E, int K>
__device__ __forceinline__ void prepare(const E* __restrict__ q, const E* __restrict__ k, const E* __restrict__ bk, const E* __restrict__ wv,
                                        const __half* __restrict__ g, const int2* __restrict__ chunks, unsigned char* __restrict__ key_records,
                                        unsigned char* __restrict__ value_records, int H, int HV, int V, float scale) {
  using P = Pair<E>;
  using Record = KeyRecord<K>;
  extern __shared__ __align__(1024) unsigned char raw[];
  PrepareShared<E, K>& sh = *reinterpret_cast<PrepareShared<E, K>*>(raw);
  constexpr int NJ = K / 32;  // 16-byte pieces of a lane
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, row = lane / 4, quad = lane % 4;
  const int h = blockIdx.x, chunk = blockIdx.y;
  const int2 span = chunks[chunk];
  const int first = span.x, count = span.y, t = warp * 8 + row, per = HV / H;
  const bool valid = t < count;
  unsigned char* record = key_records + (int64_t(chunk) * H + h) * Record::bytes;

  // g of this warp's 8 tokens, a lane K/32 channels: the sum over the tokens.
  float sums[K / 32];
  {
    uint32_t gs[8][K / 64];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const bool in = warp * 8 + i < count;
      const __half* at = g + (int64_t(first + warp * 8 + i) * H + h) * K + lane * (K / 32);
      if constexpr (K == 128) {
        const uint2 x = in ? *reinterpret_cast<const uint2*>(at) : make_uint2(0, 0);
        gs[i][0] = x.x, gs[i][1] = x.y;
      } else {
        gs[i][0] = in ? *reinterpret_cast<const uint32_t*>(at) : 0;
      }
    }
#pragma unroll
    for (int j = 0; j < K / 64; j++) {
      sums[2 * j] = sums[2 * j + 1] = 0.f;
#pragma unroll
      for (int i = 0; i < 8; i++) sums[2 * j] += Pair<__half>::lo(gs[i][j]), sums[2 * j + 1] += Pair<__half>::hi(gs[i][j]);
    }
  }
  // This lane's token: channels (4 j + quad) 8 + 0..7.
  uint4 rq[NJ], rk[NJ], rb[NJ], rg[NJ];
  {
    const int64_t at = (int64_t(first + t) * H + h) * K + quad * 8;
    const uint4 zero = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < NJ; j++) {
      rg[j] = valid ? *reinterpret_cast<const uint4*>(g + at + 32 * j) : zero;
      rk[j] = valid ? *reinterpret_cast<const uint4*>(k + at + 32 * j) : zero;
      rb[j] = valid ? *reinterpret_cast<const uint4*>(bk + at + 32 * j) : zero;
      rq[j] = valid ? *reinterpret_cast<const uint4*>(q + at + 32 * j) : zero;
    }
  }
  const int width = V < value_panel ? V : value_panel, panels = per * (V / width);
  auto load_panel = [&](int panel) {
    const int64_t base = (int64_t(first) * HV + h * per) * V + panel * width;  // panels of one key head are consecutive
    for (int i = tid; i < C * width / 8; i += prepare_threads) {
      const int token = i / (width / 8), piece = i % (width / 8);
      const bool in = token < count;
      copy16_async(&sh.value[token][piece * 8], wv + base + (in ? int64_t(token) * HV * V + piece * 8 : 0), in);
    }
  };
  load_panel(0);
#pragma unroll
  for (int j = 0; j < K / 32; j++) sh.total[warp][lane * (K / 32) + j] = exp_nonpositive(sums[j]);
  __syncthreads();
  if (tid < K) {
    float p = 1.f;
#pragma unroll
    for (int i = 0; i < 8; i++) sh.before[i][tid] = p, p *= sh.total[i][tid];
    reinterpret_cast<float*>(record + Record::decay)[tid] = p;
  } else if (tid < 2 * K) {
    float p = 1.f;
#pragma unroll
    for (int i = 7; i >= 0; i--) sh.after[i][tid - K] = p, p *= sh.total[i][tid - K];
  }
  __syncthreads();

  // Pairs inside the 8 tokens, and the operands for pairs across.
  float same[4] = {}, by1[4] = {}, by2[4] = {}, by4[4] = {};  // rows bk (0, 1) and q (2, 3) of this lane's token against tokens 2 quad, +1
  uint32_t a8[K / 16][4];                                     // rows decayed from the 8 tokens' start
#pragma unroll
  for (int j = 0; j < NJ; j++) {
    uint32_t out_q[4], out_k[4], out_b[4];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const uint32_t wq[2] = {half ? rq[j].z : rq[j].x, half ? rq[j].w : rq[j].y}, wk[2] = {half ? rk[j].z : rk[j].x, half ? rk[j].w : rk[j].y};
      const uint32_t wb[2] = {half ? rb[j].z : rb[j].x, half ? rb[j].w : rb[j].y}, wg[2] = {half ? rg[j].z : rg[j].x, half ? rg[j].w : rg[j].y};
      const int ks = 2 * j + half, channel = (4 * j + quad) * 8 + half * 4;
      const float4 before = *reinterpret_cast<const float4*>(&sh.before[warp][channel]), after = *reinterpret_cast<const float4*>(&sh.after[warp][channel]);
      const float bef[4] = {before.x, before.y, before.z, before.w}, aft[4] = {after.x, after.y, after.z, after.w};
      float vq[4], vk[4], vb[4], e[4], pre2[4], suf2[4], pre4[4], suf4[4], pre8[4], suf8[4];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        vq[2 * i] = P::lo(wq[i]), vq[2 * i + 1] = P::hi(wq[i]), vk[2 * i] = P::lo(wk[i]), vk[2 * i + 1] = P::hi(wk[i]);
        vb[2 * i] = P::lo(wb[i]), vb[2 * i + 1] = P::hi(wb[i]);
        e[2 * i] = exp_nonpositive(Pair<__half>::lo(wg[i])), e[2 * i + 1] = exp_nonpositive(Pair<__half>::hi(wg[i]));
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float o1 = __shfl_xor_sync(~0u, e[i], 4), p2 = e[i] * o1;
        const float o2 = __shfl_xor_sync(~0u, p2, 8), p4 = p2 * o2;
        const float o3 = __shfl_xor_sync(~0u, p4, 16);
        pre2[i] = row & 1 ? p2 : e[i], suf2[i] = row & 1 ? 1.f : o1;
        pre4[i] = row & 2 ? pre2[i] * o2 : pre2[i], suf4[i] = row & 2 ? suf2[i] : suf2[i] * o2;
        pre8[i] = row & 4 ? pre4[i] * o3 : pre4[i], suf8[i] = row & 4 ? suf4[i] : suf4[i] * o3;
      }
      mma16816<E>(same, wb[0], wq[0], wb[1], wq[1], wk[0], wk[1]);
      auto level = [&](float(&acc)[4], const float(&pre)[4], uint32_t k0, uint32_t k1) {
        mma16816<E>(acc, P::pack(vb[0] * pre[0], vb[1] * pre[1]), P::pack(vq[0] * pre[0], vq[1] * pre[1]), P::pack(vb[2] * pre[2], vb[3] * pre[3]),
                    P::pack(vq[2] * pre[2], vq[3] * pre[3]), k0, k1);
      };
      level(by1, e, wk[0], wk[1]);
      level(by2, pre2, P::pack(vk[0] * suf2[0], vk[1] * suf2[1]), P::pack(vk[2] * suf2[2], vk[3] * suf2[3]));
      level(by4, pre4, P::pack(vk[0] * suf4[0], vk[1] * suf4[1]), P::pack(vk[2] * suf4[2], vk[3] * suf4[3]));
#pragma unroll
      for (int i = 0; i < 4; i++) vq[i] *= pre8[i], vb[i] *= pre8[i], vk[i] *= suf8[i];
      a8[ks][0] = P::pack(vb[0], vb[1]), a8[ks][1] = P::pack(vq[0], vq[1]), a8[ks][2] = P::pack(vb[2], vb[3]), a8[ks][3] = P::pack(vq[2], vq[3]);
      sh.k_suffix[warp][ks][lane] = make_uint2(P::pack(vk[0], vk[1]), P::pack(vk[2], vk[3]));
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int a = 2 * i, b = a + 1;
        out_q[2 * half + i] = P::pack(vq[a] * bef[a] * scale, vq[b] * bef[b] * scale);
        out_k[2 * half + i] = P::pack(vk[a] * aft[a], vk[b] * aft[b]);
        out_b[2 * half + i] = P::pack(vb[a] * bef[a], vb[b] * bef[b]);
      }
    }
    const int piece = 4 * j + quad, offset = piece / 8 * (C * 128) + t * 128 + ((piece % 8) ^ row) * 16;
    *reinterpret_cast<uint4*>(record + Record::q + offset) = make_uint4(out_q[0], out_q[1], out_q[2], out_q[3]);
    *reinterpret_cast<uint4*>(record + Record::k + offset) = make_uint4(out_k[0], out_k[1], out_k[2], out_k[3]);
    *reinterpret_cast<uint4*>(&sh.erase[t][piece * 8]) = make_uint4(out_b[0], out_b[1], out_b[2], out_b[3]);
  }
  // The element (row, 2 quad + i) of the warp's own 8 x 8 block; 0 above the diagonal.
  auto store_p = [&](int block, float x, float y) {
    *reinterpret_cast<uint32_t*>(sh.p_tile + t * 128 + ((block ^ row) * 16) + quad * 4) = P::pack(x * scale, y * scale);
  };
  {
    float a[2], p[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int s = 2 * quad + i, d = row ^ s;
      const float av = d >= 4 ? by4[i] : d >= 2 ? by2[i] : by1[i], pv = d >= 4 ? by4[2 + i] : d >= 2 ? by2[2 + i] : by1[2 + i];
      a[i] = s < row ? av : 0.f;
      p[i] = s < row ? pv : s == row ? same[2 + i] : 0.f;
    }
    store_p(warp, p[0], p[1]);
    *reinterpret_cast<float2*>(&sh.a_diag[warp / 2][warp % 2 * 8 + row][warp % 2 * 8 + 2 * quad]) = make_float2(a[0], a[1]);
    for (int c = warp + 1; c < 8; c++) store_p(c, 0.f, 0.f);
  }
  __syncthreads();

  // Pairs of different warps' tokens: block (warp, c), columns decayed on to the start of this warp's tokens.
  {
    float f[K / 16][4];
    for (int c = warp - 1; c >= 0; c--) {
      float acc[4] = {};
#pragma unroll
      for (int ks = 0; ks < K / 16; ks++) {
        uint2 b = sh.k_suffix[c][ks][lane];
        if (c < warp - 1) {
          const float4 total = *reinterpret_cast<const float4*>(&sh.total[c + 1][(4 * (ks / 2) + quad) * 8 + ks % 2 * 4]);
          const bool start = c == warp - 2;
          f[ks][0] = start ? total.x : f[ks][0] * total.x, f[ks][1] = start ? total.y : f[ks][1] * total.y;
          f[ks][2] = start ? total.z : f[ks][2] * total.z, f[ks][3] = start ? total.w : f[ks][3] * total.w;
          b.x = P::pack(P::lo(b.x) * f[ks][0], P::hi(b.x) * f[ks][1]), b.y = P::pack(P::lo(b.y) * f[ks][2], P::hi(b.y) * f[ks][3]);
        }
        mma16816<E>(acc, a8[ks][0], a8[ks][1], a8[ks][2], a8[ks][3], b.x, b.y);
      }
      store_p(c, acc[2], acc[3]);
      if (c / 2 == warp / 2) {
        *reinterpret_cast<float2*>(&sh.a_diag[warp / 2][8 + row][2 * quad]) = make_float2(acc[0], acc[1]);
      } else {
        uint32_t hi, lo;
        split<E>(-acc[0], -acc[1], hi, lo);
        *reinterpret_cast<uint32_t*>(&sh.hi[t][8 * c + 2 * quad]) = hi, *reinterpret_cast<uint32_t*>(&sh.lo[t][8 * c + 2 * quad]) = lo;
      }
    }
  }
  __syncthreads();

  if (warp < 4) {  // the inverse of one diagonal block, a lane a column
    if (lane < 16) {
      float x[16];
#pragma unroll
      for (int r = 0; r < 16; r++) {
        float sum[4] = {lane == r ? 1.f : 0.f, 0.f, 0.f, 0.f};
#pragma unroll
        for (int c = 0; c < r; c += 4) {
          const float4 a = *reinterpret_cast<const float4*>(&sh.a_diag[warp][r][c]);
          sum[0] -= a.x * x[c];
          if (c + 1 < r) sum[1] -= a.y * x[c + 1];
          if (c + 2 < r) sum[2] -= a.z * x[c + 2];
          if (c + 3 < r) sum[3] -= a.w * x[c + 3];
        }
        x[r] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        const uint32_t hi = P::pack(x[r], 0.f);
        const uint32_t lo = P::pack(x[r] - P::lo(hi), 0.f);
        *reinterpret_cast<uint16_t*>(&sh.hi[16 * warp + r][16 * warp + lane]) = static_cast<uint16_t>(hi);
        *reinterpret_cast<uint16_t*>(&sh.lo[16 * warp + r][16 * warp + lane]) = static_cast<uint16_t>(lo);
      }
    }
  } else {
    for (int i = tid - 128; i < C * C * 2 / 16; i += 128)
      reinterpret_cast<uint4*>(record + Record::p)[i] = reinterpret_cast<const uint4*>(sh.p_tile)[i];
  }
  copy_async_wait();
  __syncthreads();

  for (int panel = 0; panel < panels; panel++) {
    if (panel) {
      __syncthreads();
      load_panel(panel);
      copy_async_wait();
      __syncthreads();
    }
    const int keys = panel ? 0 : K / 16;
    for (int group = warp; group < keys + width / 16; group += 8) {
      float x[4][2][4];
      if (group < keys) {
        solve<E>(x, &sh.erase[0][group * 16], K + 8, sh.hi, sh.lo, lane);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
          for (int n = 0; n < 2; n++) {
            unsigned char* at = sh.x_tile + (16 * group + row) * 128 + ((2 * r + n) ^ row) * 16 + quad * 4;
            *reinterpret_cast<uint32_t*>(at) = P::pack(-x[r][n][0], -x[r][n][1]);
            *reinterpret_cast<uint32_t*>(at + 1024) = P::pack(-x[r][n][2], -x[r][n][3]);
          }
      } else {
        const int column = group - keys;  // of 16, in this panel
        solve<E>(x, &sh.value[0][column * 16], value_panel + 8, sh.hi, sh.lo, lane);
        uint4* to = reinterpret_cast<uint4*>(value_records + (int64_t(chunk) * HV + h * per) * value_record_bytes(V) + int64_t(panel * width + column * 16) * (C * 2));
#pragma unroll
        for (int r = 0; r < 4; r++)
          to[r * 32 + lane] = make_uint4(P::pack(x[r][0][0], x[r][0][1]), P::pack(x[r][0][2], x[r][0][3]), P::pack(x[r][1][0], x[r][1][1]), P::pack(x[r][1][2], x[r][1][3]));
      }
    }
    if (panel == 0) {
      __syncthreads();
      for (int i = tid; i < K * C * 2 / 16; i += prepare_threads) reinterpret_cast<uint4*>(record + Record::x)[i] = reinterpret_cast<const uint4*>(sh.x_tile)[i];
    }
  }
}

}  // namespace gdn2

#define GDN2_PREPARE(K, E, NAME)                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(gdn2::prepare_threads, 2) NAME(const E* q, const E* k, const E* bk, const E* wv, const __half* g,         \
                                                                              const int2* chunks, unsigned char* key_records,                            \
                                                                              unsigned char* value_records, int H, int HV, int V, float scale) {        \
    gdn2::prepare<E, K>(q, k, bk, wv, g, chunks, key_records, value_records, H, HV, V, scale);                                                          \
  }
GDN2_PREPARE(64, __nv_bfloat16, gdn2_prepare_k64_bf16)
GDN2_PREPARE(128, __nv_bfloat16, gdn2_prepare_k128_bf16)
GDN2_PREPARE(64, __half, gdn2_prepare_k64_f16)
GDN2_PREPARE(128, __half, gdn2_prepare_k128_f16)
