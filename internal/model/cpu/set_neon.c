// The kernels for any 64-bit Arm.
#if defined(__aarch64__)
#include <arm_neon.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define SP_NEON
#define SP_NAME "neon"
#define SP_SET sp_neon
#include "set_body.h"

#endif
