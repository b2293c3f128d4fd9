// Instructions of sm_90a: products of warpgroups, barriers in shared memory, bulk copies, reallocation of registers.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace hopper {

// Accumulators i to i + 7 of d, and i to i + 31, as operands that are read and written.
#define HOPPER_SUMS_8(i)                                                                                      \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define HOPPER_SUMS_32(i) HOPPER_SUMS_8(i), HOPPER_SUMS_8(i + 8), HOPPER_SUMS_8(i + 16), HOPPER_SUMS_8(i + 24)

// D [64, N] += A [64, 16] B [16, N]: A from registers, B by a shared memory descriptor, Trans if B lies with N along
// its rows.
#define HOPPER_WGMMA_64(T)                                                             \
  asm volatile(                                                                        \
      "{.reg .pred p; setp.ne.b32 p, %37, 0;\n"                                        \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." T "." T                            \
      " {"                                                                             \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "         \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" \
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38;}\n"                                 \
      : HOPPER_SUMS_32(0)                                                              \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(desc), "r"(add), "n"(Trans))
#define HOPPER_WGMMA_128(T)                                                              \
  asm volatile(                                                                          \
      "{.reg .pred p; setp.ne.b32 p, %69, 0;\n"                                          \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." T "." T                             \
      " {"                                                                               \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"   \
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, %70;}\n"                                   \
      : HOPPER_SUMS_32(0), HOPPER_SUMS_32(32)                                            \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(desc), "r"(add), "n"(Trans))

template <typename E, int N, int Trans>
struct Wgmma;
#define HOPPER_WGMMA_STRUCTS(E, T)                                                                               \
  template <int Trans>                                                                                           \
  struct Wgmma<E, 64, Trans> {                                                                                   \
    static __device__ __forceinline__ void run(float (&d)[32], const uint32_t (&a)[4], uint64_t desc, int add) { \
      HOPPER_WGMMA_64(T);                                                                                        \
    }                                                                                                            \
  };                                                                                                             \
  template <int Trans>                                                                                           \
  struct Wgmma<E, 128, Trans> {                                                                                  \
    static __device__ __forceinline__ void run(float (&d)[64], const uint32_t (&a)[4], uint64_t desc, int add) { \
      HOPPER_WGMMA_128(T);                                                                                       \
    }                                                                                                            \
  };
HOPPER_WGMMA_STRUCTS(__nv_bfloat16, "bf16")
HOPPER_WGMMA_STRUCTS(__half, "f16")

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
template <int N>
__device__ __forceinline__ void hold(float (&d)[N]) {  // keeps the compiler from moving uses of d across
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// A tile with the 128-byte swizzle: groups of 8 rows 1024 bytes apart; `leading` bytes to the next 64 columns where B
// lies along N. `stage` is the stage's address / 16, so that a descriptor is one addition.
__device__ __forceinline__ uint64_t descriptor(uint32_t stage, uint32_t offset, uint32_t leading) {
  return uint64_t(1024 >> 4 | 1 << 30) << 32 | (stage + ((offset >> 4) | (leading >> 4) << 16));
}

__device__ __forceinline__ uint32_t shared_address(const void *p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void barrier_init(uint32_t bar, int count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
// HOPPER_RACECHECK is for compute-sanitizer's racecheck, which understands only barriers of all threads of a block and
// arrivals of each thread: no barrier covers a part of a block, every lane arrives for itself, and copies are plain
// copies by the calling thread.
// barrier_arrive arrives once per warp. A barrier of bulk copies waits for copy_arrivals and for the copies' bytes.
#ifdef HOPPER_RACECHECK
constexpr int warp_arrivals = 32;
__device__ constexpr int copy_arrivals(int copies) { return copies; }
#else
constexpr int warp_arrivals = 1;
__device__ constexpr int copy_arrivals(int) { return 1; }
#endif
__device__ __forceinline__ void barrier_expect(uint32_t bar, int bytes) {
#ifndef HOPPER_RACECHECK
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
#endif
}
// One arrival per warp. The warp's earlier reads and writes are ordered before whatever follows a wait for the barrier.
__device__ __forceinline__ void barrier_arrive(uint32_t bar, int lane) {
  __syncwarp();
  if (warp_arrivals > 1 || lane == 0) asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t bar, int parity) {
#ifdef HOPPER_SPIN_LIMIT  // the lab's: a kernel that would hang ends in an error
  for (int spins = 0;; spins++) {
    uint32_t done;
    asm volatile("{.reg .pred p;\nmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;}"
                 : "=r"(done)
                 : "r"(bar), "r"(parity)
                 : "memory");
    if (done) break;
    if (spins > HOPPER_SPIN_LIMIT) __trap();
  }
#else
  asm volatile("{.reg .pred p;\nagain: mbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n@!p bra again;}"
               :
               : "r"(bar), "r"(parity)
               : "memory");
#endif
}
__device__ __forceinline__ void bulk_copy(uint32_t to, const void *from, int bytes, uint32_t bar) {
#ifdef HOPPER_RACECHECK
  for (int i = 0; i < bytes; i += 16)
    *static_cast<uint4 *>(__cvta_shared_to_generic(to + i)) =
        *reinterpret_cast<const uint4 *>(static_cast<const char *>(from) + i);
  asm volatile("fence.proxy.async.shared::cta;\nmbarrier.arrive.shared.b64 _, [%0];" ::"r"(bar) : "memory");
  return;
#endif
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               :
               : "r"(to), "l"(from), "r"(bytes), "r"(bar)
               : "memory");
}
__device__ __forceinline__ void copy16(uint32_t to, const void *from, int bytes) {  // the rest of the 16 is zero
#ifdef HOPPER_RACECHECK
  *static_cast<uint4 *>(__cvta_shared_to_generic(to)) =
      bytes ? *static_cast<const uint4 *>(from) : make_uint4(0, 0, 0, 0);
  return;
#endif
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void bulk_prefetch(const void *from, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}
template <int Registers>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

// Read again in each role, so that no register holds it across the split into roles.
__device__ __forceinline__ int lane_id() {
  int lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

}  // namespace hopper
