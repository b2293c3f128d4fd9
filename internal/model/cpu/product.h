// Matrix products with weights packed once: C = A W or C += A W, A [rows, k], W
// [k, n]. An element is a chain of multiply-adds over k in order, in blocks of
// SP_DEPTH that are added to C one after another; nothing else decides its bits.
//
// Packed weights are blocks of SP_DEPTH rows, within them panels of SP_PANEL
// columns, within them row by row: [k / SP_DEPTH][n / SP_PANEL][SP_DEPTH][SP_PANEL],
// the last panel filled up with zeros. A panel stays in the first-level cache
// while the rows of a tile pass by; accumulators stay in registers.
#if defined(SP_AVX512)
#define SP_ROWS 12
#define SP_PANEL 32
#elif defined(SP_AVX2)
#define SP_ROWS 6
#define SP_PANEL 16
#elif defined(SP_NEON)
#define SP_ROWS 8
#define SP_PANEL 8
#else
#define SP_ROWS 4
#define SP_PANEL 8
#endif

// block computes m rows (a constant) of one panel over depth rows of W.
SP_INLINE void block(int m, const float *a, int64_t lda, const float *w, int64_t depth, float *c, int64_t ldc,
                     int add) {
  enum { V = SP_PANEL / SP_W };
  vf acc[SP_ROWS][V];
  SP_UNROLL
  for (int r = 0; r < m; r++) {
    SP_UNROLL
    for (int j = 0; j < V; j++) acc[r][j] = vset(0);
  }
  for (int64_t i = 0; i < depth; i++, w += SP_PANEL) {
    vf b[V];
    SP_UNROLL
    for (int j = 0; j < V; j++) b[j] = vload(w + j * SP_W);
    SP_UNROLL
    for (int r = 0; r < m; r++) {
      vf x = vset(a[r * lda + i]);
      SP_UNROLL
      for (int j = 0; j < V; j++) acc[r][j] = vfma(x, b[j], acc[r][j]);
    }
  }
  SP_UNROLL
  for (int r = 0; r < m; r++) {
    SP_UNROLL
    for (int j = 0; j < V; j++) {
      float *at = c + r * ldc + j * SP_W;
      if (add) acc[r][j] = vload(at) + acc[r][j];
      vstore(at, acc[r][j]);
    }
  }
}

#define SP_BLOCK(m)                                                                                           \
  static __attribute__((noinline)) void block_##m(const float *a, int64_t lda, const float *w, int64_t depth, \
                                                  float *c, int64_t ldc, int add) {                           \
    block(m, a, lda, w, depth, c, ldc, add);                                                                  \
  }
SP_BLOCK(1)
SP_BLOCK(2)
SP_BLOCK(4)
#if SP_ROWS == 6 || SP_ROWS == 12
SP_BLOCK(6)
#endif
#if SP_ROWS == 8
SP_BLOCK(8)
#endif
#if SP_ROWS == 12
SP_BLOCK(12)
#endif

// rows_of_panel passes the rows of A by one panel.
static void rows_of_panel(const float *a, int64_t lda, int64_t rows, const float *w, int64_t depth, float *c,
                          int64_t ldc, int add) {
#define SP_STEP(m) \
  for (; rows >= m; rows -= m, a += m * lda, c += m * ldc) block_##m(a, lda, w, depth, c, ldc, add);
#if SP_ROWS == 12
  SP_STEP(12)
#endif
#if SP_ROWS == 8
  SP_STEP(8)
#endif
#if SP_ROWS == 6 || SP_ROWS == 12
  SP_STEP(6)
#endif
  SP_STEP(4)
  SP_STEP(2)
  SP_STEP(1)
}

static void product(const float *a, int64_t lda, int64_t rows, const float *w, int64_t k, int64_t n, float *c,
                    int64_t ldc, int32_t add) {
  const int64_t panels = (n + SP_PANEL - 1) / SP_PANEL;
  for (int64_t k0 = 0; k0 < k; k0 += SP_DEPTH) {
    const int64_t depth = k - k0 < SP_DEPTH ? k - k0 : SP_DEPTH;
    for (int64_t j = 0; j < panels; j++, w += depth * SP_PANEL)
      rows_of_panel(a + k0, lda, rows, w, depth, c + j * SP_PANEL, ldc, add || k0 > 0);
  }
}
