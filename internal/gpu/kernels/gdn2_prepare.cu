// gdn2_prepare: everything of the GDN-2 recurrence that needs no state, one block a (key head, chunk of 64 tokens);
// tensor cores throughout.
//
//   A[t,s] = sum_i bk_t,i k_s,i exp(G_t,i - G_s,i)  s < t        X = (I+A)^-1 (bk exp G)      q' = scale q exp G
//   P[t,s] = scale sum_i q_t,i k_s,i exp(G_t,i - G_s,i)  s <= t  Z = (I+A)^-1 wv              k' = k exp(G_C - G)
//
// Stages, with a barrier of the block after each (prepare, below, calls them in this order):
//   1  own pairs     A and P of the pairs within a warp's 8 tokens, each warp alone
//   2  decays        q', k', bk exp G; the rows and columns that stage 3 multiplies
//   3  other pairs   A and P of the pairs in different warps
//   4  inverse       (I+A)^-1 by four warps, while the other four write P and bring the first panel of wv
//   5  solution      X, Z and the other panels of wv
//
// Range: g has no lower bound, so exp(G_t - G_s) is never split at a point outside [s, t]. Warp w has tokens 8 w to
// 8 w + 7, a lane a few channels of all eight. exp(g) is taken once per element; every factor is a product of such
// numbers over consecutive tokens, in [0, 1], made in fp32 without an exchange between lanes and rounded once. Nothing
// overflows, and what underflows is that small. Operands go to shared memory as rows of tokens and come back as
// fragments. A pair (t, s) is split at the start of the odd half of the smallest aligned block of 2, 4, 8 or 16 tokens
// that holds both, or, between blocks of 16, at the start of t's. Pairs of equal tokens and of neighbours are one
// product, those split in blocks of 4 and of 8 another: half the rows of each suffice.
//
// Inverse: 16 x 16 diagonal blocks by substitution in fp32, the rest block row by block row with operands split in two
// (hi + lo). It is kept split, so that its products with bk exp G and wv, which are elements as they stand, round once.
//
// Operands come from memory or from the layer's projections: gdn2_source.cuh. Shapes, layouts, launch:
// docs/kernels/gdn2_api.md.
#include "gdn2_mma.cuh"

namespace gdn2 {

constexpr int prepare_threads = 256;
constexpr int value_panel = 128;  // value columns solved at a time

// Waits for this thread's cp.async.
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
}
// A barrier of the first four warps (inverting_warps) or of the last four (value_warps).
constexpr int inverting_warps = 1, value_warps = 2;
template <int Id>
__device__ __forceinline__ void sync_four_warps() {
#ifdef HOPPER_RACECHECK
  __syncthreads();
#else
  asm volatile("bar.sync %0, 128;" ::"n"(Id) : "memory");
#endif
}

