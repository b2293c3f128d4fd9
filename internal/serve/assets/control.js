// The token, and the confirmation of actions.
import { el, text } from "./dom.js";

let token = ""; // in this page's memory alone: a reload forgets it
const dialog = document.getElementById("ask");
const said = document.getElementById("said");
const lock = document.getElementById("lock");
let allowed = false, hide = 0;

/** tell says something to everybody, in a corner and aloud. */
export function tell(words, bad) {
  said.replaceChildren(el("p", { class: bad ? "bad" : "good" }, words));
  clearTimeout(hide);
  hide = setTimeout(() => said.replaceChildren(), 12000);
}

/** possible is whether the server takes orders at all. */
export function possible(yes) {
  allowed = yes;
  lock.hidden = !yes;
}

function show() {
  text(lock, token ? "Lock" : "Unlock");
  lock.setAttribute("aria-label", token ? "Lock controls" : "Unlock controls");
  document.documentElement.classList.toggle("unlocked", token !== "");
}

lock.addEventListener("click", () => {
  if (!token) { unlock(); return; }
  token = "";
  show();
  tell("Controls are locked.");
});

async function send(path, body) {
  const r = await fetch(path, {
    method: "POST", body: JSON.stringify(body), cache: "no-store", credentials: "omit", redirect: "error",
    headers: { "Content-Type": "application/json", Authorization: "Bearer " + token },
  });
  if (r.status === 401) { token = ""; show(); }
  if (r.status === 204) return {};
  const a = await r.json();
  if (!r.ok) throw new Error(a.error || r.statusText);
  return a;
}

/** open shows the dialog and gives what was submitted, or null. */
function open(title, parts, button, danger, run) {
  return new Promise((resolve) => {
    const problem = el("p", { class: "bad", role: "alert" });
    const ok = el("button", { type: "submit", class: danger ? "danger" : "main" }, button);
    const no = el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Go back");
    let result = null;
    const form = el("form", {
      onsubmit: async (e) => {
        e.preventDefault();
        ok.disabled = true;
        text(problem, "");
        try {
          result = await run(form);
          dialog.close();
        } catch (err) {
          text(problem, err.message);
          ok.disabled = false;
        }
      },
    }, el("h2", { id: "ask-title" }, title), parts, problem, el("div", { class: "buttons" }, no, ok));
    dialog.replaceChildren(form);
    dialog.addEventListener("close", () => resolve(result), { once: true });
    dialog.showModal();
    (form.querySelector("input[type=password]") || no).focus();
  });
}

function unlock() {
  return open("Unlock controls", [
    el("p", { class: "muted" }, "The token of dispatcher serve --token-file. This page keeps it until it is closed or reloaded."),
    el("input", { type: "text", autocomplete: "username", value: "surprisal", hidden: true, tabindex: "-1" }), // for password managers
    el("label", { for: "token" }, "Token"),
    el("input", { id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" }),
  ], "Unlock", false, async (form) => {
    token = form.querySelector("#token").value;
    try {
      await send("/api/unlock", {});
    } catch (err) {
      token = "";
      throw err;
    }
    show();
    tell("Controls are unlocked.");
    return true;
  });
}

const orders = {
  pause: (n) => ({ title: `Pause ${n}?`, words: "Workers finish the jobs they have and take no more of this run until it is resumed.", button: "Pause the run" }),
  resume: (n) => ({ title: `Resume ${n}?`, words: "A paused run continues. Of any other run, jobs that are neither committed nor dead are queued again; no committed job is scored twice.", button: "Resume the run" }),
  retry: (n) => ({ title: `Retry ${n}?`, words: "Its dead jobs are requeued and its failed files planned again. The history of their attempts is kept. Fix the cause first.", button: "Retry" }),
  cancel: (n) => ({ title: `Cancel ${n}?`, words: "Its jobs are deleted from the queue. Committed scores stay; resume continues from there.", button: "Cancel the run", danger: true, now: true }),
  drain: (n) => ({ title: `Drain ${n}?`, words: "The worker finishes its jobs, or gives them back, and exits. Its supervisor may start another.", button: "Drain the worker", danger: true }),
};

/** order has something done to a run or a worker, once the person is known and has
 * said yes. */
export async function order(what, name) {
  if (!token && !await unlock()) return;
  const o = orders[what](name);
  const now = o.now && el("label", { class: "check" }, el("input", { type: "checkbox", name: "now" }), " Workers drop the jobs they have at once");
  const answer = await open(o.title, [el("p", {}, o.words), now], o.button, o.danger,
    (form) => send("/api/control", { do: what, name, confirm: name, now: Boolean(form.now && form.now.checked) }));
  if (answer) tell(answer.said);
}

/** button is one that gives an order; there is none where nobody may. */
export function button(what, name, label, cls) {
  return allowed && el("button", { type: "button", class: cls || "quiet", onclick: () => order(what, name) }, label, el("span", { class: "sr" }, " " + name));
}
