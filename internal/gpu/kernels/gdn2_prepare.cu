// gdn2_prepare: everything of the GDN-2 recurrence that needs no state, one block a (key head, chunk of 64 tokens);
// tensor cores throughout.
//
//   A[t,s] = sum_i bk_t,i k_s,i exp(G_t,i - G_s,i)  s < t        X = (I+A)^-1 (bk exp G)      q' = scale q exp G
//   P[t,s] = scale sum_i q_t,i k_s,i exp(G_t,i - G_s,i)  s <= t  Z = (I+A)^-1 wv              k' = k exp(G_C - G)
//
// Range: g has no lower bound, so exp(G_t - G_s) is never split at a point outside [s, t]. Warp w has tokens 8w..8w+7,
// a lane a few channels of all eight: exp(g) is taken once an element, and every factor is a product of such numbers
// over consecutive tokens, in [0, 1], made in fp32 without an exchange between lanes and rounded once: nothing
// overflows, and what underflows is truly that small. Operands go to shared memory as rows of tokens and come back as
// fragments. A pair (t, s) is split at the start of the odd half of the smallest aligned block of 2, 4, 8 or 16 tokens
// that holds both, or, between blocks of 16, at the start of t's. Pairs of 1 apart and equal ones are one product,
// those split in blocks of 4 and of 8 another: half the rows of each suffice.
//
// Inverse: 16 x 16 diagonal blocks by substitution in fp32, the rest block row by block row with operands split in two
// (hi + lo); it is kept split, so that its products with bk exp G and wv, which are elements as they stand, round once.
//
// Its operands come from memory or from the layer's projections: gdn2_source.cuh. Shapes, layouts, launch:
// docs/kernels/gdn2_api.md.
#include "gdn2_source.cuh"

namespace gdn2 {

template <typename E>
__device__ __forceinline__ void mma16816(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                         uint32_t b1);
template <>
__device__ __forceinline__ void mma16816<__nv_bfloat16>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                        uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma16816<__half>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                                 uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint4 ldmatrix4(const void *p) {
  uint4 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(smem_address(p))
               : "memory");
  return r;
}
__device__ __forceinline__ uint4 ldmatrix4_trans(const void *p) {
  uint4 r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(smem_address(p))
               : "memory");
  return r;
}
__device__ __forceinline__ void stmatrix4(void *p, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};"
               :
               : "r"(smem_address(p)), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
__device__ __forceinline__ void stmatrix4_trans(void *p, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};"
               :
               : "r"(smem_address(p)), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
}
// Of the first four warps, which invert, or of the last, which have the values meanwhile.
template <int Id>
__device__ __forceinline__ void sync_four_warps() {
#ifdef HOPPER_RACECHECK
  __syncthreads();
#else
  asm volatile("bar.sync %0, 128;" ::"n"(Id) : "memory");
#endif
}
constexpr int prepare_threads = 256;
constexpr int value_panel = 128;  // value columns solved at a time

// Rows of operands are K + 8 elements apart: the 8 rows of an ldmatrix lie in different banks. "own" are a warp's 8
// tokens.
template <typename E, int K>
struct PrepareShared {
  static constexpr int stride = K + 8;
  union {
    struct {
      E k8[56][stride];   // k decayed to the end of its own 8 tokens, warps 0..6
      E k16[24][stride];  // to the end of its 16 tokens, warps 0, 2, 4 (for odd warps that is k8)
    };
    unsigned char x_tile[K * C * 2];     // after A and P: X as it goes to the record
    act inputs[3 + C][value_panel + 8];  // after A and P: the convolution's inputs, from three tokens before the chunk
  };
  union {
    E a16[96][stride];            // warps 2..7: 8 rows bk and 8 rows q, decayed from the start of their 16 tokens
    E value[C][value_panel + 8];  // after A and P: wv, or first what its write gate comes from
  };
  E erase[C][stride];  // -bk exp G
  union {
    E a8[64][stride];  // warps 1, 3, 5, 7 until they have it in registers: rows as in a16, decayed from the start of
                       // their own 8 tokens
    struct {
      // 16 x 16 blocks: A under the diagonal, then (I+A)^-1 on and under it; split in two. Above lies A of the
      // diagonal's blocks, fp32.
      E hi[C][C + 8], lo[C][C + 8];
    };
  };
  unsigned char p_tile[C * C * 2];
  float total[8][K];  // exp of g summed over 8 tokens
  float inv_step[C];  // of each token, where the source makes them
  uint4 between[4][K / 32]
               [4];  // products of these, as factors of B fragments: over tokens 16..47, 16..31, 32..47, none
  __device__ __forceinline__ float *a_diagonal(int block, int row) {
    return reinterpret_cast<float *>(&(block < 2 ? hi : lo)[16 * (block & 1) + row][16 * (block & 1) + 16]);
  }
};
static_assert(sizeof(PrepareShared<__half, 128>) <= 98304 && sizeof(PrepareShared<__half, 64>) <= 81920,
              "docs/kernels/gdn2_api.md");

