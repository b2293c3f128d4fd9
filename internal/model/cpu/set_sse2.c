// The kernels for any x86-64.
#if defined(__x86_64__)
#include <emmintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define SP_SSE2
#define SP_NAME "sse2"
#define SP_SET sp_sse2
#include "set_body.h"

#endif
