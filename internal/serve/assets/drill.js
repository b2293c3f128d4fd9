// A run's page with its jobs, one job, and the dead letters.
import { age, clock, count, el, set, span, text } from "./dom.js";
import { button } from "./control.js";
import { jobLink, jobStates, jobsLink, makeRun } from "./overview.js";

const $ = (id) => document.getElementById(id);

/** ask fetches what only is asked for when somebody looks. */
async function ask(path, params, signal) {
  const r = await fetch(path + "?" + new URLSearchParams(params), { signal, cache: "no-store" });
  const a = await r.json();
  if (!r.ok) throw new Error(a.error || r.statusText);
  return a;
}

const zero = (t) => !t || t.startsWith("0001-");
const crumbs = (...parts) => el("nav", { class: "crumbs", "aria-label": "Breadcrumbs" }, el("a", { href: "#/" }, "Overview"), parts.map((p) => [el("span", { "aria-hidden": "true" }, "›"), p]));
const badge = (s) => el("span", { class: "badge j-" + s }, s);
const cell = (label, ...c) => el("td", { role: "cell", "data-label": label }, ...c);

function table(name, heads, rows) {
  return el("div", { class: "scroll" }, el("table", { role: "table", class: "lines" }, el("caption", { class: "sr" }, name),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads.map((h) => el("th", { role: "columnheader", scope: "col" }, h)))),
    el("tbody", { role: "rowgroup" }, rows)));
}

function turner(page, more, link) {
  if (!page && !more) return null;
  return el("nav", { class: "pages", "aria-label": "Pages" },
    page ? el("a", { class: "as-button", href: link(page - 1) }, "‹ Newer") : el("span", {}),
    el("span", {}, `page ${count(page + 1)}`),
    more ? el("a", { class: "as-button", href: link(page + 1) }, "Older ›") : el("span", {}));
}

/** RunPage is a run and its jobs. */
export class RunPage {
  constructor(id) {
    this.id = id;
    this.card = makeRun(true);
    this.tabs = el("nav", { class: "tabs", "aria-label": "Jobs by state" });
    this.list = el("div", { class: "card listing" });
    this.more = el("details", { class: "card" });
    this.node = el("div", {}, crumbs(el("span", { "aria-current": "page" }, id)), this.card.node, this.more, el("h2", { id: "h-jobs" }, "Jobs"), this.tabs, this.list);
    this.state = "";
    this.page = 0;
    this.shown = "";
  }

  go(state, page) {
    this.state = state === "all" ? "" : state;
    this.page = page;
    this.read();
  }

  /** live shows the run of a view, and reads the list anew where it may be another
   * by now: not more often than reading it took ten times over. */
  live(v) {
    const r = v.runs.find((x) => x.id === this.id);
    if (!r) {
      if (v.link.seen) text(this.tabs, "The queue has no such run.");
      return;
    }
    this.card.update(r, v);
    const facts = [["Scores", r.out], ["Inputs", r.inputs.join(", ") + (r.input_count > r.inputs.length ? ` and ${count(r.input_count - r.inputs.length)} more` : "")], ["Model", r.model], ["Options", r.options],
      ["Tokens", `${count(r.tokens)} of about ${count(Math.max(r.estimated_tokens, r.tokens))}`], ["Planned", `${clock(r.created)}, by version ${r.program}`], ["Dispatcher", r.dispatcher || (r.over ? "none" : "none: dispatcher wait finishes the run")]];
    if (!this.more.firstChild) this.more.append(el("summary", {}, "Details"), el("dl", {}));
    const dl = this.more.lastChild;
    if (dl.childElementCount !== facts.length * 2) dl.replaceChildren(...facts.flatMap(([k]) => [el("dt", {}, k), el("dd", {})]));
    facts.forEach(([, s], i) => text(dl.children[2 * i + 1], s));
    const states = ["", ...jobStates.filter((s) => r.counts[s] || s === this.state)];
    const key = states.join() + "/" + this.state;
    if (this.tabs.dataset.key !== key) {
      this.tabs.dataset.key = key;
      this.tabs.replaceChildren(...states.map((s) => el("a", { href: jobsLink(this.id, s), "aria-current": s === this.state ? "true" : null }, s || "all", " ", el("b", {}))));
    }
    states.forEach((s, i) => text(this.tabs.children[i].querySelector("b"), count(s ? r.counts[s] || 0 : r.jobs)));
    const version = JSON.stringify(r.counts) + r.last_done + r.workers;
    if (version !== this.version && this.state !== "queued" && Date.now() > (this.next || 0) && v.link.ok && !this.reading) {
      if (this.version !== undefined) this.read(true);
      this.version = version;
    }
  }