template <typename E, int N>
__device__ __forceinline__ Pairs<N> times(const Pairs<N> &x, const Pairs<N> &y) {
  Pairs<N> z;
#pragma unroll
  for (int i = 0; i < N; i++) z.w[i] = Pair<E>::mul(x.w[i], y.w[i]);
  return z;
}
template <typename E, int N>
__device__ __forceinline__ Pairs<N> rounded(const Factors<N> &f) {
  Pairs<N> p;
#pragma unroll
  for (int i = 0; i < N; i++) p.w[i] = Pair<E>::pack_factors(f.x[2 * i], f.x[2 * i + 1]);
  return p;
}

// Splits x, y into the sum of two elements each.
template <typename E>
__device__ __forceinline__ void split(float x, float y, uint32_t &hi, uint32_t &lo) {
  hi = Pair<E>::pack(x, y);
  lo = Pair<E>::pack(x - Pair<E>::lo(hi), y - Pair<E>::hi(hi));
}
template <typename E>
__device__ __forceinline__ void split(const float (&d)[2][4], uint32_t (&hi)[4],
                                      uint32_t (&lo)[4]) {  // accumulators to an A operand
#pragma unroll
  for (int i = 0; i < 4; i++) split<E>(d[i / 2][i % 2 * 2], d[i / 2][i % 2 * 2 + 1], hi[i], lo[i]);
}
template <typename E>
__device__ __forceinline__ void mma(float (&d)[4], const uint4 &a, uint32_t b0, uint32_t b1) {
  mma16816<E>(d, a.x, a.y, a.z, a.w, b0, b1);
}

// 16 rows times 8 columns over K channels; a, b: this lane's row of the first 16 x 16 and 8 x 32.
template <typename E, int K>
__device__ __forceinline__ void multiply(float (&d)[4], const E *a, const E *b) {
  float odd[4] = {};
#pragma unroll
  for (int i = 0; i < 4; i++) d[i] = 0.f;
#pragma unroll 4
  for (int ks = 0; ks < K / 16; ks += 2) {
    const uint4 y = ldmatrix4(b + 16 * ks);
    mma<E>(d, ldmatrix4(a + 16 * ks), y.x, y.y);
    mma<E>(odd, ldmatrix4(a + 16 * ks + 16), y.z, y.w);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) d[i] += odd[i];
}

// d += x (hi + lo)^T of one 16 x 16 block without the product of the two low parts; x: A operand, split as well.
template <typename E>
__device__ __forceinline__ void multiply_split(float (&d)[2][4], float (&small)[2][4], const uint32_t (&xh)[4],
                                               const uint32_t (&xl)[4], const uint4 &h, const uint4 &l) {
  mma16816<E>(d[0], xh[0], xh[1], xh[2], xh[3], h.x, h.y);
  mma16816<E>(d[1], xh[0], xh[1], xh[2], xh[3], h.z, h.w);
  mma16816<E>(small[0], xl[0], xl[1], xl[2], xl[3], h.x, h.y);
  mma16816<E>(small[1], xl[0], xl[1], xl[2], xl[3], h.z, h.w);
  mma16816<E>(small[0], xh[0], xh[1], xh[2], xh[3], l.x, l.y);
  mma16816<E>(small[1], xh[0], xh[1], xh[2], xh[3], l.z, l.w);
}

