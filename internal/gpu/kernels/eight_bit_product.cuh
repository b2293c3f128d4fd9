// Matrix product x [M, K] w [N, K]^T of eight-bit operands with product.cuh's frame; sm_90a. The epilogues are in
// eight_bit_endings.cuh.
//
// s8 sums are exact integers, so they don't depend on the order of summation. e4m3 uses the same tiles and sums in
// fp32. In the loops over blocks, the sum of each 128 of K is converted to fp32 and multiplied by x's scale for that
// row and block (WScales: and by w's scale for that column and block).
//
// As in product.cuh, a block has two warpgroups that multiply (64 rows each) and one warp that loads. The blocks of a
// cluster work on the same columns of w; each loads its share of them into the shared memory of all. A step is 128 of
// K: rows of 128 bytes, swizzled.
//
// x and w are dense. K must be a multiple of 16, M a multiple of 128 kCluster, and w's rows are padded to a multiple of
// the tile. Block scales are fp32: xs [K / 128, M], ws [K / 128, N].
#pragma once
#include "product.cuh"
#include "eight_bit_wgmma.cuh"
#include <type_traits>

namespace eight {

using namespace hopper;

// Tiles of 128 rows by Columns, multiplied Instruction columns at a time, by clusters of Cluster blocks.
template <int Columns, int Instruction, int Stages, int Cluster>
struct Tiling {
  static constexpr int kM = 128, kN = Columns, kI = Instruction, kK = 128, kStages = Stages, kCluster = Cluster;
  static constexpr int kABytes = kM * kK, kBBytes = kN * kK, kStage = kABytes + kBBytes;
  // Shared memory after the stages: barriers, the block scales of each stage, and the epilogue's column scales.
  static constexpr int kBarriers = kStages * kStage, kRowScales = kBarriers + 256,
                       kColumnScales = kRowScales + kStages * kM * 4;
  static constexpr int kExtra = kColumnScales + kStages * kN * 4, kExtraBytes = 2 * 2 * kN * 4;
  static constexpr int kShared = kExtra + kExtraBytes + 1024;  // 1024 for alignment
  static_assert(kShared <= 232448);
};

// Arguments that all kernels share.
struct Operands {
  const CUtensorMap *maps;  // x (boxes of 128 x 128) and w (kN / kCluster x 128), 128-byte swizzle
  int groups, N, K;         // groups: M / (128 kCluster)
  const float *xs, *ws;     // block scales, null if the loop uses none
  int64_t M, padded;        // row lengths of xs and ws
  int height;               // groups of rows that are computed for the same columns one after another
};

// The main loops.
//   whole       all of a tile's sums, then its epilogue
//   overlapped  as whole, but the last steps of a tile and the first of the next are computed by halves of the columns,
//               so that one half's epilogue runs while the other half is multiplied
//   blocks      sums are converted to fp32 at every 128 of K
//   in_turns    as blocks, but the warpgroups alternate: one multiplies while the other converts
enum class Loop { whole, overlapped, blocks, in_turns };

struct Tile {
  int rows, columns;
};
struct Place {
  int group, warp, lane, quad;
  uint32_t extra;
  __device__ __forceinline__ int row() const { return group * 64 + warp * 16 + lane / 4; }
};

template <typename S>
__device__ __forceinline__ Tile tile_at(int i, const Operands &o, int tiles, uint32_t rank) {
  const int per = o.height * tiles, g = i / per, r = i - g * per, height = min(o.height, o.groups - g * o.height);
  return {((g * o.height + r % height) * S::kCluster + int(rank)) * S::kM, r / height * S::kN};
}

__device__ __forceinline__ float load_shared(uint32_t at) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(at) : "memory");
  return v;
}
__device__ __forceinline__ float2 load_shared2(uint32_t at) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(at) : "memory");
  return v;
}
__device__ __forceinline__ void store_shared(uint32_t at, float v) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(v) : "memory");
}
__device__ __forceinline__ void group_sync(int group) { asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory"); }

__device__ __forceinline__ void fetch_for_all(uint32_t to, const CUtensorMap *map, int column, int row, uint32_t bar,
                                              uint16_t mask) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(bar), "h"(mask)
      : "memory");
}

