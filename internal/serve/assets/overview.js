// The fleet, the runs and the workers.
import { Spark, age, clock, count, el, keyed, now, set, short, span, text } from "./dom.js";
import { button } from "./control.js";

const $ = (id) => document.getElementById(id);

/** states of a job, in the order of a bar. */
export const jobStates = ["done", "running", "waiting", "failed", "dead", "queued"];
export const jobsLink = (run, state) => `#/run/${run}/${state || "all"}`;
export const jobLink = (run, job) => `#/run/${run}/job/${job}`;

const sparks = {};
function spark(id, slots, l) {
  const box = $(id);
  if (!sparks[id]) { sparks[id] = new Spark(slots); box.append(sparks[id].node); }
  sparks[id].draw(l);
}

/** tiles shows all runs and workers together. */
export function tiles(v) {
  const f = v.fleet;
  text($("t-rate"), short(f.rate));
  const top = f.rates ? f.rates.top : 0;
  text($("t-rate-more"), f.rates ? `at most ${short(top)} in ${span(f.rates.points.length * f.step)}` : "");
  spark("c-rate", 300, f.rates);
  text($("t-left"), f.left !== undefined ? span(f.left) : f.live ? "unknown" : "–");
  text($("t-left-more"), f.left !== undefined ? "until about " + clock(new Date(now() + f.left * 1000).toISOString()).replace(/:\d\d$/, "") : f.live ? "no worker is scoring a run" : "no run in progress");
  text($("t-queue"), count(f.queue));
  const queue = [`${count(f.in_hand)} in hand or delayed`];
  if (f.redelivered) queue.push(`${count(f.redelivered)} redelivered`);
  if (f.oldest && f.queue) queue.push("oldest " + age(f.oldest));
  text($("t-queue-more"), queue.join(" · "));
  text($("t-dead"), count(f.dead));
  set($("tile-dead"), "class", "card tile" + (f.dead ? " alarm" : ""));
  const more = $("t-dead-more");
  if (!more.firstChild) more.append(el("a", { href: "#/dead" }, "Show"));
  more.firstChild.textContent = f.dead ? "Show" : "None: every job is done or still to do";
  $("tile-use").hidden = f.use === undefined;
  $("tile-power").hidden = f.power === undefined;
  if (f.use !== undefined) { text($("t-use-more"), f.gpus === 1 ? "one GPU" : `mean of ${count(f.gpus)} GPUs`); text($("t-use"), Math.round(100 * f.use) + " %"); spark("c-use", 300, f.uses); }
  if (f.power !== undefined) { text($("t-power-more"), f.power > 0 ? `${(f.rate / f.power).toPrecision(3)} tokens per joule` : ""); text($("t-power"), watts(f.power)); spark("c-power", 300, f.powers); }
}

export const watts = (w) => w < 10000 ? count(w) + " W" : (w / 1000).toFixed(1) + " kW";

/** bar is a run's jobs by state. */
function makeBar() {
  const node = el("div", { class: "bar-jobs", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 });
  const parts = new Map(jobStates.slice(0, -1).map((s) => [s, node.appendChild(el("span", { class: "seg " + s }))]));
  return {
    node,
    update(r) {
      set(node, "aria-label", "Progress of " + r.id);
      set(node, "aria-valuenow", Math.floor(r.percent));
      set(node, "aria-valuetext", `${r.percent} percent of the rows, ` + jobStates.filter((s) => r.counts[s]).map((s) => `${r.counts[s]} jobs ${s}`).join(", "));
      for (const [s, e] of parts) {
        const w = r.jobs ? 100 * (r.counts[s] || 0) / r.jobs : 0;
        e.style.flexBasis = (w > 0 ? Math.max(w, .4) : 0) + "%";
      }
    },
  };
}

