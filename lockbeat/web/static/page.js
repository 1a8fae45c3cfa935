// The page without this reads and changes all the same. This keeps it up to date, puts times into the reader's zone, and hears keys.
"use strict";
const root = document.documentElement;
const live = document.getElementById("live");
const told = document.querySelector("[data-live]");
const kept = {
  get(name) { try { return localStorage.getItem("lockbeat-" + name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem("lockbeat-" + name, value); } catch { /* a private window */ } },
};

// Light and dark.
const theme = kept.get("theme");
if (theme === "light" || theme === "dark") root.dataset.theme = theme;
const darkness = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : darkness.matches);
function showTheme() { document.querySelector("[data-theme-toggle]").lastChild.textContent = isDark() ? "dark" : "light"; }
function toggleTheme() {
  root.dataset.theme = isDark() ? "light" : "dark";
  kept.set("theme", root.dataset.theme);
  showTheme();
}
darkness.addEventListener("change", showTheme);

// Times in the reader's zone, or in UTC.
let utc = kept.get("zone") === "utc";
const today = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const another = { ...today, day: "2-digit", month: "short" };
const format = (options) => new Intl.DateTimeFormat("en-GB", { ...options, ...(utc ? { timeZone: "UTC" } : {}) });
const day = (when) => format({ year: "numeric", month: "2-digit", day: "2-digit" }).format(when);
function localise(part) {
  const now = day(new Date());
  for (const time of part.querySelectorAll("time[datetime]")) {
    const when = new Date(time.dateTime);
    if (Number.isNaN(when.getTime())) continue;
    const far = Math.abs(when - Date.now()) > 300 * 86400e3;
    const short = time.closest(".hours") ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" } : day(when) === now ? today : another;
    time.textContent = format(far && !time.closest(".hours") ? { ...short, year: "numeric" } : short).format(when);
  }
}
function showZone() {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local";
  document.querySelector("[data-zone]").lastChild.textContent = utc ? "UTC" : zone.split("/").pop().replaceAll("_", " ");
  localise(document);
}
function toggleZone() {
  utc = !utc;
  kept.set("zone", utc ? "utc" : "local");
  showZone();
}

// One press, one change: a form that was sent is not sent again while its answer may come.
const sent = new WeakMap();
function isSent(form) {
  const [to, at] = sent.get(form) || ["", 0];
  return to === form.getAttribute("action") && Date.now() - at < 20000;
}
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (isSent(form)) { event.preventDefault(); return; }
  sent.set(form, [form.getAttribute("action"), Date.now()]);
  for (const button of form.querySelectorAll("button")) setTimeout(() => { button.disabled = true; });
});

// Make one tree like another, and leave alone what is the same: what has the focus keeps it, what is open stays open.
function morph(from, to) {
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) return from.replaceWith(to);
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return undefined;
  }
  if (from.isEqualNode(to)) return undefined;
  const typed = from.matches("input, select, textarea");
  for (const { name, value } of [...to.attributes]) if (from.getAttribute(name) !== value && !(typed && name === "value" && from.type !== "hidden")) from.setAttribute(name, value);
  for (const { name } of [...from.attributes]) if (!to.hasAttribute(name) && name !== "open" && name !== "tabindex" && name !== "class" && !(name === "disabled" && from.form && isSent(from.form))) from.removeAttribute(name);
  if (!to.hasAttribute("class") && from.hasAttribute("class") && !from.classList.contains("at")) from.removeAttribute("class");
  if (typed) return undefined;
  const known = new Map([...from.children].filter((child) => child.dataset && child.dataset.key).map((child) => [child.dataset.key, child]));
  let place = from.firstChild;
  for (const child of [...to.childNodes]) {
    const same = child.dataset && child.dataset.key ? known.get(child.dataset.key) : null;
    if (same && same !== place) from.insertBefore(same, place);
    if (same) { place = same.nextSibling; morph(same, child); continue; }
    if (!place || (place.dataset && place.dataset.key)) { from.insertBefore(child, place); continue; }
    const next = place.nextSibling;
    morph(place, child);
    place = next;
  }
  while (place) { const next = place.nextSibling; place.remove(); place = next; }
  return undefined;
}