// A block's shared memory. Rows of operands are K + 8 elements apart, so that the 8 rows of an ldmatrix lie in
// different banks. Before and in stage 2 a warp uses parts of it for the operands of its own pairs (OwnRoom).
template <typename E, int K>
struct PrepareShared {
  static constexpr int stride = K + 8;
  union {
    struct {              // stages 2 and 3, k by columns of A and P
      E k8[56][stride];   // decayed to the end of its own 8 tokens, warps 0 to 6
      E k16[24][stride];  // to the end of its 16 tokens, warps 0, 2, 4 (for odd warps that is k8)
    };
    act inputs[3 + C][value_panel + 8];  // stage 4: the convolution's inputs, from three tokens before the chunk
    unsigned char x_tile[K * C * 2];     // stage 5: X as it goes to the record
  };
  union {
    E a16[96][stride];            // stages 2 and 3: bk (8 rows) and q (8 rows) of warps 2 to 7, decayed from the start
                                  // of their 16 tokens
    E value[C][value_panel + 8];  // stages 4 and 5: wv; in stage 4 first the input of its write gate
  };
  E erase[C][stride];  // from stage 2: -bk exp G
  union {
    E a8[64][stride];  // stage 2: as a16, of warps 1, 3, 5, 7, decayed from the start of their own 8 tokens
    struct {
      // From stage 3, in 16 x 16 blocks split in two: A under the diagonal, then (I+A)^-1 on and under it. Above the
      // diagonal lies A of the diagonal's blocks, fp32 (a_diagonal).
      E hi[C][C + 8], lo[C][C + 8];
    };
  };
  unsigned char p_tile[C * C * 2];  // stages 1 to 4: P as it goes to the record
  float total[8][K];                // from stage 1: exp of g summed over a warp's tokens
  float inv_step[C];                // of each token, where the source makes them
  // Stage 3: products of totals as factors of B fragments, over tokens 16..47, 16..31, 32..47 and over none.
  uint4 between[4][K / 32][4];

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
template <int N>
__device__ __forceinline__ Factors<N> all_equal(float x) {
  Factors<N> f;
#pragma unroll
  for (int i = 0; i < 2 * N; i++) f.x[i] = x;
  return f;
}

// Where a thread stands. Masks rather than % where a number could be negative for all that the compiler knows: its
// quotients are then shifts.
struct Thread {
  int tid, warp, lane;
  int row, quad;     // of a sum: this lane has rows row and row + 8, columns 2 quad + {0, 1}
  int matrix, line;  // of ldmatrix's four: this lane gives the address of row `line` of matrix `matrix`
  __device__ __forceinline__ Thread()
      : tid(threadIdx.x),
        warp(__shfl_sync(~0u, tid / 32, 0) & 7),
        lane(tid & 31),
        row(lane / 4),
        quad(lane % 4),
        matrix(lane / 8),
        line(lane % 8) {}
};

// A lane's channels of its warp's 8 tokens; e is exp(g).
template <int N>
struct OwnTokens {
  Pairs<N> q[8], k[8], b[8];
  Factors<N> e[8];
};

// A of the pairs within a warp's 8 tokens, this lane's part: in registers until its place in shared memory is free.
// Tokens are counted from the warp's first.
struct OwnPairs {
  float next;     // (2 row + 1, 2 row) where quad == row < 4
  float pair[2];  // (t, s) and (t, s + 1) where `valid`
  bool valid;
  int t, s;
  __device__ __forceinline__ explicit OwnPairs(const Thread &at) {
    const bool by4 = at.row >= 4;
    valid = by4 ? at.quad >= 2 : at.quad == at.row / 2;
    t = by4 ? at.row : at.row + 2 + (at.row & 2), s = by4 ? 2 * at.quad - 4 : 4 * at.quad;
  }
};

// A block at work: its stages. Members are set once and are the same in all of them.
template <typename E, int K>
struct Preparation {
  using P = Pair<E>;
  using Record = KeyRecord<K>;
  using Shared = PrepareShared<E, K>;
  static constexpr int N = K / 64, S = Shared::stride;
  using Elements = Pairs<N>;
  using Decay = Factors<N>;

  Shared &sh;
  const Thread at;
  const int channel;            // this lane's first of 2 N
  unsigned char *const record;  // the key record
  const float scale;

  __device__ __forceinline__ Preparation(Shared &sh, unsigned char *record, float scale)
      : sh(sh), channel(2 * N * at.lane), record(record), scale(scale) {}

  __device__ __forceinline__ Decay &total(int warp) const {
    return *reinterpret_cast<Decay *>(&sh.total[warp][channel]);
  }
  __device__ __forceinline__ void put(E *rows, int i, const Elements &x) const {
    *reinterpret_cast<Elements *>(rows + i * S + channel) = x;
  }
  // Where P of (t, 8 block) lies; the block's 8 columns are one swizzled piece of 16 bytes.
  __device__ __forceinline__ unsigned char *p_at(int t, int block) const {
    return sh.p_tile + t * 128 + (block ^ (t & 7)) * 16;
  }
  __device__ __forceinline__ void store_p(int t, int block, float x, float y) const {
    *reinterpret_cast<uint32_t *>(p_at(t, block) + at.quad * 4) = P::pack(x * scale, y * scale);
  }

  // Stage 1.

  // A warp's room for the operands of its own pairs: 8 rows each for bk, q and k, which nobody else uses yet; and this
  // lane's ldmatrix rows in them, rows of bk and q together as the A operand.
  struct OwnRoom {
    E *b, *q, *k;
    const E *operand_a, *operand_b;
    __device__ __forceinline__ OwnRoom(Shared &sh, const Thread &at) {
      b = sh.erase[8 * at.warp];
      q = at.warp & 1 ? sh.a8[16 * (at.warp / 2)] : at.warp == 6 ? sh.a16[64] : sh.k16[4 * at.warp];
      k = at.warp < 7 ? sh.k8[8 * at.warp] : sh.a8[56];
      operand_a = (at.matrix & 1 ? q : b) + at.line * S + at.matrix / 2 * 8;
      operand_b = k + at.line * S + at.matrix * 8;
    }
  };

