// gdn2_walk: the chunks of a document in order, one block a (document, value head, slice of V), with the gated output norm in its store; sm_90a.
//
//   U = Z - X S;  O = Q' S + P U;  S <- diag(exp G_C) S + K'^T U;  y = rmsnorm(O) o_norm silu(gate)
//
// Everything is held transposed: a warpgroup has 64 of the value channels as rows, S^T [64, K] fp32 in accumulator registers. Rounded to pairs these registers are
// already the A operand of the next product, and so are those of U^T; every B operand is a tile of the chunk's key record. So nothing but the
// output passes through shared memory:
//   U^T = Z^T + S^T (-X)^T;  O^T = S^T Q'^T + U^T P^T;  S^T <- S^T diag(exp G_C) + U^T K'
// One bulk copy a record brings the chunk after next while this one is worked on. Shapes, layouts, launch: GDN2_API.md.
//
// | kernel | block | dynamic shared memory |
// | --- | --- | --- |
// | gdn2_walk_k128_v128 | 256 | 184,384 |
// | gdn2_walk_k128_v64  | 128 | 151,616 |
// | gdn2_walk_k64_v128  | 256 | 135,232 |
// | gdn2_walk_k64_v64   | 128 | 102,464 |
#include "gdn2_recurrence.cuh"

namespace gdn2 {

// D [64, N] += A [64, 16] B [16, N]: A from registers, B by a shared memory descriptor, Trans if B lies with N along its rows.
#define GDN2_WGMMA_64(T)  \
  asm volatile("{.reg .pred p; setp.ne.b32 p, %37, 0;\n" \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." T "." T " {" \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, " \
        "%28, %29, %30, %31" \
        "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38;}\n" \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),  \
          "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),  \
          "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),  \
          "+f"(d[30]), "+f"(d[31]) \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(desc), "r"(add), "n"(Trans))
#define GDN2_WGMMA_128(T)  \
  asm volatile("{.reg .pred p; setp.ne.b32 p, %69, 0;\n" \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." T "." T " {" \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, " \
        "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
        "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63" \
        "}, {%64, %65, %66, %67}, %68, p, 1, 1, %70;}\n" \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),  \
          "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),  \
          "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),  \
          "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),  \
          "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]),  \
          "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),  \
          "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]) \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(desc), "r"(add), "n"(Trans))

template <typename E, int N, int Trans> struct Wgmma;
#define GDN2_WGMMA_STRUCTS(E, T)                                                                                          \
  template <int Trans> struct Wgmma<E, 64, Trans> {                                                                       \
    static __device__ __forceinline__ void run(float (&d)[32], const uint32_t (&a)[4], uint64_t desc, int add) {          \
      GDN2_WGMMA_64(T);                                                                                                   \
    }                                                                                                                     \
  };                                                                                                                      \
  template <int Trans> struct Wgmma<E, 128, Trans> {                                                                      \
    static __device__ __forceinline__ void run(float (&d)[64], const uint32_t (&a)[4], uint64_t desc, int add) {          \
      GDN2_WGMMA_128(T);                                                                                                  \
    }                                                                                                                     \
  };
GDN2_WGMMA_STRUCTS(__nv_bfloat16, "bf16")
GDN2_WGMMA_STRUCTS(__half, "f16")

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int Pending> __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory"); }
template <int N> __device__ __forceinline__ void hold(float (&d)[N]) {  // keeps the compiler from moving uses of d across
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// A tile with the 128-byte swizzle: groups of 8 rows 1024 bytes apart; `leading` bytes to the next 64 columns where B lies along N.
__device__ __forceinline__ uint64_t descriptor(uint32_t address, uint32_t leading) {
  return uint64_t((address & 0x3ffff) >> 4) | uint64_t(leading >> 4) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

__device__ __forceinline__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
__device__ __forceinline__ void barrier_init(uint32_t bar, int count) { asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory"); }
__device__ __forceinline__ void barrier_expect(uint32_t bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t bar, int parity) {
  asm volatile("{.reg .pred p;\nagain: mbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n@!p bra again;}" ::"r"(bar), "r"(parity) : "memory");
}
__device__ __forceinline__ void bulk_copy(uint32_t to, const void* from, int bytes, uint32_t bar) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes), "r"(bar) : "memory");
}