// Adds a block's sums t, times their scales, to d.
template <bool WScales, int From, int Half, int All, typename V>
__device__ __forceinline__ void promote(float (&d)[All], const V (&t)[Half], float s0, float s1, uint32_t columns) {
#pragma unroll
  for (int j = 0; j < Half / 4; j++) {
    float v[4] = {float(t[4 * j]), float(t[4 * j + 1]), float(t[4 * j + 2]), float(t[4 * j + 3])};
    if constexpr (WScales) {
      const float2 c = load_shared2(columns + (From / 4 + j) * 32);
      v[0] *= c.x, v[1] *= c.y, v[2] *= c.x, v[3] *= c.y;
    }
    float *to = d + From + 4 * j;
    to[0] = fmaf(v[0], s0, to[0]), to[1] = fmaf(v[1], s0, to[1]), to[2] = fmaf(v[2], s1, to[2]),
    to[3] = fmaf(v[3], s1, to[3]);
  }
}

// The state of a warpgroup that multiplies.
template <Type T, typename S>
struct Summing {
  using V = typename Sum<T>::type;
  static constexpr int kStages = S::kStages;
  const Place &p;
  uint32_t base, full, empty;
  uint32_t step = 0;  // counted from the start of the kernel

  __device__ __forceinline__ uint32_t stage(int ahead = 0) const { return (step + ahead) % kStages; }
  __device__ __forceinline__ void wait(int ahead = 0) const {
    barrier_wait(full + 8 * stage(ahead), (step + ahead) / kStages & 1);
  }
  __device__ __forceinline__ void release(uint32_t s) const {
    if (p.lane < S::kCluster) product::barrier_arrive_at(empty + 8 * s, p.lane);
  }
  // d (+)= a stage's products for N columns of the tile, beginning at `column`.
  template <int N>
  __device__ __forceinline__ void multiply(V (&d)[N / 2], uint32_t s, int column, bool add) {
    const uint32_t a = base + s * S::kStage + p.group * (64 * 128),
                   b = base + s * S::kStage + S::kABytes + column * 128;
#pragma unroll
    for (int j = 0; j < 4; j++)
      Wgmma<T, N>::run(d, product::tile_descriptor(a + j * 32), product::tile_descriptor(b + j * 32), add || j > 0);
  }
};

// The warpgroups alternate by two named barriers. A warpgroup hands over once it has issued its instructions.
__device__ __forceinline__ void take_turn(int group) { asm volatile("bar.sync %0, 256;" ::"r"(3 + group) : "memory"); }
__device__ __forceinline__ void give_turn(int group) {
  asm volatile("bar.arrive %0, 256;" ::"r"(4 - group) : "memory");
}

template <Type T, typename S, typename Then>
__device__ __forceinline__ void sum_whole(Summing<T, S> &w, int steps, Tile t, int n, Then &then) {
  typename Sum<T>::type d[S::kN / 2];
  then.begin(w.p, t);
  for (int k = 0; k < steps; k++, w.step++) {
    w.wait();
    hold(d);
    wgmma_fence();
    w.template multiply<S::kN>(d, w.stage(), 0, k > 0);
    wgmma_commit();
    hold(d);
    wgmma_wait<1>();
    if (k > 0) w.release(w.stage(-1));
  }
  wgmma_wait<0>();
  w.release(w.stage(-1));
  hold(d);
  then.start(w.p, n);
  then.template half<0>(*reinterpret_cast<typename Sum<T>::type(*)[S::kN / 4]>(d), w.p, t);
  then.template half<1>(*reinterpret_cast<typename Sum<T>::type(*)[S::kN / 4]>(d + S::kN / 4), w.p, t);
  then.end(w.p, t);
}