// (I+A)^-1 Y for N groups of 16 columns; y: this lane's row of a group. out(r, x): X^T of tokens 16r.., a group's
// accumulators of (16 columns, 2 x 8 tokens).
template <typename E, int N, typename Out>
__device__ __forceinline__ void solve(const E *const (&y)[N], const int (&stride)[N], const E *hi, const E *lo,
                                      Out out) {
  uint4 a[N][4];
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int r = 0; r < 4; r++) a[n][r] = ldmatrix4_trans(y[n] + 16 * r * stride[n]);
#pragma unroll
  for (int r = 0; r < 4; r++) {
    float x[N][2][4] = {};
#pragma unroll
    for (int c = 0; c <= r; c++) {
      const uint4 h = ldmatrix4(hi + 16 * r * (C + 8) + 16 * c), l = ldmatrix4(lo + 16 * r * (C + 8) + 16 * c);
#pragma unroll
      for (int n = 0; n < N; n++) mma<E>(x[n][0], a[n][c], h.x, h.y), mma<E>(x[n][1], a[n][c], h.z, h.w);
#pragma unroll
      for (int n = 0; n < N; n++) mma<E>(x[n][0], a[n][c], l.x, l.y), mma<E>(x[n][1], a[n][c], l.z, l.w);
    }
    out(r, x);
  }
}