  __device__ __forceinline__ void own_pairs(const OwnTokens<N> &x, OwnPairs &own) const {
    const OwnRoom room(sh, at);
    total(at.warp) = ((x.e[0] * x.e[1]) * (x.e[2] * x.e[3])) * ((x.e[4] * x.e[5]) * (x.e[6] * x.e[7]));
    clear_own_p();
    neighbours(x, room, own);
    __syncwarp();
    blocks_of_4_and_8(x, room, own);
  }

  // P of a warp's tokens with all: 64 pieces of 16 bytes.
  __device__ __forceinline__ void clear_own_p() const {
#pragma unroll
    for (int i = 0; i < 2; i++)
      reinterpret_cast<uint4 *>(sh.p_tile)[64 * at.warp + 32 * i + at.lane] = make_uint4(0, 0, 0, 0);
  }

  // Pairs of neighbours (2 i + 1, 2 i) and of equal tokens. Rows: bk of tokens 1, 3, 5, 7 and q of the same, decayed;
  // then q of all.
  __device__ __forceinline__ void neighbours(const OwnTokens<N> &x, const OwnRoom &room, OwnPairs &own) const {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int t = 2 * i + 1;
      const Elements d = rounded<E>(x.e[t]);
      put(room.b, i, times<E>(x.b[t], d)), put(room.b, 4 + i, times<E>(x.q[t], d));
    }
#pragma unroll
    for (int i = 0; i < 8; i++) put(room.q, i, x.q[i]), put(room.k, i, x.k[i]);
    __syncwarp();
    float d[4];
    multiply<E, K>(d, room.operand_a, room.operand_b);
    own.next = d[0];
    const int first = 8 * at.warp;
    if (at.row >= 4 && at.quad == at.row - 4) {
      const int t = 2 * at.quad + 1;
      store_one_p(first + t, t - 1, d[0]);
    }
    if (at.quad == at.row / 2) store_one_p(first + at.row, at.row, at.row & 1 ? d[3] : d[2]);
  }
  // P of token t of the chunk with token s of its warp.
  __device__ __forceinline__ void store_one_p(int t, int s, float x) const {
    *reinterpret_cast<uint16_t *>(p_at(t, at.warp) + s * 2) = static_cast<uint16_t>(P::pack(x * scale, 0.f));
  }

  // Pairs split in blocks of 4 and of 8 tokens. Rows: tokens 2, 3, 6, 7 from the middle of their 4 tokens, then 4 to 7
  // from the middle of the 8. Columns: 0, 1, 4, 5 and 0 to 3 up to there.
  __device__ __forceinline__ void blocks_of_4_and_8(const OwnTokens<N> &x, const OwnRoom &room, OwnPairs &own) const {
    const Decay(&e)[8] = x.e;
    const Decay e23 = e[2] * e[3], e45 = e[4] * e[5], e67 = e[6] * e[7], e46 = e45 * e[6], e47 = e45 * e67;
    const Elements d1 = rounded<E>(e[1]), d3 = rounded<E>(e[3]), d5 = rounded<E>(e[5]), d23 = rounded<E>(e23);
    const Elements d[8] = {
        rounded<E>(e[2]), d23, rounded<E>(e[6]), rounded<E>(e67), rounded<E>(e[4]), rounded<E>(e45), rounded<E>(e46),
        rounded<E>(e47)};
    constexpr int token[8] = {2, 3, 6, 7, 4, 5, 6, 7};
#pragma unroll
    for (int i = 0; i < 8; i++) {
      put(room.b, i, times<E>(x.b[token[i]], d[i]));
      put(room.q, i, times<E>(x.q[token[i]], d[i]));
    }
    put(room.k, 0, times<E>(x.k[0], d1));
    put(room.k, 1, x.k[1]);
    put(room.k, 2, times<E>(x.k[4], d5));
    put(room.k, 3, x.k[5]);
    put(room.k, 4, times<E>(x.k[0], rounded<E>(e[1] * e23)));
    put(room.k, 5, times<E>(x.k[1], d23));
    put(room.k, 6, times<E>(x.k[2], d3));
    put(room.k, 7, x.k[3]);
    __syncwarp();
    float sums[4];
    multiply<E, K>(sums, room.operand_a, room.operand_b);
    own.pair[0] = sums[0], own.pair[1] = sums[1];
    if (own.valid)
      *reinterpret_cast<uint32_t *>(p_at(8 * at.warp + own.t, at.warp) + own.s * 2) =
          P::pack(sums[2] * scale, sums[3] * scale);
  }

