// wgmma on eight-bit operands (s8 or e4m3): 64 rows by 128, 192 or 256 columns, 32 of K; sm_90a.
#pragma once
#include "hopper.cuh"

namespace eight {

enum class Type { s8, e4m3 };

#define EIGHT_8(C, d, i) \
  C(d[i]), C(d[i + 1]), C(d[i + 2]), C(d[i + 3]), C(d[i + 4]), C(d[i + 5]), C(d[i + 6]), C(d[i + 7])
#define EIGHT_32(C, d, i) EIGHT_8(C, d, i), EIGHT_8(C, d, i + 8), EIGHT_8(C, d, i + 16), EIGHT_8(C, d, i + 24)
#define EIGHT_NAMES_64                                                                                             \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, " \
  "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define EIGHT_NAMES_96                                                                                          \
  EIGHT_NAMES_64                                                                                                \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, " \
  "%85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define EIGHT_NAMES_128                                                                                        \
  EIGHT_NAMES_96                                                                                               \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, " \
  "%114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define EIGHT_OPERANDS_64(C) EIGHT_32(C, d, 0), EIGHT_32(C, d, 32)
#define EIGHT_OPERANDS_96(C) EIGHT_OPERANDS_64(C), EIGHT_32(C, d, 64)
#define EIGHT_OPERANDS_128(C) EIGHT_OPERANDS_96(C), EIGHT_32(C, d, 96)

// d [64, N] (+)= a [64, 32] b [N, 32]^T; 256 columns also with the registers in two halves
template <Type T, int N>
struct Wgmma;
#define EIGHT_ASM(N, HALF, TYPES, OPERANDS, A, B, ADD, TAIL)                                                  \
  asm volatile("{.reg .pred p; setp.ne.b32 p, " ADD ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k32." TYPES \
               " {" EIGHT_NAMES_##HALF "}, " A ", " B ", p" TAIL ";}\n"                                       \
               : OPERANDS                                                                                     \
               : "l"(a), "l"(b), "r"(add))
#define EIGHT_WGMMA(T, SUM, C, N, HALF, TYPES, A, B, ADD, TAIL)                                   \
  template <>                                                                                     \
  struct Wgmma<T, N> {                                                                            \
    static __device__ __forceinline__ void run(SUM (&d)[HALF], uint64_t a, uint64_t b, int add) { \
      EIGHT_ASM(N, HALF, TYPES, EIGHT_OPERANDS_##HALF(C), A, B, ADD, TAIL);                       \
    }                                                                                             \
    EIGHT_HALVES_##N(SUM, C, TYPES, TAIL)                                                         \
  };
#define EIGHT_HALVES_128(SUM, C, TYPES, TAIL)
#define EIGHT_HALVES_192(SUM, C, TYPES, TAIL)
#define EIGHT_HALVES_256(SUM, C, TYPES, TAIL)                                                             \
  static __device__ __forceinline__ void run(SUM(&l)[64], SUM(&r)[64], uint64_t a, uint64_t b, int add) { \
    EIGHT_ASM(256, 128, TYPES, EIGHT_BOTH(C), "%128", "%129", "%130", TAIL);                              \
  }
#define EIGHT_BOTH(C) EIGHT_32(C, l, 0), EIGHT_32(C, l, 32), EIGHT_32(C, r, 0), EIGHT_32(C, r, 32)
#define EIGHT_WGMMAS(N, HALF, A, B, ADD)                                \
  EIGHT_WGMMA(Type::s8, int, "+r", N, HALF, "s32.s8.s8", A, B, ADD, "") \
  EIGHT_WGMMA(Type::e4m3, float, "+f", N, HALF, "f32.e4m3.e4m3", A, B, ADD, ", 1, 1")
EIGHT_WGMMAS(128, 64, "%64", "%65", "%66")
EIGHT_WGMMAS(192, 96, "%96", "%97", "%98")
EIGHT_WGMMAS(256, 128, "%128", "%129", "%130")

template <Type T>
struct Sum {
  using type = int;
};
template <>
struct Sum<Type::e4m3> {
  using type = float;
};

template <int N>
__device__ __forceinline__ void hold(int (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+r"(d[i])::"memory");
}
using hopper::hold;

}  // namespace eight