template <typename E, int K, typename Source>
__device__ __forceinline__ void prepare(const Source &source, const int2 *__restrict__ chunks,
                                        unsigned char *__restrict__ key_records,
                                        unsigned char *__restrict__ value_records, int H, int HV, int V, float scale) {
  using P = Pair<E>;
  using Record = KeyRecord<K>;
  using Shared = PrepareShared<E, K>;
  constexpr int N = K / 64, S = Shared::stride;  // a lane has channels 2 N lane.. of its warp's 8 tokens
  using Elements = Pairs<N>;
  using Decay = Factors<N>;
  extern __shared__ __align__(1024) unsigned char raw[];
  Shared &sh = *reinterpret_cast<Shared *>(raw);
  const int tid = threadIdx.x, warp = __shfl_sync(~0u, tid / 32, 0), lane = tid % 32, row = lane / 4, quad = lane % 4;
  const int h = blockIdx.x, chunk = blockIdx.y;
  const int2 span = chunks[chunk];
  const int count = span.y & chunk_tokens, per = HV == H ? 1 : HV / H;
  const Place place{span.x, count, (span.y & chunk_starts) != 0, h, H};
  unsigned char *record = key_records + (int64_t(chunk) * H + h) * Record::bytes;

  Elements rg[8], rk[8], rb[8], rq[8];
  source.template keys<K>(rq, rk, rb, rg, sh, place, warp, lane);
  const int width = V < value_panel ? V : value_panel, panels = V > value_panel ? per * (V / value_panel) : per;

  const int channel = 2 * N * lane;
  const typename Source::template Exp<N> exp_of(source, h, h * K + channel);
  Decay e[8];
#pragma unroll
  for (int i = 0; i < 8; i++) e[i] = exp_of(rg[i]);
  auto total = [&](int w) -> Decay & { return *reinterpret_cast<Decay *>(&sh.total[w][channel]); };
  total(warp) = ((e[0] * e[1]) * (e[2] * e[3])) * ((e[4] * e[5]) * (e[6] * e[7]));

  // This lane's part of ldmatrix addresses: its row of the A operand's two halves (16 x 16) and of the B operand (8 x
  // 32).
  const int matrix = lane / 8, line = lane % 8;
  auto put = [&](E *rows, int at, const Elements &x) { *reinterpret_cast<Elements *>(rows + at * S + channel) = x; };
  auto store_p = [&](int t, int block, float x, float y) {
    *reinterpret_cast<uint32_t *>(sh.p_tile + t * 128 + ((block ^ (t % 8)) * 16) + quad * 4) =
        P::pack(x * scale, y * scale);
  };
  // Own rows of shared memory as room for operands: 8 rows each.
  E *const room_b = sh.erase[8 * warp];
  E *const room_q = warp & 1 ? sh.a8[16 * (warp / 2)] : warp == 6 ? sh.a16[64] : sh.k16[4 * warp];
  E *const room_k = warp < 7 ? sh.k8[8 * warp] : sh.a8[56];
  const E *const operand_a = (matrix & 1 ? room_q : room_b) + line * S + matrix / 2 * 8;
  const E *const operand_b = room_k + line * S + matrix * 8;

  // P of own tokens: zeros first. 64 pieces of 16 bytes.
#pragma unroll
  for (int i = 0; i < 2; i++) reinterpret_cast<uint4 *>(sh.p_tile)[64 * warp + 32 * i + lane] = make_uint4(0, 0, 0, 0);
  // Pairs one apart, and equal ones. Rows: bk of tokens 1, 3, 5, 7, q of the same, decayed; then all of q.
  const Elements d1 = rounded<E>(e[1]), d3 = rounded<E>(e[3]), d5 = rounded<E>(e[5]), d7 = rounded<E>(e[7]);
  {
    const Elements d[4] = {d1, d3, d5, d7};
#pragma unroll
    for (int i = 0; i < 4; i++)
      put(room_b, i, times<E>(rb[2 * i + 1], d[i])), put(room_b, 4 + i, times<E>(rq[2 * i + 1], d[i]));
#pragma unroll
    for (int i = 0; i < 8; i++) put(room_q, i, rq[i]), put(room_k, i, rk[i]);
  }
  __syncwarp();
  float next, pair[2];  // A of own tokens, this lane's part
  {
    float x[4];
    multiply<E, K>(x, operand_a, operand_b);
    next = x[0];  // (2 row + 1, 2 row) where quad == row
    unsigned char *p = sh.p_tile + 1024 * warp;
    if (row >= 4 && quad == row - 4) {
      const int t = 2 * quad + 1;
      *reinterpret_cast<uint16_t *>(p + t * 128 + ((warp ^ t) * 16) + (t - 1) * 2) =
          static_cast<uint16_t>(P::pack(x[0] * scale, 0.f));
    }
    if (quad == row / 2)
      *reinterpret_cast<uint16_t *>(p + row * 128 + ((warp ^ row) * 16) + row * 2) =
          static_cast<uint16_t>(P::pack((row & 1 ? x[3] : x[2]) * scale, 0.f));
  }
  __syncwarp();
  // Rows: tokens 2, 3, 6, 7 from the middle of their 4 tokens, then 4..7 from the middle of the 8; columns: 0, 1, 4, 5
  // and 0..3 up to there.
  {
    const Decay e23 = e[2] * e[3], e45 = e[4] * e[5], e67 = e[6] * e[7], e46 = e45 * e[6], e47 = e45 * e67;
    const Elements d23 = rounded<E>(e23), d[8] = {rounded<E>(e[2]), d23,
                                                  rounded<E>(e[6]), rounded<E>(e67),
                                                  rounded<E>(e[4]), rounded<E>(e45),
                                                  rounded<E>(e46),  rounded<E>(e47)};
    constexpr int token[8] = {2, 3, 6, 7, 4, 5, 6, 7};
#pragma unroll
    for (int i = 0; i < 8; i++)
      put(room_b, i, times<E>(rb[token[i]], d[i])), put(room_q, i, times<E>(rq[token[i]], d[i]));
    put(room_k, 0, times<E>(rk[0], d1)), put(room_k, 1, rk[1]), put(room_k, 2, times<E>(rk[4], d5)),
        put(room_k, 3, rk[5]);
    put(room_k, 4, times<E>(rk[0], rounded<E>(e[1] * e23))), put(room_k, 5, times<E>(rk[1], d23)),
        put(room_k, 6, times<E>(rk[2], d3)), put(room_k, 7, rk[3]);
  }
  __syncwarp();
  const bool by4 = row >= 4, in_pair = by4 ? quad >= 2 : quad == row / 2;
  const int pair_t = by4 ? row : row + 2 + (row & 2),
            pair_s = by4 ? 2 * quad - 4 : 4 * quad;  // where in_pair: (t, s), (t, s + 1)
  {
    float x[4];
    multiply<E, K>(x, operand_a, operand_b);
    pair[0] = x[0], pair[1] = x[1];
    if (in_pair)
      *reinterpret_cast<uint32_t *>(sh.p_tile + 1024 * warp + pair_t * 128 + ((warp ^ pair_t) * 16) + pair_s * 2) =
          P::pack(x[2] * scale, x[3] * scale);
  }
  __syncthreads();

  // Minus the product over all tokens before own, minus because X is stored negated.
  Decay before;
#pragma unroll
  for (int i = 0; i < 2 * N; i++) before.x[i] = -1.f;
#pragma unroll 2
  for (int w = 0; w < warp; w++) before = before * total(w);
  if (warp == 7) *reinterpret_cast<Decay *>(record + Record::decay + channel * 4) = before * total(7) * -1.f;
  if (warp == 0) {
    const Decay f1 = total(2) * total(3), f2 = total(4) * total(5);
    const Elements f[3] = {rounded<E>(f1 * f2), rounded<E>(f1), rounded<E>(f2)};
#pragma unroll
    for (int j = 0; j < N; j++) {
      const int at = channel + 2 * j, ks = at / 16, word = ((ks / 2 * 4 + at % 8 / 2) * 4) + ks % 2 * 2 + at % 16 / 8;
#pragma unroll
      for (int i = 0; i < 3; i++) reinterpret_cast<uint32_t *>(sh.between[i])[word] = f[i].w[j];
      reinterpret_cast<uint32_t *>(sh.between[3])[word] = P::pack_factors(1.f, 1.f);
    }
  }
  // Rows decayed from the start of own 8 tokens, columns to their end; Q', K' and bk exp G.
  {
    E *const a8 = sh.a8[16 * (warp / 2)];
    E *const a16 = sh.a16[16 * (warp < 2 ? 0 : warp - 2)];
    unsigned char *const tile = record + channel / 64 * (C * 128) + warp * 1024 + channel % 8 * 2;
    auto at = [&](int i) { return i * 128 + ((channel % 64 / 8) ^ i) * 16; };
    Decay d = e[0];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (i) d = d * e[i];
      const Decay all = d * before;
      put(sh.erase[8 * warp], i, times<E>(rb[i], rounded<E>(all)));
      *reinterpret_cast<Elements *>(tile + Record::q + at(i)) = times<E>(rq[i], rounded<E>(all * -scale));
      const Elements f = rounded<E>(d);
      rb[i] = times<E>(rb[i], f), rq[i] = times<E>(rq[i], f);
    }
    Decay after;
#pragma unroll
    for (int i = 0; i < 2 * N; i++) after.x[i] = 1.f;
#pragma unroll 2
    for (int w = 7; w > warp; w--) after = total(w) * after;
    d = e[7];
    unsigned char *const tile_k = tile + Record::k;
#pragma unroll
    for (int i = 7; i >= 0; i--) {
      if (i == 7) {
        *reinterpret_cast<Elements *>(tile_k + at(i)) = times<E>(rk[i], rounded<E>(after));
      } else {
        if (i < 6) d = d * e[i + 1];
        *reinterpret_cast<Elements *>(tile_k + at(i)) = times<E>(rk[i], rounded<E>(d * after));
        rk[i] = times<E>(rk[i], rounded<E>(d));
      }
    }
    const Elements neighbour = rounded<E>(total(warp ^ 1));
    if (warp & 1) {
#pragma unroll
      for (int i = 0; i < 8; i++) put(a8, i, rb[i]), put(a8, 8 + i, rq[i]);
#pragma unroll
      for (int i = 0; i < 8; i++) rb[i] = times<E>(rb[i], neighbour), rq[i] = times<E>(rq[i], neighbour);
    } else if (warp < 6) {
#pragma unroll
      for (int i = 0; i < 8; i++) put(sh.k16[4 * warp], i, times<E>(rk[i], neighbour));
    }
    if (warp < 7) {
#pragma unroll
      for (int i = 0; i < 8; i++) put(sh.k8[8 * warp], i, rk[i]);
    }
    if (warp > 1) {
#pragma unroll
      for (int i = 0; i < 8; i++) put(a16, i, rb[i]), put(a16, 8 + i, rq[i]);
    }
  }
  uint4 own[K / 16];  // odd warps: rows decayed from the start of own 8 tokens
  if (warp & 1) {
    __syncwarp();
    const E *at = &sh.a8[16 * (warp / 2) + matrix % 2 * 8 + line][matrix / 2 * 8];
#pragma unroll
    for (int ks = 0; ks < K / 16; ks++) own[ks] = ldmatrix4(at + 16 * ks);
  }
  __syncthreads();

  // A of own tokens; then pairs in different warps, and a pair of warps, or of pairs of warps, at a time.
  const int t8 = 8 * (warp & 1);
  if (row < 4 && quad == row) sh.a_diagonal(warp / 2, t8 + 2 * row + 1)[t8 + 2 * row] = next;
  if (in_pair)
    *reinterpret_cast<float2 *>(sh.a_diagonal(warp / 2, t8 + pair_t) + t8 + pair_s) = make_float2(pair[0], pair[1]);
  auto store_block = [&](int rows, int columns, const float(&x)[4]) {  // of 8 tokens each
    const int t = 8 * rows + row, s = 8 * columns + 2 * quad;
    uint32_t hi, lo;
    split<E>(x[0], x[1], hi, lo);
    *reinterpret_cast<uint32_t *>(&sh.hi[t][s]) = hi, *reinterpret_cast<uint32_t *>(&sh.lo[t][s]) = lo;
    store_p(t, columns, x[2], x[3]);
  };
  if (warp & 1) {
    {
      const E *b = &sh.k8[8 * (warp - 1) + line][matrix * 8];
      float x[4] = {}, odd[4] = {};
#pragma unroll
      for (int ks = 0; ks < K / 16; ks += 2) {
        const uint4 y = ldmatrix4(b + 16 * ks);
        mma<E>(x, own[ks], y.x, y.y);
        mma<E>(odd, own[ks + 1], y.z, y.w);
      }
      *reinterpret_cast<float2 *>(sh.a_diagonal(warp / 2, 8 + row) + 2 * quad) =
          make_float2(x[0] + odd[0], x[1] + odd[1]);
      store_p(8 * warp + row, warp - 1, x[2] + odd[2], x[3] + odd[3]);
    }
    // Tokens 16..31 with 0..15 (warps 1, 3) and 48..63 with 32..47 (warps 5, 7), 8 columns each.
    const int rows = warp < 4 ? 2 : 6, columns = rows - 2 + warp / 2 % 2;
    const E *b = (columns & 1 ? sh.k8[8 * columns] : sh.k16[4 * columns]) + line * S + matrix * 8;
#pragma unroll
    for (int m = 0; m < 2; m++) {
      float x[4];
      multiply<E, K>(x, &sh.a16[16 * (rows + m - 2) + matrix % 2 * 8 + line][matrix / 2 * 8], b);
      store_block(rows + m, columns, x);
    }
  } else {
    // 16 tokens with 16: (3, 0), (2, 0), (3, 1) with what lies between, and (2, 1).
    const int i = warp / 2, r = i & 1 ? 2 : 3, c = i / 2;
    const E *a = &sh.a16[32 * (r - 1) + matrix % 2 * 8 + line][matrix / 2 * 8];
    const E *b = (matrix / 2 ? sh.k8[16 * c + 8] : sh.k16[8 * c]) + line * S + matrix % 2 * 8;
    float x[2][2][4] = {};
#pragma unroll
    for (int ks = 0; ks < K / 16; ks++) {
      const uint2 f = reinterpret_cast<const uint2 *>(&sh.between[i][ks / 2][quad])[ks % 2];
      uint4 y = ldmatrix4(b + 16 * ks);
      y.x = P::mul(y.x, f.x), y.y = P::mul(y.y, f.y), y.z = P::mul(y.z, f.x), y.w = P::mul(y.w, f.y);
#pragma unroll
      for (int m = 0; m < 2; m++) {
        const uint4 w = ldmatrix4(a + 16 * m * S + 16 * ks);
        mma<E>(x[m][0], w, y.x, y.y);
        mma<E>(x[m][1], w, y.z, y.w);
      }
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
      for (int n = 0; n < 2; n++) store_block(2 * r + m, 2 * c + n, x[m][n]);
  }
  __syncthreads();

  const int tile_row = matrix / 2 * 8 + line, tile_column = matrix % 2 * 8;  // this lane's row of a 16 x 16 block
  if (warp < 4) {
    if (warp < 2) {  // the inverses of the diagonal blocks, a lane a column
      const int block = 2 * warp + lane / 16, column = lane % 16;
      const float *a_rows = sh.a_diagonal(block, 0);
      float x[16];
#pragma unroll
      for (int r = 0; r < 16; r++) {
        float sum[4] = {column == r ? 1.f : 0.f, 0.f, 0.f, 0.f};
#pragma unroll
        for (int c = 0; c < r; c += 4) {
          const float4 a = *reinterpret_cast<const float4 *>(a_rows + r * ((C + 8) / 2) + c);
          sum[0] -= a.x * x[c];
          if (c + 1 < r) sum[1] -= a.y * x[c + 1];
          if (c + 2 < r) sum[2] -= a.z * x[c + 2];
          if (c + 3 < r) sum[3] -= a.w * x[c + 3];
        }
        x[r] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        const uint32_t hi = P::pack(x[r], 0.f);
        const uint32_t lo = P::pack(x[r] - P::lo(hi), 0.f);
        *reinterpret_cast<uint16_t *>(&sh.hi[16 * block + r][16 * block + column]) = static_cast<uint16_t>(hi);
        *reinterpret_cast<uint16_t *>(&sh.lo[16 * block + r][16 * block + column]) = static_cast<uint16_t>(lo);
      }
    }
    sync_four_warps<1>();
    // The rest of the inverse, a warp 16 columns: block row by block row, transposed, so that a product's accumulators
    // are the next one's operand.
    uint32_t xh[4][4], xl[4][4];
#pragma unroll
    for (int r = 0; r < 4; r++) {
      if (r < warp) continue;
      const E *hi = &sh.hi[16 * r + tile_row][tile_column], *lo = &sh.lo[16 * r + tile_row][tile_column];
      if (r == warp) {
        const uint4 h = ldmatrix4_trans(hi + 16 * r), l = ldmatrix4_trans(lo + 16 * r);
        xh[r][0] = h.x, xh[r][1] = h.y, xh[r][2] = h.z, xh[r][3] = h.w;
        xl[r][0] = l.x, xl[r][1] = l.y, xl[r][2] = l.z, xl[r][3] = l.w;
      } else {
        float x[2][4] = {}, small[2][4] = {};
#pragma unroll
        for (int c = 0; c < r; c++)
          if (c >= warp) multiply_split<E>(x, small, xh[c], xl[c], ldmatrix4(hi + 16 * c), ldmatrix4(lo + 16 * c));
        uint32_t ah[4], al[4];
#pragma unroll
        for (int i = 0; i < 8; i++) x[i / 4][i % 4] = -x[i / 4][i % 4] - small[i / 4][i % 4], small[i / 4][i % 4] = 0.f;
        split<E>(x, ah, al);
#pragma unroll
        for (int i = 0; i < 8; i++) x[i / 4][i % 4] = 0.f;
        multiply_split<E>(x, small, ah, al, ldmatrix4(hi + 16 * r), ldmatrix4(lo + 16 * r));
#pragma unroll
        for (int i = 0; i < 8; i++) x[i / 4][i % 4] += small[i / 4][i % 4];
        split<E>(x, xh[r], xl[r]);
      }
    }
    sync_four_warps<1>();  // A has been read
#pragma unroll
    for (int r = 1; r < 4; r++)
      if (r > warp) {
        stmatrix4_trans(&sh.hi[16 * r + tile_row][16 * warp + tile_column], xh[r][0], xh[r][1], xh[r][2], xh[r][3]);
        stmatrix4_trans(&sh.lo[16 * r + tile_row][16 * warp + tile_column], xl[r][0], xl[r][1], xl[r][2], xl[r][3]);
      }
#ifdef HOPPER_RACECHECK
    if (Source::computed) __syncthreads();
#endif
  } else {
    source.fetch(sh, place, h * per * V, width, HV * V, tid - 128, 128);
#pragma unroll
    for (int i = 0; i < C * C * 2 / 16; i += 128)
      reinterpret_cast<uint4 *>(record + Record::p)[i + tid - 128] =
          reinterpret_cast<const uint4 *>(sh.p_tile)[i + tid - 128];
    if constexpr (Source::computed)
      source.compute(sh, place, h * per * V, width, tid - 128, 128, [] { copy_async_wait(), sync_four_warps<2>(); });
#ifdef HOPPER_RACECHECK
    __syncthreads();
    __syncthreads();
#endif
  }
  copy_async_wait();
  __syncthreads();

  const E *hi = &sh.hi[tile_row][tile_column], *lo = &sh.lo[tile_row][tile_column];
  const E *const key_columns = &sh.erase[tile_row][16 * warp + tile_column];
  const E *const value_columns = &sh.value[tile_row][16 * warp + tile_column];
  constexpr int value_stride = value_panel + 8;
  auto store_x = [&](int r, const float(&x)[2][4]) {
    stmatrix4(sh.x_tile + (16 * warp + matrix % 2 * 8 + line) * 128 + ((2 * r + matrix / 2) ^ line) * 16,
              P::pack(x[0][0], x[0][1]), P::pack(x[0][2], x[0][3]), P::pack(x[1][0], x[1][1]),
              P::pack(x[1][2], x[1][3]));
  };
  unsigned char *const value_record = value_records + (int64_t(chunk) * HV + h * per) * value_record_bytes(V);
  auto store_z = [&](int panel, int r, const float(&x)[2][4]) {
    reinterpret_cast<uint4 *>(value_record + int64_t(panel * width + 16 * warp) * (C * 2))[r * 32 + lane] = make_uint4(
        P::pack(x[0][0], x[0][1]), P::pack(x[0][2], x[0][3]), P::pack(x[1][0], x[1][1]), P::pack(x[1][2], x[1][3]));
  };
  const bool keys = warp < K / 16, has_values = warp < width / 16;
  if (keys && has_values)
    solve<E, 2>({key_columns, value_columns}, {S, value_stride}, hi, lo,
                [&](int r, const float(&x)[2][2][4]) { store_x(r, x[0]), store_z(0, r, x[1]); });
  else if (keys) solve<E, 1>({key_columns}, {S}, hi, lo, [&](int r, const float(&x)[1][2][4]) { store_x(r, x[0]); });
  else if (has_values)
    solve<E, 1>({value_columns}, {value_stride}, hi, lo, [&](int r, const float(&x)[1][2][4]) { store_z(0, r, x[0]); });
  __syncthreads();
#pragma unroll
  for (int i = 0; i < K * C * 2 / 16; i += prepare_threads)
    reinterpret_cast<uint4 *>(record + Record::x)[i + tid] = reinterpret_cast<const uint4 *>(sh.x_tile)[i + tid];
  for (int panel = 1; panel < panels; panel++) {
    const int column = h * per * V + panel * width;
    __syncthreads();
    source.fetch(sh, place, column, width, HV * V, tid, prepare_threads);
    if constexpr (Source::computed)
      source.compute(sh, place, column, width, tid, prepare_threads, [] { copy_async_wait(), __syncthreads(); });
    copy_async_wait();
    __syncthreads();
    if (has_values)
      solve<E, 1>({value_columns}, {value_stride}, hi, lo,
                  [&](int r, const float(&x)[1][2][4]) { store_z(panel, r, x[0]); });
  }
}

}  // namespace gdn2

