// A product x [M, K] w [N, K]^T of eight-bit numbers on product.cuh's frame; sm_90a. What follows a tile's sums is the
// caller's: eight_bit_endings.cuh.
//
// The sums of s8 are exact integers: they depend on no order. e4m3 goes by the same tiles and sums in fp32. In the
// loops over blocks the sums of every 128 of K come to fp32 by the scale that x's row has there (and, with WScales,
// w's).
//
// As in product.cuh a block has two warpgroups that sum (64 rows each) and one warp that fetches; the blocks of a
// cluster share w's columns and each fetches its part of them for all. A step is 128 of K: rows of 128 bytes, swizzled.
//
// x, w: dense, K a multiple of 16, M of 128 kCluster; w's rows are padded to the tile. xs [K / 128, M], ws [K / 128,
// N]: block scales, fp32.
#pragma once
#include "../product.cuh"
#include "eight_bit_wgmma.cuh"
#include <type_traits>

namespace eight {

using namespace hopper;

// Tiles of 128 rows by Columns; a product of Instruction columns at a time; blocks of a cluster.
template <int Columns, int Instruction, int Stages, int Cluster>
struct Tiling {
  static constexpr int kM = 128, kN = Columns, kI = Instruction, kK = 128, kStages = Stages, kCluster = Cluster;
  static constexpr int kABytes = kM * kK, kBBytes = kN * kK, kStage = kABytes + kBBytes;
  // After the stages: barriers, then scales of x's rows and w's columns a stage, then what an ending needs.
  static constexpr int kBarriers = kStages * kStage, kRowScales = kBarriers + 256,
                       kColumnScales = kRowScales + kStages * kM * 4;
  static constexpr int kExtra = kColumnScales + kStages * kN * 4, kExtraBytes = 2 * 2 * kN * 4;
  static constexpr int kShared = kExtra + kExtraBytes + 1024;  // the last for aligning to 1024
  static_assert(kShared <= 232448);
};

// What x, w and the rest of a launch are.
struct Operands {
  const CUtensorMap *maps;  // of x (boxes of 128 rows) and w (kN / kCluster rows), 128 columns
  int groups, N, K;         // rows / (128 kCluster); N: positions
  const float *xs, *ws;     // block scales, or null
  int64_t M, padded;        // strides of xs and ws
  int height;               // groups of rows that take w's columns together
};

// whole: a tile's sums, then what follows them. overlapped: the same in halves of the columns, the last steps and the
// next tile's first apart, so that a half's sums are followed while the other's are made. blocks: sums come to fp32 at
// every 128 of K. in_turns: so too, and the warpgroups' products take turns, so that one comes to fp32 while the other
// multiplies.
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

// Sums of a block of K, t, to the row's and column's scales in fp32.
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

// A summing warpgroup's share of a block: where it is among the steps, and what it does at each.
template <Type T, typename S>
struct Summing {
  using V = typename Sum<T>::type;
  static constexpr int kStages = S::kStages;
  const Place &p;
  uint32_t base, full, empty;
  uint32_t step = 0;  // since the kernel began

  __device__ __forceinline__ uint32_t stage(int ahead = 0) const { return (step + ahead) % kStages; }
  __device__ __forceinline__ void wait(int ahead = 0) const {
    barrier_wait(full + 8 * stage(ahead), (step + ahead) / kStages & 1);
  }
  __device__ __forceinline__ void release(uint32_t s) const {
    if (p.lane < S::kCluster) product::barrier_arrive_at(empty + 8 * s, p.lane);
  }
  // d (+)= the instructions from..to of a stage, for N columns from `column` of the tile.
  template <int N>
  __device__ __forceinline__ void multiply(V (&d)[N / 2], uint32_t s, int column, bool add, int from = 0, int to = 4) {
    const uint32_t a = base + s * S::kStage + p.group * (64 * 128),
                   b = base + s * S::kStage + S::kABytes + column * 128;
#pragma unroll
    for (int j = from; j < to; j++)
      Wgmma<T, N>::run(d, product::tile_descriptor(a + j * 32), product::tile_descriptor(b + j * 32), add || j > 0);
  }
};

// Two warpgroups in turns, by two barriers of both. A warpgroup gives the turn on when all but the last of its
// instructions are done.
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
      if (L == Loop::in_turns) {
        w.template multiply<S::kI>(v, s, column, false, 0, 3);
        wgmma_commit();
        w.template multiply<S::kI>(v, s, column, true, 3, 4);
        wgmma_commit();
        wgmma_wait<1>();
        give_turn(w.p.group);
      } else {
        w.template multiply<S::kI>(v, s, column, false);
        wgmma_commit();
      }
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

// All of a block's tiles. kEdge steps of a tile's end and of the next one's beginning are made by halves. The products
// are of half the columns throughout: the compiler does not let registers belong to both a half's and a whole one's.
template <Type T, typename S, typename Then>
__device__ __forceinline__ void sum_overlapped(Summing<T, S> &w, int steps, int first, int stride, int total, int tiles,
                                               const Operands &o, uint32_t rank, Then &then) {
  using V = typename Sum<T>::type;
  constexpr int kEdge = 2, kHalf = S::kN / 2;
  static_assert(2 * kEdge <= S::kStages);
  V left[kHalf / 2], right[kHalf / 2];
  auto edge = [&](V(&d)[kHalf / 2], int column, int ahead, bool add) {  // a half's sums over kEdge steps
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
    // In flight: the first kEdge steps; this tile's place is w.step.
    int held = kEdge;  // stages that the products in flight read
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
    if (i >= total) {  // apart, since the compiler joins no products in flight
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
      if (L == Loop::in_turns && p.group == 0) take_turn(0);  // the second's last
    }
  }
  product::cluster_sync();  // the other blocks may still signal, or fetch for this one
#else
  __trap();
#endif
}

}  // namespace eight
