#!/usr/bin/env python3
"""What telemetry costs: scores a corpus without and with all of it, in turns (off, on,
on, off, ...), and prints the ratio of their rates.

On: NVML is sampled, /metrics of dispatcher and worker is scraped once a second, and
every span is exported to a collector, which this program is. Off: no NVML library is
found, nothing is served and nothing traced. A rate is from the first job's end to the
last one's, so that starting and loading are left out.

    bench/telemetry.py --model DIR --corpus DIR [--engine cuda] [--pairs 2] [--dispatcher bin/dispatcher]
"""
import argparse, http.server, json, os, shutil, statistics, subprocess, sys, tempfile, threading, time, urllib.request

flags = argparse.ArgumentParser()
flags.add_argument("--model", required=True)
flags.add_argument("--corpus", required=True)
flags.add_argument("--engine", default="cuda")
flags.add_argument("--pairs", type=int, default=2)
flags.add_argument("--job-tokens", type=int, default=500_000)
flags.add_argument("--dispatcher", default="bin/dispatcher")
flags.add_argument("--port", type=int, default=19464)
args = flags.parse_args()

scratch = tempfile.mkdtemp(prefix="telemetry-")
open(os.path.join(scratch, "libnvidia-ml.so.1"), "w").close()  # found first, and no library
spans = {"bytes": 0, "posts": 0}


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        spans["bytes"] += len(self.rfile.read(int(self.headers["Content-Length"])))
        spans["posts"] += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=collector.serve_forever, daemon=True).start()


def scrape(ended, seen):
    """Scrapes both programs until ended; seen takes the number of samples of each answer."""
    while not ended.wait(1):
        for port in (args.port, args.port + 1):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    text = answer.read().decode()
            except OSError:
                continue  # not there yet, or no more
            seen.setdefault(port, []).append(sum(not line.startswith("#") for line in text.splitlines()))
            seen["gpu"] = seen.get("gpu", 0) + ("\nsurprisal_gpu_power_watts{" in text)


def rate(on):
    out = os.path.join(scratch, "scores")
    shutil.rmtree(out, ignore_errors=True)
    command = [args.dispatcher, "run", "--engine", args.engine, "--model", args.model, "--out", out, "--job-tokens", str(args.job_tokens), "--log-format", "json", "--log-level", "info"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    ended, seen = threading.Event(), {}
    scraper = threading.Thread(target=scrape, args=(ended, seen))
    if on:
        command += ["--metrics-addr", f"127.0.0.1:{args.port}"]
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://%s:%d" % collector.server_address
        scraper.start()
    else:
        environ["LD_LIBRARY_PATH"] = scratch + ":" + environ.get("LD_LIBRARY_PATH", "")
    before, done, last = dict(spans), [], ""
    run = subprocess.Popen(command + [args.corpus], env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in run.stderr:
        last = line
        if '"job done"' in line:
            done.append((time.monotonic(), json.loads(line)["tokens"]))
    ended.set()
    if run.wait() != 0:
        sys.exit(f"the run failed: {last}")
    if len(done) < 3:
        sys.exit(f"{len(done)} jobs are too few to time: take a larger corpus or a smaller --job-tokens")
    if on:
        scraper.join()
        if not {args.port, args.port + 1} <= seen.keys() or spans["posts"] == before["posts"]:
            sys.exit(f"telemetry was not on: {len(seen)} programs scraped, {spans['posts'] - before['posts']} posts of spans")
        if args.engine == "cuda" and seen["gpu"] == 0:
            sys.exit("telemetry was not on: no GPU's power was ever shown")
    r = sum(n for _, n in done[1:]) / (done[-1][0] - done[0][0])
    print(f"{'on ' if on else 'off'}  {r:>10,.0f} tokens/s over {done[-1][0] - done[0][0]:.1f} s, {len(done)} jobs" + (
        f"; {len(seen[args.port])} scrapes, {seen['gpu']} with a GPU's power, {(spans['bytes'] - before['bytes']) / 1000:,.0f} kB of spans" if on else ""), flush=True)
    return r


try:
    rates = {False: [], True: []}
    for i in range(args.pairs):
        for on in (False, True) if i % 2 == 0 else (True, False):
            rates[on].append(rate(on))
    print(f"with all telemetry over without: {statistics.mean(rates[True]) / statistics.mean(rates[False]):.4f}")
finally:
    shutil.rmtree(scratch)
