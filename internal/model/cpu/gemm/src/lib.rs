//! The matrix product of the CPU engine, for cgo.
//!
//! `matrixmultiply` is chosen for its fixed blocking: how a row of C is summed
//! depends on k alone, never on how many rows the call has or where the row
//! stands. A document's scores are therefore the same in every batch. The kernel
//! (AVX-512, AVX2 with FMA, NEON, …) is picked at run time.

/// C = A B + beta C in f32, with A [m, k], B [k, n], C [m, n]; `rs*` and `cs*`
/// are row and column strides in elements. With beta 0, C is written unread.
///
/// # Safety
/// The pointers must cover their matrices and C must overlap neither A nor B.
#[no_mangle]
pub unsafe extern "C" fn surprisal_sgemm(
    m: usize, n: usize, k: usize,
    a: *const f32, rsa: isize, csa: isize,
    b: *const f32, rsb: isize, csb: isize,
    c: *mut f32, rsc: isize, csc: isize,
    beta: f32,
) {
    matrixmultiply::sgemm(m, k, n, 1.0, a, rsa, csa, b, rsb, csb, beta, c, rsc, csc)
}