/** makeRun is a run's card; at its top on the overview, alone on its own page. */
export function makeRun(alone) {
  const badge = el("span", { class: "badge" });
  const name = alone ? el("h1", { class: "id" }) : el("a", { class: "id" });
  const model = el("span", { class: "muted" });
  const percent = el("span", { class: "percent" });
  const left = el("span", { class: "muted" });
  const bar = makeBar();
  const chips = el("ul", { class: "chips", "aria-label": "Jobs by state" });
  const facts = el("p", { class: "facts" });
  const rate = el("span", { class: "rate" });
  const line = new Spark(300, "small");
  const problem = el("p", { class: "problem" });
  const actions = el("div", { class: "actions" });
  const node = el("article", { class: "card run" },
    el("div", { class: "run-head" }, el("div", { class: "run-name" }, badge, name, model), el("div", { class: "run-far" }, percent, left)),
    bar.node, el("div", { class: "run-mid" }, chips, actions),
    el("div", { class: "run-foot" }, el("div", { class: "run-rate" }, line.node, rate), facts), problem);
  let can = "";
  return {
    node,
    update(r, v) {
      set(badge, "class", "badge " + r.state);
      text(badge, r.state);
      text(name, r.id);
      if (!alone) set(name, "href", jobsLink(r.id));
      text(model, r.model.split("/").filter(Boolean).pop() + (r.priority ? ` · priority ${r.priority}` : ""));
      text(percent, r.percent.toFixed(r.percent === 100 ? 0 : 1) + " %");
      text(left, r.state === "complete" ? "every row is scored" : r.left !== undefined ? span(r.left) + " left" : r.over ? "" : r.state === "paused" ? "" : "waiting for workers");
      bar.update(r);
      const states = jobStates.filter((s) => r.counts[s]);
      keyed(chips, r.counting ? [] : states, (s) => s, (s) => {
        const n = el("b");
        const a = el("a", { class: "chip", href: jobsLink(r.id, s) }, el("i", { class: "seg " + s, "aria-hidden": "true" }), n, " " + s);
        return { node: el("li", {}, a), update: () => text(n, count(r.counts[s])) };
      });
      if (r.counting) text(chips, "reading the state of its jobs…");
      else if (chips.firstChild && chips.firstChild.nodeType === 3) { chips.firstChild.remove(); chips.keyedParts = null; }
      line.node.style.visibility = r.over ? "hidden" : "";
      line.draw(r.over ? null : r.rates);
      text(rate, r.over ? "" : short(r.rate) + " tokens/s");
      const f = [`${count(r.documents)} of ${count(r.rows)} documents`];
      if (r.failed_rows) f.push(`${count(r.failed_rows)} rows failed`);
      if (!r.over) f.push(r.workers === 1 ? "1 worker" : `${count(r.workers)} workers`);
      if (r.last_done) f.push("last commit " + age(r.last_done) + " ago");
      text(facts, f.join(" · "));
      const trouble = r.error || ((r.counts.dead || r.counts.failed) && r.last_error ? "Last error: " + r.last_error : "");
      text(problem, trouble);
      set(problem, "title", trouble || null);
      problem.hidden = !trouble;
      const want = (v ? v.controls : false) + r.state + Boolean(r.counts.dead);
      if (want !== can) {
        can = want;
        actions.replaceChildren(...[
          !r.over && r.state !== "paused" && button("pause", r.id, "Pause"),
          (r.state === "paused" || r.state === "cancelled") && button("resume", r.id, "Resume", "main"),
          (r.counts.dead || r.state === "failed") && r.state !== "cancelled" && button("retry", r.id, "Retry dead", "quiet"),
          r.state !== "complete" && r.state !== "cancelled" && button("cancel", r.id, "Cancel", "quiet danger-text"),
        ].filter(Boolean));
      }
    },
  };
}

/** runs shows each run. */
export function runs(v) {
  keyed($("runs"), v.runs, (r) => r.id, () => { const m = makeRun(false); return { node: m.node, update: (r) => m.update(r, v) }; });
  const none = $("runs-none");
  none.hidden = v.runs.length > 0;
  text(none, v.link.seen ? "No runs on this queue. Queue one with dispatcher submit." : "Nothing is known yet.");
  const more = $("runs-more");
  more.hidden = !v.fleet.more_runs;
  text(more, `and ${count(v.fleet.more_runs)} older runs: dispatcher list`);
}

const cellNames = { x: "stalled", s: "silent", g: "gone", d: "draining", i: "idle", b: "busy" };

function cells(v) {
  const box = $("cells");
  const c = v.workers.cells;
  if (box.dataset.c === c) return;
  box.dataset.c = c;
  while (box.childElementCount > c.length) box.lastChild.remove();
  while (box.childElementCount < c.length) box.append(el("i"));
  for (let i = 0; i < c.length; i++) set(box.children[i], "class", "cell c" + c[i]);
  const f = v.fleet;
  const list = Object.entries(f.states).map(([s, n]) => `${count(n)} ${s}`);
  set(box, "aria-label", `${count(f.workers)} workers: ${list.join(", ")}`);
  box.classList.toggle("few", c.length <= 40);
  const legend = $("legend");
  const kinds = [];
  if (/[0-9]/.test(c)) kinds.push(["c2", "GPU idle"], ["c6", ""], ["c9", "GPU busy"]);
  for (const [k, n] of Object.entries(cellNames)) if (c.includes(k)) kinds.push(["c" + k, `${count(f.states[n] || 0)} ${n}`]);
  legend.replaceChildren(...kinds.map(([k, n]) => el("span", {}, el("i", { class: "cell " + k }), n)));
}

function cell(label, ...children) {
  return el("td", { role: "cell", "data-label": label }, ...children);
}

