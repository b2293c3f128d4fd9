#!/usr/bin/env python3
"""What a matrix product's time depends on once the GPU is hot: columns, types, significant bits of its operands.

    power.py      needs torch; half a minute on an H200
"""
import time
import torch
import torch.nn.functional as F

ROWS = 32768


def hot(fn, seconds=1.5):
    """Milliseconds of fn after a third of that time at full load."""
    def load(seconds):
        n, end = 0, time.time() + seconds
        while time.time() < end:
            for _ in range(20):
                fn()
            n += 20
            torch.cuda.synchronize()
        return n
    load(seconds / 3)
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    a.record()
    n = load(seconds)
    b.record()
    torch.cuda.synchronize()
    return a.elapsed_time(b) / n


def rounded(x, bits):
    """fp16 numbers to so many significant bits."""
    low = 11 - bits
    return x if low <= 0 else ((x.view(torch.int16) + (1 << (low - 1))) & ~((1 << low) - 1)).view(torch.float16)


@torch.inference_mode()
def main():
    for n, k, dtype, xbits, wbits in [
        (10512, 2304, torch.float16, 11, 8), (10496, 2304, torch.float16, 11, 8), (10752, 2304, torch.float16, 11, 8), (10496, 2304, torch.float16, 11, 11),
        (10496, 2304, torch.bfloat16, 8, 8), (10496, 2304, torch.float16, 10, 8), (10496, 2304, torch.float16, 9, 8), (10496, 2304, torch.float16, 8, 8),
        (12416, 2304, torch.float16, 11, 8), (12288, 2304, torch.float16, 11, 8), (2304, 6208, torch.float16, 11, 8),
    ]:
        x, w = torch.randn(ROWS, k, device="cuda").to(dtype), (0.02 * torch.randn(n, k, device="cuda")).to(dtype)
        if dtype == torch.float16:
            x, w = rounded(x, xbits), rounded(w, wbits)
        ms = hot(lambda: F.linear(x, w))
        print(f"{ROWS} x {n} x {k} {dtype}, bits {xbits} and {wbits}: {ms:.4f} ms, {2 * ROWS * n * k / ms / 1e9:.0f} TFLOP/s", flush=True)


main()