template <bool WScales, Loop L, Type T, typename S, typename Then>
__device__ __forceinline__ void sum_blocks(Summing<T, S> &w, int steps, Tile t, int n, Then &then) {
  float d[S::kN / 2];
  typename Sum<T>::type v[S::kI / 2];
  then.begin(w.p, t);
#pragma unroll
  for (int e = 0; e < S::kN / 2; e++) d[e] = 0;
  const uint32_t row_scales = w.base + S::kRowScales + w.p.row() * 4;
  const uint32_t column_scales = w.base + S::kColumnScales + w.p.quad * 8;
  for (int k = 0; k < steps; k++, w.step++) {
    const uint32_t s = w.stage();
    w.wait();
    const float s0 = load_shared(row_scales + s * S::kM * 4), s1 = load_shared(row_scales + s * S::kM * 4 + 32);
    auto part = [&](auto which) {
      constexpr int column = decltype(which)::value * S::kI;
      constexpr bool last = column + S::kI == S::kN;
      hold(v);
      if (L == Loop::in_turns) take_turn(w.p.group);
      wgmma_fence();
      w.template multiply<S::kI>(v, s, column, false);
      wgmma_commit();
      if (L == Loop::in_turns) give_turn(w.p.group);
      wgmma_wait<0>();
      hold(v);
      if (last && !WScales) __syncwarp(), w.release(s);
      promote<WScales, column / 2>(d, v, s0, s1, column_scales + s * S::kN * 4);
      if (last && WScales) __syncwarp(), w.release(s);
    };
    part(std::integral_constant<int, 0>());
    if constexpr (S::kI < S::kN) part(std::integral_constant<int, 1>());
  }
  then.finish(d, w.p, t, n);
}

// Computes all tiles of a block. The last kEdge steps of a tile and the first kEdge of the next are done by halves. All
// products are of half the columns: ptxas can't give the same registers to a product of 128 and to one of 256 columns
// while either is in flight.
template <Type T, typename S, typename Then>
__device__ __forceinline__ void sum_overlapped(Summing<T, S> &w, int steps, int first, int stride, int total, int tiles,
                                               const Operands &o, uint32_t rank, Then &then) {
  using V = typename Sum<T>::type;
  constexpr int kEdge = 2, kHalf = S::kN / 2;
  static_assert(2 * kEdge <= S::kStages);
  V left[kHalf / 2], right[kHalf / 2];
  auto edge = [&](V(&d)[kHalf / 2], int column, int ahead, bool add) {  // kEdge steps of one half
    wgmma_fence();
#pragma unroll
    for (int e = 0; e < kEdge; e++) w.template multiply<kHalf>(d, w.stage(ahead + e), column, add || e > 0);
    wgmma_commit();
  };
  auto both = [&](uint32_t s) {
    w.template multiply<kHalf>(left, s, 0, true);
    w.template multiply<kHalf>(right, s, kHalf, true);
    wgmma_commit();
  };
  if (first >= total) return;
  Tile t = tile_at<S>(first, o, tiles, rank);
  for (int e = 0; e < kEdge; e++) w.wait(e);
  hold(left), hold(right);
  edge(left, 0, 0, false);
  edge(right, kHalf, 0, false);
  then.begin(w.p, t);
  for (int i = first, n = 0;; n++) {
    // The first kEdge steps are in flight. w.step is the tile's first step.
    int held = kEdge;  // stages read by products in flight
    for (int k = kEdge; k < steps - kEdge; k++) {
      w.wait(k);
      wgmma_fence();
      both(w.stage(k));
      wgmma_wait<1>();
      for (int e = held; e > 0; e--) w.release(w.stage(k - e));
      held = 1;
    }
    for (int e = 0; e < kEdge; e++) w.wait(steps - kEdge + e);
    edge(left, 0, steps - kEdge, true);
    wgmma_wait<1>();
    for (int e = held; e > 0; e--) w.release(w.stage(steps - kEdge - e));
    edge(right, kHalf, steps - kEdge, true);
    then.start(w.p, n);
    wgmma_wait<1>();
    hold(left);
    then.template half<0>(left, w.p, t);
    hold(left);
    auto finish = [&]() {
      hold(right);
      for (int e = 0; e < kEdge; e++) w.release(w.stage(steps - kEdge + e));
      then.template half<1>(right, w.p, t);
      then.end(w.p, t);
      w.step += steps;
      hold(right);
    };
    i += stride;
    if (i >= total) {  // a branch of its own: where paths join, ptxas would wait for all products
      wgmma_wait<0>();
      finish();
      break;
    }
    for (int e = 0; e < kEdge; e++) w.wait(steps + e);
    wgmma_wait<0>();
    edge(left, 0, steps, false);
    finish();
    edge(right, kHalf, 0, false);
    t = tile_at<S>(i, o, tiles, rank);
    then.begin(w.p, t);
  }
}

