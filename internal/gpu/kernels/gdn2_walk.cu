// gdn2_walk: the chunks of a document in order, one block per (document, value head, slice of V), with the gated output
// norm before the store; sm_90a.
//
//   U = Z - X S;  O = Q' S + P U;  S <- diag(exp G_C) S + K'^T U;  y = rmsnorm(O) o_norm silu(gate)
//
// All matrices are transposed: a warpgroup has 64 of the value channels as rows, S^T [64, K] fp32 in accumulator
// registers. Rounded to pairs, these registers already are the A operand of the next product, as are those of U^T, and
// every B operand is a tile of the chunk's key record. So only the output passes through shared memory:
//   U^T = Z^T + S^T (-X)^T;  O^T = S^T Q'^T + U^T P^T;  S^T <- S^T diag(exp G_C) + U^T K'
// Each step of a document depends on the step before it, so these warpgroups compute only the products. One warp copies
// the operands (each part of a chunk replaces that part of the chunk before last as soon as it has been used), and one
// warpgroup, a step behind, applies the output's norm and gate and stores it. They synchronise through barriers in
// shared memory, never all together. Shapes, layouts, launch: docs/kernels/gdn2_api.md.
//
// | kernel | block | dynamic shared memory |
// | --- | --- | --- |
// | gdn2_walk_k128_v128 | 512 | 226,432 |
// | gdn2_walk_k128_v64  | 384 | 177,280 |
// | gdn2_walk_k64_v128  | 512 | 177,280 |
// | gdn2_walk_k64_v64   | 384 | 128,128 |
#include "gdn2_recurrence.cuh"
#include "hopper.cuh"

namespace gdn2 {

using namespace hopper;

// silu with the flushing forms of exp2 and reciprocal: denormal results would vanish in 1 + e anyway.
__device__ __forceinline__ float gated(float x) {
  float e, r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x * -1.4426950408889634f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(1.f + e));
  return x * r;
}

template <int K, int VS>
struct WalkShared {
  static constexpr int key_bytes = (KeyRecord<K>::bytes + 1023) / 1024 * 1024, value_bytes = VS * C * 2,
                       stage = key_bytes + value_bytes, stages = 2;
  // Two outputs, fp32 [C][output_stride].
  static constexpr int output = stages * stage, output_stride = VS + 4, output_bytes = C * output_stride * 4;
  static constexpr int gates = output + 2 * output_bytes, barriers = gates + 2 * 4096;
  static constexpr int bytes = barriers + 128 + 1024;  // 1024 for alignment
};
// A stage is filled and released in three parts, in the order in which a step finishes with them: X, Z and the decay;
// Q; K and P. Barriers take 8 bytes each; there are two of each kind.
enum Part { part_x, part_q, part_k, parts };
__device__ constexpr int full_barrier(int part) { return part * 16; }
__device__ constexpr int empty_barrier(int part) { return (parts + part) * 16; }
constexpr int output_full = 2 * parts * 16, output_empty = output_full + 16;

// The place of 8 values of a token in its row of the output: the two halves of odd groups of 32 values are exchanged,
// so that 8 lanes' 16-byte reads use all banks.
__device__ __forceinline__ int output_at(int v) { return v ^ (v >> 5 & 1) << 2; }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// A block at work on one slice of a document's head.
template <typename E, int K, int VS>
struct Walk {
  using P = Pair<E>;
  using Record = KeyRecord<K>;
  using Shared = WalkShared<K, VS>;
  static constexpr int groups = VS / 64;  // warpgroups that compute the products

  unsigned char *base;              // the aligned shared memory
  uint32_t base_address, barriers;  // as shared addresses
  int tid, H, HV, V;
  int hv, slice, h, doc;
  int begin, tokens, chunk0, chunks;  // of the document; its first token in the batch and chunk in the records

