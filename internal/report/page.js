"use strict";
const steps = JSON.parse(document.getElementById("steps").textContent);
const total = steps[steps.length - 1];
const slider = document.getElementById("p");
const number = (x) => x >= 1e6 ? x.toExponential(2) : x >= 100 ? Math.round(x).toLocaleString("en") : Number(x.toPrecision(3)).toString();
const share = (a, b) => b ? (100 * a / b).toFixed(1) + " %" : "–";
const show = () => {
  const s = steps[Number(slider.value)];
  const set = (id, text) => { document.getElementById(id).textContent = text; };
  set("k-p", "p" + s.p);
  set("k-ppl", number(s.ppl));
  set("k-rows", s.rows.toLocaleString("en") + " (" + share(s.rows, total.rows) + ")");
  set("k-tokens", s.tokens.toLocaleString("en") + " (" + share(s.tokens, total.tokens) + ")");
  set("k-kept", number(s.kept_ppl));
  set("k-where", "perplexity < p" + s.p);
  slider.setAttribute("aria-valuetext", "p" + s.p + ": perplexity below " + number(s.ppl));
  const mark = document.getElementById("kept-mark");
  if (mark) mark.setAttribute("transform", "translate(" + ((s.p - 60) / 100 * 372) + " 0)");
};
slider.addEventListener("input", show);
show();
const pick = document.getElementById("view");
if (pick) {
  const views = document.querySelectorAll("[data-view]");
  const change = () => views.forEach((v) => { v.hidden = v.dataset.view !== pick.value; });
  pick.addEventListener("change", change);
  change();
}
