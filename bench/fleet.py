#!/usr/bin/env python3
"""Several GPUs of one host: scores a corpus on each GPU alone, then a larger one on all of them at once, parquet to
parquet, and compares the rate of all with the sum of each one's own rate. Boards differ by 2 to 3 %, so the sum is the
limit; the plain ratio to the first GPU is printed beside it.

Every run takes the checkpoint's digest anew. Seconds lost at the start are until the workers have their model loaded;
seconds lost at the end are from a worker's last job to the last job of all. CPU time is of all processes of the run.
Give a corpus for all that is as many times larger as there are GPUs: then the start weighs the same in both.

    bench/fleet.py --model DIR --corpus DIR --corpus-all DIR [--engine cuda] [--gpus 0,1] [--dispatcher bin/dispatcher]
                   [--json FILE]

With --engine cpu, --gpus counts workers of one core each: a try-out on a machine without a GPU.
"""
import argparse, json, os, resource, shutil, subprocess, sys, tempfile, time

flags = argparse.ArgumentParser()
flags.add_argument("--model", required=True)
flags.add_argument("--corpus", required=True)
flags.add_argument("--corpus-all", required=True)
flags.add_argument("--engine", default="cuda")
flags.add_argument("--gpus", default="")
flags.add_argument("--dispatcher", default="bin/dispatcher")
flags.add_argument("--json")
args = flags.parse_args()

if not args.gpus:
    found = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True)
    args.gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(found.stdout.split())
gpus = args.gpus.split(",")
scratch = tempfile.mkdtemp(prefix="fleet-")


def run(name, visible, corpus):
    """One run: its summary, and where its seconds went."""
    shutil.rmtree(os.path.join(scratch, "cache"), ignore_errors=True)
    out = os.path.join(scratch, "scores")
    shutil.rmtree(out, ignore_errors=True)
    environ = dict(os.environ, CUDA_VISIBLE_DEVICES=",".join(visible), XDG_CACHE_HOME=os.path.join(scratch, "cache"))
    command = [args.dispatcher, "run", "--engine", args.engine, "--json", "--log-format", "json", "--log-level", "debug"]
    command += ["--workers", str(len(visible)), "--model", args.model, "--out", out, corpus]
    if args.engine == "cpu":
        command[2:2] = ["--threads", "1"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun, loaded, done = time.monotonic(), [], {}
    with open(os.path.join(scratch, "summary"), "w+") as summary:
        child = subprocess.Popen(command, env=environ, stdout=summary, stderr=subprocess.PIPE, text=True)
        lines = []
        for line in child.stderr:
            lines.append(line)
            now = time.monotonic() - begun
            if '"model loaded"' in line:
                loaded.append(now)
            elif '"job done"' in line:
                done[json.loads(line)["worker"]] = now
        if child.wait() != 0:
            sys.exit(f"{name}: exit {child.returncode}\n" + "".join(lines[-20:]))
        seconds = time.monotonic() - begun
        summary.seek(0)
        figures = json.load(summary)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    last = max(done.values())
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rest = [last - at for at in done.values()]
    return {
        "name": name, "gpus": len(visible), "seconds": seconds, "tokens": figures["scored_tokens"], "jobs": figures["jobs"],
        "tokens_per_second": figures["scored_tokens"] / seconds,
        "start_seconds": sum(loaded) / len(loaded), "tail_seconds": sum(rest) / len(visible), "longest_wait": max(rest),
        "cores_per_gpu": used / seconds / len(visible), "joules_per_million_tokens": figures.get("joules_per_million_tokens"),
    }


runs = [run(f"GPU {gpu} alone" if args.engine == "cuda" else f"worker {gpu} alone", [gpu], args.corpus) for gpu in gpus]
runs.append(run(f"all {len(gpus)}", gpus, args.corpus_all))
own, together = [r["tokens_per_second"] for r in runs[:-1]], runs[-1]["tokens_per_second"]
result = {"runs": runs, "of_the_sum": together / sum(own), "of_the_first": together / own[0]}
if args.json:
    json.dump(result, open(args.json, "w"), indent=1)
shutil.rmtree(scratch)

row = lambda *cells: print("| " + " | ".join(str(c) for c in cells) + " |")
row("parquet to parquet", "tokens", "seconds", "tokens/s", "start, s", "tail, s", "CPU cores a GPU", "J per M tokens")
row("---", *["---:"] * 7)
for r in runs:
    joules = r["joules_per_million_tokens"]
    row(r["name"], f"{r['tokens']:,}", f"{r['seconds']:.1f}", f"{r['tokens_per_second']:,.0f}", f"{r['start_seconds']:.1f}",
        f"{r['tail_seconds']:.2f}", f"{r['cores_per_gpu']:.2f}", f"{joules:,.0f}" if joules else "")
print(f"\nall over the sum of their own rates: {result['of_the_sum']:.4f}; over the first: {result['of_the_first']:.4f}")