  __device__ __forceinline__ Walk(unsigned char *raw, const int *__restrict__ cu_seqlens,
                                  const int *__restrict__ doc_chunks, const int *__restrict__ order, int H, int HV,
                                  int V)
      : H(H), HV(HV), V(V) {
    base = raw + ((1024 - (shared_address(raw) & 1023)) & 1023);
    base_address = shared_address(base);
    barriers = base_address + Shared::barriers;
    tid = threadIdx.x;
    const int slices = V / VS;
    hv = blockIdx.x / slices, slice = blockIdx.x % slices, h = hv / (HV / H), doc = order[blockIdx.y];
    begin = cu_seqlens[doc], tokens = cu_seqlens[doc + 1] - begin, chunk0 = doc_chunks[doc];
    chunks = (tokens + C - 1) / C;
  }

  __device__ __forceinline__ void init_barriers() const {
    if (tid == 0) {
#pragma unroll
      for (int stage = 0; stage < 2; stage++) {
#pragma unroll
        for (int part = 0; part < parts; part++) {
          barrier_init(barriers + full_barrier(part) + stage * 8, copy_arrivals(part == part_x ? 3 : 1));
          barrier_init(barriers + empty_barrier(part) + stage * 8, groups * 4 * warp_arrivals);
        }
        barrier_init(barriers + output_full + stage * 8, groups * 4 * warp_arrivals);
        barrier_init(barriers + output_empty + stage * 8, 4 * warp_arrivals);
      }
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();
  }

  // The products: 64 values of the state per warpgroup.

  // A thread's place: its rows are the values value and value + 8 of the slice, its columns 8 j + 2 quad + {0, 1}.
  struct Lane {
    int lane, quad, warp, value;
    __device__ __forceinline__ explicit Lane(int tid)
        : lane(lane_id()), quad(lane % 4), warp(tid / 32), value(warp * 16 + lane / 4) {}
  };
  __device__ __forceinline__ int64_t state_index(const Lane &at, int j, int e) const {
    return (int64_t(hv) * K + 8 * j + 2 * at.quad + e % 2) * V + slice * VS + at.value + e / 2 * 8;
  }

  __device__ __forceinline__ void products(const float *const *state_in, float *const *state_out,
                                           int64_t state_offset) const {
    const Lane at(tid);
    float s[K / 2];  // S^T
    const float *in = state_at(state_in, doc, state_offset);
#pragma unroll
    for (int j = 0; j < K / 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) s[4 * j + e] = in ? in[state_index(at, j, e)] : 0.f;
    float u[32], o[32];
    load_z(at, 0, u);
    for (int i = 0; i < chunks; i++) step(at, i, s, u, o);
    float *out = state_at(state_out, doc, state_offset);
    if (out) {
#pragma unroll
      for (int j = 0; j < K / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) out[state_index(at, j, e)] = s[4 * j + e];
    }
  }

  // u = Z^T of chunk i.
  __device__ __forceinline__ void load_z(const Lane &at, int i, float (&u)[32]) const {
    barrier_wait(barriers + full_barrier(part_x) + i % 2 * 8, i / 2 & 1);
    const uint4 *z =
        reinterpret_cast<const uint4 *>(base + i % 2 * Shared::stage + Shared::key_bytes + at.warp * 2048) + at.lane;
#pragma unroll
    for (int p = 0; p < 4; p++) {
      const uint4 x = z[p * 32];
      u[8 * p] = P::lo(x.x), u[8 * p + 1] = P::hi(x.x), u[8 * p + 2] = P::lo(x.y), u[8 * p + 3] = P::hi(x.y);
      u[8 * p + 4] = P::lo(x.z), u[8 * p + 5] = P::hi(x.z), u[8 * p + 6] = P::lo(x.w), u[8 * p + 7] = P::hi(x.w);
    }
  }

  // Chunk i: from S and U = Z to the next S, the chunk's O in shared memory and the next chunk's Z in u.
  __device__ __forceinline__ void step(const Lane &at, int i, float (&s)[K / 2], float (&u)[32], float (&o)[32]) const {
    const int b = i % 2, turn = i / 2 & 1;
    const unsigned char *stage = base + b * Shared::stage;
    const uint32_t tiles = (base_address + b * Shared::stage) / 16;
    uint32_t sa[K / 16][4];
#pragma unroll
    for (int ks = 0; ks < K / 16; ks++)
#pragma unroll
      for (int e = 0; e < 4; e++) sa[ks][e] = P::pack(s[8 * ks + 2 * e], s[8 * ks + 2 * e + 1]);
    hold(u);
    wgmma_fence();
#pragma unroll
    for (int ks = 0; ks < K / 16; ks++) Wgmma<E, 64, 1>::run(u, sa[ks], descriptor(tiles, Record::x + ks * 2048, 0), 1);
    wgmma_commit();
    barrier_wait(barriers + full_barrier(part_q) + b * 8, turn);
    barrier_wait(barriers + full_barrier(part_k) + b * 8, turn);
    wgmma_fence();
#pragma unroll
    for (int ks = 0; ks < K / 16; ks++)
      Wgmma<E, 64, 0>::run(o, sa[ks], descriptor(tiles, Record::q + ks / 4 * 8192 + ks % 4 * 32, 0), ks > 0);
    wgmma_commit();
    const float *decay = reinterpret_cast<const float *>(stage + Record::decay);
#pragma unroll
    for (int j = 0; j < K / 8; j++) {
      const float2 d = *reinterpret_cast<const float2 *>(decay + 8 * j + 2 * at.quad);
      s[4 * j] *= d.x, s[4 * j + 1] *= d.y, s[4 * j + 2] *= d.x, s[4 * j + 3] *= d.y;
    }
    wgmma_wait<1>();
    hold(u);
    barrier_arrive(barriers + empty_barrier(part_x) + b * 8, at.lane);
    uint32_t ua[4][4];
#pragma unroll
    for (int ks = 0; ks < 4; ks++)
#pragma unroll
      for (int e = 0; e < 4; e++) ua[ks][e] = P::pack(u[8 * ks + 2 * e], u[8 * ks + 2 * e + 1]);
    hold(s);
    wgmma_fence();
#pragma unroll
    for (int ks = 0; ks < 4; ks++) Wgmma<E, 64, 0>::run(o, ua[ks], descriptor(tiles, Record::p + ks * 32, 0), 1);
    wgmma_commit();
#pragma unroll
    for (int ks = 0; ks < 4; ks++) Wgmma<E, K, 1>::run(s, ua[ks], descriptor(tiles, Record::k + ks * 2048, 8192), 1);
    wgmma_commit();
    if (i + 1 < chunks) load_z(at, i + 1, u);
    barrier_wait(barriers + output_empty + b * 8, turn ^ 1);
    wgmma_wait<1>();
    hold(o);
    barrier_arrive(barriers + empty_barrier(part_q) + b * 8, at.lane);
    float *output = reinterpret_cast<float *>(base + Shared::output + b * Shared::output_bytes) + output_at(at.value);
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++)
        output[(8 * j + 2 * at.quad + e % 2) * Shared::output_stride + e / 2 * 8] = o[4 * j + e];
    barrier_arrive(barriers + output_full + b * 8, at.lane);
    wgmma_wait<0>();
    hold(s);
    barrier_arrive(barriers + empty_barrier(part_k) + b * 8, at.lane);
  }