template <int K, int VS>
struct WalkShared {
  static constexpr int key_bytes = (KeyRecord<K>::bytes + 1023) / 1024 * 1024, value_bytes = VS * C * 2, stage = key_bytes + value_bytes, stages = 2;
  static constexpr int output = stages * stage, output_stride = VS + 4;  // fp32 [C][output_stride]
  static constexpr int barriers = output + C * output_stride * 4;
  static constexpr int bytes = barriers + 64 + 1024;  // the last for aligning the first to 1024
};

template <typename E, int K, int VS>
__device__ __forceinline__ void walk(const unsigned char* __restrict__ key_records, const unsigned char* __restrict__ value_records,
                                     const act* __restrict__ gate, const float* __restrict__ o_norm, act* __restrict__ y,
                                     float* __restrict__ o_raw, const int* __restrict__ cu_seqlens, const int* __restrict__ doc_chunks,
                                     const int* __restrict__ order, const float* const* state_in, float* const* state_out, int64_t state_offset, int H,
                                     int HV, int V, float eps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using P = Pair<E>;
  using Record = KeyRecord<K>;
  using Shared = WalkShared<K, VS>;
  constexpr int threads = VS * 2, lanes_a_token = VS / 8;
  extern __shared__ __align__(1024) unsigned char raw[];
  unsigned char* base = raw + ((1024 - (shared_address(raw) & 1023)) & 1023);
  const uint32_t base_address = shared_address(base);
  const uint32_t full = base_address + Shared::barriers;
  float* output = reinterpret_cast<float*>(base + Shared::output);

  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, row = lane / 4, quad = lane % 4;
  const int slices = V / VS, hv = blockIdx.x / slices, slice = blockIdx.x % slices, h = hv / (HV / H), doc = order[blockIdx.y];
  const int begin = cu_seqlens[doc], tokens = cu_seqlens[doc + 1] - begin, chunk0 = doc_chunks[doc], chunks = (tokens + C - 1) / C;
  const int v0 = warp * 16 + row;  // and v0 + 8, in the slice

  auto load = [&](int i) {  // thread 0 alone
    const uint32_t bar = full + i % 2 * 8, to = base_address + i % 2 * Shared::stage;
    barrier_expect(bar, Record::bytes + Shared::value_bytes);
    bulk_copy(to, key_records + (int64_t(chunk0 + i) * H + h) * Record::bytes, Record::bytes, bar);
    bulk_copy(to + Shared::key_bytes, value_records + (int64_t(chunk0 + i) * HV + hv) * value_record_bytes(V) + slice * Shared::value_bytes, Shared::value_bytes, bar);
  };
  if (tid == 0) {
    barrier_init(full, 1), barrier_init(full + 8, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    load(0);
    if (chunks > 1) load(1);
  }
  float s[K / 2];  // S^T: rows v0, v0 + 8; columns 8 j + 2 quad + {0, 1}
  const float* in = state_at(state_in, doc, state_offset);
#pragma unroll
  for (int j = 0; j < K / 8; j++)
#pragma unroll
    for (int e = 0; e < 4; e++)
      s[4 * j + e] = in ? in[(int64_t(hv) * K + 8 * j + 2 * quad + e % 2) * V + slice * VS + v0 + e / 2 * 8] : 0.f;
  const int out_token = tid / lanes_a_token, out_v = tid % lanes_a_token * 8;  // this thread's part of the output: tokens out_token + 16 i
  __syncthreads();

  for (int i = 0; i < chunks; i++) {
    const unsigned char* stage = base + i % 2 * Shared::stage;
    const uint32_t stage_address = base_address + i % 2 * Shared::stage;
    const int left = tokens - i * C;
    uint4 gates[4];
    const int64_t out_at = (int64_t(begin + i * C + out_token) * HV + hv) * V + slice * VS + out_v;
#pragma unroll
    for (int p = 0; p < 4; p++) gates[p] = out_token + 16 * p < left && o_raw == nullptr ? *reinterpret_cast<const uint4*>(gate + out_at + int64_t(16 * p) * HV * V) : make_uint4(0, 0, 0, 0);
    uint32_t sa[K / 16][4];
#pragma unroll
    for (int ks = 0; ks < K / 16; ks++)
#pragma unroll
      for (int e = 0; e < 4; e++) sa[ks][e] = P::pack(s[8 * ks + 2 * e], s[8 * ks + 2 * e + 1]);
    barrier_wait(full + i % 2 * 8, i / 2 & 1);
    float u[32], o[32];
    const uint4* z = reinterpret_cast<const uint4*>(stage + Shared::key_bytes + warp * 2048) + lane;
#pragma unroll
    for (int p = 0; p < 4; p++) {
      const uint4 x = z[p * 32];
      u[8 * p] = P::lo(x.x), u[8 * p + 1] = P::hi(x.x), u[8 * p + 2] = P::lo(x.y), u[8 * p + 3] = P::hi(x.y);
      u[8 * p + 4] = P::lo(x.z), u[8 * p + 5] = P::hi(x.z), u[8 * p + 6] = P::lo(x.w), u[8 * p + 7] = P::hi(x.w);
    }
    hold(u);
    wgmma_fence();
#pragma unroll
    for (int ks = 0; ks < K / 16; ks++) Wgmma<E, 64, 1>::run(u, sa[ks], descriptor(stage_address + Record::x + ks * 2048, 0), 1);
    wgmma_commit();
#pragma unroll
    for (int ks = 0; ks < K / 16; ks++) Wgmma<E, 64, 0>::run(o, sa[ks], descriptor(stage_address + Record::q + ks / 4 * 8192 + ks % 4 * 32, 0), ks > 0);
    wgmma_commit();
    const float* decay = reinterpret_cast<const float*>(stage + Record::decay);
#pragma unroll
    for (int j = 0; j < K / 8; j++) {
      const float2 d = *reinterpret_cast<const float2*>(decay + 8 * j + 2 * quad);
      s[4 * j] *= d.x, s[4 * j + 1] *= d.y, s[4 * j + 2] *= d.x, s[4 * j + 3] *= d.y;
    }
    wgmma_wait<1>();
    hold(u);
    uint32_t ua[4][4];
#pragma unroll
    for (int ks = 0; ks < 4; ks++)
#pragma unroll
      for (int e = 0; e < 4; e++) ua[ks][e] = P::pack(u[8 * ks + 2 * e], u[8 * ks + 2 * e + 1]);
    hold(s);
    wgmma_fence();
#pragma unroll
    for (int ks = 0; ks < 4; ks++) Wgmma<E, 64, 0>::run(o, ua[ks], descriptor(stage_address + Record::p + ks * 32, 0), 1);
    wgmma_commit();
#pragma unroll
    for (int ks = 0; ks < 4; ks++) Wgmma<E, K, 1>::run(s, ua[ks], descriptor(stage_address + Record::k + ks * 2048, 8192), 1);
    wgmma_commit();
    wgmma_wait<1>();
    hold(o);
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) output[(8 * j + 2 * quad + e % 2) * Shared::output_stride + v0 + e / 2 * 8] = o[4 * j + e];
    asm volatile("bar.sync 1, %0;" ::"n"(threads) : "memory");
#pragma unroll
    for (int p = 0; p < 4; p++) {
      const float* from = output + (out_token + 16 * p) * Shared::output_stride + out_v;
      const float4 a = *reinterpret_cast<const float4*>(from), b = *reinterpret_cast<const float4*>(from + 4);
      const float x[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
      const bool valid = out_token + 16 * p < left;
      const int64_t at = out_at + int64_t(16 * p) * HV * V;
      if (o_raw) {
        if (valid) *reinterpret_cast<float4*>(o_raw + at) = a, *reinterpret_cast<float4*>(o_raw + at + 4) = b;
        continue;
      }
      float sum = 0.f;
#pragma unroll
      for (int e = 0; e < 8; e++) sum += x[e] * x[e];
#pragma unroll
      for (int d = lanes_a_token / 2; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
      const float r = rsqrtf(sum / VS + eps);
      const uint32_t z4[4] = {gates[p].x, gates[p].y, gates[p].z, gates[p].w};
      const float4 w0 = *reinterpret_cast<const float4*>(o_norm + out_v), w1 = *reinterpret_cast<const float4*>(o_norm + out_v + 4);
      const float w[8] = {w0.x, w0.y, w0.z, w0.w, w1.x, w1.y, w1.z, w1.w};
      uint32_t out[4];
      using B = Pair<act>;
#pragma unroll
      for (int e = 0; e < 4; e++)
        out[e] = B::pack(x[2 * e] * r * w[2 * e] * silu(B::lo(z4[e])), x[2 * e + 1] * r * w[2 * e + 1] * silu(B::hi(z4[e])));
      if (valid) *reinterpret_cast<uint4*>(y + at) = make_uint4(out[0], out[1], out[2], out[3]);
    }
    wgmma_wait<0>();
    hold(s);
    __syncthreads();
    if (tid == 0 && i + 2 < chunks) load(i + 2);
  }
  float* out = state_at(state_out, doc, state_offset);
  if (out) {
#pragma unroll
    for (int j = 0; j < K / 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) out[(int64_t(hv) * K + 8 * j + 2 * quad + e % 2) * V + slice * VS + v0 + e / 2 * 8] = s[4 * j + e];
  }
#else
  __trap();  // no wgmma: gdn2_simple is for such GPUs
#endif
}
static_assert(WalkShared<128, 128>::bytes == 184384 && WalkShared<128, 64>::bytes == 151616 && WalkShared<64, 128>::bytes == 135232 &&
                  WalkShared<64, 64>::bytes == 102464,
              "the table above, GDN2_API.md and the launcher");

}  // namespace gdn2

#define GDN2_WALK(K, VS, E, NAME)                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(VS * 2, 1) NAME(const unsigned char* key_records, const unsigned char* value_records,                     \
                                                               const act* gate, const float* o_norm, act* y, float* o_raw,           \
                                                               const int* cu_seqlens, const int* doc_chunks, const int* order,                           \
                                                               const float* const* state_in, float* const* state_out, int64_t state_offset, int H,       \
                                                               int HV, int V, float eps) {                                                              \
    gdn2::walk<E, K, VS>(key_records, value_records, gate, o_norm, y, o_raw, cu_seqlens, doc_chunks, order, state_in, state_out, state_offset, H, HV,     \
                         V, eps);                                                                                                                        \
  }
GDN2_WALK(64, 64, __nv_bfloat16, gdn2_walk_k64_v64_bf16)
GDN2_WALK(64, 128, __nv_bfloat16, gdn2_walk_k64_v128_bf16)
GDN2_WALK(128, 64, __nv_bfloat16, gdn2_walk_k128_v64_bf16)
GDN2_WALK(128, 128, __nv_bfloat16, gdn2_walk_k128_v128_bf16)
GDN2_WALK(64, 64, __half, gdn2_walk_k64_v64_f16)
GDN2_WALK(64, 128, __half, gdn2_walk_k64_v128_f16)
GDN2_WALK(128, 64, __half, gdn2_walk_k128_v64_f16)
GDN2_WALK(128, 128, __half, gdn2_walk_k128_v128_f16)
