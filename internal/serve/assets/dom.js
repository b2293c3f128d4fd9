// Elements, number and time formats, and lines.

/** el makes an element; text is always text, never markup. */
export function el(tag, attrs, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k === "class") e.className = v;
    else if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

/** text changes an element's text, if it is another. */
export function text(e, s) {
  if (e.textContent !== s) e.textContent = s;
}

/** set changes an attribute, if it is another; null removes it. */
export function set(e, name, v) {
  if (v === null) { if (e.hasAttribute(name)) e.removeAttribute(name); } else if (e.getAttribute(name) !== String(v)) e.setAttribute(name, v);
}

/** keyed keeps a parent's children in step with items: each is made once, by key,
 * so that focus and selection stay where they are. make gives {node, update}. */
export function keyed(parent, items, key, make) {
  const have = parent.keyedParts || (parent.keyedParts = new Map());
  const seen = new Set();
  let at = parent.firstChild;
  for (const item of items) {
    const k = key(item);
    let part = have.get(k);
    if (!part) have.set(k, part = make(item));
    seen.add(k);
    part.update(item);
    if (part.node === at) at = at.nextSibling;
    else parent.insertBefore(part.node, at);
  }
  for (const [k, part] of have) if (!seen.has(k)) { part.node.remove(); have.delete(k); }
}

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
export const count = (n) => whole.format(n);

/** short writes a number in four or five characters. */
export function short(n) {
  if (n < 10000) return count(n);
  for (const [size, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (n >= size) { const v = n / size; return (v < 10 ? v.toFixed(2) : v < 100 ? v.toFixed(1) : v.toFixed(0)) + " " + unit; }
  }
  return count(n);
}

/** span writes seconds. */
export function span(s) {
  s = Math.max(0, Math.round(s));
  if (s < 60) return s + " s";
  const m = Math.floor(s / 60);
  if (m < 60) return s < 120 ? `${m} min ${s % 60} s` : m + " min";
  const h = Math.floor(m / 60);
  return h < 48 ? `${h} h ${m % 60} min` : `${Math.floor(h / 24)} d ${h % 24} h`;
}

const clockOf = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayOf = new Intl.DateTimeFormat("en-CA", { year: "numeric", month: "2-digit", day: "2-digit" });
const zero = (t) => !t || t.startsWith("0001-");
/** clock writes a time of today as hours, of another day with its date. */
export function clock(t) {
  if (zero(t)) return "–";
  const d = new Date(t);
  const day = dayOf.format(d);
  return (day === dayOf.format(new Date()) ? "" : day + " ") + clockOf.format(d);
}

/** server's clock, as of the newest view: ages are told by it. */
let skew = 0;
export function setNow(ms) { skew = ms - Date.now(); }
export const now = () => Date.now() + skew;
export const age = (t) => zero(t) ? "–" : span((now() - Date.parse(t)) / 1000);

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const svg = "http://www.w3.org/2000/svg";

/** Spark is a line of the last points, drawn from the right: as many as there are,
 * a sixth of slots at least. */
export class Spark {
  constructor(slots, cls) {
    this.slots = slots;
    this.node = document.createElementNS(svg, "svg");
    set(this.node, "class", "spark " + (cls || ""));
    set(this.node, "preserveAspectRatio", "none");
    set(this.node, "aria-hidden", "true");
    this.area = this.node.appendChild(document.createElementNS(svg, "path"));
    this.line = this.node.appendChild(document.createElementNS(svg, "path"));
    set(this.area, "class", "area");
    set(this.line, "class", "line");
  }

  draw(l) {
    const points = l ? l.points : "";
    if (points === this.points) return;
    this.points = points;
    let line = "", area = "", from = -1, y = 0;
    const slots = Math.max(points.length, Math.ceil(this.slots / 6));
    set(this.node, "viewBox", `0 0 ${slots - 1} 64`);
    const x0 = slots - points.length;
    const close = (x) => { if (from >= 0) area += `V64H${from}Z`; from = -1; return x; };
    for (let i = 0; i < points.length; i++) {
      const v = letters.indexOf(points[i]);
      if (v < 0) { close(); continue; }
      const x = x0 + i;
      y = 63 - v + .5;
      if (from < 0) { line += `M${x} ${y}`; area += `M${x} ${y}`; from = x; } else { line += `L${x} ${y}`; area += `L${x} ${y}`; }
    }
    close();
    set(this.line, "d", line);
    set(this.area, "d", area);
  }
}