  async read(quietly) {
    if (this.stop) this.stop.abort();
    const stop = this.stop = new AbortController();
    this.reading = true;
    if (!quietly) this.list.replaceChildren(el("p", { class: "none", role: "status" }, "Reading the jobs…"));
    const state = this.state, page = this.page;
    try {
      const a = await ask("/api/jobs", { run: this.id, state, page }, stop.signal);
      this.next = Date.now() + Math.max(4000, 10000 * a.took);
      this.draw(a);
    } catch (err) {
      if (err.name !== "AbortError" && !quietly) this.list.replaceChildren(el("p", { class: "none bad", role: "alert" }, err.message));
      this.next = Date.now() + 5000;
    }
    if (this.stop === stop) this.reading = false;
  }

  draw(a) {
    const focused = this.list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    if (!a.jobs.length) {
      this.list.replaceChildren(el("p", { class: "none" }, a.state ? `No job is ${a.state}.` : "There are no jobs."));
      return;
    }
    const rows = a.jobs.map((j) => el("tr", { role: "row" },
      el("th", { role: "rowheader", scope: "row" }, el("a", { class: "id", href: jobLink(this.id, j.job) }, j.job.slice(0, 10) + "…")),
      cell("State", badge(j.state)),
      cell("Rows", j.file ? `${j.file} ${count(j.first)}–${count(j.last)}` : "–"),
      cell("Attempt", j.attempt ? count(j.attempt) : "–"),
      cell("Worker", j.worker || "–"),
      cell("Changed", zero(j.updated) ? "–" : clock(j.updated)),
      cell("What", j.error ? el("span", { class: "bad" }, j.error) : j.tokens ? `${count(j.documents)} documents, ${count(j.tokens)} tokens` : "–")));
    const link = (p) => jobsLink(this.id, this.state) + (p ? "/" + p : "");
    this.list.replaceChildren(...[table("Jobs", ["Job", "State", "Rows", "Attempt", "Worker", "Changed", "What"], rows),
      a.deep && el("p", { class: "muted" }, `More jobs: dispatcher jobs ${this.id}` + (this.state ? ` --state ${this.state}` : "")), turner(a.page, a.more, link)].filter(Boolean));
    if (focused) { const e = [...this.list.querySelectorAll("a")].find((x) => x.getAttribute("href") === focused); if (e) e.focus(); }
  }
}

/** jobPage is all of one job. */
export function jobPage(run, id) {
  const box = el("div", { class: "card detail" }, el("p", { class: "none", role: "status" }, "Reading the job…"));
  const node = el("div", {}, crumbs(el("a", { href: jobsLink(run) }, run), el("span", { "aria-current": "page" }, "job " + id.slice(0, 10) + "…")), box);
  let next = 0, version = null, reading = false;
  const read = async () => {
    reading = true;
    try {
      const d = await ask("/api/job", { run, job: id });
      next = Date.now() + 2000;
      box.replaceChildren(...detail(d));
    } catch (err) {
      box.replaceChildren(el("h1", { class: "id" }, id), el("p", { class: "bad", role: "alert" }, err.message));
      next = Date.now() + 5000;
    }
    reading = false;
  };
  read();
  return {
    node,
    live(v) {
      const r = v.runs.find((x) => x.id === run);
      const now = JSON.stringify(r && r.counts);
      if (now !== version && !reading && Date.now() > next && v.link.ok) { if (version !== null) read(); version = now; }
    },
  };
}