template <Type T, typename S, Loop L, bool WScales, typename Then>
__device__ __forceinline__ void run(const Operands &o, Then then) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ unsigned char raw[];
  constexpr int kStages = S::kStages, kCluster = S::kCluster;
  constexpr bool kBlocks = L == Loop::blocks || L == Loop::in_turns;
  const uint32_t base = (shared_address(raw) + 1023) & ~1023u, full = base + S::kBarriers, empty = full + 8 * kStages;
  const int tid = threadIdx.x;
  const uint32_t rank = product::cluster_rank();
  const int tiles = (o.N + S::kN - 1) / S::kN, steps = (o.K + 127) / 128, total = o.groups * tiles;
  const int first = blockIdx.x / kCluster, stride = gridDim.x / kCluster;
  if (tid == 0) {
    for (int s = 0; s < kStages; s++) barrier_init(full + 8 * s, 1), barrier_init(empty + 8 * s, kCluster * 8);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  product::cluster_sync();
  if (tid >= 256) {
    fewer_registers<40>();
    if (tid == 256) {
      product::map_acquire(o.maps), product::map_acquire(o.maps + 1);
      constexpr int bytes = S::kStage + (kBlocks ? S::kM * 4 : 0) + (WScales ? S::kN * 4 : 0);
      uint32_t step = 0;
      for (int i = first; i < total; i += stride) {
        const Tile t = tile_at<S>(i, o, tiles, rank);
#pragma unroll 1
        for (int k = 0; k < steps; k++, step++) {
          const uint32_t s = step % kStages, to = base + s * S::kStage, bar = full + 8 * s;
          barrier_wait(empty + 8 * s, (step / kStages & 1) ^ 1);
          barrier_expect(bar, bytes);
          product::fetch(to, o.maps, k * 128, t.rows, bar);
          fetch_for_all(to + S::kABytes + rank * (S::kBBytes / kCluster), o.maps + 1, k * 128,
                        t.columns + int(rank) * (S::kN / kCluster), bar, uint16_t((1 << kCluster) - 1));
          if constexpr (kBlocks)
            bulk_copy(base + S::kRowScales + s * S::kM * 4, o.xs + k * o.M + t.rows, S::kM * 4, bar);
          if constexpr (WScales)
            bulk_copy(base + S::kColumnScales + s * S::kN * 4, o.ws + k * o.padded + t.columns, S::kN * 4, bar);
        }
      }
    }
  } else {
    more_registers<232>();
    const Place p{tid / 128, tid % 128 / 32, tid % 32, tid % 4, base + S::kExtra};
    Summing<T, S> w{p, base, full, empty};
    if constexpr (L == Loop::overlapped) {
      sum_overlapped(w, steps, first, stride, total, tiles, o, rank, then);
    } else {
      if (L == Loop::in_turns && p.group == 1) give_turn(1);
      for (int i = first, n = 0; i < total; i += stride, n++) {
        const Tile t = tile_at<S>(i, o, tiles, rank);
        if constexpr (kBlocks) sum_blocks<WScales, L>(w, steps, t, n, then);
        else sum_whole(w, steps, t, n, then);
      }
      if (L == Loop::in_turns && p.group == 0) take_turn(0);  // matches the other's last give_turn
    }
  }
  product::cluster_sync();  // the other blocks may still signal this one or load into it
#else
  __trap();
#endif
}

}  // namespace eight
