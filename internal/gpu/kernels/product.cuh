// A matrix product x[M, K] w[N, K]^T whose tiles never leave the registers that summed them: what follows takes them there. For swiglu_product.cu and
// head_nll.cu; sm_90a.
//
// A block computes tiles of 128 rows by 256 columns, fp32 sums in the registers of two warpgroups (64 rows each), and a third warpgroup brings operands
// by TMA, 64 of K at a time, four steps ahead. Two blocks of a cluster share their columns: each fetches half of w's tile for both. Blocks are
// persistent and take tiles in an order that keeps 8 x 256 rows of x in L2 while w goes by.
//
// A row's sum runs over K from 0 up, in one register, whatever M is and wherever the row lies: its bits depend on x's row and w alone.
//
// Layout: x, w act, dense; M a multiple of 256, K of 8. Past K and N TMA reads zeros. maps: CUtensorMaps in device memory of x and w (boxes
// 64 x 128, 128-byte swizzle). Launch: grid 2 * clusters (at most the SMs), block 384, shared_bytes(extra) of dynamic shared memory.
#pragma once
#include "common.cuh"
#include "hopper.cuh"
#include <cuda.h>

namespace product {

using namespace hopper;

constexpr int kM = 128, kN = 256, kK = 64, kStages = 4, kGroup = 8;  // rows, columns, depth of a step; pairs of row tiles that take w together
constexpr int kABytes = kM * kK * 2, kBBytes = kN * kK * 2, kStage = kABytes + kBBytes;
constexpr int kBarriers = kStages * kStage, kExtra = kBarriers + 1024;
constexpr int shared_bytes(int extra) { return kExtra + extra + 1024; }  // the last for aligning to 1024

// In the cluster's block rank. What it says is that the tensor cores have read a stage, so no ordinary memory needs a fence of the cluster's scope.
__device__ __forceinline__ void barrier_arrive_at(uint32_t bar, uint32_t rank) {
  asm volatile("{.reg .b32 a;\nmapa.shared::cluster.u32 a, %0, %1;\nmbarrier.arrive.shared::cluster.b64 _, [a];}" ::"r"(bar), "r"(rank) : "memory");
}
__device__ __forceinline__ void fetch(uint32_t to, const CUtensorMap *map, int column, int row, uint32_t bar) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(map), "r"(column),
               "r"(row), "r"(bar)
               : "memory");
}
__device__ __forceinline__ void fetch_for_both(uint32_t to, const CUtensorMap *map, int column, int row, uint32_t bar) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
               "l"(map), "r"(column), "r"(row), "r"(bar), "h"(uint16_t(3))
               : "memory");
}
__device__ __forceinline__ void map_acquire(const CUtensorMap *map) {
  asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
}
__device__ __forceinline__ void cluster_sync() { asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory"); }
__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t r;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
// Operands lie as rows of 128 bytes (64 of K), swizzled; groups of 8 rows 1024 bytes apart.
__device__ __forceinline__ uint64_t tile_descriptor(uint32_t address) { return uint64_t((address & 0x3ffff) >> 4) | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62; }

#ifdef SURPRISAL_BF16
#define ELEMENTS "bf16"
#else
#define ELEMENTS "f16"
#endif
// d [64, 256] (+)= a [64, 16] b [256, 16]^T
__device__ __forceinline__ void wgmma(float (&d)[128], uint64_t a, uint64_t b, int add) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." ELEMENTS "." ELEMENTS " {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
      "}, %128, %129, p, 1, 1, 0, 0;}\n"
      :
        "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
        "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
        "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]),
        "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]),
        "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]),
        "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]), "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]),
        "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
      : "l"(a), "l"(b), "r"(add));
}
struct Tile {
  int rows, columns;  // where it begins
};

// tile i of this cluster's: rows in pairs of 128, kGroup pairs after each other for the same columns.
__device__ __forceinline__ Tile tile_at(int i, int pairs, int tiles, uint32_t rank) {
  const int per = kGroup * tiles, g = i / per, r = i - g * per, height = min(kGroup, pairs - g * kGroup);
  return {((g * kGroup + r % height) * 2 + int(rank)) * kM, r / height * kN};
}

// Where a thread of the two summing warpgroups stands. Its sums d: rows row() and row() + 8 of the tile, columns 8 j + 2 quad + {0, 1} in d[4 j + {0, 1}]
// and, 8 rows on, d[4 j + {2, 3}].
struct Place {
  int group, warp, lane, quad;
  uint32_t extra;  // address of the kernel's own shared memory
  __device__ __forceinline__ int row() const { return group * 64 + warp * 16 + lane / 4; }
};

// Then: void begin(const Place &, Tile), before a tile's sums; void finish(float (&d)[128], const Place &, Tile); void end(const Place &).
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
  uint32_t step = 0;  // since the kernel began; its stage and turn
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
          fetch_for_both(to + kABytes + rank * (kBBytes / 2), maps + 1, k * kK, t.columns + int(rank) * (kN / 2), full + 8 * s);
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
        for (int j = 0; j < kK / 16; j++) wgmma(d, tile_descriptor(at + p.group * (64 * 128) + j * 32), tile_descriptor(at + kABytes + j * 32), k > 0 || j > 0);
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
  cluster_sync();  // the other block may still signal, or fetch for this one
#else
  __trap();
#endif
}

}  // namespace product
