#!/usr/bin/env python3
"""The peer: PyTorch with flash-linear-attention, on the GPU that the engine is measured on, in the same run.

    peer.py --lengths mix.json [--compile] [--only mix] > peer.json      needs torch, triton and flash-linear-attention 0.6

Measured: the matrix products of the 1.3B model alone (fp16 and bf16), forward + per-token NLL of the model in bf16
(eager and compiled, dense and packed), and chunk_gdn2 alone. Weights are random: they decide no speed.
"""
import argparse, json, math, signal, statistics, sys
import fla, torch, triton
import torch.nn.functional as F
from fla.modules import FusedRMSNormGated, RMSNorm, ShortConvolution
from fla.ops.gdn2 import chunk_gdn2

LAYERS, WIDTH, HEADS, HEAD, INNER, VOCAB = 18, 2304, 16, 128, 6208, 32000
KEY = HEADS * HEAD


def clock(fn, warm=3, times=9):
    """Median milliseconds of fn on the device."""
    for _ in range(warm):
        fn()
    torch.cuda.synchronize()
    took = []
    for _ in range(times):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(); fn(); b.record()
        torch.cuda.synchronize()
        took.append(a.elapsed_time(b))
    return statistics.median(took)


def products(rows, dtype):
    """Tokens a second of the matrix products alone: projections of one input in one product, the head in slices of 8,192 rows."""
    shapes = [(LAYERS, rows, 10512, WIDTH), (LAYERS, rows, KEY, HEAD), (LAYERS, rows, KEY, HEAD), (LAYERS, rows, WIDTH, KEY),
              (LAYERS, rows, 2 * INNER, WIDTH), (LAYERS, rows, WIDTH, INNER), (rows // 8192, 8192, VOCAB, WIDTH)]
    total, detail = 0.0, []
    for times, m, n, k in shapes:
        x, w = (torch.randn(s, k, device="cuda", dtype=dtype) for s in (m, n))
        ms = clock(lambda: F.linear(x, w))
        total += times * ms
        detail.append({"m": m, "n": n, "k": k, "ms": ms, "tflops": 2 * m * n * k / ms / 1e9})
    return {"tokens_per_second": rows / total * 1e3, "products": detail}


def linear(i, o, bias=False):
    m = torch.nn.Linear(i, o, bias=bias, device="cuda", dtype=torch.bfloat16)
    torch.nn.init.normal_(m.weight, std=0.02)
    return m


class Mixer(torch.nn.Module):
    def __init__(self, on):
        super().__init__()
        conv = lambda: ShortConvolution(hidden_size=KEY, kernel_size=4, bias=False, activation="silu", **on)
        self.q, self.k, self.v, self.b, self.w = (linear(WIDTH, KEY) for _ in range(5))
        self.q_conv, self.k_conv, self.v_conv = conv(), conv(), conv()
        self.eta = linear(WIDTH, HEADS, True)
        self.f = torch.nn.Sequential(linear(WIDTH, HEAD), linear(HEAD, KEY))
        self.z = torch.nn.Sequential(linear(WIDTH, HEAD), linear(HEAD, KEY, True))
        self.a_log = torch.nn.Parameter(torch.zeros(HEADS, device="cuda"))
        self.dt_bias = torch.nn.Parameter(torch.full((KEY,), -4.6, device="cuda"))
        self.o_norm = FusedRMSNormGated(HEAD, activation="swish", eps=1e-5, **on)
        self.o = linear(KEY, WIDTH)

    def forward(self, x, cu):
        q, _ = self.q_conv(x=self.q(x), cu_seqlens=cu)
        k, _ = self.k_conv(x=self.k(x), cu_seqlens=cu)
        v, _ = self.v_conv(x=self.v(x), cu_seqlens=cu)
        q, k, v = q.unflatten(-1, (HEADS, HEAD)), k.unflatten(-1, (HEADS, HEAD)), v.unflatten(-1, (HEADS, HEAD))
        g = -self.a_log.exp()[:, None] * F.softplus(self.f(x).float() + self.dt_bias).unflatten(-1, (HEADS, HEAD))
        step = self.eta(x).sigmoid()[..., None] / k.float().square().sum(-1, keepdim=True).clamp_min(1e-6)
        b = (self.b(x).sigmoid().unflatten(-1, (HEADS, HEAD)).float() * step).clamp(0, 1).to(x.dtype)
        w = (self.w(x).sigmoid().unflatten(-1, (HEADS, HEAD)).float() * step).clamp(0, 1).to(x.dtype)
        o, _ = chunk_gdn2(q=q, k=k, v=v, g=g, b=b, w=w, use_qk_l2norm_in_kernel=False, cu_seqlens=cu)
        return self.o(self.o_norm(o, self.z(x).unflatten(-1, (HEADS, HEAD))).flatten(-2))


class Layer(torch.nn.Module):
    def __init__(self, on):
        super().__init__()
        self.norm1, self.mixer, self.norm2 = RMSNorm(WIDTH, eps=1e-5, **on), Mixer(on), RMSNorm(WIDTH, eps=1e-5, **on)
        self.w1, self.w2, self.w3 = linear(WIDTH, INNER), linear(WIDTH, INNER), linear(INNER, WIDTH)

    def forward(self, x, cu):
        x = x + self.mixer(self.norm1(x), cu)
        y = self.norm2(x)
        return x + self.w3(F.silu(self.w1(y)) * self.w2(y))


class Peer(torch.nn.Module):
    """GDN-2-KLA 1.3B, written with the library's own modules as its users write it."""

    def __init__(self):
        super().__init__()
        on = dict(device="cuda", dtype=torch.bfloat16)
        self.embedding = torch.nn.Embedding(VOCAB, WIDTH, **on)
        self.layers = torch.nn.ModuleList(Layer(on) for _ in range(LAYERS))
        self.norm, self.head = RMSNorm(WIDTH, eps=1e-5, **on), linear(WIDTH, VOCAB)
        self.loss = self.slice
        self.eval()

    def slice(self, h, t):
        return F.cross_entropy(self.head(h).float(), t, reduction="none")

    def forward(self, ids, cu=None):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, cu)
        return self.norm(x)

    def nll(self, hidden, targets):
        h, t = hidden.reshape(-1, WIDTH), targets.reshape(-1)
        return torch.cat([self.loss(h[i:i + 8192], t[i:i + 8192]) for i in range(0, len(t), 8192)])


@torch.inference_mode()
def measure(a, out):
    mix = json.load(open(a.lengths))
    out |= {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "triton": triton.__version__, "fla": fla.__version__}
    out["products"] = {"fp16": products(a.rows, torch.float16), "bf16": products(a.rows, torch.bfloat16)}
    print("products", {k: round(v["tokens_per_second"]) for k, v in out["products"].items()}, file=sys.stderr, flush=True)

    def recurrence(fn, shape, cu=None, **kw):
        r = lambda: torch.randn(*shape, HEADS, HEAD, device="cuda", dtype=torch.bfloat16)
        q, k, v = r(), F.normalize(r().float(), dim=-1).bfloat16(), r()
        g = -0.1 * torch.rand(*shape, HEADS, HEAD, device="cuda")
        return clock(lambda: fn(q=q, k=k, v=v, g=g, cu_seqlens=cu, **{n: (f(*shape)) for n, f in kw.items()}))

    gate = lambda *s: torch.rand(*s, HEADS, HEAD, device="cuda", dtype=torch.float32).bfloat16()
    cus = [torch.tensor([0, *torch.tensor(l).cumsum(0).tolist()], device="cuda", dtype=torch.long) for l in mix[:4]]  # one of them has a document of 30,000
    dense = (a.rows // 4096, 4096)
    fixed = {"b": gate(*dense), "w": gate(*dense)}
    packed = {"b": gate(1, a.rows), "w": gate(1, a.rows)}
    same = lambda d: {n: (lambda *s, t=t: t) for n, t in d.items()}
    out["chunk_gdn2_ms"] = {"dense": recurrence(chunk_gdn2, dense, **same(fixed)),
                            "mix": statistics.mean(recurrence(chunk_gdn2, (1, a.rows), c, **same(packed)) for c in cus)}
    print("recurrence", out["chunk_gdn2_ms"], file=sys.stderr, flush=True)
    del fixed, packed

    peer = Peer()
    runs = out["runs"] = {}
    def run(name, hidden, ids, cus):
        if a.only not in name:
            return
        targets = torch.randint(0, VOCAB, ids.shape, device="cuda")
        try:
            ms = statistics.mean(clock(lambda: peer.nll(hidden(ids, c), targets), 2, 5) for c in cus)
            runs[name] = {"ms": ms, "tokens_per_second": ids.numel() / ms * 1e3}
        except Exception as e:
            runs[name] = {"error": repr(e)[:300]}
        print(name, runs[name], file=sys.stderr, flush=True)
    ids = torch.randint(0, VOCAB, dense, device="cuda")
    run("eager dense", peer, ids, [None])
    run("eager mix", peer, ids.reshape(1, -1), cus)
    if a.compile:  # the whole model, and what follows it too
        compiled = torch.compile(peer, dynamic=False)
        run("compiled dense", compiled, ids, [None])
        peer.loss = torch.compile(peer.slice, dynamic=False)
        run("compiled dense, loss too", compiled, ids, [None])
        # Compiled for one batch's number of documents (one without 30,000 tokens, the easier kind): for all numbers at once it ended in an illegal memory access.
        run("compiled mix, loss too", compiled, ids.reshape(1, -1), cus[:1])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--lengths", required=True)
    p.add_argument("--rows", type=int, default=32768)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--only", default="", help="of the models' runs, those whose names have this")
    a, out = p.parse_args(), {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped: what was measured so far is printed"))
    try:
        measure(a, out)
    finally:
        json.dump(out, sys.stdout, indent=1)


main()
