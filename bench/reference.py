#!/usr/bin/env python3
"""PyTorch in fp32, token by token, on 8 documents of a full-size random checkpoint, against `gpubench --score`.

    reference.py --model DIR --scores scores.json      prints the errors; exit 1 past the limits

Formulas: the GDN-2 paper and the card of its KLA update; see docs/scores.md.
"""
import argparse, json, sys
import torch
import torch.nn.functional as F

LIMIT_RMS, LIMIT_MEAN = 0.02, 0.002  # nats a token


@torch.inference_mode()
def nll(c, w, ids):
    heads, k = c["gdn2_num_heads"], c["gdn2_head_dim"]
    norm = lambda x, g: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + c["norm_eps"]) * g
    x = w["transformer.wte.weight"][ids[:-1]]
    for i in range(c["n_layer"]):
        p = f"transformer.h.{i}."
        lin = lambda name, y: F.linear(y, w[p + name + ".weight"], w.get(p + name + ".bias"))
        y = norm(x, w[p + "norm_1.weight"])
        conv = lambda n: F.silu(F.conv1d(F.pad(lin(f"attn.{n}_proj", y).t()[None], (3, 0)), w[p + f"attn.{n}_conv1d.weight"], groups=heads * k)[0].t())
        q, kk, v = (conv(n).view(-1, heads, k) for n in "qkv")
        g = -w[p + "attn.A_log"].exp().repeat_interleave(k) * F.softplus(lin("attn.f_proj.1", lin("attn.f_proj.0", y)) + w[p + "attn.dt_bias"])
        step = lin("attn.eta_proj", y).sigmoid()[..., None] / kk.square().sum(-1, keepdim=True).clamp_min(c["gdn2_kaczmarz_eps"])
        b, e = ((lin(f"attn.{n}_proj", y).sigmoid().view(-1, heads, k) * step).clamp(0, 1) for n in "bw")
        decay, state, o = g.exp().view(-1, heads, k), x.new_zeros(heads, k, k), []
        for t in range(len(x)):
            state = state * decay[t, :, :, None]
            state = state + kk[t, :, :, None] * (e[t] * v[t] - torch.einsum("hk,hkv->hv", b[t] * kk[t], state))[:, None]
            o.append(torch.einsum("hk,hkv->hv", q[t] * k ** -0.5, state))
        o = norm(torch.stack(o), w[p + "attn.o_norm.weight"]) * F.silu(lin("attn.g_proj.1", lin("attn.g_proj.0", y)).view(-1, heads, k))
        x = x + lin("attn.o_proj", o.flatten(1))
        y = norm(x, w[p + "norm_2.weight"])
        x = x + lin("mlp.swiglu.w3", F.silu(lin("mlp.swiglu.w1", y)) * lin("mlp.swiglu.w2", y))
    logits = norm(x, w["transformer.ln_f.weight"]) @ w["lm_head.weight"].t()
    return F.cross_entropy(logits[:, : c["vocab_size"]], ids[1:], reduction="none")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--scores", required=True)
    a = p.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    c = {"norm_eps": 1e-5, "gdn2_kaczmarz_eps": 1e-6, **json.load(open(f"{a.model}/training_metadata.json"))["model_config"]}
    w = torch.load(f"{a.model}/model-ckpt.pth", map_location="cuda", weights_only=True)
    w = {n: t.float() for n, t in w.get("model", w).items()}
    squares, n, worst = 0.0, 0, 0.0
    for d in json.load(open(a.scores)):
        e = torch.tensor(d["nll"], device="cuda", dtype=torch.float64) - nll(c, w, torch.tensor(d["ids"], device="cuda")).double()
        squares, n, worst = squares + e.square().sum().item(), n + len(e), max(worst, abs(e.mean().item()) if len(e) >= 60 else 0)
        print(f"{len(e)} tokens: rms {e.square().mean().sqrt().item():.5f}, mean {e.mean().item():+.6f}")
    rms = (squares / n) ** 0.5
    print(f"rms {rms:.5f} nats (limit {LIMIT_RMS}), worst document mean {worst:.6f} (limit {LIMIT_MEAN})")
    sys.exit(not (rms <= LIMIT_RMS and worst <= LIMIT_MEAN))


main()
