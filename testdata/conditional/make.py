"""Writes pairs.json: pairs of context and target with the ids that Hugging Face's
tokenizers library gives, split as lm-evaluation-harness's loglikelihood does, and the
log-likelihoods of the demo model in float64, token by token, from the formulas alone.

    python3 testdata/conditional/make.py    # needs numpy and tokenizers
"""

import json
import pathlib
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parent.parent / "examples" / "demo" / "model"
MAX_LENGTH = 48  # of the truncated ones

DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "<u2"}


def load(path):
    """The tensors of torch.save's zip, as float64."""
    z = zipfile.ZipFile(path)
    root = z.namelist()[0].split("/")[0]

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            if name == "OrderedDict":
                return OrderedDict
            if name == "_rebuild_tensor_v2":
                return rebuild
            if name == "_rebuild_parameter":
                return lambda data, *rest: data
            return name

        def persistent_load(self, pid):
            _, kind, key, _, _ = pid
            raw = z.read(f"{root}/data/{key}")
            a = np.frombuffer(raw, DTYPES[kind])
            if kind == "BFloat16Storage":
                a = (a.astype("<u4") << 16).view("<f4")
            return a

    def rebuild(storage, offset, size, stride, *rest):
        item = storage.itemsize
        return np.lib.stride_tricks.as_strided(storage[offset:], size, [s * item for s in stride]).astype(np.float64)

    tensors = {}

    def walk(name, v):
        if isinstance(v, dict):
            for k, x in v.items():
                walk(str(k) if k in ("model", "state_dict") and isinstance(x, dict) else f"{name}{k}", x)
        elif isinstance(v, np.ndarray):
            tensors[name.removeprefix("model").removeprefix("state_dict").removeprefix("module.")] = v

    walk("", Reader(z.open(f"{root}/data.pkl")).load())
    return tensors


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def rms(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


class Model:
    def __init__(self):
        self.c = json.loads((MODEL / "training_metadata.json").read_text())["model_config"]
        self.w = load(MODEL / "model-ckpt.pth")

    def logprobs(self, ids):
        """ln p of every token after each of ids: [T, vocab_size]."""
        c, w = self.c, self.w
        eps = c["norm_eps"]
        x = w["transformer.wte.weight"][ids]
        for layer in range(c["n_layer"]):
            p = f"transformer.h.{layer}."
            x = x + self.mixer(p + "attn.", rms(x, w[p + "norm_1.weight"], eps))
            h = rms(x, w[p + "norm_2.weight"], eps)
            a, b = (h @ w[p + f"mlp.swiglu.w{i}.weight"].T for i in (1, 2))
            x = x + (silu(a) * b) @ w[p + "mlp.swiglu.w3.weight"].T
        logits = (rms(x, w["transformer.ln_f.weight"], eps) @ w["lm_head.weight"].T)[:, : c["vocab_size"]]
        top = logits.max(-1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))

    def mixer(self, p, x):
        c, w = self.c, self.w
        heads, width, taps = c["gdn2_num_heads"], c["gdn2_head_dim"], c["gdn2_conv_size"]
        t = len(x)

        def conv(name):
            y = x @ w[f"{p}{name}_proj.weight"].T
            k = w[f"{p}{name}_conv1d.weight"].reshape(-1, taps)
            pad = np.vstack([np.zeros((taps - 1, y.shape[1])), y])
            return silu(sum(pad[j : j + t] * k[:, j] for j in range(taps))).reshape(t, heads, -1)

        q, k, v = conv("q"), conv("k"), conv("v")
        f = (x @ w[p + "f_proj.0.weight"].T @ w[p + "f_proj.1.weight"].T + w.get(p + "f_proj.1.bias", 0)).reshape(t, heads, width)
        b = (x @ w[p + "b_proj.weight"].T + w.get(p + "b_proj.bias", 0)).reshape(t, heads, width)
        u = (x @ w[p + "w_proj.weight"].T + w.get(p + "w_proj.bias", 0)).reshape(t, heads, -1)
        g = (x @ w[p + "g_proj.0.weight"].T @ w[p + "g_proj.1.weight"].T + w.get(p + "g_proj.1.bias", 0)).reshape(t, heads, -1)
        eta = x @ w[p + "eta_proj.weight"].T + w.get(p + "eta_proj.bias", 0)
        step = sigmoid(eta) / np.maximum((k * k).sum(-1), c["gdn2_kaczmarz_eps"])  # [T, H]
        b, u = (np.clip(sigmoid(y) * step[..., None], 0, 1) for y in (b, u))
        z = f + w[p + "dt_bias"].reshape(heads, width)
        decay = np.exp(-np.exp(w[p + "A_log"].reshape(-1))[:, None] * np.logaddexp(0, z))
        s = np.zeros((heads, width, v.shape[-1]))
        o = np.empty_like(v)
        for i in range(t):
            s *= decay[i][:, :, None]
            erased = np.einsum("hk,hkv->hv", b[i] * k[i], s)
            s += k[i][:, :, None] * (u[i] * v[i] - erased)[:, None, :]
            o[i] = np.einsum("hk,hkv->hv", q[i], s) / np.sqrt(width)
        o = rms(o, w[p + "o_norm.weight"], c["norm_eps"]) * silu(g)
        return o.reshape(t, -1) @ w[p + "o_proj.weight"].T


