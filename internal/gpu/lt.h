// cuBLASLt, loaded at run time, for products y[M, N] = x[M, K] w[N, K]^T (+ y).
#ifndef SURPRISAL_LT_H
#define SURPRISAL_LT_H
#include <stddef.h>
#include <stdint.h>

typedef struct sp_lt sp_lt;

// One kind of product: all of its parameters except M.
typedef struct {
  int64_t n, k;           // of w [N, K]
  int64_t ldx, ldw, ldy;  // row strides, elements
  int32_t fp32_out;       // y is fp32, otherwise of sp_precision's type
  int32_t accumulate;     // y += instead of y =
  int32_t bias;           // y += bias [N], of y's type
} sp_product;

// A cublasLtMatmulAlgo_t.
typedef struct {
  uint64_t data[8];
} sp_algo;

enum { sp_message_size = 512 };

// sp_lt_open loads a library by path and creates a handle in the current context.
sp_lt *sp_lt_open(const char *path, char *message);
void sp_lt_close(sp_lt *lt);
size_t sp_lt_version(sp_lt *lt);

// sp_lt_candidates lists up to max algorithms for M rows that sum each row in one
// piece: no split of K, no workspace. It returns their number, or -1.
int sp_lt_candidates(sp_lt *lt, const sp_product *p, int64_t m, int max, sp_algo *algos, char *message);
// sp_lt_run enqueues a product; 0 is success.
int sp_lt_run(sp_lt *lt, const sp_product *p, const sp_algo *algo, int64_t m, uint64_t x, uint64_t w, uint64_t y,
              uint64_t bias, void *stream, char *message);
// sp_lt_describe writes an algorithm's ID, tile, stages and split.
void sp_lt_describe(sp_lt *lt, const sp_algo *algo, char *message);

// Functions that gorgonia.org/cu lacks.
int sp_func_shared(void *fn, int bytes);    // cuFuncSetAttribute MAX_DYNAMIC_SHARED_SIZE_BYTES
int sp_host_alloc(void **p, size_t bytes);  // cuMemHostAlloc
int sp_host_free(void *p);
// The type of activations and matrix weights, as kernels/act.cuh has it.
const char *sp_precision(void);
#endif
