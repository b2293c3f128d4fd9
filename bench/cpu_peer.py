#!/usr/bin/env python3
"""The demo model in PyTorch on the CPU, fp32, beside the CPU engine's benchmark on the same cores.

    cpu_peer.py --model examples/demo/model --threads 2 --engine 'go test -run ^$ -bench Forward/demo ./internal/model/cpu'

Documents of one length, side by side in a batch, so that each step of the recurrence is one operation for all of them.
Prints PyTorch's tokens per second and per second of CPU time for each batch, its sgemm rate, and the engine's lines.
Formulas as in bench/reference.py.
"""
import argparse, json, os, subprocess, time


def nll(torch, c, w, ids):  # ids [documents, tokens + 1]
    F = torch.nn.functional
    heads, k = c["gdn2_num_heads"], c["gdn2_head_dim"]
    norm = lambda x, g: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + c["norm_eps"]) * g
    x = w["transformer.wte.weight"][ids[:, :-1]]
    for i in range(c["n_layer"]):
        p = f"transformer.h.{i}."
        lin = lambda name, y: F.linear(y, w[p + name + ".weight"], w.get(p + name + ".bias"))
        split = lambda y: y.unflatten(-1, (heads, k))
        y = norm(x, w[p + "norm_1.weight"])
        def conv(n):
            z = F.pad(lin(f"attn.{n}_proj", y).transpose(1, 2), (3, 0))
            return split(F.silu(F.conv1d(z, w[p + f"attn.{n}_conv1d.weight"], groups=heads * k).transpose(1, 2)))
        q, kk, v = (conv(n) for n in "qkv")
        step = lin("attn.eta_proj", y).sigmoid()[..., None] / kk.square().sum(-1, keepdim=True).clamp_min(c["gdn2_kaczmarz_eps"])
        b, e = ((split(lin(f"attn.{n}_proj", y).sigmoid()) * step).clamp(0, 1) for n in "bw")
        g = -w[p + "attn.A_log"].exp().repeat_interleave(k) * F.softplus(lin("attn.f_proj.1", lin("attn.f_proj.0", y)) + w[p + "attn.dt_bias"])
        decay, state, o = split(g.exp()), x.new_zeros(len(x), heads, k, k), []
        bk, ev, q = b * kk, e * v, q * k ** -0.5
        for t in range(x.shape[1]):
            state.mul_(decay[:, t, :, :, None])
            u = ev[:, t] - (bk[:, t, :, None] @ state)[:, :, 0]
            state.add_(kk[:, t, :, :, None] * u[:, :, None])
            o.append((q[:, t, :, None] @ state)[:, :, 0])
        gate = split(lin("attn.g_proj.1", lin("attn.g_proj.0", y)))
        o = norm(torch.stack(o, 1), w[p + "attn.o_norm.weight"]) * F.silu(gate)
        x = x + lin("attn.o_proj", o.flatten(2))
        y = norm(x, w[p + "norm_2.weight"])
        x = x + lin("mlp.swiglu.w3", F.silu(lin("mlp.swiglu.w1", y)) * lin("mlp.swiglu.w2", y))
    logits = norm(x, w["transformer.ln_f.weight"]) @ w["lm_head.weight"].t()
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--engine", help="a command that prints the engine's own rates")
    a = p.parse_args()
    for v in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMAXPROCS"):
        os.environ[v] = str(a.threads)
    import torch
    torch.set_num_threads(a.threads)
    c = {"norm_eps": 1e-5, "gdn2_kaczmarz_eps": 1e-6, **json.load(open(f"{a.model}/training_metadata.json"))["model_config"]}
    w = torch.load(f"{a.model}/model-ckpt.pth", map_location="cpu", weights_only=True)
    w = {n: t.float() for n, t in w.get("model", w).items()}
    x, y = torch.rand(2048, 192), torch.rand(192, 1024)
    start = time.time()
    for n in range(400):
        x @ y
    print(f"torch {torch.__version__}, {a.threads} threads: sgemm {2e-9 * 400 * 2048 * 192 * 1024 / (time.time() - start):.0f} GFLOP/s", flush=True)
    with torch.inference_mode():
        for documents, tokens in ((1, 1024), (8, 512), (32, 512)):
            ids = torch.randint(c["vocab_size"], (documents, tokens + 1))
            nll(torch, c, w, ids[:, :33])
            start, used = time.time(), time.process_time()
            nll(torch, c, w, ids)
            n = documents * tokens
            print(f"torch: {documents} documents of {tokens}: {n / (time.time() - start):.0f} tokens/s, {n / (time.process_time() - used):.0f} tokens/cpu-s", flush=True)
    if a.engine:
        subprocess.run(a.engine, shell=True, check=True)


if __name__ == "__main__":
    main()