function makeWorker(w) {
  const state = el("span", { class: "badge" });
  const hand = el("span", {});
  const rate = el("span", { class: "num" }), use = el("span", { class: "num" }), power = el("span", { class: "num" }), memory = el("span", { class: "num" });
  const rates = new Spark(90), uses = new Spark(90), powers = new Spark(90);
  const done = el("span", {}), seen = el("span", {});
  const where = el("small", {});
  const act = cell("", "");
  act.className = "act";
  const node = el("tr", { role: "row" },
    el("th", { role: "rowheader", scope: "row" }, el("span", { class: "id" }, w.id), where),
    cell("State", state), cell("In hand", hand), cell("Tokens/s", el("span", { class: "with" }, rates.node, rate)),
    cell("GPU", el("span", { class: "with" }, uses.node, use)), cell("Power", el("span", { class: "with" }, powers.node, power)),
    cell("Memory", memory), cell("Jobs done", done), cell("Up", seen), act);
  node.children[7].classList.add("wide-only");
  for (const i of [4, 5, 6]) node.children[i].classList.add("gpu");
  let can = null, hands = "";
  return {
    node,
    update(w) {
      text(where, [w.host, (w.device || w.engine) + (w.gpu ? " #" + w.gpu.index : "")].filter(Boolean).join(" · "));
      set(where, "title", where.textContent);
      set(state, "class", "badge w-" + w.state);
      text(state, w.state);
      set(state, "title", w.stalled || null);
      const key = w.hand.map((h) => h.job).join();
      if (key !== hands || !key) {
        hands = key;
        hand.replaceChildren(...(w.hand.length ? w.hand.map((h) => el("a", { class: "job", href: jobLink(h.run, h.job) }, h.job.slice(0, 6))) : ["–"]));
      }
      text(rate, count(w.rate));
      rates.draw(w.rates);
      const g = w.gpu || {};
      text(use, g.use !== undefined ? Math.round(100 * g.use) + " %" : "–");
      uses.draw(w.uses);
      text(power, g.power !== undefined ? watts(g.power) : "–");
      set(power, "title", [g.limit && `of at most ${watts(g.limit)}`, g.heat && `${g.heat} °C`].filter(Boolean).join(", ") || null);
      powers.draw(w.powers);
      text(memory, g.memory !== undefined ? (g.memory / 2 ** 30).toFixed(0) + (g.total ? "/" + (g.total / 2 ** 30).toFixed(0) : "") + " GiB" : "–");
      text(done, count(w.jobs));
      text(seen, w.state === "gone" || w.state === "silent" ? "last seen " + age(w.seen) + " ago" : age(w.started));
      const want = w.state !== "gone" && w.state !== "draining";
      if (want !== can) { can = want; act.replaceChildren(...[want && button("drain", w.id, "Drain", "quiet only-unlocked")].filter(Boolean)); }
    },
  };
}

let body = null;

/** workers shows the page of workers that was asked for; turn asks for another. */
export function workers(v, turn) {
  cells(v);
  const p = v.workers;
  const box = $("w-table");
  if (!body) {
    body = el("tbody", { role: "rowgroup" });
    const head = ["Worker", "State", "In hand", "Tokens/s", "GPU", "Power", "Memory", "Jobs done", "Up", ""];
    box.append(el("table", { role: "table", class: "workers" }, el("caption", { class: "sr" }, "Workers"),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head.map((h, i) => h ? el("th", { role: "columnheader", scope: "col", class: i > 3 && i < 7 ? "gpu" : "" }, h) : el("td", { role: "cell" })))), body));
  }
  box.hidden = p.list.length === 0;
  box.classList.toggle("no-gpu", v.fleet.gpus === 0);
  keyed(body, p.list, (w) => w.id, makeWorker);
  const none = $("w-none");
  none.hidden = p.list.length > 0;
  text(none, v.fleet.workers ? "No worker matches." : v.link.seen ? "No worker is connected. Start one with worker --nats …" : "Nothing is known yet.");
  $("cells").hidden = $("legend").hidden = p.cells.length === 0;
  pages($("w-pages"), p.page, Math.ceil(p.found / p.size), turn, `${count(p.found)} workers`);
}

/** pages is a row of buttons that turn pages. */
export function pages(nav, page, of, turn, what) {
  nav.hidden = of <= 1;
  if (nav.hidden) return;
  if (!nav.firstChild) {
    const b = (label, d) => el("button", { type: "button", class: "quiet", onclick: () => turn(Number(nav.dataset.page) + d) }, label);
    nav.append(b("‹ Previous", -1), el("span", {}), b("Next ›", 1));
  }
  nav.dataset.page = page;
  nav.firstChild.disabled = page === 0;
  nav.lastChild.disabled = page >= of - 1;
  text(nav.children[1], `page ${count(page + 1)} of ${count(of)} · ${what}`);
}
