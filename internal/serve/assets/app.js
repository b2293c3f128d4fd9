// The stream, the routes, and what is shown on each.
import { clock, set, setNow, span, text } from "./dom.js";
import { possible, tell } from "./control.js";
import * as overview from "./overview.js";
import { LettersPage, RunPage, focusOn, jobPage } from "./drill.js";

const $ = (id) => document.getElementById(id);
const wish = { page: 0, sort: "", find: "", run: "" };
let view = JSON.parse($("first").textContent);
let source = null, parked = false, again = 0, heard = Date.now(), lost = false;
let here = { route: "", page: null };

/** follow opens the stream of what this page wants to see. */
function follow() {
  if (source) source.close();
  clearTimeout(again);
  source = new EventSource("/api/events?" + new URLSearchParams(wish));
  source.onmessage = (e) => {
    heard = Date.now();
    if (lost) tell("The page is live again.");
    lost = false;
    const v = JSON.parse(e.data);
    v.at = Number(e.lastEventId);
    const was = view.link.ok;
    view = v;
    show();
    if (was !== v.link.ok) tell(v.link.ok ? "NATS is reachable again." : "NATS is unreachable.", !v.link.ok);
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) again = setTimeout(follow, 2000);
    link();
  };
}

/** link says whether what is shown is live. */
function link() {
  if (parked) return; // hidden: the stream starts again when the page is shown
  const l = view.link, box = $("link"), out = $("outage");
  if (Date.now() - heard > 25000 || (source && source.readyState !== EventSource.OPEN && Date.now() - heard > 3000)) lost = true;
  let words = "", alarm = "";
  if (lost) {
    words = "not live";
    alarm = `No answer from dispatcher serve since ${clock(new Date(heard).toISOString())}. The page shows the state of that time, and reconnects.`;
  } else if (!l.ok) {
    words = "NATS unreachable";
    alarm = l.seen ? `NATS has been unreachable since ${clock(l.since)}: ${l.why}. The page shows the state of ${clock(l.seen)}, and reconnects.`
      : `${l.why}: ${l.url}. The page connects as soon as it answers.`;
  } else words = l.url.replace(/^\w+:\/\//, "");
  set(box, "class", "link " + (alarm ? "off" : "on"));
  text($("link-text"), alarm ? words : "live · " + words);
  text(out, alarm);
  out.hidden = !alarm;
  document.documentElement.classList.toggle("stale", Boolean(alarm));
}

/** show draws the newest view. */
function show() {
  if (view.at) setNow(view.at);
  possible(view.controls);
  link();
  const f = view.fleet;
  const far = f.jobs ? Math.floor(100 * f.done / f.jobs) + " % · " : "";
  document.title = (f.dead ? `(${f.dead} dead) ` : "") + (view.link.ok ? far : "away · ") + "surprisal";
  text($("foot"), `surprisal ${view.program} · ` + (view.controls ? "control with the token" : "read-only: start dispatcher serve with --token-file FILE to allow control"));
  if (here.page) here.page.live(view);
  else { overview.tiles(view); overview.runs(view); overview.workers(view, turn); }
}

function turn(page) {
  wish.page = page;
  follow();
}

/** route shows what the address names. */
function route(first) {
  const hash = location.hash.startsWith("#/") ? location.hash.slice(2) : here.route && location.hash ? here.route : "";
  const parts = hash.split("/").map(decodeURIComponent);
  const was = here;
  here = { route: hash, page: null };
  let box = null;
  if (parts[0] === "run" && parts[1]) {
    box = $("run");
    if (parts[2] === "job" && parts[3]) here.page = jobPage(parts[1], parts[3]);
    else {
      here.page = was.page instanceof RunPage && was.page.id === parts[1] ? was.page : new RunPage(parts[1]);
      here.page.go(parts[2] || "all", Number(parts[3]) || 0);
    }
  } else if (parts[0] === "dead") {
    box = $("letters");
    here.page = was.page instanceof LettersPage ? was.page : new LettersPage();
    here.page.go(Number(parts[1]) || 0);
  }
  for (const id of ["overview", "run", "letters"]) $(id).hidden = box ? $(id) !== box : id !== "overview";
  if (box && (here.page !== was.page || !box.firstChild)) box.replaceChildren(here.page.node);
  const run = parts[0] === "run" ? parts[1] : "";
  if (run !== wish.run) { wish.run = run; if (!first) follow(); }
  show();
  if (!first && here.page !== was.page) { scrollTo(0, 0); focusOn(box || $("overview")); }
}

addEventListener("hashchange", () => route(false));
$("w-form").addEventListener("submit", (e) => e.preventDefault());
let typing = 0;
$("w-find").addEventListener("input", (e) => {
  clearTimeout(typing);
  typing = setTimeout(() => { wish.find = e.target.value; turn(0); }, 250);
});
$("w-sort").addEventListener("change", (e) => { wish.sort = e.target.value; turn(0); });
// A browser has six connections to a server for all its tabs: a hidden tab gives its own
// up.
let hidden = 0;
addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (document.hidden) hidden = setTimeout(() => { parked = true; source.close(); clearTimeout(again); }, 60000);
  else if (parked) { parked = false; heard = Date.now(); follow(); }
});
addEventListener("pageshow", (e) => { if (e.persisted) follow(); });
addEventListener("pagehide", () => source && source.close());
setInterval(link, 1000);

route(true);
performance.mark("drawn");
follow();
