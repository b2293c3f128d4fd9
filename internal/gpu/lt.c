//go:build cuda

#include "lt.h"
#include <cublasLt.h>
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(sp_algo) == sizeof(cublasLtMatmulAlgo_t), "cublasLtMatmulAlgo_t has changed");

// As kernels/act.cuh has it.
#ifdef SURPRISAL_BF16
#define ACT_TYPE CUDA_R_16BF
#else
#define ACT_TYPE CUDA_R_16F
#endif

const char *sp_precision(void) { return ACT_TYPE == CUDA_R_16F ? "fp16" : "bf16"; }

// clang-format off
#define FUNCTIONS(F)                                                                                              \
  F(cublasLtCreate) F(cublasLtDestroy) F(cublasLtGetVersion) F(cublasLtMatmul) F(cublasLtMatmulDescCreate)        \
  F(cublasLtMatmulDescDestroy) F(cublasLtMatmulDescSetAttribute) F(cublasLtMatrixLayoutCreate)                    \
  F(cublasLtMatrixLayoutDestroy) F(cublasLtMatmulPreferenceCreate) F(cublasLtMatmulPreferenceDestroy)             \
  F(cublasLtMatmulPreferenceSetAttribute) F(cublasLtMatmulAlgoGetHeuristic)                                       \
  F(cublasLtMatmulAlgoConfigGetAttribute) F(cublasLtGetStatusString)
// clang-format on

struct sp_lt {
  void *lib;
  cublasLtHandle_t handle;
#define F(name) __typeof__(&name) name;
  FUNCTIONS(F)
#undef F
};

static int fail(sp_lt *lt, const char *what, cublasStatus_t s, char *message) {
  snprintf(message, sp_message_size, "%s: %s", what, lt->cublasLtGetStatusString(s));
  return -1;
}