  // The output: one warpgroup, a step behind the products. A pass is tokens_a_pass tokens; a thread has the 8 values
  // from `value` and the 8 from VS / 2 + value of one token of each pass.
  static constexpr int lanes_a_token = VS / 16, tokens_a_pass = 128 / lanes_a_token, passes = C / tokens_a_pass;
  struct Output {
    int lane, token, value;
    int low, high;  // offsets of the two eights in a token's row, in bytes
    uint32_t from;  // address of the token's row
    int64_t pass;   // elements from one pass to the next
    int64_t index;  // in gate, y and o_raw, of the current pass
    int left;       // tokens from there on
    __device__ __forceinline__ explicit Output(const Walk &w) {
      lane = lane_id();
      token = w.tid % 128 / lanes_a_token, value = w.tid % lanes_a_token * 8;
      low = output_at(value) * 4, high = output_at(value + VS / 2) * 4;
      from = w.base_address + Shared::output + token * Shared::output_stride * 4;
      pass = int64_t(tokens_a_pass) * w.HV * w.V;
      index = (int64_t(w.begin + token) * w.HV + w.hv) * w.V + w.slice * VS + value;
      left = w.tokens - token;
    }
    __device__ __forceinline__ void next() { index += pass, left -= tokens_a_pass; }
    // Reads this thread's values of pass p of chunk i.
    __device__ __forceinline__ void read(int i, int p, float (&x)[16]) const {
      const uint32_t row = from + i % 2 * Shared::output_bytes + p * tokens_a_pass * Shared::output_stride * 4;
#pragma unroll
      for (int e = 0; e < 4; e++)
        asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(x[4 * e]), "=f"(x[4 * e + 1]), "=f"(x[4 * e + 2]), "=f"(x[4 * e + 3])
                     : "r"(row + ((e / 2 ? high : low) ^ e % 2 * 16))
                     : "memory");
    }
  };

  __device__ __forceinline__ void output(const act *__restrict__ gate, const float *__restrict__ o_norm,
                                         act *__restrict__ y, float *__restrict__ o_raw, float eps) const {
    Output at(*this);
    if (o_raw) raw_output(at, o_raw);
    else gated_output(at, gate, o_norm, y, eps);
  }

  __device__ __forceinline__ void raw_output(Output &at, float *__restrict__ o_raw) const {
#pragma unroll 1
    for (int i = 0; i < chunks; i++) {
      barrier_wait(barriers + output_full + i % 2 * 8, i / 2 & 1);
#pragma unroll
      for (int p = 0; p < passes; p++, at.next()) {
        float x[16];
        at.read(i, p, x);
        if (at.left > 0) {
#pragma unroll
          for (int e = 0; e < 4; e++)
            *reinterpret_cast<float4 *>(o_raw + at.index + e / 2 * (VS / 2) + e % 2 * 4) =
                make_float4(x[4 * e], x[4 * e + 1], x[4 * e + 2], x[4 * e + 3]);
        }
      }
      barrier_arrive(barriers + output_empty + i % 2 * 8, at.lane);
    }
  }

  __device__ __forceinline__ void gated_output(Output &at, const act *__restrict__ gate,
                                               const float *__restrict__ o_norm, act *__restrict__ y, float eps) const {
    float w[16];
#pragma unroll
    for (int e = 0; e < 16; e++) w[e] = o_norm[at.value + e / 8 * (VS / 2) + e % 8];
    // The gates of two passes ahead go through a slot of shared memory that only this thread uses. The copying warp
    // has prefetched them to the L2 cache.
    const uint32_t slots = base_address + Shared::gates + tid % 128 * 16;
    auto fetch = [&](int ahead, int p) {
      const act *g = gate + at.index + ahead * at.pass;
      const int bytes = at.left > ahead * tokens_a_pass ? 16 : 0;  // none: zeros are written
      const uint32_t slot = slots + p * 4096;
      copy16(slot, g, bytes), copy16(slot + 2048, g + VS / 2, bytes);
      asm volatile("cp.async.commit_group;" ::: "memory");
    };
    fetch(0, 0), fetch(1, 1);
#pragma unroll 1
    for (int i = 0; i < chunks; i++) {
      barrier_wait(barriers + output_full + i % 2 * 8, i / 2 & 1);
#pragma unroll
      for (int p = 0; p < passes; p++, at.next()) {
        float x[16], z[16], sum = 0.f, more = 0.f;
        at.read(i, p, x);
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        uint32_t g[8];
#pragma unroll
        for (int e = 0; e < 2; e++)
          asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                       : "=r"(g[4 * e]), "=r"(g[4 * e + 1]), "=r"(g[4 * e + 2]), "=r"(g[4 * e + 3])
                       : "r"(slots + p % 2 * 4096 + e * 2048)
                       : "memory");
        fetch(2, p % 2);
#pragma unroll
        for (int e = 0; e < 8; e++) z[2 * e] = gated(Pair<act>::lo(g[e])), z[2 * e + 1] = gated(Pair<act>::hi(g[e]));
#pragma unroll
        for (int e = 0; e < 8; e++) sum += x[e] * x[e], more += x[8 + e] * x[8 + e];
        sum += more;
#pragma unroll
        for (int d = lanes_a_token / 2; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
        const float r = rsqrtf(sum / VS + eps);
        uint32_t out[8];
#pragma unroll
        for (int e = 0; e < 8; e++)
          out[e] = Pair<act>::pack(x[2 * e] * r * w[2 * e] * z[2 * e], x[2 * e + 1] * r * w[2 * e + 1] * z[2 * e + 1]);
        if (at.left > 0) {
          *reinterpret_cast<uint4 *>(y + at.index) = make_uint4(out[0], out[1], out[2], out[3]);
          *reinterpret_cast<uint4 *>(y + at.index + VS / 2) = make_uint4(out[4], out[5], out[6], out[7]);
        }
      }
      barrier_arrive(barriers + output_empty + i % 2 * 8, at.lane);
    }
  }

  // The copies: one warp. With gates, it prefetches those of each chunk to the L2 cache as well.
  __device__ __forceinline__ void copies(const unsigned char *key_records, const unsigned char *value_records,
                                         const act *gate, bool with_gates) const {
    const int lane = lane_id();
    const unsigned char *key = key_records + (int64_t(chunk0) * H + h) * Record::bytes;
    const unsigned char *value =
        value_records + (int64_t(chunk0) * HV + hv) * value_record_bytes(V) + slice * Shared::value_bytes;
    constexpr int lines = VS / 64;  // of 128 bytes, a token's gates
    const act *gates = gate + (int64_t(begin + lane / lines) * HV + hv) * V + slice * VS + lane % lines * 64;
    const int64_t key_step = int64_t(H) * Record::bytes, value_step = int64_t(HV) * value_record_bytes(V),
                  token_step = int64_t(HV) * V;
    // Records are prefetched to the L2 cache this many chunks ahead: the few blocks of long documents have more room.
    const int ahead = chunks > 128 ? 3 : 1;
#pragma unroll 1
    for (int i = 0; i < chunks; i++, key += key_step, value += value_step) {
      if (lane == 0) {
        copy_chunk(i, key, value);
        if (i + ahead < chunks)
          bulk_prefetch(key + ahead * key_step, Record::bytes),
              bulk_prefetch(value + ahead * value_step, Shared::value_bytes);
      }
      __syncwarp();
      if (with_gates) {
#pragma unroll
        for (int t = 0; t < C; t += 32 / lines) {
          if (i * C + t + lane / lines < tokens) asm volatile("prefetch.global.L2 [%0];" ::"l"(gates));
          gates += 32 / lines * token_step;
        }
      }
    }
  }

  __device__ __forceinline__ void copy_chunk(int i, const unsigned char *key, const unsigned char *value) const {
    const int b = i % 2, turn = (i / 2 & 1) ^ 1;
    const uint32_t to = base_address + b * Shared::stage, full = barriers + b * 8;
    barrier_wait(barriers + empty_barrier(part_x) + b * 8, turn);  // does not block in the first turn
    barrier_expect(full + full_barrier(part_x), Record::tile + Shared::value_bytes + K * 4);
    bulk_copy(to + Record::x, key + Record::x, Record::tile, full + full_barrier(part_x));
    bulk_copy(to + Shared::key_bytes, value, Shared::value_bytes, full + full_barrier(part_x));
    bulk_copy(to + Record::decay, key + Record::decay, K * 4, full + full_barrier(part_x));
    barrier_wait(barriers + empty_barrier(part_q) + b * 8, turn);
    barrier_expect(full + full_barrier(part_q), Record::tile);
    bulk_copy(to + Record::q, key + Record::q, Record::tile, full + full_barrier(part_q));
    barrier_wait(barriers + empty_barrier(part_k) + b * 8, turn);
    barrier_expect(full + full_barrier(part_k), Record::tile + C * C * 2);
    bulk_copy(to + Record::k, key + Record::k, Record::tile + C * C * 2, full + full_barrier(part_k));
  }
};
#endif