#define GDN2_PREPARE(K, E, SUFFIX)                                                                                   \
  extern "C" __global__ void __launch_bounds__(gdn2::prepare_threads, 2) gdn2_prepare_##SUFFIX(                      \
      const E *q, const E *k, const E *bk, const E *wv, const __half *g, const int2 *chunks,                         \
      unsigned char *key_records, unsigned char *value_records, int H, int HV, int V, float scale) {                 \
    gdn2::prepare<E, K>(gdn2::Stored<E>{q, k, bk, wv, g}, chunks, key_records, value_records, H, HV, V, scale);      \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(gdn2::prepare_threads, 2) gdn2_prepare_projected_##SUFFIX(            \
      const act *p, const act *f, const float *rate, const float *dt_bias, const int2 *chunks,                       \
      unsigned char *key_records, unsigned char *value_records, int H, int HV, int V, float scale, int64_t ldp,      \
      int b_col, int v_col, int w_col, int eta_col, const float *conv_w, const float *conv_b, const float *eta_bias, \
      const int *seq_of, const act *const *hist, int64_t hist_offset, int channels, int flags, float kaczmarz_eps) { \
    gdn2::prepare<E, K>(gdn2::Projected<E>{p, f, rate, dt_bias, ldp, b_col, v_col, w_col, eta_col, conv_w, conv_b,   \
                                           eta_bias, seq_of, hist, hist_offset, channels, flags, kaczmarz_eps},      \
                        chunks, key_records, value_records, H, HV, V, scale);                                        \
  }
GDN2_PREPARE(64, __nv_bfloat16, k64_bf16)
GDN2_PREPARE(128, __nv_bfloat16, k128_bf16)
GDN2_PREPARE(64, __half, k64_f16)
GDN2_PREPARE(128, __half, k128_f16)