sp_lt *sp_lt_open(const char *path, char *message) {
  sp_lt *lt = calloc(1, sizeof *lt);
  if (!lt) {
    snprintf(message, sp_message_size, "out of memory");
    return NULL;
  }
  if (!(lt->lib = dlopen(path, RTLD_NOW | RTLD_LOCAL))) {
    snprintf(message, sp_message_size, "%s", dlerror());
    free(lt);
    return NULL;
  }
#define F(name)                                                   \
  if (!(*(void **)&lt->name = dlsym(lt->lib, #name))) {           \
    snprintf(message, sp_message_size, "%s has no " #name, path); \
    sp_lt_close(lt);                                              \
    return NULL;                                                  \
  }
  FUNCTIONS(F)
#undef F
  cublasStatus_t s = lt->cublasLtCreate(&lt->handle);
  if (s != CUBLAS_STATUS_SUCCESS) {
    fail(lt, "cublasLtCreate", s, message);
    lt->handle = NULL;
    sp_lt_close(lt);
    return NULL;
  }
  return lt;
}

void sp_lt_close(sp_lt *lt) {
  if (lt->handle) lt->cublasLtDestroy(lt->handle);
  dlclose(lt->lib);
  free(lt);
}

size_t sp_lt_version(sp_lt *lt) { return lt->cublasLtGetVersion(); }

// The library thinks in columns: y^T [N, M] = (w^T)^T [N, K] x^T [K, M].
typedef struct {
  cublasLtMatmulDesc_t op;
  cublasLtMatrixLayout_t a, b, c;
} call;

static void forget(sp_lt *lt, call *d) {
  if (d->op) lt->cublasLtMatmulDescDestroy(d->op);
  if (d->a) lt->cublasLtMatrixLayoutDestroy(d->a);
  if (d->b) lt->cublasLtMatrixLayoutDestroy(d->b);
  if (d->c) lt->cublasLtMatrixLayoutDestroy(d->c);
}

static cublasStatus_t prepare(sp_lt *lt, call *d, const sp_product *p, int64_t m) {
  const cublasOperation_t t = CUBLAS_OP_T;
  cublasStatus_t s;
  memset(d, 0, sizeof *d);
  if ((s = lt->cublasLtMatmulDescCreate(&d->op, CUBLAS_COMPUTE_32F, CUDA_R_32F))) return s;
  if ((s = lt->cublasLtMatmulDescSetAttribute(d->op, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t))) return s;
  if (p->bias) {
    const cublasLtEpilogue_t e = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t type = ACT_TYPE;  // that of y, as the library wants it
    if ((s = lt->cublasLtMatmulDescSetAttribute(d->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &e, sizeof e))) return s;
    if ((s = lt->cublasLtMatmulDescSetAttribute(d->op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type)))
      return s;
  }
  if ((s = lt->cublasLtMatrixLayoutCreate(&d->a, ACT_TYPE, p->k, p->n, p->ldw))) return s;
  if ((s = lt->cublasLtMatrixLayoutCreate(&d->b, ACT_TYPE, p->k, m, p->ldx))) return s;
  return lt->cublasLtMatrixLayoutCreate(&d->c, p->fp32_out ? CUDA_R_32F : ACT_TYPE, p->n, m, p->ldy);
}

int sp_lt_candidates(sp_lt *lt, const sp_product *p, int64_t m, int max, sp_algo *algos, char *message) {
  enum { most = 64 };
  cublasLtMatmulHeuristicResult_t r[most];
  cublasLtMatmulPreference_t pref = NULL;
  const uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE;
  const size_t workspace = 0;
  const uint32_t align = 128;
  const cublasLtMatmulPreferenceAttributes_t sides[4] = {
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  call d;
  int found = 0, kept = 0;
  cublasStatus_t s = prepare(lt, &d, p, m);
  if (!s) s = lt->cublasLtMatmulPreferenceCreate(&pref);
  if (!s)
    s = lt->cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                 sizeof workspace);
  if (!s)
    s = lt->cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none, sizeof none);
  for (int i = 0; i < 4 && !s; i++) s = lt->cublasLtMatmulPreferenceSetAttribute(pref, sides[i], &align, sizeof align);
  if (!s)
    s = lt->cublasLtMatmulAlgoGetHeuristic(lt->handle, d.op, d.a, d.b, d.c, d.c, pref, max < most ? max : most, r,
                                           &found);
  if (pref) lt->cublasLtMatmulPreferenceDestroy(pref);
  forget(lt, &d);
  if (s) return fail(lt, "choose a matrix-product algorithm", s, message);
  for (int i = 0; i < found; i++) {
    int32_t split = 0;
    size_t n = 0;
    if (r[i].state || r[i].workspaceSize) continue;
    lt->cublasLtMatmulAlgoConfigGetAttribute(&r[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, sizeof split, &n);
    if (split > 1 || split < 0) continue;
    memcpy(&algos[kept++], &r[i].algo, sizeof(sp_algo));
  }
  return kept;
}

int sp_lt_run(sp_lt *lt, const sp_product *p, const sp_algo *algo, int64_t m, uint64_t x, uint64_t w, uint64_t y,
              uint64_t bias, void *stream, char *message) {
  const float one = 1, beta = p->accumulate ? 1 : 0;
  call d;
  cublasStatus_t s = prepare(lt, &d, p, m);
  if (!s && p->bias)
    s = lt->cublasLtMatmulDescSetAttribute(d.op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
  if (!s)
    s = lt->cublasLtMatmul(lt->handle, d.op, &one, (const void *)w, d.a, (const void *)x, d.b, &beta, (const void *)y,
                           d.c, (void *)y, d.c, (const cublasLtMatmulAlgo_t *)algo, NULL, 0, (cudaStream_t)stream);
  forget(lt, &d);
  return s ? fail(lt, "matrix product", s, message) : 0;
}

void sp_lt_describe(sp_lt *lt, const sp_algo *algo, char *message) {
  const cublasLtMatmulAlgo_t *a = (const cublasLtMatmulAlgo_t *)algo;
  int32_t id = -1, split = -1;
  uint32_t tile = 0, stages = 0, custom = 0;
  uint16_t inner = 0, cluster = 0;
  size_t n;
  lt->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_ID, &id, sizeof id, &n);
  lt->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_TILE_ID, &tile, sizeof tile, &n);
  lt->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_STAGES_ID, &stages, sizeof stages, &n);
  lt->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, sizeof split, &n);
  lt->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, &custom, sizeof custom, &n);
  lt->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, &inner, sizeof inner, &n);
  lt->cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, &cluster, sizeof cluster, &n);
  snprintf(message, sp_message_size, "id %d tile %u stages %u inner %u cluster %u custom %u split %d", id, tile, stages,
           inner, cluster, custom, split);
}

int sp_func_shared(void *fn, int bytes) {
  return cuFuncSetAttribute(fn, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
}
int sp_host_alloc(void **p, size_t bytes) { return cuMemHostAlloc(p, bytes, 0); }
int sp_host_free(void *p) { return cuMemFreeHost(p); }