template <typename E, int K, int VS>
__device__ __forceinline__ void walk(const unsigned char *__restrict__ key_records,
                                     const unsigned char *__restrict__ value_records, const act *__restrict__ gate,
                                     const float *__restrict__ o_norm, act *__restrict__ y, float *__restrict__ o_raw,
                                     const int *__restrict__ cu_seqlens, const int *__restrict__ doc_chunks,
                                     const int *__restrict__ order, const float *const *state_in,
                                     float *const *state_out, int64_t state_offset, int H, int HV, int V, float eps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char raw[];
  const Walk<E, K, VS> work(raw, cu_seqlens, doc_chunks, order, H, HV, V);
  constexpr int groups = work.groups;
  const int role = __shfl_sync(~0u, work.tid / 128, 0);
  work.init_barriers();
  if (role < groups) {
    more_registers<208>();
    work.products(state_in, state_out, state_offset);
  } else if (role == groups) {
    fewer_registers<72>();
    work.output(gate, o_norm, y, o_raw, eps);
  } else {
    fewer_registers<24>();
    if (work.tid < (groups + 1) * 128 + 32) work.copies(key_records, value_records, gate, o_raw == nullptr);
  }
#else
  __trap();  // no wgmma here: use gdn2_simple
#endif
}
static_assert(WalkShared<128, 128>::bytes == 226432 && WalkShared<128, 64>::bytes == 177280 &&
                  WalkShared<64, 128>::bytes == 177280 && WalkShared<64, 64>::bytes == 128128,
              "the table above, docs/kernels/gdn2_api.md and the launcher");

}  // namespace gdn2

