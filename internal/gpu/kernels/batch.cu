// Tables of a packed batch that other kernels use.
//
//   seq_of[t]: the sequence of token t, from cu_seqlens [N+1]
//
// Once a batch; T binary searches.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
    sequence_of(int *__restrict__ seq_of, const int *__restrict__ cu_seqlens, int T, int N) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= T) return;
  int lo = 0, hi = N;  // cu_seqlens[lo] <= t < cu_seqlens[hi]
  while (hi - lo > 1) {
    const int mid = (lo + hi) / 2;
    if (cu_seqlens[mid] <= t) lo = mid;
    else hi = mid;
  }
  seq_of[t] = lo;
}