  // Stage 2.

  // own: bk and q of an odd warp, decayed from the start of its 8 tokens, as the A operand of stage 3. x is spoilt.
  __device__ __forceinline__ void decays(OwnTokens<N> &x, uint4 (&own)[K / 16]) const {
    // Minus the product over all tokens before own: minus because X is stored negated.
    Decay before = all_equal<N>(-1.f);
#pragma unroll 2
    for (int w = 0; w < at.warp; w++) before = before * total(w);
    if (at.warp == 7) *reinterpret_cast<Decay *>(record + Record::decay + channel * 4) = before * total(7) * -1.f;
    if (at.warp == 0) store_between();
    unsigned char *const tile = record + channel / 64 * (C * 128) + at.warp * 1024 + channel % 8 * 2;
    decay_rows(x, before, tile + Record::q);
    decay_columns(x, tile + Record::k);
    store_operands(x);
    if (at.warp & 1) {
      __syncwarp();
      const E *from = &sh.a8[16 * (at.warp / 2) + at.matrix % 2 * 8 + at.line][at.matrix / 2 * 8];
#pragma unroll
      for (int ks = 0; ks < K / 16; ks++) own[ks] = ldmatrix4(from + 16 * ks);
    }
  }

  __device__ __forceinline__ void store_between() const {
    const Decay f1 = total(2) * total(3), f2 = total(4) * total(5);
    const Elements f[3] = {rounded<E>(f1 * f2), rounded<E>(f1), rounded<E>(f2)};
#pragma unroll
    for (int j = 0; j < N; j++) {
      const int c = channel + 2 * j, ks = c / 16, word = ((ks / 2 * 4 + c % 8 / 2) * 4) + ks % 2 * 2 + c % 16 / 8;
#pragma unroll
      for (int i = 0; i < 3; i++) reinterpret_cast<uint32_t *>(sh.between[i])[word] = f[i].w[j];
      reinterpret_cast<uint32_t *>(sh.between[3])[word] = P::pack_factors(1.f, 1.f);
    }
  }

  // This lane's channels of token i of its warp, in a tile of the record.
  __device__ __forceinline__ Elements &in_tile(unsigned char *tile, int i) const {
    return *reinterpret_cast<Elements *>(tile + i * 128 + ((channel % 64 / 8) ^ i) * 16);
  }