#define GDN2_WALK(K, VS, E, NAME)                                                                                     \
  extern "C" __global__ void __launch_bounds__(VS * 2 + 256, 1) NAME(                                                 \
      const unsigned char *key_records, const unsigned char *value_records, const act *gate, const float *o_norm,     \
      act *y, float *o_raw, const int *cu_seqlens, const int *doc_chunks, const int *order,                           \
      const float *const *state_in, float *const *state_out, int64_t state_offset, int H, int HV, int V, float eps) { \
    gdn2::walk<E, K, VS>(key_records, value_records, gate, o_norm, y, o_raw, cu_seqlens, doc_chunks, order, state_in, \
                         state_out, state_offset, H, HV, V, eps);                                                     \
  }
GDN2_WALK(64, 64, __nv_bfloat16, gdn2_walk_k64_v64_bf16)
GDN2_WALK(64, 128, __nv_bfloat16, gdn2_walk_k64_v128_bf16)
GDN2_WALK(128, 64, __nv_bfloat16, gdn2_walk_k128_v64_bf16)
GDN2_WALK(128, 128, __nv_bfloat16, gdn2_walk_k128_v128_bf16)
GDN2_WALK(64, 64, __half, gdn2_walk_k64_v64_f16)
GDN2_WALK(64, 128, __half, gdn2_walk_k64_v128_f16)
GDN2_WALK(128, 64, __half, gdn2_walk_k128_v64_f16)
GDN2_WALK(128, 128, __half, gdn2_walk_k128_v128_f16)
