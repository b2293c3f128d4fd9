// One instruction set: its registers, every kernel, and the set of them under the
// name SP_SET.
#include "kernels.h"
#include "simd.h"

#include "elementwise.h"
#include "loss.h"
#include "mixer.h"
#include "product.h"
#include "recurrence.h"

const sp_set SP_SET = {
    .name = SP_NAME,
    .panel = SP_PANEL,
    .slice = SP_SLICE,
    .product = product,
    .prepare = prepare,
    .walk = walk,
    .gate = gate,
    .rmsnorm = rmsnorm,
    .swiglu = swiglu,
    .add_bias = add_bias,
    .loss_block = loss_block,
    .map = map,
};