  // bk exp G and q' to where they stay; bk and q decayed from the start of own 8 tokens.
  __device__ __forceinline__ void decay_rows(OwnTokens<N> &x, const Decay &before, unsigned char *tile) const {
    Decay d = x.e[0];
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (i) d = d * x.e[i];
      const Decay all = d * before;
      put(sh.erase[8 * at.warp], i, times<E>(x.b[i], rounded<E>(all)));
      in_tile(tile, i) = times<E>(x.q[i], rounded<E>(all * -scale));
      const Elements f = rounded<E>(d);
      x.b[i] = times<E>(x.b[i], f), x.q[i] = times<E>(x.q[i], f);
    }
  }

  // k' to the record; k decayed to the end of own 8 tokens.
  __device__ __forceinline__ void decay_columns(OwnTokens<N> &x, unsigned char *tile) const {
    Decay after = all_equal<N>(1.f);
#pragma unroll 2
    for (int w = 7; w > at.warp; w--) after = total(w) * after;
    Decay d = x.e[7];
#pragma unroll
    for (int i = 7; i >= 0; i--) {
      if (i == 7) {
        in_tile(tile, i) = times<E>(x.k[i], rounded<E>(after));
      } else {
        if (i < 6) d = d * x.e[i + 1];
        in_tile(tile, i) = times<E>(x.k[i], rounded<E>(d * after));
        x.k[i] = times<E>(x.k[i], rounded<E>(d));
      }
    }
  }

  // Operands of stage 3: own rows and columns, and those decayed over the other warp's 8 of the 16 tokens too.
  __device__ __forceinline__ void store_operands(OwnTokens<N> &x) const {
    E *const a8 = sh.a8[16 * (at.warp / 2)];
    E *const a16 = sh.a16[16 * (at.warp < 2 ? 0 : at.warp - 2)];
    const Elements neighbour = rounded<E>(total(at.warp ^ 1));
    if (at.warp & 1) {
#pragma unroll
      for (int i = 0; i < 8; i++) put(a8, i, x.b[i]), put(a8, 8 + i, x.q[i]);
#pragma unroll
      for (int i = 0; i < 8; i++) x.b[i] = times<E>(x.b[i], neighbour), x.q[i] = times<E>(x.q[i], neighbour);
    } else if (at.warp < 6) {
#pragma unroll
      for (int i = 0; i < 8; i++) put(sh.k16[4 * at.warp], i, times<E>(x.k[i], neighbour));
    }
    if (at.warp < 7) {
#pragma unroll
      for (int i = 0; i < 8; i++) put(sh.k8[8 * at.warp], i, x.k[i]);
    }
    if (at.warp > 1) {
#pragma unroll
      for (int i = 0; i < 8; i++) put(a16, i, x.b[i]), put(a16, 8 + i, x.q[i]);
    }
  }

  // Stage 3.

  __device__ __forceinline__ void other_pairs(const OwnPairs &own, const uint4 (&rows)[K / 16]) const {
    store_own_a(own);
    if (at.warp & 1) {
      within_16(rows);
      within_32();
    } else {
      between_32();
    }
  }

  __device__ __forceinline__ void store_own_a(const OwnPairs &own) const {
    const int first = 8 * (at.warp & 1);
    if (at.row < 4 && at.quad == at.row)
      sh.a_diagonal(at.warp / 2, first + 2 * at.row + 1)[first + 2 * at.row] = own.next;
    if (own.valid)
      *reinterpret_cast<float2 *>(sh.a_diagonal(at.warp / 2, first + own.t) + first + own.s) =
          make_float2(own.pair[0], own.pair[1]);
  }

  // A and P of 8 tokens with 8: a sum has A in its first 8 rows and P in the others.
  __device__ __forceinline__ void store_block(int rows, int columns, const float (&x)[4]) const {
    const int t = 8 * rows + at.row, s = 8 * columns + 2 * at.quad;
    uint32_t hi, lo;
    split<E>(x[0], x[1], hi, lo);
    *reinterpret_cast<uint32_t *>(&sh.hi[t][s]) = hi, *reinterpret_cast<uint32_t *>(&sh.lo[t][s]) = lo;
    store_p(t, columns, x[2], x[3]);
  }

  // An odd warp's tokens with those of the warp before it.
  __device__ __forceinline__ void within_16(const uint4 (&rows)[K / 16]) const {
    const E *b = &sh.k8[8 * (at.warp - 1) + at.line][at.matrix * 8];
    float x[4] = {}, odd[4] = {};
#pragma unroll
    for (int ks = 0; ks < K / 16; ks += 2) {
      const uint4 y = ldmatrix4(b + 16 * ks);
      mma<E>(x, rows[ks], y.x, y.y);
      mma<E>(odd, rows[ks + 1], y.z, y.w);
    }
    *reinterpret_cast<float2 *>(sh.a_diagonal(at.warp / 2, 8 + at.row) + 2 * at.quad) =
        make_float2(x[0] + odd[0], x[1] + odd[1]);
    store_p(8 * at.warp + at.row, at.warp - 1, x[2] + odd[2], x[3] + odd[3]);
  }

  // Tokens 16..31 with 0..15 (warps 1, 3) and 48..63 with 32..47 (warps 5, 7), 8 columns each.
  __device__ __forceinline__ void within_32() const {
    const int rows = at.warp < 4 ? 2 : 6, columns = rows - 2 + at.warp / 2 % 2;
    const E *b = (columns & 1 ? sh.k8[8 * columns] : sh.k16[4 * columns]) + at.line * S + at.matrix * 8;
#pragma unroll
    for (int m = 0; m < 2; m++) {
      float x[4];
      multiply<E, K>(x, &sh.a16[16 * (rows + m - 2) + at.matrix % 2 * 8 + at.line][at.matrix / 2 * 8], b);
      store_block(rows + m, columns, x);
    }
  }

  // 16 tokens with 16, an even warp each: blocks (3, 0), (2, 0) and (3, 1) with what lies between, and (2, 1).
  __device__ __forceinline__ void between_32() const {
    const int i = at.warp / 2, r = i & 1 ? 2 : 3, c = i / 2;
    const E *a = &sh.a16[32 * (r - 1) + at.matrix % 2 * 8 + at.line][at.matrix / 2 * 8];
    const E *b = (at.matrix / 2 ? sh.k8[16 * c + 8] : sh.k16[8 * c]) + at.line * S + at.matrix % 2 * 8;
    float x[2][2][4] = {};
#pragma unroll
    for (int ks = 0; ks < K / 16; ks++) {
      const uint2 f = reinterpret_cast<const uint2 *>(&sh.between[i][ks / 2][at.quad])[ks % 2];
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

  // Stage 4: the first four warps.

  // This lane's row of a 16 x 16 block, and its column there.
  __device__ __forceinline__ int tile_row() const { return at.matrix / 2 * 8 + at.line; }
  __device__ __forceinline__ int tile_column() const { return at.matrix % 2 * 8; }

  __device__ __forceinline__ void invert() const {
    if (at.warp < 2) invert_diagonal();
    sync_four_warps<inverting_warps>();
    invert_below();
  }

  // The inverses of the diagonal's blocks, two a warp, a column a lane.
  __device__ __forceinline__ void invert_diagonal() const {
    const int block = 2 * at.warp + at.lane / 16, column = at.lane % 16;
    const float *rows = sh.a_diagonal(block, 0);
    float x[16];
#pragma unroll
    for (int r = 0; r < 16; r++) {
      float sum[4] = {column == r ? 1.f : 0.f, 0.f, 0.f, 0.f};
#pragma unroll
      for (int c = 0; c < r; c += 4) {
        const float4 a = *reinterpret_cast<const float4 *>(rows + r * ((C + 8) / 2) + c);
        sum[0] -= a.x * x[c];
        if (c + 1 < r) sum[1] -= a.y * x[c + 1];
        if (c + 2 < r) sum[2] -= a.z * x[c + 2];
        if (c + 3 < r) sum[3] -= a.w * x[c + 3];
      }
      x[r] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
    // Only now: a store would hold up the next row's loads.
#pragma unroll
    for (int r = 0; r < 16; r++) {
      const uint32_t hi = P::pack(x[r], 0.f);
      const uint32_t lo = P::pack(x[r] - P::lo(hi), 0.f);
      *reinterpret_cast<uint16_t *>(&sh.hi[16 * block + r][16 * block + column]) = static_cast<uint16_t>(hi);
      *reinterpret_cast<uint16_t *>(&sh.lo[16 * block + r][16 * block + column]) = static_cast<uint16_t>(lo);
    }
  }

  // The rest of the inverse, 16 columns a warp: block row by block row, transposed, so that a product's sums are the
  // next one's operand.
  __device__ __forceinline__ void invert_below() const {
    uint32_t xh[4][4], xl[4][4];
    switch (at.warp) {
      case 0:
        invert_column<0>(xh, xl);
        break;
      case 1:
        invert_column<1>(xh, xl);
        break;
      case 2:
        invert_column<2>(xh, xl);
        break;
    }
    sync_four_warps<inverting_warps>();  // A has been read
#pragma unroll
    for (int r = 1; r < 4; r++)
      if (r > at.warp) {
        stmatrix4_trans(hi_at(r, at.warp), xh[r][0], xh[r][1], xh[r][2], xh[r][3]);
        stmatrix4_trans(lo_at(r, at.warp), xl[r][0], xl[r][1], xl[r][2], xl[r][3]);
      }
  }

  // This lane's row of the 16 x 16 block (r, c).
  __device__ __forceinline__ E *hi_at(int r, int c) const {
    return &sh.hi[16 * r + tile_row()][16 * c + tile_column()];
  }
  __device__ __forceinline__ E *lo_at(int r, int c) const {
    return &sh.lo[16 * r + tile_row()][16 * c + tile_column()];
  }

  // Column W of the blocks. With D the inverse of A's block (r, r), block (r, W) is -D sum_c A(r, c) X(c, W), c < r. As
  // soon as X(c, W) is known it goes into the sums of all rows below, which do not wait for each other.
  template <int W>
  __device__ __forceinline__ void invert_column(uint32_t (&xh)[4][4], uint32_t (&xl)[4][4]) const {
    const uint4 h = ldmatrix4_trans(hi_at(W, W)), l = ldmatrix4_trans(lo_at(W, W));
    xh[W][0] = h.x, xh[W][1] = h.y, xh[W][2] = h.z, xh[W][3] = h.w;
    xl[W][0] = l.x, xl[W][1] = l.y, xl[W][2] = l.z, xl[W][3] = l.w;
    float sum[4][2][4] = {}, small[4][2][4] = {};
#pragma unroll
    for (int c = W; c < 3; c++) {
#pragma unroll
      for (int r = c + 1; r < 4; r++)
        multiply_split<E>(sum[r], small[r], xh[c], xl[c], ldmatrix4(hi_at(r, c)), ldmatrix4(lo_at(r, c)));
      float x[2][4] = {}, rest[2][4] = {};
      uint32_t ah[4], al[4];
#pragma unroll
      for (int i = 0; i < 8; i++) sum[c + 1][i / 4][i % 4] = -sum[c + 1][i / 4][i % 4] - small[c + 1][i / 4][i % 4];
      split<E>(sum[c + 1], ah, al);
      multiply_split<E>(x, rest, ah, al, ldmatrix4(hi_at(c + 1, c + 1)), ldmatrix4(lo_at(c + 1, c + 1)));
#pragma unroll
      for (int i = 0; i < 8; i++) x[i / 4][i % 4] += rest[i / 4][i % 4];
      split<E>(x, xh[c + 1], xl[c + 1]);
    }
  }

  // Stage 4: the last four warps.

  template <typename Source>
  __device__ __forceinline__ void first_values(const Source &source, const Place &place, int column, int width,
                                               int columns) const {
    const int thread = at.tid - 128;
    source.fetch(sh, place, column, width, columns, thread, 128);
#pragma unroll
    for (int i = 0; i < C * C * 2 / 16; i += 128)
      reinterpret_cast<uint4 *>(record + Record::p)[i + thread] =
          reinterpret_cast<const uint4 *>(sh.p_tile)[i + thread];
    if constexpr (Source::computed)
      source.compute(sh, place, column, width, thread, 128, [] { copy_async_wait(), sync_four_warps<value_warps>(); });
  }

  // Stage 5.

  __device__ __forceinline__ void store_x(int r, const float (&x)[2][4]) const {
    unsigned char *to =
        sh.x_tile + (16 * at.warp + at.matrix % 2 * 8 + at.line) * 128 + ((2 * r + at.matrix / 2) ^ at.line) * 16;
    stmatrix4(to, P::pack(x[0][0], x[0][1]), P::pack(x[0][2], x[0][3]), P::pack(x[1][0], x[1][1]),
              P::pack(x[1][2], x[1][3]));
  }
  // to: the record's place of this warp's 16 columns.
  __device__ __forceinline__ void store_z(unsigned char *to, int r, const float (&x)[2][4]) const {
    reinterpret_cast<uint4 *>(to)[r * 32 + at.lane] = make_uint4(P::pack(x[0][0], x[0][1]), P::pack(x[0][2], x[0][3]),
                                                                 P::pack(x[1][0], x[1][1]), P::pack(x[1][2], x[1][3]));
  }

  static constexpr int value_stride = value_panel + 8;
  __device__ __forceinline__ const E *key_columns() const {
    return &sh.erase[tile_row()][16 * at.warp + tile_column()];
  }
  __device__ __forceinline__ const E *value_columns() const {
    return &sh.value[tile_row()][16 * at.warp + tile_column()];
  }

  // X, and Z of the first panel, 16 columns a warp.
  __device__ __forceinline__ void solve_first(unsigned char *to, bool has_values) const {
    const bool has_keys = at.warp < K / 16;
    const E *hi = hi_at(0, 0), *lo = lo_at(0, 0);
    if (has_keys && has_values)
      solve<E, 2>({key_columns(), value_columns()}, {S, value_stride}, hi, lo,
                  [&](int r, const float(&x)[2][2][4]) { store_x(r, x[0]), store_z(to, r, x[1]); });
    else if (has_keys)
      solve<E, 1>({key_columns()}, {S}, hi, lo, [&](int r, const float(&x)[1][2][4]) { store_x(r, x[0]); });
    else if (has_values)
      solve<E, 1>({value_columns()}, {value_stride}, hi, lo,
                  [&](int r, const float(&x)[1][2][4]) { store_z(to, r, x[0]); });
  }

  __device__ __forceinline__ void solve_values(unsigned char *to) const {
    solve<E, 1>({value_columns()}, {value_stride}, hi_at(0, 0), lo_at(0, 0),
                [&](int r, const float(&x)[1][2][4]) { store_z(to, r, x[0]); });
  }

  __device__ __forceinline__ void write_x() const {
#pragma unroll
    for (int i = 0; i < K * C * 2 / 16; i += prepare_threads)
      reinterpret_cast<uint4 *>(record + Record::x)[i + at.tid] =
          reinterpret_cast<const uint4 *>(sh.x_tile)[i + at.tid];
  }
};

template <typename E, int K, typename Source>
__device__ __forceinline__ void prepare(const Source &source, const int2 *__restrict__ chunks,
                                        unsigned char *__restrict__ key_records,
                                        unsigned char *__restrict__ value_records, int H, int HV, int V, float scale) {
  using Work = Preparation<E, K>;
  constexpr int N = Work::N;
  extern __shared__ __align__(1024) unsigned char raw[];
  auto &sh = *reinterpret_cast<typename Work::Shared *>(raw);
  const int h = blockIdx.x, chunk = blockIdx.y, per = HV == H ? 1 : HV / H;
  const int2 span = chunks[chunk];
  const Place place{span.x, span.y & chunk_tokens, (span.y & chunk_starts) != 0, h, H};
  const Work work(sh, key_records + (int64_t(chunk) * H + h) * KeyRecord<K>::bytes, scale);
  const int tid = work.at.tid, warp = work.at.warp;

  // Stage 1
  OwnTokens<N> x;
  Pairs<N> g[8];
  source.template keys<K>(x.q, x.k, x.b, g, sh, place, warp, work.at.lane);
  const typename Source::template Exp<N> exp_of(source, h, h * K + work.channel);
#pragma unroll
  for (int i = 0; i < 8; i++) x.e[i] = exp_of(g[i]);
  OwnPairs own(work.at);
  work.own_pairs(x, own);
  __syncthreads();

  // Stage 2
  uint4 own_rows[K / 16];
  work.decays(x, own_rows);
  __syncthreads();

  // Stage 3
  work.other_pairs(own, own_rows);
  __syncthreads();

  // Stage 4. A key head's value columns, in panels: width columns each, from first_column on.
  const int width = V < value_panel ? V : value_panel, panels = V > value_panel ? per * (V / value_panel) : per;
  const int first_column = h * per * V;
  if (warp < 4) {
    work.invert();
#ifdef HOPPER_RACECHECK
    if (Source::computed) __syncthreads();  // the value warps' barrier is one of all warps
#endif
  } else {
    work.first_values(source, place, first_column, width, HV * V);
#ifdef HOPPER_RACECHECK
    __syncthreads();
    __syncthreads();
#endif
  }
  copy_async_wait();
  __syncthreads();

  // Stage 5
  const bool has_values = warp < width / 16;
  unsigned char *const value_record = value_records + (int64_t(chunk) * HV + h * per) * value_record_bytes(V);
  auto z_of = [&](int panel) { return value_record + int64_t(panel * width + 16 * warp) * (C * 2); };
  work.solve_first(z_of(0), has_values);
  __syncthreads();
  work.write_x();
  for (int panel = 1; panel < panels; panel++) {
    const int column = first_column + panel * width;
    __syncthreads();
    source.fetch(sh, place, column, width, HV * V, tid, prepare_threads);
    if constexpr (Source::computed)
      source.compute(sh, place, column, width, tid, prepare_threads, [] { copy_async_wait(), __syncthreads(); });
    copy_async_wait();
    __syncthreads();
    if (has_values) work.solve_values(z_of(panel));
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
