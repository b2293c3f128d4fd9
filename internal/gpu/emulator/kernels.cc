// The project's kernels as host functions, by name.
#include "cuda_words.h"
#include <math_constants.h>

#include "../kernels/common.cuh"
#include "../kernels/eight_bit_quantize.cuh"
#include "../kernels/gdn2_recurrence.cuh"
#include "../kernels/gdn2_simple.cu"
#include "registry.h"

namespace file_batch {
#include "../kernels/batch.cu"
}
namespace file_embed {
#include "../kernels/embed.cu"
}
namespace file_norm {
#include "../kernels/norm.cu"
}
namespace file_gates {
#include "../kernels/gates.cu"
}
namespace file_swiglu {
#include "../kernels/swiglu.cu"
}
namespace file_int8 {
#include "../kernels/int8.cu"
}
namespace file_loss {
#include "../kernels/loss.cu"
}
namespace file_tune {
#include "../kernels/tune.cu"
}

namespace {
using namespace emulator;
#define ADD(space, name) const bool name##_added = add(#name, space::name)
ADD(, gdn2_simple_k64_bf16);
ADD(, gdn2_simple_k64_f16);
ADD(, gdn2_simple_k128_bf16);
ADD(, gdn2_simple_k128_f16);
ADD(, gdn2_norm_gate);
ADD(file_batch, sequence_of);
ADD(file_embed, embed);
ADD(file_embed, gather_rows);
ADD(file_norm, rms_norm_4);
ADD(file_norm, rms_norm_8);
ADD(file_norm, rms_norm_18);
ADD(file_norm, rms_norm_32);
ADD(file_norm, rms_norm_wide);
ADD(file_norm, add_bias);
ADD(file_gates, gates_key_k64_bf16);
ADD(file_gates, gates_key_k64_f16);
ADD(file_gates, gates_key_k128_bf16);
ADD(file_gates, gates_key_k128_f16);
ADD(file_gates, gates_value_bf16);
ADD(file_gates, gates_value_f16);
ADD(file_gates, keep_inputs);
ADD(file_swiglu, swiglu);
ADD(file_int8, rms_norm_s8_4);
ADD(file_int8, rms_norm_s8_8);
ADD(file_int8, rms_norm_s8_18);
ADD(file_int8, rms_norm_s8_32);
ADD(file_int8, rms_norm_s8_wide);
ADD(file_int8, quantize_blocks);
ADD(file_int8, quantize_rows);
ADD(file_int8, s8_plain);
ADD(file_int8, s8_swiglu);
ADD(file_int8, s8_residual);
ADD(file_loss, nll_rows);
ADD(file_tune, narrow_float32);
ADD(file_tune, narrow_float16);
ADD(file_tune, narrow_bfloat16);
ADD(file_tune, fill_random);
ADD(file_tune, count_differences);
}  // namespace