function detail(d) {
  const r = d.record || {}, facts = [];
  const fact = (k, v) => v && facts.push(el("dt", {}, k), el("dd", {}, v));
  fact("Rows", d.file && `${count(d.first)}–${count(d.last)} of ${d.input}`);
  fact("Output", d.output);
  fact("Score file", d.there + (d.digest ? `: ${count(d.documents || 0)} documents, ${count(d.tokens || 0)} tokens, ${count(d.failed_rows || 0)} failed rows` : ""));
  fact("Queued", !zero(d.queued) && `${clock(d.queued)}, still in the queue`);
  fact("Changed", r.updated && `${clock(r.updated)}, attempt ${count(r.attempt)} by ${r.worker}`);
  fact("Running", r.state === "running" && `for ${age(r.started)} on ${r.device || r.engine || r.worker}`);
  const out = [el("h1", {}, badge(d.state), " ", el("span", { class: "id" }, d.job))];
  const why = d.state === "dead" && d.dead_letter ? d.dead_letter.reason : r.error;
  if (why) out.push(el("p", { class: "problem" }, why));
  out.push(el("dl", {}, facts));
  const history = (r.history && r.history.length ? r.history : d.dead_letter && d.dead_letter.history) || [];
  out.push(el("h2", {}, "Attempts"));
  if (!history.length) out.push(el("p", { class: "none" }, "No attempt has ended yet."));
  else {
    out.push(table("Attempts", ["Attempt", "Outcome", "Worker", "Ended", "Took", "Error"], [...history].reverse().map((a) => el("tr", { role: "row" },
      el("th", { role: "rowheader", scope: "row" }, count(a.number)), cell("Outcome", badge(a.outcome)), cell("Worker", a.worker || "–"), cell("Ended", clock(a.ended)),
      cell("Took", zero(a.started) ? "–" : span((Date.parse(a.ended) - Date.parse(a.started)) / 1000)), cell("Error", a.error ? el("span", { class: "bad" }, a.error) : "–")))));
  }
  const l = d.dead_letter;
  if (l) {
    out.push(el("h2", {}, "Dead letter"), el("p", {}, `${clock(l.time)}, ${l.worker || "found by a dispatcher"}: ${l.attempts} attempts counted, ${l.deliveries} deliveries.` + (d.state !== "dead" ? " It has been requeued since." : "")));
    const b = d.state === "dead" && button("retry", d.run, "Retry the run’s dead jobs");
    if (b) out.push(b);
  }
  return out;
}

/** LettersPage is the dead letters of all runs. */
export class LettersPage {
  constructor() {
    this.list = el("div", { class: "letters" });
    this.total = el("p", { class: "muted" });
    this.node = el("div", {}, crumbs(el("span", { "aria-current": "page" }, "Dead letters")), el("h1", {}, "Dead letters"),
      el("p", { class: "muted" }, "Jobs that are not retried. Fix the cause, then retry the run: its dead jobs are requeued."), this.total, this.list);
    this.page = 0;
  }

  go(page) {
    this.page = page;
    this.read();
  }

  live(v) {
    if (v.fleet.dead !== this.dead && !this.reading && v.link.ok && Date.now() > (this.next || 0)) {
      if (this.dead !== undefined) this.read();
      this.dead = v.fleet.dead;
    }
  }

  async read() {
    this.reading = true;
    try {
      const a = await ask("/api/dead", { page: this.page });
      text(this.total, a.total ? `${count(a.total)} letters, the newest first` : "");
      const list = a.letters.map((l) => el("article", { class: "card letter" },
        el("div", { class: "run-head" },
          el("div", { class: "run-name" }, badge("dead"), el("a", { class: "id", href: jobLink(l.run, l.job) }, l.job.slice(0, 10) + "…"), el("span", { class: "muted" }, "of run "), el("a", { href: jobsLink(l.run, "dead") }, l.run)),
          el("div", { class: "actions" }, button("retry", l.run, "Retry the run’s dead jobs") || "")),
        el("p", { class: "problem" }, l.reason),
        el("p", { class: "facts" }, [l.message ? `${l.message.input.rel} ${count(l.message.first)}–${count(l.message.last)}` : "unreadable message", clock(l.time), l.worker || "found by a dispatcher", `${count(l.attempts)} attempts`].join(" · "))));
      if (!list.length) list.push(el("p", { class: "none card" }, "None: every job is done or still to do."));
      const t = turner(a.page, (a.page + 1) * a.size < a.total, (p) => "#/dead" + (p ? "/" + p : ""));
      this.list.replaceChildren(...list, ...(t ? [t] : []));
    } catch (err) {
      this.list.replaceChildren(el("p", { class: "none bad card", role: "alert" }, err.message));
    }
    this.next = Date.now() + 4000;
    this.reading = false;
  }
}

export function focusOn(node) {
  const h = node.querySelector("h1");
  if (!h) return;
  set(h, "tabindex", "-1");
  h.focus({ preventScroll: true });
}