// Nothing moves under a hand: what is new waits while the reader is at a row or a button, or has marked text. Not for ever: one who
// has not stirred for a while, or has been there for long, sees it all the same.
const still = 10000, longest = 60000;
let news = null, waits = 0, since = 0, stirred = 0;
for (const kind of ["pointermove", "pointerdown", "keydown"]) addEventListener(kind, () => { stirred = Date.now(); }, { passive: true });
function isBusy() {
  const marked = getSelection(), at = ["tr", "a", "button", "summary"].flatMap((one) => [one + ":hover", one + ":active", one + ":focus-within"]);
  if (!marked.isCollapsed && live.contains(marked.anchorNode)) return true;
  return Date.now() - stirred < still && live.querySelector(at.join()) !== null;
}
function show() {
  clearTimeout(waits);
  since = since || Date.now();
  if (isBusy() && Date.now() - since < longest) {
    waits = setTimeout(show, 250);
    say("live, held", false);
    return;
  }
  // The line end is the page's own: without it all would be made anew the first time, with what was written and opened in it.
  const parsed = new DOMParser().parseFromString("<div id=\"live\">\n" + news + "</div>", "text/html").getElementById("live"), focus = document.activeElement;
  since = 0;
  localise(parsed);
  morph(live, parsed);
  if (focus !== document.activeElement && live.contains(focus)) focus.focus({ preventScroll: true });
  say("live", false);
  stay();
}

// What is new, as the server says it; nothing while nobody sees the page.
let source = null, later = 0, asks = location.href.split("#")[0];
// What can be pressed stays what it is: a part that names its own address is asked for by that from then on.
function stay() {
  const part = live && live.querySelector("[data-at]"), before = asks;
  if (part) asks = new URL(part.dataset.at, location.href).href;
  if (asks !== before && source) { hush(); listen(); }
}
function say(text, away) {
  told.hidden = false;
  if (told.textContent !== text) told.textContent = text;
  told.title = text === "live, held" ? "What is new waits while you are at a row or a button, or have marked text" : "";
  told.classList.toggle("away", away);
}
function listen() {
  clearTimeout(later);
  if (source || !live || document.hidden || !window.EventSource) return;
  source = new EventSource(asks);
  source.addEventListener("page", (event) => { news = event.data; show(); });
  source.addEventListener("away", (event) => { clearTimeout(waits); say(event.data, true); });
  source.addEventListener("error", () => {
    clearTimeout(waits);
    say("not up to date", true);
    // Refused, as when too many look on. Not all pages at the same moment, nor one that nobody sees.
    if (source && source.readyState === EventSource.CLOSED) { source = null; later = setTimeout(listen, 10000 + Math.random() * 10000); }
  });
}
function hush() {
  if (source) source.close();
  source = null;
  clearTimeout(later);
}
document.addEventListener("visibilitychange", () => (document.hidden ? hush() : listen()));
addEventListener("pagehide", hush);
addEventListener("pageshow", listen);

// Keys.
const keys = document.getElementById("keys");
const open = () => { if (!keys.open) keys.showModal(); };
let row = -1, going = 0;
function step(by) {
  const rows = [...document.querySelectorAll("main table.rows tbody tr")].filter((one) => one.querySelector("a[href]"));
  if (!rows.length) return;
  const at = rows.findIndex((one) => one.classList.contains("at"));
  for (const one of rows) one.classList.remove("at");
  row = Math.min(Math.max((at < 0 ? row : at) + by, 0), rows.length - 1);
  rows[row].classList.add("at");
  rows[row].querySelector("th a[href], a[href]").focus();
}
const heard = {
  "?": open, e: toggleTheme, u: toggleZone, j: () => step(1), k: () => step(-1), g: () => { going = Date.now(); },
  "/": () => { const box = document.querySelector("[data-filter]"); if (box) { box.focus(); box.select(); } },
};
// Where the layout has other letters than Latin ones, the key counts by its place.
const pressed = (event) => (/^Key[A-Z]$/.test(event.code) && event.key > "\x7f" ? event.code[3].toLowerCase() : event.key);
document.addEventListener("keydown", (event) => {
  const panel = event.key === "Escape" && document.querySelector(".bar details[open]");
  if (panel && !keys.open) {
    event.preventDefault();
    panel.open = false;
    panel.querySelector("summary").focus();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog[open]")) return;
  const key = pressed(event);
  if (Date.now() - going < 1500) {
    const link = [...document.querySelectorAll(".top nav a")].find((one) => one.dataset.key === key);
    going = 0;
    if (link) { event.preventDefault(); location.assign(link.href); return; }
  }
  if (Object.hasOwn(heard, key)) { event.preventDefault(); heard[key](); }
});
for (const [name, act] of [["help", open], ["themeToggle", toggleTheme], ["zone", toggleZone]]) {
  for (const button of document.querySelectorAll("button")) if (name in button.dataset) { button.hidden = false; button.addEventListener("click", act); }
}
showTheme();
showZone();
stay();
listen();
