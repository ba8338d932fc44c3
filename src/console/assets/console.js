// What makes pages live. They are whole without it: this fetches the same page again and puts its live parts in place.
"use strict";

const EVERY_MS = 2000;
const STILLS_EVERY_MS = 10000;
// A picture that is not there yet, or too old, is asked for again so soon, and then less and less often.
const STILLS_SOON_MS = 2000;
// A request is given up after so long: where packets are lost no error would come of it.
const PATIENCE_MS = 8000;
// A daemon without an answer for so long is called silent; one that is started anew takes less.
const SILENT_MS = 6000;

/** What people or this script change stays as they left it. */
const isOurs = (element, name) =>
  (name === "open" && element.localName === "details") || (name === "src" && "refresh" in element.dataset);

const isAlike = (shown, newer) => shown.nodeType === newer.nodeType && shown.nodeName === newer.nodeName && (shown.id ?? "") === (newer.id ?? "");

/** Makes one element say what its newer self says. What has an id stays the same element wherever it goes, with its focus and its picture. */
const merge = (shown, newer) => {
  if (shown.nodeType !== Node.ELEMENT_NODE) {
    if (shown.data !== newer.data) shown.data = newer.data;
    return;
  }
  for (const { name, value } of newer.attributes) {
    if (!isOurs(shown, name) && shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
  for (const name of shown.getAttributeNames()) {
    if (!isOurs(shown, name) && !newer.hasAttribute(name)) shown.removeAttribute(name);
  }
  const wanted = new Set([...newer.children].map((child) => child.id));
  const known = new Map();
  for (const child of [...shown.children]) {
    if (!child.id) continue;
    if (wanted.has(child.id)) known.set(child.id, child);
    else child.remove();
  }
  let at = shown.firstChild;
  for (const next of newer.childNodes) {
    const match = next.id ? known.get(next.id) : at;
    if (!match || !isAlike(match, next)) {
      shown.insertBefore(document.importNode(next, true), at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else shown.insertBefore(match, at);
    merge(match, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
};

let isPressed = false;
addEventListener("pointerdown", () => { isPressed = true; }, true);
for (const end of ["pointerup", "pointercancel", "dragend", "blur"]) addEventListener(end, () => { isPressed = false; }, true);

/** Nothing moves under somebody's hands: while they press, have words selected, or are at what would be gone. */
const isInUse = (part, newer) => {
  if (isPressed) return true;
  const selection = getSelection();
  if (selection.rangeCount && !selection.isCollapsed && selection.getRangeAt(0).intersectsNode(part)) return true;
  const active = document.activeElement;
  return part !== active && part.contains(active) && !(active.id && newer.querySelector(`#${CSS.escape(active.id)}`));
};

/** The live parts by their names; of those that say which edition they are, only another one is taken. */
const replace = (fresh) => {
  for (const part of document.querySelectorAll("[data-live]")) {
    const newer = fresh.getElementById(part.id);
    if (!newer || isInUse(part, newer)) continue;
    if ("edition" in part.dataset && part.dataset.edition === newer.dataset.edition) continue;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    merge(part, newer);
    if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
  watchStills();
};

let asking = false;

// When the last answer came that was one, by both clocks: the one that is never put right, and the one that people read.
let answered = { at: performance.now(), time: new Date() };
const silence = document.createElement("p");

/** Says whether the daemon answers: what is shown is not to be taken for what is. */
const tellSilence = (answers) => {
  if (answers) answered = { at: performance.now(), time: new Date() };
  const isSilent = performance.now() - answered.at > SILENT_MS;
  if (isSilent === document.body.classList.contains("silent")) return;
  document.body.classList.toggle("silent", isSilent);
  const since = answered.time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  silence.textContent = isSilent ? `No answer since ${since}. What is shown is of then, and goes on by itself when the daemon answers.` : "";
  silence.classList.toggle("refused", isSilent);
};

const refresh = async () => {
  if (document.hidden || asking) return;
  asking = true;
  try {
    const signal = AbortSignal.timeout?.(PATIENCE_MS);
    const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store", signal });
    // The time of being signed in is over, or the page is nobody's any more: it says so itself.
    if (answer.redirected || [401, 403, 404].includes(answer.status)) {
      location.reload();
      return;
    }
    const fresh = answer.ok ? await answer.text() : null;
    tellSilence(answer.ok);
    if (answer.ok) replace(new DOMParser().parseFromString(fresh, "text/html"));
  } catch {
    // The daemon is away; what is shown stays, and is not passed off as new.
    tellSilence(false);
  } finally {
    asking = false;
  }
};

// The stills that are in sight: when they are asked for, after how long then, and whether a picture is shown.
const inSight = new Map();
const watched = new WeakSet();
const watch = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (!isIntersecting) inSight.delete(target);
    else if (!inSight.has(target)) inSight.set(target, { due: performance.now() + STILLS_SOON_MS, wait: STILLS_SOON_MS, has: false });
  }
});

const watchStills = () => {
  for (const still of document.querySelectorAll("img[data-refresh]")) {
    if (watched.has(still)) continue;
    watched.add(still);
    watch.observe(still);
  }
};

const look = async (still, state) => {
  state.due = Infinity;
  let age = null;
  const address = new URL(still.src);
  address.searchParams.set("at", Date.now());
  try {
    const signal = AbortSignal.timeout?.(PATIENCE_MS);
    age = (await fetch(address, { method: "HEAD", credentials: "same-origin", cache: "no-store", signal })).headers.get("x-still");
  } catch {
    // The daemon is away, which is told where pages are asked for.
  }
  if (age === "fresh" || (age === "older" && !state.has) || (age === "none" && state.has)) {
    still.src = address;
    state.has = age !== "none";
  }
  if (age === "fresh") {
    state.due = performance.now() + STILLS_EVERY_MS;
    state.wait = STILLS_SOON_MS;
  } else {
    state.due = performance.now() + state.wait;
    state.wait = Math.min(2 * state.wait, STILLS_EVERY_MS);
  }
};

if (document.querySelector("[data-live]")) {
  // What was done once is not told for ever, and not again by a reload.
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    address.searchParams.delete("done");
    history.replaceState(null, "", address);
  }
  // There from the beginning, for those who have it read to them.
  silence.id = "silence";
  silence.setAttribute("role", "status");
  document.querySelector("h1").after(silence);
  watchStills();
  setInterval(refresh, EVERY_MS);
  setInterval(() => {
    if (document.hidden) return;
    for (const [still, state] of inSight) {
      if (!still.isConnected) inSight.delete(still);
      else if (state.due <= performance.now()) look(still, state);
    }
  }, STILLS_SOON_MS / 2);
  document.addEventListener("visibilitychange", refresh);
}

for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => print());
}
