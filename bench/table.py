#!/usr/bin/env python3
"""What bench/run measured, as a table of ratios; bench.json beside it has everything."""
import datetime, json, os, sys

out = sys.argv[1]


def read(name):
    path = os.path.join(out, name + ".json")
    return json.load(open(path)) if os.path.exists(path) else None


engine, peer, corpus, fleet = read("engine"), read("peer"), read("corpus"), read("fleet")
json.dump({"date": datetime.date.today().isoformat(), "engine": engine, "peer": peer, "corpus": corpus, "fleet": fleet}, open(os.path.join(out, "bench.json"), "w"), indent=1)
row = lambda *cells: print("| " + " | ".join(str(c) for c in cells) + " |")
n = lambda v: f"{v:,.0f}"

if engine:
    print(f"{engine['device']}, {datetime.date.today()}, {engine['model']}, {engine['precision']}, batches of {engine['batch_tokens']:,} tokens")
if peer:
    print(f"peer: torch {peer['torch']}, CUDA {peer['cuda']}, Triton {peer['triton']}, flash-linear-attention {peer['fla']}, bf16")
print()
runs = {r["name"]: r for r in engine["runs"]} if engine else {}
if engine:
    limit = max([engine["products_tokens_per_second"]] + [v["tokens_per_second"] for v in (peer or {}).get("products", {}).values()])
    best = lambda of: max([r.get("tokens_per_second", 0) for name, r in (peer or {}).get("runs", {}).items() if of in name] or [0])
    over = lambda r, of: f"{r['tokens_per_second'] / best(of):.2f}" if best(of) else ""
    row("forward + NLL", "tokens/s", "of the products' limit", "over the best peer on such batches", "on any"); row("---", *["---:"] * 4)
    row("matrix products alone (the best of ours and PyTorch's)", n(limit), "1", "", "")
    for name, r in (peer or {}).get("runs", {}).items():
        row("peer, " + name, n(r["tokens_per_second"]) if "tokens_per_second" in r else r["error"].split("\\n")[0][:80], f"{r.get('tokens_per_second', 0) / limit:.3f}", "", "")
    for name, r in runs.items():
        row(f"surprisal, {name} ({r['documents']} documents, longest {r['longest']:,})", n(r["tokens_per_second"]), f"{r['tokens_per_second'] / limit:.3f}", over(r, name), over(r, ""))
    if corpus:
        row(f"surprisal, parquet to parquet ({corpus['documents']:,} documents, loading included)", n(corpus["tokens_per_second"]), f"{corpus['tokens_per_second'] / limit:.3f}", f"{corpus['tokens_per_second'] / runs['mix']['tokens_per_second']:.3f} of forward alone" if "mix" in runs else "", "")
    if fleet:
        row("surprisal, parquet to parquet, on all GPUs", n(fleet["runs"][-1]["tokens_per_second"]), "",
            f"{fleet['of_the_sum']:.4f} of the sum of their own rates, {fleet['of_the_first']:.4f} of the first", "")
    print()
    row("recurrence, ms a layer", *runs); row("---", *["---:"] * len(runs))
    row("surprisal (prepare + walk + gated norm, of q, k, v, g, b, w)", *(f"{r['recurrence_ms_per_layer']:.3f}" for r in runs.values()))
    row("the same with short convolutions and gates, as in a forward pass", *(f"{r['recurrence_from_projections_ms_per_layer']:.3f}" for r in runs.values()))
    if peer:
        row("chunk_gdn2 (without the gated norm)", *(f"{peer['chunk_gdn2_ms'][k]:.3f}" for k in runs))
        row("ratio", *(f"{peer['chunk_gdn2_ms'][k] / r['recurrence_ms_per_layer']:.2f}" for k, r in runs.items()))
        # A lead: as many tokens times heads of width 128, of a recurrence with a scalar erase gate, on a smaller Hopper (MoonshotAI/FlashKDA, BENCHMARK_H20.md, 2026-04-20).
        print("FlashKDA over chunk_kda, as published (H20, 8,192 tokens x 64 heads): 1.62 against 2.96 ms = 1.83 in one document, 1.80 and 2.18 in six and eight")
    print()
    row("kernels of one dense batch", "ms", "share"); row("---", "---:", "---:")
    families = runs.get("dense", {}).get("families", [])
    total = sum(f["ms"] for f in families)
    for f in sorted(families, key=lambda f: -f["ms"]):
        row(f["name"], f"{f['ms']:.2f}", f"{f['ms'] / total:.3f}")
    print(f"\nload {engine['load_seconds']:.1f} s, first scores after {engine['first_seconds']:.1f} s, {engine['memory_gib']:.1f} GiB of GPU memory")
