// A matrix product x[M, K] w[N, K]^T whose tiles stay in the registers that summed them, where an epilogue uses them.
// For swiglu_product.cu and head_nll.cu; sm_90a.
//
// A block computes tiles of 128 rows by 256 columns, fp32 sums in the registers of two warpgroups (64 rows each). A
// third warpgroup copies operands by TMA, 64 of K at a time, up to four steps ahead. The two blocks of a cluster share
// their columns: each fetches half of w's tile for both. Blocks are persistent and process tiles in an order that keeps
// 8 x 256 rows of x in L2 while w streams through.
//
// A row's sum runs over K from 0 upwards in one register, for any M and any position of the row: its bits depend only
// on x's row and w.
//
// Layout: x, w act, dense; M a multiple of 256, K of 8. Past K and N TMA reads zeros. maps: CUtensorMaps in device
// memory of x and w (boxes 64 x 128, 128-byte swizzle). Launch: grid 2 * clusters (at most the SMs), block 384,
// shared_bytes(extra) of dynamic shared memory.
#pragma once
#include "common.cuh"
#include "hopper.cuh"
#include <cuda.h>

namespace product {

using namespace hopper;

// Rows, columns, depth of a step; steps in flight; pairs of row tiles that take w together.
constexpr int kM = 128, kN = 256, kK = 64, kStages = 4, kGroup = 8;
constexpr int kABytes = kM * kK * 2, kBBytes = kN * kK * 2, kStage = kABytes + kBBytes;
constexpr int kBarriers = kStages * kStage, kExtra = kBarriers + 1024;
constexpr int shared_bytes(int extra) { return kExtra + extra + 1024; }  // 1024 for alignment

// Arrives at a barrier of the cluster's block `rank`. It signals that the tensor cores have read a stage; no ordinary
// memory access depends on it, so no fence of cluster scope is needed.
__device__ __forceinline__ void barrier_arrive_at(uint32_t bar, uint32_t rank) {
  asm volatile("{.reg .b32 a;\nmapa.shared::cluster.u32 a, %0, %1;\nmbarrier.arrive.shared::cluster.b64 _, [a];}"
               :
               : "r"(bar), "r"(rank)
               : "memory");
}
__device__ __forceinline__ void fetch(uint32_t to, const CUtensorMap *map, int column, int row, uint32_t bar) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
      :
      : "r"(to), "l"(map), "r"(column), "r"(row), "r"(bar)
      : "memory");
}
__device__ __forceinline__ void fetch_for_both(uint32_t to, const CUtensorMap *map, int column, int row, uint32_t bar) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%2, %3}], [%4], %5;"
      :
      : "r"(to), "l"(map), "r"(column), "r"(row), "r"(bar), "h"(uint16_t(3))
      : "memory");
}
__device__ __forceinline__ void map_acquire(const CUtensorMap *map) {
  asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
}
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t r;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
// Operands lie as rows of 128 bytes (64 of K), swizzled; groups of 8 rows 1024 bytes apart.
__device__ __forceinline__ uint64_t tile_descriptor(uint32_t address) {
  return uint64_t((address & 0x3ffff) >> 4) | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

#ifdef SURPRISAL_BF16
#define ELEMENTS "bf16"
#else
#define ELEMENTS "f16"
#endif
// d [64, 256] (+)= a [64, 16] b [256, 16]^T
__device__ __forceinline__ void wgmma(float (&d)[128], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{.reg .pred p; setp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." ELEMENTS "." ELEMENTS
      " {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
      "}, %128, %129, p, 1, 1, 0, 0;}\n"
      : HOPPER_SUMS_32(0), HOPPER_SUMS_32(32), HOPPER_SUMS_32(64), HOPPER_SUMS_32(96)
      : "l"(a), "l"(b), "r"(add));
}
struct Tile {
  int rows, columns;  // its first row and column
};

// The cluster's tile i. Rows come in pairs of 128; kGroup pairs in succession use the same columns.
__device__ __forceinline__ Tile tile_at(int i, int pairs, int tiles, uint32_t rank) {
  const int per = kGroup * tiles, g = i / per, r = i - g * per, height = min(kGroup, pairs - g * kGroup);
  return {((g * kGroup + r % height) * 2 + int(rank)) * kM, r / height * kN};
}

// A thread's place in the two summing warpgroups. Its sums d: columns 8 j + 2 quad + {0, 1} of the tile's row row() in
// d[4 j + {0, 1}] and of row row() + 8 in d[4 j + {2, 3}].
struct Place {
  int group, warp, lane, quad;
  uint32_t extra;  // address of the kernel's own shared memory
  __device__ __forceinline__ int row() const { return group * 64 + warp * 16 + lane / 4; }
};

// Then is the epilogue: void begin(const Place &, Tile) is called before a tile's sums, void finish(float (&d)[128],
// const Place &, Tile) after them, void end(const Place &) after the last tile.
template <typename Then>
__device__ __forceinline__ void run(const CUtensorMap *maps, int pairs, int N, int K, Then then) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ unsigned char raw[];
  const uint32_t base = (shared_address(raw) + 1023) & ~1023u, full = base + kBarriers, empty = full + 8 * kStages;
  const int tid = threadIdx.x;
  const uint32_t rank = cluster_rank();
  const int tiles = (N + kN - 1) / kN, steps = (K + kK - 1) / kK, total = pairs * tiles;
  if (tid == 0) {
    for (int s = 0; s < kStages; s++) barrier_init(full + 8 * s, 1), barrier_init(empty + 8 * s, 2 * 8);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  cluster_sync();
  uint32_t step = 0;  // steps since the kernel's start, which determine stage and parity
  if (tid >= 256) {
    fewer_registers<40>();
    if (tid == 256) {
      map_acquire(maps), map_acquire(maps + 1);
      for (int i = blockIdx.x / 2; i < total; i += gridDim.x / 2) {
        const Tile t = tile_at(i, pairs, tiles, rank);
        for (int k = 0; k < steps; k++, step++) {
          const uint32_t s = step % kStages, to = base + s * kStage;
          barrier_wait(empty + 8 * s, (step / kStages & 1) ^ 1);
          barrier_expect(full + 8 * s, kStage);
          fetch(to, maps, k * kK, t.rows, full + 8 * s);
          fetch_for_both(to + kABytes + rank * (kBBytes / 2), maps + 1, k * kK, t.columns + int(rank) * (kN / 2),
                         full + 8 * s);
        }
      }
    }
  } else {
    more_registers<232>();
    const Place p{tid / 128, tid % 128 / 32, tid % 32, tid % 4, base + kExtra};
    float d[128];
    for (int i = blockIdx.x / 2; i < total; i += gridDim.x / 2) {
      const Tile t = tile_at(i, pairs, tiles, rank);
      then.begin(p, t);
      for (int k = 0; k < steps; k++, step++) {
        const uint32_t s = step % kStages, at = base + s * kStage;
        barrier_wait(full + 8 * s, step / kStages & 1);
        hold(d);
        wgmma_fence();
#pragma unroll
        for (int j = 0; j < kK / 16; j++)
          wgmma(d, tile_descriptor(at + p.group * (64 * 128) + j * 32), tile_descriptor(at + kABytes + j * 32),
                k > 0 || j > 0);
        wgmma_commit();
        hold(d);
        wgmma_wait<1>();
        if (k > 0 && p.lane < 2) barrier_arrive_at(empty + 8 * ((step - 1) % kStages), p.lane);
      }
      wgmma_wait<0>();
      if (p.lane < 2) barrier_arrive_at(empty + 8 * ((step - 1) % kStages), p.lane);
      hold(d);
      then.finish(d, p, t);
    }
    then.end(p);
  }
  cluster_sync();  // the other block may still signal, or copy for this one
#else
  __trap();
#endif
}

}  // namespace product