def split(tok, context, target):
    """lm-evaluation-harness: TemplateLM._encode_pair, and loglikelihood's empty context.
    The tokenizer's own template puts <s> first, as it does there."""

    def encode(text):
        return [1] + tok.encode(text, add_special_tokens=False).ids

    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        target = context[-spaces:] + target
        context = context[:-spaces]
    whole, alone = encode(context + target), encode(context)
    return alone, whole[len(alone) :], target


PREAMBLE = "\n\n".join(
    f"Question: What does {name} do?\nAnswer: {what}"
    for name, what in [
        ("Vec::push", "It appends an element to the back of a collection."),
        ("strings.Split", "It slices s into all substrings separated by sep and returns them."),
        ("os.path.join", "It joins one or more path segments."),
        ("HashMap::get", "It returns a reference to the value corresponding to the key."),
    ]
)
LONG = "The function returns an error if the file does not exist. It must be closed after use. " * 14


def pairs():
    q = PREAMBLE + "\n\nQuestion: What does String::len do?\nAnswer:"
    for a in (" It returns the length of this string, in bytes.", " It deletes a directory.", " bananas", "\n"):
        yield q, a
    q2 = PREAMBLE + "\n\nQuestion: What does list.append do?\nAnswer:"
    for a in (" Add an item to the end of the list.", " It returns the length of this string, in bytes."):
        yield q2, a
    yield "", "The quick brown fox"
    yield "", " It returns"
    yield "   ", "indented"
    yield "Returns the number of elements in the ", "vector."
    yield "Returns the number of elements in the\u00a0\u2003 \n", "vector."
    yield "trailing\x1f", "separator"
    yield "Übergrößenträger – naïve café: 東京は", "日本の首都です。🙂"
    yield "e", "\u0301 combining"
    yield "multi\nline\n", "\tcode {}\n"
    yield "a", "b"
    yield LONG, "If it is not closed, memory is leaked."
    yield LONG, " It returns"
    yield LONG + LONG, "If it is not closed"
    yield "def f(x):", LONG[:600]
    yield "literal <s> in a text", " and </s> here"
    yield "nul \x00 byte", " after\x00it"


def greedy(tok, model):
    """Contexts with what the model itself would go on with."""
    for context in (LONG + "It must be", "This function returns", PREAMBLE + "\n\nQuestion:"):
        ids = [1] + tok.encode(context, add_special_tokens=False).ids
        n = len(ids)
        for _ in range(4):
            ids.append(int(model.logprobs(ids)[-1].argmax()))
        yield context, "".join(tok.id_to_token(i) for i in ids[n:]).replace("▁", " ")


def main():
    tok = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tok.encode_special_tokens = True
    model = Model()
    out = []
    for context, target in [*pairs(), *greedy(tok, model)]:
        alone, cont, moved = split(tok, context, target)
        row = {"context": context, "target": target, "context_ids": alone, "target_ids": cont, "n_bytes": len(moved.encode())}
        for name, ids in () if not cont else (("", alone + cont), ("truncated_", (alone + cont)[-(MAX_LENGTH + 1) :])):
            if name and len(cont) > MAX_LENGTH:
                continue  # lm-evaluation-harness refuses it
            lp = model.logprobs(ids[:-1])[-len(cont) :]
            row[name + "sum_nll"] = -float(lp[np.arange(len(cont)), cont].sum())
            row[name + "top1"] = [bool(b) for b in lp.argmax(-1) == cont]
        out.append(row)
    (HERE / "pairs.json").write_text(json.dumps({"max_length": MAX_LENGTH, "pairs": out}, indent=1) + "\n")


if __name__ == "__main__":
    main()
